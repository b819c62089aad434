"""Tolerant reading of a run folder: the files of a run that is in progress, or was stopped, may be short or absent."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from motif.config import Recipe, Trust, load_recipe
from motif.config.load import MAX_BYTES, given_keys, parse_toml
from motif.config.trust import check
from motif.errors import RecipeError, RunFolderError
from motif.run_files import (
    CHECKPOINTS,
    METRICS,
    OUTCOMES,
    PROBE,
    RECIPE,
    SUMMARY,
    TREES,
    WALL,
    WRITER_LOCK,
)
from motif.runs.disk import open_plain

Record = dict[str, Any]

MARK = 64
"""Bytes by which a file is recognised: an inode can be given away again."""
MAX_LINE = 32 << 20
"""Bytes of a line, or of a JSON file, that are read: a folder may be somebody else's."""
MAX_RECORDS = 1_000_000
"""Lines of a file that are read."""
MAX_DEPTH = 200
"""Levels of nesting of a record."""


class Evaluation(NamedTuple):
    """The rows of an evaluation, and after how many steps it was made; `stage`: after which stage before the first."""

    step: int
    stage: str
    results: Record

    def on_few(self) -> Evaluation:
        """Its accuracies on as few questions as evaluations during training have (`eval.questions_during`)."""
        rows = {name: section(row, "first") or row for name, row in self.results.items() if isinstance(row, dict)}
        return self._replace(results=rows)

    @property
    def when(self) -> str:
        """The moment in words."""
        return "after the warm start" if self.stage else f"at step {self.step:,}" if self.step else "before training"


@dataclass
class Metrics:
    """The lines of a metrics file: training steps in order, evaluations and probes by step, those of a warm start, and
    what was told of why nothing can be learnt.

    `skipped` counts lines that could not be read.
    """

    steps: list[Record] = field(default_factory=list)
    evals: dict[int, Record] = field(default_factory=dict)
    probes: dict[int, Record] = field(default_factory=dict)
    warmstart: list[Record] = field(default_factory=list)
    diagnoses: list[Record] = field(default_factory=list)
    skipped: int = 0

    def evaluations(self) -> list[Evaluation]:
        """All evaluations in the order in which they were made, that after a warm start among them."""
        made = [Evaluation(step, "", results) for step, results in self.evals.items()]
        warm = [results for line in self.warmstart if (results := section(line, "eval"))]
        made += [Evaluation(0, "warmstart", results) for results in warm[-1:]]
        return sorted(made, key=lambda evaluation: evaluation[:2])

    def add(self, record: Record | None) -> None:
        """Add one line; None is a line that could not be read."""
        step = whole(record.get("step")) if record else None
        if record is None or step is None:
            self.skipped += 1
            return
        if isinstance(record.get("eval"), dict):
            self.evals[step] = record["eval"]
        if isinstance(record.get("probe"), dict):
            self.probes[step] = record["probe"]
        if isinstance(record.get("warmstart"), dict):
            self.warmstart.append(record["warmstart"])
        if isinstance(record.get("diagnosis"), dict):
            self.diagnoses.append(record["diagnosis"])
        if record.keys() - {"step", "eval", "probe", "warmstart", "diagnosis"}:
            # A run resumed from a checkpoint repeats the steps after it: the line written last counts.
            while self.steps and self.steps[-1]["step"] >= step:
                self.steps.pop()
            self.steps.append({name: value for name, value in record.items() if name != "diagnosis"} | {"step": step})


def check_run_folder(run: Path) -> None:
    """Refuse a folder that cannot be read as a run, however short its files may be.

    Raises:
        RunFolderError: there is no such folder, or it holds neither a recipe nor metrics.
    """
    if not run.is_dir():
        raise RunFolderError(f"{what_there_is(run)}: give a run folder, e.g. {suggested_run(run)}")
    if not any((run / name).is_file() for name in (RECIPE, METRICS, WRITER_LOCK)):
        raise RunFolderError(f"{run} is not a run folder (it holds neither {RECIPE} nor {METRICS})")


def what_there_is(folder: Path) -> str:
    """The beginning of an error about something that is not a folder."""
    return f"{folder}: is a file, not a folder" if folder.exists() else f"{folder}: no such folder"


