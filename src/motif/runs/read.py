"""Tolerant reading of a run folder: a run that was stopped, or is still going, leaves files short or absent."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from motif.errors import RunFolderError

Record = dict[str, Any]

MARK = 64  # bytes by which a file is known again


@dataclass
class Metrics:
    """The lines of metrics.jsonl, told apart: training steps in order, evaluations and probes by step."""

    steps: list[Record] = field(default_factory=list)
    evals: dict[int, Record] = field(default_factory=dict)
    probes: dict[int, Record] = field(default_factory=dict)
    skipped: int = 0

    def add(self, record: Record | None) -> None:
        """Take in one line."""
        step = whole(record.get("step")) if record else None
        if record is None or step is None:
            self.skipped += 1
            return
        if isinstance(record.get("eval"), dict):
            self.evals[step] = record["eval"]
        if isinstance(record.get("probe"), dict):
            self.probes[step] = record["probe"]
        if record.keys() - {"step", "eval", "probe"}:
            # A run resumed from a checkpoint repeats the steps after it: what was written last is what counts.
            while self.steps and self.steps[-1]["step"] >= step:
                self.steps.pop()
            self.steps.append(record | {"step": step})


def check_run_folder(run: Path) -> None:
    """Refuse what cannot be read as a run folder, however short its files are.

    Raises:
        RunFolderError: there is no such folder, or it holds neither a recipe nor metrics.
    """
    if not run.is_dir():
        raise RunFolderError(f"{run}: no such folder; give a run folder, e.g. runs/demo")
    if not any((run / name).is_file() for name in ("recipe.toml", "metrics.jsonl")):
        raise RunFolderError(f"{run} is not a run folder (it holds neither recipe.toml nor metrics.jsonl)")


def number(value: Any) -> float | int | None:
    """A finite number, to six significant digits, or None: JSON in a page knows neither NaN nor infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if abs(value) < 1 << 80 else None
    return float(f"{value:.6g}") if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """An integer (a float that is one counts), or None."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


class Tail:
    """Reads what was appended to a JSONL file since the last look, by byte offset; notices when it is another file.

    `epoch` counts how often what had been read turned out to be of a file that is no longer there: one cut back to a
    checkpoint, or written anew. `offset` is how far it has been read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.epoch = 0
        self.offset = 0
        self._file: tuple[int, int] | None = None
        self._mark = b""  # the last bytes read: an inode can be given away again

    def records(self) -> Iterator[tuple[int, Record | None]]:
        """The offset and record of each new line; None for a line that cannot be read.

        A last line without its line feed is still being written (or never was finished) and is left for the next
        look, unless it happens to be complete. Nothing, where there is no such file.
        """
        try:
            file = self.path.open("rb")
        except OSError:
            self._restart(None)
            return
        with file:
            status = os.fstat(file.fileno())
            found = (status.st_dev, status.st_ino)
            if found != self._file or status.st_size < self.offset or not self._goes_on(file):
                self._restart(found)
            file.seek(self.offset)
            for line in file:
                record = parse(line)
                if record is None and not line.endswith(b"\n"):
                    return
                offset = self.offset
                self.offset += len(line)
                self._mark = (self._mark + line)[-MARK:]
                if record is not None or line.strip():
                    yield offset, record

    def _goes_on(self, file: BinaryIO) -> bool:
        file.seek(self.offset - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _restart(self, found: tuple[int, int] | None) -> None:
        if self.offset:
            self.epoch += 1
        self._file, self.offset, self._mark = found, 0, b""


def records(path: Path) -> Iterator[tuple[int, Record | None]]:
    """The offset and record of each line of a JSONL file; None for a line that cannot be read (see `Tail.records`)."""
    yield from Tail(path).records()


def parse(line: bytes) -> Record | None:
    """One line of JSONL as a record, or None."""
    try:
        record = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_metrics(path: Path) -> Metrics:
    """Training lines, evaluations and probes of a metrics.jsonl; nothing if there is no such file."""
    metrics = Metrics()
    for _, record in records(path):
        metrics.add(record)
    return metrics


def read_recipe(path: Path) -> tuple[Record, str]:
    """The recipe as a plain dictionary and as text; empty if absent or not TOML.

    Not through `load_recipe`, so that the folder of an older or newer version can still be reported on.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}, ""
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError:
        return {}, text


def read_probes(run: Path, metrics: Metrics) -> dict[int, Record]:
    """The probes of a run by step; one that was made afterwards (probe.json) replaces what training had at its step."""
    later = read_summary(run / "probe.json")
    step = whole(later.get("step"))
    return metrics.probes | ({step: section(later, "probe")} if step is not None and later.get("probe") else {})


def read_summary(path: Path) -> Record:
    """summary.json (or another file of one JSON object), or an empty dictionary."""
    try:
        return parse(path.read_bytes()) or {}
    except OSError:
        return {}


def section(record: Record, key: str) -> Record:
    """The dictionary under `key`, or an empty one."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}
