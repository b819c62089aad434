"""From rows to questions: which columns are read, and what makes a row unusable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from motif.config import DataConfig
from motif.errors import DataError, RecipeError
from motif.method.answers import boxed
from motif.method.tree import Question
from motif.tasks.rows import BadRow, Row, Table, brief, read
from motif.tasks.sides import Side
from motif.tasks.splits import Split

SEARCHED = 20_000  # characters of an answer column that data.answer_pattern is tried on
ID_COLUMNS = ("id", "unique_id", "ID")


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub."""

    id: str
    subset: str = ""
    split: str = "train"
    rows: int = 0
    """How many it is known to have; another number means another data set."""

    def read(self) -> Table:
        """Its rows.

        Raises:
            DataError: it cannot be read, or its number of rows has changed.
        """
        table = read(self.id, self.subset, self.split)
        if self.rows and len(table.rows) != self.rows:
            raise DataError(f"{self.id} has {len(table.rows)} rows, not {self.rows}: it has changed at its source")
        return table


@dataclass(frozen=True)
class TableTask:
    """A task whose questions are rows of a table. Of several column names the first that a row has is read."""

    grader: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    train: Hub | None = None
    test: Hub | None = None
    pattern: str = ""
    solution: str = ""
    """Column whose last box is the answer, for sources without an answer column."""
    clean: Callable[[str], str] = str.strip
    """Applied to the answer last."""
    gold: Callable[[Mapping[str, Any]], str] | None = None
    """Makes the gold answer of a row's columns, where it is not one column's text; raises ValueError if it cannot."""
    joined: bool = False
    """The question is all of its columns, one after the other, not the first that is there."""

    def sides(self, data: DataConfig) -> tuple[Side, Side]:
        """Read both sides from the recipe's sources or else the task's own; one that has no source is empty.

        Raises:
            RecipeError: no source is given and the task has none, or `data.held_out` has nothing to be split off.
            DataError: a source that cannot be read, or that is not what it was.
        """
        own_test = None if data.held_out else self.test
        if not (data.train or data.test or self.train or own_test):
            raise RecipeError(f"task {data.task!r} needs data.train: a file or a data set id")
        if data.held_out and not (data.train or self.train):
            raise RecipeError(f"data.held_out = {data.held_out} is split off data.train, which is empty")
        return (
            self._side(data, "train", data.train, data.train_split, self.train),
            self._side(data, "test", data.test, data.test_split, own_test),
        )

    def _side(self, data: DataConfig, side: Split, given: str, split: str, own: Hub | None) -> Side:
        if not given and own is None:
            return Side()
        try:
            table = read(given, data.subset, split) if given or own is None else own.read()
        except DataError as error:
            raise DataError(f"data.{side}: {error}") from error
        questions: list[Question] = []
        bad = list(table.bad)
        for row in table.rows:
            try:
                questions.append(_question(row, self, data, side))
            except _Unusable as problem:
                bad.append(BadRow(table.source, row.line, str(problem)))
        return Side(table.source, _unique_ids(questions, side), bad)


class _Unusable(Exception):
    pass


def _question(row: Row, task: TableTask, data: DataConfig, split: str) -> Question:
    names = _wanted(data, "question_column", task.questions)
    if task.joined and names == task.questions:
        text = " ".join(_text(row, _name(row, (name,))) for name in names)
    else:
        text = _text(row, _name(row, names))
    if task.gold is not None:
        try:
            return Question(_id(row) or f"{split}-{row.line}", text, task.gold(row.columns), row.line)
        except ValueError as error:
            raise _Unusable(str(error)) from None
    answers = _wanted(data, "answer_column", task.answers)
    # A source without an answer column is not short of one if it has the worked solutions.
    name = _name(row, (*answers, task.solution) if task.solution in row.columns else answers)
    gold = task.clean(_picked(_text(row, name), data.answer_pattern or task.pattern, boxes=name == task.solution))
    if not gold:
        raise _Unusable("the answer is empty")
    return Question(_id(row) or f"{split}-{row.line}", text, gold, row.line)


def _wanted(data: DataConfig, key: str, own: tuple[str, ...]) -> tuple[str, ...]:
    # A resolved recipe spells out the default, so only another name is the user's choice.
    name = str(getattr(data, key))
    return own if name == DataConfig.model_fields[key].default else (name,)


def _name(row: Row, names: tuple[str, ...]) -> str:
    for name in names:
        if name in row.columns:
            return name
    there = brief(", ".join(map(str, itertools.islice(row.columns, 50))))
    raise _Unusable(f"no column {' or '.join(map(repr, names))} (has: {there})")


def _text(row: Row, name: str) -> str:
    value = row.columns[name]
    if isinstance(value, (bool, list, dict, bytes)):
        raise _Unusable(f"column {name!r} holds a {type(value).__name__}, not text")
    text = "" if value is None else str(value).strip()
    if not text:
        raise _Unusable(f"column {name!r} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Unusable(f"column {name!r} holds half of a surrogate pair, which is no character") from None
    return text


def _picked(answer: str, pattern: str, boxes: bool) -> str:
    if pattern:
        match = re.search(pattern, answer[:SEARCHED])
        if match is None:
            raise _Unusable(f"the answer does not match {pattern!r}: {answer[-60:]!r}")
        return match[1] or ""
    if not boxes:
        return answer
    content = boxed(answer, join=False)
    if content is None:
        raise _Unusable("the solution has no \\boxed{...} answer")
    return content


def _id(row: Row) -> str:
    values: list[Any] = [row.columns.get(name) for name in ID_COLUMNS]
    return next((str(value) for value in values if isinstance(value, (str, int)) and str(value).strip()), "")


def _unique_ids(questions: list[Question], split: str) -> list[Question]:
    seen: set[str] = set()
    unique = []
    for question in questions:
        repeated = question.id in seen
        unique.append(replace(question, id=f"{split}-{question.line}") if repeated else question)
        seen.add(question.id)
    return unique