def suggested_run(name: Path) -> Path:
    """The run that somebody may have meant: of a file, the run it lies in; of a name, that in `runs`."""
    likely = (name.parent, Path("runs") / name)
    return next((folder for folder in likely if is_run(folder) or is_started(folder)), Path("runs/demo"))


def number(value: Any) -> float | int | None:
    """A finite number, to six significant digits, or None: JSON has neither NaN nor infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if abs(value) < 1 << 80 else None
    return float(f"{value:.6g}") if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """An integer, also one written as a float, or None."""
    finite = number(value)
    return int(finite) if finite is not None and finite == int(finite) else None


class Tail:
    """Reads what was appended to a JSONL file since the last read, and notices when the file was replaced.

    `offset` is how many bytes have been read. `epoch` counts how often they turned out to belong to a file that is
    gone: one truncated to a checkpoint, or written anew.
    """

    def __init__(self, path: Path):
        self.path = path
        self.epoch = 0
        self.offset = 0
        self._file: tuple[int, int] | None = None
        self._mark = b""  # the last bytes read
        self._count, self._stopped = 0, False

    def records(self) -> Iterator[tuple[int, Record | None]]:
        """The offset and record of each new line; None for a line that cannot be read.

        A last line without its line feed is still being written, or never was finished: it is left for the next read,
        unless it happens to be complete. A line longer than `MAX_LINE` cannot be read, and neither can what comes after
        it. Yields nothing if there is no such file, or it is not a regular one.
        """
        try:
            file = open_plain(self.path)
        except OSError:
            self._restart(None)
            return
        with file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino)
            if identity != self._file or status.st_size < self.offset or not self._continues(file):
                self._restart(identity)
            file.seek(self.offset)
            while not self._stopped and (line := file.readline(MAX_LINE + 1)):
                if len(line) > MAX_LINE or self._count == MAX_RECORDS:
                    self._stopped = True
                    yield self.offset, None
                    return
                self._count += 1
                record = parse(line)
                if record is None and not line.endswith(b"\n"):
                    return
                offset = self.offset
                self.offset += len(line)
                self._mark = (self._mark + line)[-MARK:]
                if record is not None or line.strip():
                    yield offset, record

    def _continues(self, file: BinaryIO) -> bool:
        file.seek(self.offset - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _restart(self, identity: tuple[int, int] | None) -> None:
        if self.offset:
            self.epoch += 1
        self._file, self.offset, self._mark = identity, 0, b""
        self._count, self._stopped = 0, False


def records(path: Path) -> Iterator[tuple[int, Record | None]]:
    """The offset and record of each line of a JSONL file; None for a line that cannot be read (see `Tail.records`)."""
    yield from Tail(path).records()


def parse(line: bytes) -> Record | None:
    """One line of JSONL as a record, or None if it is not an object, or one that is nested too deeply."""
    try:
        record = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_shallow(record) else None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, or an export of one: whether there is a recipe."""
    return (folder / RECIPE).is_file()


def not_a_run(folder: str | Path) -> str:
    """The beginning of an error about a folder that is not a run."""
    folder = Path(folder)
    return f"{folder} is not a run folder (it holds no {RECIPE})" if folder.is_dir() else what_there_is(folder)


def resume_command(run: Path) -> str:
    """The command that resumes a run."""
    return f"motif resume {shlex.quote(str(run))}"


def has_begun(run: Path) -> bool:
    """Whether a folder holds anything that a run has computed."""
    return any((run / name).exists() for name in (METRICS, CHECKPOINTS, SUMMARY))


def is_started(folder: Path) -> bool:
    """Whether a run has been started in a folder, even if it has not computed anything yet."""
    return has_begun(folder) or (folder / WRITER_LOCK).exists()


def is_finished(run: Path, steps: int | None = None) -> bool:
    """Whether a run has made all its steps; with `steps`, whether it ended after so many."""
    summary = read_summary(run)
    return summary.get("status") == "finished" and steps in (None, summary.get("steps"))


