"""Keep a server running for as long as whoever started this lives: python keeper.py COMMAND …

Standard input is a pipe that its starter holds and never writes to. However the starter ends, the pipe ends with it,
and then the server and all that it has started end, too. A server that dies by itself after a while is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

LIVED = 60.0
"""Seconds after which the end of a server is an accident; before, it cannot start."""
GRACE = 10.0
"""Seconds that a server has to end by itself."""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it has started: asked first, then killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)  # what the server has left behind
    process.wait()


def keep(command: list[str]) -> int:
    """Run the command until standard input ends; returns its exit status where it ends by itself."""
    alone = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        alone.set()

    threading.Thread(target=watch, daemon=True).start()
    while not alone.is_set():
        begun = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not alone.wait(0.2):
            pass
        status = process.poll()
        end(process)
        if status is not None and time.monotonic() - begun < LIVED:
            return status
    return 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.dup2(os.open(os.devnull, os.O_RDONLY), 0))
    sys.exit(keep(sys.argv[1:]))
