"""Tolerant reading of a run folder: a run that was stopped, or is still going, leaves files short or absent."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass
class Metrics:
    """The lines of metrics.jsonl, told apart: training steps in order, evaluations and probes by step."""

    steps: list[Record] = field(default_factory=list)
    evals: dict[int, Record] = field(default_factory=dict)
    probes: dict[int, Record] = field(default_factory=dict)
    skipped: int = 0


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


def records(path: Path) -> Iterator[tuple[int, Record | None]]:
    """The offset and record of each line of a JSONL file; None for a line that cannot be read.

    A last line without its line feed is still being written (or never was finished) and is passed over in silence,
    unless it happens to be complete.
    """
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        offset = 0
        for line in file:
            record = parse(line)
            if record is not None:
                yield offset, record
            elif line.strip() and line.endswith(b"\n"):
                yield offset, None
            offset += len(line)


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
        step = whole(record.get("step")) if record else None
        if record is None or step is None:
            metrics.skipped += 1
            continue
        if isinstance(record.get("eval"), dict):
            metrics.evals[step] = record["eval"]
        if isinstance(record.get("probe"), dict):
            metrics.probes[step] = record["probe"]
        if record.keys() - {"step", "eval", "probe"}:
            # A run resumed from a checkpoint repeats the steps after it: what was written last is what counts.
            while metrics.steps and metrics.steps[-1]["step"] >= step:
                metrics.steps.pop()
            metrics.steps.append(record | {"step": step})
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
