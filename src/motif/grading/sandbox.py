"""Running an untrusted Python program where it can do no harm: bubblewrap with a seccomp filter.

Inside there are one process with one thread, the standard library and the system's libraries (read-only), /dev/null,
/dev/zero and two random devices, and an empty scratch folder in memory that vanishes with the process. There is no
network, no /proc, no /etc, no home, no site-packages, no environment variable of ours and no file of the run.

What comes out is text that the program may have forged, so nothing secret goes in: the caller compares the values of
the calls with the wanted ones out here. A program that hangs, floods or dies is reported as such in `Run.problem`;
`SandboxError` is for failures on our side, before the program had its turn, and a program cannot cause it.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import select
import selectors
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motif.grading import inside, seccomp

WALL_SECONDS = 6.0  # from the moment the program starts; a sleeping program ends here
CPU_SECONDS = 3  # a computing program ends here, however busy the machine is
START_SECONDS = 10.0  # for the interpreter to come up
MEMORY = 256 << 20  # bytes of address space, interpreter included
SCRATCH = 16 << 20  # bytes of files
OUTPUT = 1 << 20  # bytes of results, and as many of printed text

_DEVICES = ("null", "zero", "random", "urandom")
_INSTALL = "Install bubblewrap (Debian and Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap)."
_REFUSED = (
    "bubblewrap needs user namespaces: allow them (sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu 24.04 "
    "kernel.apparmor_restrict_unprivileged_userns=0; in Docker start the container with --security-opt "
    "seccomp=unconfined --security-opt apparmor=unconfined), or grade on a machine that has them."
)
_CHUNK = 1 << 16
# What must not be possible inside, each of which raises if it is not.
_PROBE = """
import os
def possible(file):
    attempts = {
        "open a socket": lambda: __import__("socket").socket(),
        "start a process": lambda: os.fork(),
        "read the project's files": lambda: open(file),
        "see /etc": lambda: os.listdir("/etc"),
        "see other processes": lambda: os.listdir("/proc"),
        "write outside its folder": lambda: open("/probe", "w"),
    }
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
            done.append(name)
        except (OSError, ImportError, AttributeError):
            pass
    return done
"""
_END_SECONDS = 5.0


class SandboxError(RuntimeError):
    """There is no working sandbox, or it did not start; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """One line of untrusted text per call that was answered, and why there are not more (empty: all were)."""

    replies: list[str]
    problem: str = ""


def run(source: str, calls: Sequence[str]) -> Run:
    """Run the source, then evaluate the calls in order, in a new sandbox that is gone when this returns.

    Takes at most START_SECONDS + WALL_SECONDS, and some 50 ms for a trivial program.

    Raises:
        SandboxError: the sandbox cannot be started. Never for anything that the source does.
    """
    request = json.dumps({"source": source, "calls": list(calls)}).encode()
    process = _start()
    try:
        talk = _Talk(process, len(calls))
        problem = talk.hold(request)
    finally:
        _end(process)
    return Run(talk.lines(), problem)


@functools.cache
def prepare() -> None:
    """Find a sandbox and try to break out of it. Done once per process.

    Raises:
        SandboxError: there is none, it does not start, or it does not hold.
    """
    try:
        tried = run(_PROBE, [f"possible({str(Path(inside.__file__).resolve())!r})"])
    except SandboxError as error:
        if "bwrap:" not in str(error):
            raise
        raise SandboxError(f"{error}. {_REFUSED}") from error
    if tried.replies != ['["value", ["list"]]']:
        raise SandboxError(f"the sandbox does not hold: inside it a program can {tried.replies or tried.problem}")


