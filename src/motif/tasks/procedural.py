"""Tasks that make their questions: one function from settings and a side to questions, and the grader's name."""

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
    """A task that makes its questions, or brings them."""

    grader: str
    questions: Callable[[DataConfig, Split], list[Question]]
    """One side, in a fixed random order, so that a prefix is a random sample. The sides share no question."""
    rows: TableTask | None = None
    """How rows of `data.train` and `data.test` are read instead, if they may be."""

    def sides(self, data: DataConfig) -> tuple[Side, Side]:
        """Both sides; the test side is empty where `data.held_out` questions are to be split off the train side.

        Raises:
            RecipeError: settings that leave a side without questions. Of rows: see `TableTask.sides`.
        """
        if self.rows is not None and (data.train or data.test):
            return self.rows.sides(data)
        train, test = (self._side(data, split) for split in SPLITS)
        return train, Side() if data.held_out else test

    def _side(self, data: DataConfig, split: Split) -> Side:
        questions = self.questions(data, split)
        if not questions:
            raise RecipeError(f"data.{data.task} gives no {split} questions: widen its settings")
        return Side(f"{data.task} {split}", questions)
