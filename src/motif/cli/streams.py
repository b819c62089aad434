"""The standard streams, which whoever starts a command may have closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from motif.errors import UsageError

_closed: list[int] = []


def occupy() -> None:
    """Open the null device in place of closed streams.

    Otherwise the next files that are opened take their numbers, and what a library prints goes into them. `sys.stdin`
    stays None where it is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            _closed.append(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


@contextmanager
def loading() -> Iterator[None]:
    """Say in a terminal that something loads that takes seconds; the line goes with the block."""
    live = sys.stderr.isatty()
    if live:
        print("loading …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def need_output(advice: str) -> None:
    """Refuse to work for nothing.

    Raises:
        UsageError: standard output is closed.
    """
    if 1 in _closed:
        raise UsageError(f"standard output is closed: {advice}")