def _start() -> subprocess.Popen[bytes]:
    command = _command()
    filter_fd, writing_fd = os.pipe()
    try:
        os.write(writing_fd, seccomp.program())  # fits a pipe's buffer
        os.close(writing_fd)
        arguments = [str(CPU_SECONDS), str(MEMORY), str(SCRATCH)]
        return subprocess.Popen(
            [*command[:1], "--seccomp", str(filter_fd), *command[1:], *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            pass_fds=(filter_fd,),
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
            bufsize=0,
        )
    except OSError as error:
        raise SandboxError(f"the sandbox did not start: {error}") from error
    finally:
        os.close(filter_fd)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Killing bubblewrap kills the first process of its namespace and so everything inside. That takes a moment, and is
    # over when nobody holds the other end of the pipe any more.
    process.kill()
    process.wait()
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    end = time.monotonic() + _END_SECONDS
    while select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        if not os.read(process.stdout.fileno(), _CHUNK):
            break
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


@functools.cache
def _command() -> list[str]:
    """The command line up to the limits, which `inside` reads.

    Raises:
        SandboxError: this machine has no bubblewrap, or is none that the filter knows.
    """
    if platform.machine() not in seccomp.MACHINES:
        known = ", ".join(seccomp.MACHINES)
        raise SandboxError(f"code can be graded on Linux on {known}, and this machine is {platform.machine()}")
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxError(f"code is graded inside a sandbox, and there is none on this machine. {_INSTALL}")
    base = Path(sys.base_prefix).resolve()
    python = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base)})).resolve().parent
    shown = [Path(path) for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if Path(path).is_dir()]
    shown += [path for path in (library, python.resolve()) if not path.is_relative_to("/usr/lib")]
    hidden = [path for folder in (library, Path("/usr/lib")) for path in folder.glob("python*/*-packages")]
    command = [bubblewrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for path in shown:
        command += ["--ro-bind", str(path), str(path)]
    for path in sorted(set(hidden)):  # what is installed beside the standard library, the project's own code included
        command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    for device in _DEVICES:
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    command += ["--size", str(SCRATCH), "--tmpfs", "/scratch", "--chdir", "/scratch", "--remount-ro", "/"]
    # Without the order of sets changing from run to run, a program is right or wrong for good.
    command += ["--setenv", "PYTHONHASHSEED", "0", "--setenv", "TMPDIR", "/scratch", "--setenv", "LC_ALL", "C.UTF-8"]
    program = Path(inside.__file__).read_text(encoding="utf-8")
    return [*command, str(python.resolve()), "-s", "-S", "-P", "-B", "-X", "utf8", "-c", program]


class _Talk:
    """One conversation: `ready`, our request, and what comes back until all is said or a limit is reached."""

    def __init__(self, process: subprocess.Popen[bytes], expected: int) -> None:
        self.process, self.expected = process, expected
        self.replies, self.printed = bytearray(), bytearray()
        self.closed = 0

    def hold(self, request: bytes) -> str:
        """The problem of `Run`."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, self.replies)
            selector.register(process.stderr, selectors.EVENT_READ, self.printed)
            self._read(selector, START_SECONDS, len(inside.READY))
            if not self.replies.startswith(inside.READY):
                said = self.printed.decode(errors="replace").strip()[-300:] or self._status()
                raise SandboxError(f"the sandbox did not start: {said}")
            del self.replies[: len(inside.READY)]
            try:
                process.stdin.write(request)
                process.stdin.close()
            except BrokenPipeError:
                pass  # killed from outside: found out below
            return self._read(selector, WALL_SECONDS, None)

    def lines(self) -> list[str]:
        """The complete lines among the replies, as many as were asked for."""
        return self.replies.decode(errors="replace").split("\n")[:-1][: self.expected]

    def _read(self, selector: selectors.BaseSelector, seconds: float, enough: int | None) -> str:
        end = time.monotonic() + seconds
        while selector.get_map():
            done = self.replies.count(b"\n") >= self.expected if enough is None else len(self.replies) >= enough
            if done:
                return ""
            if max(len(self.replies), len(self.printed)) > OUTPUT:
                return "wrote too much"
            left = end - time.monotonic()
            if left <= 0:
                return f"timed out after {seconds:g} s"
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, _CHUNK)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
        return self._status()

    def _status(self) -> str:
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code == 128 + 24:  # SIGXCPU
            return f"timed out after {CPU_SECONDS} s of computing"
        return f"ended early (exit status {code})" if code < 128 else f"crashed (signal {code - 128})"
