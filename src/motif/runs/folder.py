"""Writing a run folder (the names of its files: `motif.run_files`)."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from motif.config import Recipe
from motif.config.trust import in_run_folder
from motif.errors import DataError, ModelError, MotifError, RecipeError, RunFolderError, UsageError, first_line
from motif.method.tree import Tree
from motif.run_files import CHECKPOINTS, METRICS, OUTCOMES, PROBE, RECIPE, SUMMARY, TREES, WALL, WRITER_LOCK
from motif.runs.disk import sync, try_lock, write_atomically, write_json
from motif.runs.read import Record, has_begun, is_started, resume_command
from motif.text import expanded

RECORD = (METRICS, TREES, OUTCOMES)
"""The files that grow with a run."""

LOOKS = 4
"""Tries to lock a folder."""
MOST_NOTED = 1 << 16
"""Bytes of a lock's file that are kept."""
REFUSALS = (RecipeError, RunFolderError, DataError, ModelError, UsageError)
"""Errors of a run that is not started."""

Offsets = dict[str, tuple[int, int]]
"""The length of each file of the record in bytes, and the CRC-32 of so many bytes."""


class RunFolder:
    """Writes a run's files, and truncates its record to where a checkpoint was made when a run is resumed from it.

    With `writes` false it leaves the disk alone: of several processes only one keeps the record.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes
        self._offsets: Offsets = dict.fromkeys(RECORD, (0, 0))
        self.on_metrics: Callable[[int], object] | None = None
        """Called after each line of metrics with the offset at which that line begins."""
        if writes:
            path.mkdir(parents=True, exist_ok=True)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe."""
        if self.writes:
            write_recipe(self.path, recipe)

    def append_metrics(self, line: Record) -> None:
        """Append one line of numbers; what is not finite is written as null, because JSON has no NaN."""
        start = self._offsets[METRICS][0]
        self._append(METRICS, [{key: _finite(value) for key, value in line.items()}])
        if self.on_metrics:
            self.on_metrics(start)

    def append_trees(self, trees: Iterable[Tree]) -> None:
        """Append a step's trees."""
        self._append(TREES, [tree.to_dict() for tree in trees])

    def append_outcomes(self, lines: Iterable[Record]) -> None:
        """Append the outcomes of an evaluation: `step`, `row`, `questions` (ids), `outcomes`."""
        self._append(OUTCOMES, list(lines))

    def write_summary(self, content: Record) -> None:
        """Replace the summary as a whole."""
        if self.writes:
            write_json(self.path / SUMMARY, content)

    def offsets(self) -> Offsets:
        """Where the record ends, for a checkpoint: what lies before is on the disk from here on."""
        for name, (size, _) in self._offsets.items():
            if self.writes and size:
                sync(self.path / name)
        return dict(self._offsets)

    def damaged(self, offsets: Offsets) -> list[str]:
        """The files that no longer begin with what they held when these were their offsets."""
        return [name for name, offset in offsets.items() if _offset(self.path / name, offset[0]) != offset]

    def truncate_to(self, offsets: Offsets | None = None) -> None:
        """Drop what was written after these offsets (by default: all), and the torn last line of a damaged file."""
        if not self.writes:
            return
        for name in RECORD:
            file, (size, _) = self.path / name, (offsets or {}).get(name, (0, 0))
            if not file.is_file():
                continue
            if _offset(file, size)[0] < size:
                size = file.read_bytes().rfind(b"\n") + 1
            with file.open("r+b") as opened:
                opened.truncate(size)
            self._offsets[name] = _offset(file, size)

    def _append(self, name: str, records: list[Record]) -> None:
        if not self.writes:
            return
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with (self.path / name).open("ab") as file:
            file.write(data)
        size, checksum = self._offsets[name]
        self._offsets[name] = size + len(data), zlib.crc32(data, checksum)


