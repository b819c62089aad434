"""Where a command writes: the standard streams, which may be closed, and files and folders that options name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def need_file(path: Path | None, option: str, source: Path | None = None) -> None:
    """Refuse a file that cannot be written, before there is something to write. None: no file is asked for.

    Args:
        source: what the command reads, which it must not write over.

    Raises:
        UsageError: it is a folder, it is `source`, or it has no folder that can be written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder: name a file, e.g. {option} {path / 'FILE'}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{option} {path} is the file that is read: choose another")
    if not path.parent.is_dir():
        problem = "is a file" if path.parent.exists() else "no such folder"
        raise UsageError(f"{path.parent}: {problem}: choose another {option}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: choose another {option}")


def need_folder(path: Path | None) -> None:
    """Refuse a folder that cannot be made or written to, before there is something to write. None: none is asked for.

    Raises:
        UsageError: it, or what it would lie in, is a file or cannot be written to.
    """
    if path is None:
        return
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"--out {path}: {there} is a file: name another folder")
    if not os.access(there, os.W_OK):
        raise UsageError(f"--out {path}: {there} cannot be written to: name another folder")
