"""`python` in no time: a process that has imported motif and its packages forks itself for each command.

Most of a short command's time is the import of torch and transformers (4 s of processor time here), and the tests run
hundreds of commands. Workers of one test run share that process. The program of `python()` sends its arguments, folder,
environment and open files to the server, passes signals on, and ends as the child that the server forks for it; if it
is killed, so is the child. So pipes, redirections, signals and statuses are the real ones. What packages read while
they are imported (variables that begin with HF_, the number of threads) is the server's. Options of the interpreter
other than -u are left to the real one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

SHARED = "MOTIF_TESTS_FORKED"
SERVER = "MOTIF_TESTS_FORKED_SERVER"
"""The variables with the address and the process of a server that this or another process has started."""
PROGRAM = """#!{python} -SE
import json, os, signal, socket, sys
if not {before!r} and sys.argv[1][:1] == "-" and sys.argv[1] not in ("-c", "-m", "-u"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"program": sys.argv[0], "arguments": {before!r} + sys.argv[1:], "folder": os.getcwd()}}
pieces = json.dumps(request | {{"environment": dict(os.environ)}}).encode() + b"\\n"
socket.send_fds(server, [pieces[:1]], [0, 1, 2])
server.sendall(pieces[1:])
reply = server.makefile()
pid = int(reply.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(reply.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""
PACKAGES = ("torch", "transformers", "peft", "safetensors.torch", "datasets", "rich.console", "typer", "pydantic",
            "psutil", "torch.distributed.fsdp", "transformers.models.auto.modeling_auto", "httpx2", "motif.cli.app",
            "motif.training.loop", "motif.evaluation.any_model")  # fmt: skip


@functools.cache
def python() -> str:
    """A program that does what `sys.executable` does with `-c`, `-m` or a file, without its imports."""
    return install(Path(tempfile.mkdtemp(prefix="forked-")), "python", [])


def install(folder: Path, name: str, before: Sequence[str]) -> str:
    """Write a program that runs as a forked command, with these arguments before its own; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(PROGRAM.format(python=sys.executable, address=_address(), before=list(before)))
    path.chmod(0o755)
    return str(path)


def start() -> str:
    """Start the server of this process and of those that inherit its environment; returns its address."""
    if not hasattr(os, "pidfd_open"):
        raise RuntimeError("forked commands are for Linux")
    address = str(Path(tempfile.mkdtemp(prefix="forked-")) / "address")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, __file__, address], start_new_session=True, env=environment)
    atexit.register(_stop, process)
    os.environ |= {SHARED: address, SERVER: str(process.pid)}
    return address


@functools.cache
def _address() -> str:
    """The address of the server, once it listens."""
    address = os.environ.get(SHARED) or start()
    deadline = time.monotonic() + 600
    while not os.path.exists(address):
        state = Path("/proc", os.environ[SERVER], "stat")
        if not state.exists() or ") Z " in state.read_text() or time.monotonic() > deadline:
            raise RuntimeError("the server of forked commands did not start")
        time.sleep(0.05)
    return address


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it still runs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# -- the server --------------------------------------------------------------------------------------------------------


def _serve(address: str) -> None:
    for package in PACKAGES:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()  # so that children share the memory of what is imported
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
        if not os.fork():
            listener.close()
            _start(connection)
            os._exit(0)
        connection.close()
        _collect()


def _collect() -> None:
    """Collect children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _start(connection: socket.socket) -> None:
    """Fork the command of a request, and tell its process id and how it ended; kill it if nobody listens any more."""
    first, files, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(first + connection.makefile("rb").readline())
    inner = os.fork()
    if not inner:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, max(files) + 1)
        os._exit(_run(**request))
    for file in files:
        os.close(file)
    connection.sendall(f"{inner}\n".encode())
    ended = os.pidfd_open(inner)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(inner, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{status}\n".encode())


def _run(program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    os.chdir(folder)
    if Path(program).name == "python":
        sys.executable = program
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    status: object = 0
    try:
        _as_python(arguments)
    except SystemExit as stop:
        status = stop.code
    except KeyboardInterrupt:
        traceback.print_exc()
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(status, str):
        print(status, file=sys.stderr, flush=True)
    return status % 256 if isinstance(status, int) else int(status is not None)


def _as_python(arguments: list[str]) -> None:
    """What `python` does with these arguments."""
    if arguments[0] == "-u":
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        arguments = arguments[1:]
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
