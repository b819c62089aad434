"""What a training tells those who watch it from Python: events, one class each, and how they stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motif.evaluation.accuracy import Accuracy
from motif.method.tree import Tree
from motif.runs.result import Result


class StopTraining(Exception):
    """Raised by a callback: the run ends after the step that it is in, saved as after Ctrl-C, and can be resumed."""


@dataclass(frozen=True)
class TrainingStarted:
    """Everything is loaded and checked. step: steps that a resumed run has made; steps: all of them."""

    run: Path
    step: int
    steps: int


@dataclass(frozen=True)
class Evaluated:
    """An evaluation has ended: the accuracy of each row (`rounds_1`, `rounds_3`, …).

    stage: `warmstart` after a warm start, else empty.
    """

    step: int
    accuracies: Mapping[str, Accuracy]
    stage: str = ""


@dataclass(frozen=True)
class StepEnded:
    """A step has been made and recorded. metrics: its line in metrics.jsonl. trees: all its graded trees."""

    step: int
    steps: int
    metrics: Mapping[str, Any] = field(repr=False)
    trees: Sequence[Tree] = field(repr=False)


@dataclass(frozen=True)
class Saved:
    """A checkpoint has been written, from which the run can be resumed."""

    step: int
    folder: Path


@dataclass(frozen=True)
class TrainingEnded:
    """The run has ended or stopped, and its folder is complete."""

    result: Result


Event = TrainingStarted | Evaluated | StepEnded | Saved | TrainingEnded
Callback = Callable[[Event], object]


class Callbacks:
    """Calls a caller's functions with every event, in their order.

    An error in one of them ends the run as `StopTraining` does; it is raised once the run has been saved.
    """

    def __init__(self, functions: Sequence[Callback] = ()):
        self.functions = list(functions)
        self.stopped = False
        self._error: BaseException | None = None

    def __call__(self, event: Event) -> None:
        """Tell all of them of an event."""
        for function in self.functions:
            if self._error is not None:
                return
            try:
                function(event)
            except StopTraining:
                self.stopped = True
            except Exception as error:
                self.stopped, self._error = True, error

    def raise_error(self, run: Path, step: int) -> None:
        """Raise what a callback has raised, if one has."""
        if self._error is not None:
            self._error.add_note(f"A callback raised this. {run} is saved after step {step}: resume it.")
            raise self._error
