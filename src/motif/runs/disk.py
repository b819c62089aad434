"""The disk under a run: what is written lasts, damage to it is noticed, and one process writes at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motif.errors import RecipeError

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What a file system says that has no locks, or knows no fsync of a folder."""
SUMS = "SHA256SUMS"
"""What `sha256sum -c` reads."""


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk, so that no power cut undoes it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS beside the files of a folder, as `sha256sum -c` reads it."""
    lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.is_file()]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sum(file: Path) -> None:
    """Compare a file with the SHA256SUMS beside it, if that is there and names it.

    Raises:
        ValueError: it is not what was written.
    """
    try:
        lines = (file.parent / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    sums = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    if sums.get(file.name, "") not in ("", _sha256(file)):
        raise ValueError(f"not what {SUMS} says")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def claim(file: Path) -> int | None:
    """A file's exclusive lock, as an open file, or None if another process holds it.

    The lock goes when the process ends, however that happens. Where the file system has no locks, it holds nothing.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            os.close(lock)
            raise
    return lock


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold a run folder for as long as the block lasts; it is made if there is none.

    Raises:
        RecipeError: another process writes to it, or nobody can.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = claim(run / ".writer")
        closed = [path for path in run.iterdir() if not os.access(path, os.W_OK)]
    except OSError as error:
        raise RecipeError(f"nothing can be written to {run} ({error.strerror}): choose another --out") from None
    if lock is None:
        raise RecipeError(f"another process is writing to {run}: wait for its end, or choose another --out")
    try:
        if closed:
            raise RecipeError(f"{closed[0]} cannot be written to: change its permissions, or choose another --out")
        yield
    finally:
        os.close(lock)