def last_step(run: Path, tail: int = 65536) -> int:
    """The step of the last complete line of metrics within the last `tail` bytes; 0 if there is none."""
    try:
        with open_plain(run / METRICS) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - tail))
            lines = file.read().splitlines()
    except OSError:
        return 0
    last = next((record for line in reversed(lines) if (record := parse(line))), {})
    return whole(last.get("step")) or 0


def recipe_of(run: Path, settings: Iterable[str] = (), trust: Trust | None = None) -> Recipe:
    """The resolved recipe of a run, with `section.key=value` settings.

    Raises:
        RunFolderError: the folder holds no recipe.
        RecipeError: the recipe or a setting is not valid, or names what has to be confirmed (see `load_recipe`).
    """
    if not is_run(run):
        raise RunFolderError(not_a_run(run))
    settings = list(settings)
    recipe = load_recipe(run / RECIPE, settings, trust=Trust(uses=()))
    check(recipe, run / RECIPE, trust or Trust(), given_keys(settings))
    return recipe


def read_recipe(run: Path) -> tuple[Record, str]:
    """The recipe as a plain dictionary and as text; empty if absent, a link, or not TOML that a recipe could be.

    Not through `load_recipe`, so that the folder of an older or newer version can still be reported on.
    """
    try:
        with open_plain(run / RECIPE, links=False) as file:
            content = file.read(MAX_BYTES + 1)
        text = content[:MAX_BYTES].decode("utf-8", errors="replace")
        recipe = parse_toml(content)
    except OSError:
        return {}, ""
    except RecipeError:
        return {}, text
    return (recipe, text) if _is_shallow(recipe) else ({}, text)


def read_metrics(run: Path) -> Metrics:
    """Training lines, evaluations and probes of a run; empty if there are none."""
    metrics = Metrics()
    for _, record in records(run / METRICS):
        metrics.add(record)
    return metrics


def read_probes(run: Path, metrics: Metrics) -> dict[int, Record]:
    """The probes of a run by step; one that was made after training replaces what training had at its step."""
    later = read_json(run / PROBE)
    step = whole(later.get("step"))
    return metrics.probes | ({step: section(later, "probe")} if step is not None and later.get("probe") else {})


def read_trees(run: Path) -> Iterator[Record]:
    """The trees of a run that can be read, as `Tree.to_dict` wrote them."""
    return (tree for _, tree in records(run / TREES) if tree is not None)


def read_outcomes(run: Path, step: int) -> dict[str, Record]:
    """The lines of the evaluation after `step`, by row: ids of the `questions`, and the mean outcome of each.

    With `step` 0 of a run that ends with its warm start, those after that.
    """
    lines = [record for _, record in records(run / OUTCOMES) if record is not None and record.get("step") == step]
    after = [record for record in lines if record.get("stage")] if read_summary(run).get("steps") == 0 else []
    of_step = after or (record for record in lines if not record.get("stage"))
    return {str(record["row"]): record for record in of_step}


def read_summary(run: Path) -> Record:
    """The summary, or an empty dictionary."""
    return read_json(run / SUMMARY)


def wall_seconds(run: Path) -> float | None:
    """Seconds of wall clock that a run in a study took, if it has ended."""
    seconds = read_json(run / WALL).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def file_states(run: Path) -> list[tuple[int, int, int] | None]:
    """A value that changes whenever a file that can be read here has changed."""
    return [_state(run / name) for name in (RECIPE, METRICS, TREES, SUMMARY, PROBE)]


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_json(file: Path) -> Record:
    """The object in a JSON file, or an empty dictionary."""
    try:
        with open_plain(file) as opened:
            content = opened.read(MAX_LINE + 1)
    except OSError:
        return {}
    return parse(content) or {} if len(content) <= MAX_LINE else {}


def section(record: Record, key: str) -> Record:
    """The dictionary under `key`, or an empty one."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def main_row(names: list[str], rounds: int | None) -> str | None:
    """The row that a result is about: that of the training number of rounds, else that of the most rounds."""
    if f"rounds_{rounds}" in names:
        return f"rounds_{rounds}"
    return max(names, key=lambda name: (not name.endswith(("_matched", "_twin")), names.index(name)), default=None)
