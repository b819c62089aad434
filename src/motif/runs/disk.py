"""Files that last: atomic writes, checksums, and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of a file system that has no locks, or no fsync of a folder."""
SUMS = "SHA256SUMS"
"""The file that `sha256sum -c` reads."""
MAX_SUMS = 1 << 20
"""Bytes of it that are read."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash or a power cut leaves either the old or the new content."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:  # never through a link that somebody else has put there
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)


def open_plain(file: Path, links: bool = True) -> BinaryIO:
    """Open a regular file of a run folder, which may be somebody else's, for reading.

    A pipe or a device could be read for ever, and a link could lead to any file of this user.

    Args:
        links: whether a link to another file in the same folder is followed.

    Raises:
        OSError: there is no such file, it is not a regular one, or it is a link that is not followed.
    """
    if links and file.is_symlink():
        target, folder = os.path.realpath(file), os.path.realpath(file.parent)
        if os.path.commonpath([target, folder]) != folder:
            raise OSError(errno.ELOOP, "a link to outside its folder", str(file))
        file = Path(target)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return os.fdopen(descriptor, "rb")


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
    """`sync` a folder and everything in it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS beside the files of a folder, as `sha256sum -c` reads it."""
    lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.is_file()]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def damaged_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files that a folder's SHA256SUMS names and that are not what was written, and what is wrong with each."""
    try:
        with open_plain(folder / SUMS) as opened:
            lines = opened.read(MAX_SUMS).decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        yield folder / SUMS, error.strerror or str(error)
        return
    for value, _, name in (line.partition("  ") for line in lines):
        file = folder / name
        try:
            same = file.name == name and _sha256(file) == value
        except (OSError, ValueError) as error:
            yield file, getattr(error, "strerror", None) or str(error)
        else:
            if not same:
                yield file, f"not what {SUMS} says"


def check_sums(folder: Path) -> None:
    """Compare a folder with its SHA256SUMS, if it has one.

    Raises:
        ValueError: a file that it names is not what was written.
    """
    for file, damage in damaged_files(folder):
        raise ValueError(f"{file.name}: {damage}")


def _sha256(file: Path) -> str:
    if not file.is_file():  # a link is followed: the hub's cache has them
        raise OSError(errno.ENOENT, "No such file", str(file))
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def try_lock(file: Path) -> int | None:
    """Lock a file exclusively and return its descriptor, or None if another process holds the lock.

    The lock goes when the process ends, however that happens. A file system without locks grants it to everybody.
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


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock of a file; False as well where that cannot be found out."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False
