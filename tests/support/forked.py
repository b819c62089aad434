"""`motif` and `python` commands in no time: a process that has imported everything once forks itself for each command.

Most of a short command's time is the import of torch and transformers (8 s of processor time here), and the pages of
`docs/` hold dozens of commands. The programs put on PATH send their arguments, folder and open files to the server, and
end with the status of the child that it forks for them. So pipes, redirections and exit statuses are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps({{"program": {program!r}, "arguments": sys.argv[1:], "folder": os.getcwd()}})
socket.send_fds(server, [request.encode()], [0, 1, 2])
sys.exit(int(server.makefile().read() or 1))
"""


def install(folder: Path, address: Path, programs: tuple[str, ...] = ("motif", "python")) -> None:
    """Write the programs that ask the server at `address` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        path = folder / program
        path.write_text(CLIENT.format(python=sys.executable, address=str(address), program=program))
        path.chmod(0o755)


def start(address: Path) -> subprocess.Popen[bytes]:
    """Start the server, and wait until it listens."""
    process = subprocess.Popen([sys.executable, __file__, str(address)], start_new_session=True)
    deadline = time.monotonic() + 300
    while not address.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError("the server of forked commands did not start")
        time.sleep(0.1)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it still runs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _serve(address: str) -> None:
    import motif.cli.app
    import motif.compare.run
    import motif.evaluation.any_model
    import motif.evaluation.probe
    import motif.planning.plan
    import motif.report
    import motif.training.loop  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    listener.settimeout(5)
    parent = os.getppid()
    os.rename(address + ".new", address)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != parent:  # the tests were killed: end with all that was started for them
                os.killpg(0, signal.SIGKILL)
            continue
        connection.setblocking(True)
        if os.fork():
            connection.close()
            while True:  # children that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG) == (0, 0):
                        break
                except ChildProcessError:
                    break
            continue
        listener.close()
        request, files, *_ = socket.recv_fds(connection, 65536, 3)
        inner = os.fork()  # so that the outer child can tell the status, even of a crash
        if inner:
            for file in files:
                os.close(file)
            status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
            connection.sendall(str(status % 256).encode())
            os._exit(0)
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        os._exit(_run(**json.loads(request)))


def _run(program: str, arguments: list[str], folder: str) -> int:
    import runpy

    os.chdir(folder)
    status: object = 0
    try:
        if program == "motif":
            import motif.cli.app

            sys.argv = ["motif", *_short(arguments)]
            motif.cli.app.main()
        elif arguments[:1] == ["-c"]:
            sys.argv = arguments
            exec(compile(arguments[1], "<block>", "exec"), {"__name__": "__main__"})
        elif arguments[:1] == ["-m"]:
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(status, str):
        print(status, file=sys.stderr, flush=True)
    return status if isinstance(status, int) else int(status is not None)


SHORT = {
    "train": "--set train.steps=2 --set eval.questions=8 --set rollout.questions_per_step=2",
    "eval": "--questions 8",
    "probe": "--questions 2 --continuations 16",
}
"""What is added to long commands, so that the pages run in a minute or two."""


def _short(arguments: list[str]) -> list[str]:
    command = arguments[0] if arguments else ""
    if {"--dry-run", "--help"} & set(arguments):
        return arguments
    return arguments + SHORT.get(command, "").split()


if __name__ == "__main__":
    _serve(sys.argv[1])
