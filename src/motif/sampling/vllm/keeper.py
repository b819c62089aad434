"""Keep a server running for as long as its starter lives: python keeper.py PARENT COMMAND …

PARENT is the process id of the starter. However that ends, kill -9 included, the server and all that it has started
end, too. A server that dies by itself after a while is started again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time

LIVED = 60.0
"""Seconds after which the end of a server is an accident; before, it cannot start."""
GRACE = 10.0
"""Seconds that a server has to end by itself while its starter waits, or"""
HASTE = 5.0
"""once nobody does: less than another run takes until it looks for memory, enough to leave no shared memory behind."""
PAUSE = 0.2
"""Seconds between two looks at the starter."""
STARTS = "==== motif starts: "
"""Begins the line before the output of each server."""


def keep(parent: int, command: list[str]) -> int:
    """Run the command until its starter or a signal ends it; returns its exit status where it ends by itself."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _: signals.append(caught))

    def needed() -> bool:
        return not signals and os.getppid() == parent

    while needed():
        begun = time.monotonic()
        print(f"{STARTS}{shlex.join(command)}", flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_this,  # noqa: PLW1509  there is one thread
        )
        while process.poll() is None and needed():
            time.sleep(PAUSE)
        status = process.poll()
        _end(process, parent)
        if status is not None and time.monotonic() - begun < LIVED:
            return status
    return 0


def _end_with_this() -> None:
    """Let Linux end the process that calls this when its parent ends: a keeper that is killed ends nothing itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[bytes], parent: int) -> None:
    """End a server and what it has started: asked first, then killed.

    The last to go is a process of Python's that removes the shared memory which the others have left behind.
    """
    begun = time.monotonic()
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() - begun < (GRACE if os.getppid() == parent else HASTE):
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(PAUSE / 4)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2:]))