def _offset(file: Path, size: int) -> tuple[int, int]:
    """How many of a file's first `size` bytes there are, and their CRC-32."""
    length = checksum = 0
    if file.is_file():
        with file.open("rb") as opened:
            while piece := opened.read(min(1 << 20, size - length)):
                length, checksum = length + len(piece), zlib.crc32(piece, checksum)
    return length, checksum


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write the resolved recipe of a run."""
    write_atomically(run / RECIPE, recipe.to_toml())


def write_probe(run: Path, step: int, numbers: Record) -> Path:
    """Write a probe of the weights after `step`, made after training, and return its file."""
    write_json(run / PROBE, {"step": step, "probe": numbers})
    return run / PROBE


def write_wall_seconds(run: Path, seconds: float) -> None:
    """Write how long a run in a study has taken so far."""
    write_json(run / WALL, {"seconds": seconds})


def drop_details(run: Path) -> None:
    """Delete the trees and checkpoints of a finished run; weights, metrics and report stay."""
    (run / TREES).unlink(missing_ok=True)
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def folder_for(source: object, name: str) -> Path:
    """Where a run goes if nobody says where: the run folder that its recipe lies in, or else `runs/NAME`.

    Args:
        source: what the recipe was read from: a file, a run folder, a shipped name, or anything else.

    Raises:
        RecipeError: the recipe lies in something that belongs to a run and is none itself, or its name can name no
            folder.
    """
    place = Path(expanded(str(source))) if isinstance(source, str | Path) else None
    if place is None or not place.exists():
        return default_folder(name)
    file = place / RECIPE if place.is_dir() else place
    if is_started(file.parent) and file.name == RECIPE:
        return file.parent
    if in_run_folder(file):
        raise RecipeError(f"{file} belongs to a run: say with --out which folder the new run goes to")
    return default_folder(name)


def default_folder(name: str) -> Path:
    """`runs/NAME`, where the name of a recipe can name a folder there: it may come from a stranger's file.

    Raises:
        RecipeError: it cannot.
    """
    if not re.fullmatch(r"\w[\w .,+-]*", name) or len(name) > 100:
        raise RecipeError(f"the recipe's name {name[:100]!r} cannot name a folder: give one with --out")
    return Path("runs") / name


def refuse_used_folder(run: Path, resume: bool) -> None:
    """Never write over an earlier run, or over a file.

    Raises:
        RunFolderError: the folder holds a run and `resume` is off, or it is a file.
    """
    if run.is_file():
        raise RunFolderError(f"{run} is a file: a run needs a folder, so choose another --out")
    if not resume and has_begun(run):
        raise RunFolderError(
            f"{run} already holds a run: go on with it by `{resume_command(run)}`, or choose another --out"
        )


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Lock a run folder for as long as the block lasts; create it if there is none.

    The lock's file says who writes and, if the block ends by an error, which it was (`motif.runs.state`).

    Raises:
        RunFolderError: another process is writing to it, or nobody can.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = _patient_lock(run / WRITER_LOCK)
        closed = [path for path in run.iterdir() if not os.access(path, os.W_OK)]
    except OSError as error:
        raise RunFolderError(f"cannot write to {run} ({error.strerror}): choose another --out") from None
    if lock is None:
        raise RunFolderError(f"another process is writing to {run}: wait until it ends, or choose another --out")
    before = os.pread(lock, MOST_NOTED, 0)
    try:
        if closed:
            raise RunFolderError(f"cannot write to {closed[0]}: change its permissions, or choose another --out")
        _note(lock, {"process": os.getpid(), "machine": platform.node()})
        yield
    except KeyboardInterrupt:
        _note(lock, {"interrupted": True})
        raise
    except REFUSALS:  # nothing has been done
        _write(lock, before)
        raise
    except BaseException as error:
        reason = str(error).strip().partition("\n")[0] if isinstance(error, MotifError) else first_line(error)
        _note(lock, {"failed": reason})
        raise
    else:
        _write(lock, b"")
    finally:
        os.close(lock)


def _patient_lock(file: Path) -> int | None:
    """The lock, also if somebody looks for a moment whether it is held."""
    for _ in range(LOOKS):
        if (lock := try_lock(file)) is not None:
            return lock
        time.sleep(0.05)
    return None


def _note(lock: int, content: Record) -> None:
    """Replace what the lock's file says."""
    _write(lock, (json.dumps(content) + "\n").encode())


def _write(lock: int, content: bytes) -> None:
    """Write a lock's file. A full disk must not hide the error that is noted."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, content, 0)
