"""How runs stand: which are in a folder, and whether each is training, has stopped, has finished or has failed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from motif.run_files import WRITER_LOCK
from motif.runs.disk import is_locked
from motif.runs.read import (
    Evaluation,
    Metrics,
    Record,
    file_states,
    has_begun,
    is_finished,
    is_started,
    last_step,
    main_row,
    number,
    read_json,
    read_metrics,
    read_recipe,
    read_summary,
    section,
    whole,
)
from motif.text import NONE, duration, percent_interval

State = Literal["running", "stopped", "finished", "failed", "not started"]
DEEPEST = 6
"""Levels of folders below the one that is searched."""
MOST_FOLDERS = 20_000
"""Folders that are looked into."""
KILLED = "its process was killed, or the machine went down"


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    reason: why it has stopped or failed, where that is known. steps: all that its recipe asks for; None if unknown.
    accuracy: the numbers of the newest evaluation at the training number of rounds, `evaluated`: when that was.
    updated: when its files last changed, in seconds since 1970; None if it has none.
    """

    path: Path
    state: State
    reason: str
    step: int
    steps: int | None
    accuracy: Record
    evaluated: Evaluation | None
    model: str
    updated: float | None

    @property
    def age(self) -> float | None:
        """Seconds since its files last changed."""
        return None if self.updated is None else max(0.0, time.time() - self.updated)

    def cells(self) -> tuple[str, str, str]:
        """Its step, its accuracy and its age, as a table shows them."""
        step = f"{self.step:,}" + (f" of {self.steps:,}" if self.steps is not None else "")
        row, age = self.accuracy, self.age
        accuracy = percent_interval(row["accuracy"], row.get("low"), row.get("high")) if row else NONE
        return step, accuracy, NONE if age is None else f"{duration(age)} ago"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown = {key: self.accuracy.get(key) for key in ("accuracy", "low", "high", "n")} if self.accuracy else None
        when = {"step": self.evaluated.step, "stage": self.evaluated.stage or None} if self.evaluated else {}
        return {
            "run": str(self.path),
            "state": self.state,
            "reason": self.reason or None,
            "step": self.step,
            "steps": self.steps,
            "accuracy": shown and shown | when,
            "model": self.model or None,
            "age_seconds": self.age,
        }


def find_runs(folder: Path) -> list[Path]:
    """The runs in a folder and below it, by name, also those that have only just begun; or the folder, if it is one.

    Folders that are links, and hidden ones, are not searched, and neither is what lies inside a run.
    """
    return sorted(_runs(folder))


def _runs(folder: Path) -> Iterator[Path]:
    waiting, looked = [(folder, 0)], 0
    while waiting and looked < MOST_FOLDERS:
        path, depth = waiting.pop()
        looked += 1
        try:
            started = is_started(path)
        except OSError:  # nobody may look into it
            continue
        if started:
            yield path
        elif depth < DEEPEST:
            try:
                with os.scandir(path) as entries:
                    below = [
                        Path(entry)
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    ]
            except OSError:
                continue
            waiting += [(inner, depth + 1) for inner in below]


def state_of(run: Path) -> RunState:
    """How a run stands, from its files and from whether a process is writing to it."""
    recipe, summary = read_recipe(run)[0], read_summary(run)
    metrics = read_metrics(run)
    step, planned = last_step(run), whole(section(recipe, "train").get("steps"))
    state, reason = standing(run, step, summary)
    evaluated = next(reversed(metrics.evaluations()), None)
    changed = [state[2] / 1e9 for state in file_states(run) if state is not None]
    return RunState(
        path=run,
        state=state,
        reason=reason,
        step=step,
        steps=planned,
        accuracy=_main_row(evaluated.results if evaluated else {}, recipe),
        evaluated=evaluated,
        model=str(section(recipe, "model").get("name") or ""),
        updated=max(changed, default=None),
    )


def standing(run: Path, step: int, summary: Record, *, ended: bool = False) -> tuple[State, str]:
    """Its state and the reason for it, of a run whose last recorded step and summary are known.

    ended: the process that still holds the folder's lock has written all that it will.
    """
    lock = run / WRITER_LOCK
    if not ended and is_locked(lock):
        return "running", ""
    made = whole(summary.get("steps"))
    if is_finished(run) and (made is None or made >= step):
        return "finished", ""
    note = {} if ended else read_json(lock)
    if note.get("interrupted"):
        return "stopped", "interrupted before the step was saved"
    if failed := note.get("failed") or (KILLED if note else ""):
        return "failed", str(failed)
    standstill = section(summary, "standstill").get("text")
    return ("stopped" if has_begun(run) else "not started"), str(standstill or "").partition("\n")[0]


def activity(metrics: Metrics, recipe: Record) -> str:
    """What a running run does before its first step and after its last one, as far as its record tells; else empty."""
    planned = whole(section(recipe, "train").get("steps"))
    evaluated = [evaluation[:2] for evaluation in metrics.evaluations()]
    tested = section(recipe, "eval").get("questions") != 0
    if metrics.steps:
        last = metrics.steps[-1]["step"]
        if planned is None or last < planned:
            return ""
        return "saving" if (last, "") in evaluated or not tested else "evaluating after training"
    warmstart = section(recipe, "warmstart")
    if warm := [step for record in metrics.warmstart if (step := whole(record.get("step")))]:
        most = whole(warmstart.get("steps"))
        return "" if (0, "warmstart") in evaluated else f"warm start, step {warm[-1]}{f' of {most}' if most else ''}"
    if tested and (0, "") not in evaluated:
        return "evaluating before training"
    return "warm start" if warmstart.get("source") else ""


def _main_row(rows: Record, recipe: Record) -> Record:
    """Of an evaluation, the row that the run is about, among those that have an accuracy."""
    usable = {
        name: row for name, row in rows.items() if isinstance(row, dict) and number(row.get("accuracy")) is not None
    }
    branching = section(recipe, "rollout").get("branching")
    name = main_row(list(usable), len(branching) if isinstance(branching, list) else None)
    return usable[name] if name else {}
