"""Procedural tasks: a function that makes the questions of a side, and the grader's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from motif.config import DataConfig
from motif.errors import RecipeError
from motif.method.tree import Question
from motif.tasks.sides import Side
from motif.tasks.splits import SPLITS, Split
from motif.tasks.table import TableTask


@dataclass(frozen=True)
class ProceduralTask:
    """A task that makes its own questions, or ships them."""

    grader: str
    questions: Callable[[DataConfig, Split], list[Question]]
    """The questions of a side in a fixed random order, so that a prefix is a random sample. Sides must not overlap."""
    rows: TableTask | None = None
    """How rows of `data.train` and `data.test` are read instead; None if the task does not take any."""

    def sides(self, data: DataConfig) -> tuple[Side, Side]:
        """Make both sides; the test side is empty if `data.held_out` questions are to be split off the train side.

        Raises:
            RecipeError: the settings leave a side without questions. For rows see `TableTask.sides`.
        """
        if self.rows is not None and (data.train or data.test):
            return self.rows.sides(data)
        train, test = (self._side(data, split) for split in SPLITS)
        return train, Side() if data.held_out else test

    def _side(self, data: DataConfig, split: Split) -> Side:
        questions = self.questions(data, split)
        if not questions:
            raise RecipeError(f"data.{data.task} leaves no {split} questions: allow more of them")
        return Side(f"{data.task} {split}", questions)
