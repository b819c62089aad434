"""Procedural tasks: a function that makes the questions of a side, and the grader's name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from motif.config import DataConfig
from motif.errors import RecipeError
from motif.method.tree import Question
from motif.tasks.sides import Side
from motif.tasks.splits import SPLITS, Split
from motif.tasks.table import TableTask

Item = TypeVar("Item")
MOST_AT_ONCE = 9
"""The largest number that one event adds or takes."""


@dataclass(frozen=True)
class ProceduralTask:
    """A task that makes its own questions, or ships them."""

    grader: str
    questions: Callable[[DataConfig, Split], list[Question]]
    """The questions of a side in a fixed random order, so that a prefix is a random sample. Sides must not overlap."""
    rows: TableTask | None = None
    """How rows of `data.train` and `data.test` are read instead; None if the task does not take any."""
    worked: Callable[[DataConfig], dict[int, str]] | None = None
    """The worked solutions of training questions, by their lines; None: it has none."""

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


def parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, so many at a time; the last part may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def running_counts(signs: Sequence[int], largest: int, rng: random.Random, start: int | None = None) -> list[int]:
    """A count before and after events that add (1) or take (-1): from 0 to `largest`, and changed by 1 to 9 by each.

    Adding and taking 1 from `start` (None: drawn, above 0) must stay within the bounds.
    """
    bounds = [(0, largest)]  # after the last event; then what each event leaves room for, backwards
    for sign in reversed(signs):
        low, high = bounds[-1]
        bounds.append((max(0, low - sign), min(largest, high - sign)))
    (low, high), *after = reversed(bounds)
    counts = [rng.randint(max(1, low), high) if start is None else start]
    for sign, (low, high) in zip(signs, after, strict=True):
        room = high - counts[-1] if sign > 0 else counts[-1] - low
        counts.append(counts[-1] + sign * rng.randint(1, min(MOST_AT_ONCE, room)))
    return counts
