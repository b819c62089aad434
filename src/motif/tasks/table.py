"""From rows to questions: which columns are read, and what makes a row unusable."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from motif.config import DataConfig
from motif.errors import RecipeError
from motif.grading import Grader
from motif.method.answers import boxed
from motif.method.tree import Question
from motif.tasks.rows import BadRow, Row, Table, brief, read

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


@dataclass(frozen=True)
class Side:
    """The questions of a train or test set, with their source's name, and the rows that gave none."""

    source: str
    questions: list[Question]
    bad: list[BadRow]


def read_side(task: TableTask, data: DataConfig, split: str) -> Side | None:
    """Read the `train` or `test` set of a task; None if there is no source for it."""
    given, own = (data.train, task.train) if split == "train" else (data.test, task.test)
    if not given and not own:
        return None
    try:
        if given:
            table = read(given, data.subset, data.train_split if split == "train" else data.test_split)
        elif own:
            table = read(own.id, own.subset, own.split)
            if own.rows and len(table.rows) != own.rows:
                raise ValueError(f"{own.id} has {len(table.rows)} rows, not {own.rows}: it has changed at its source")
    except ValueError as error:
        raise RecipeError(f"data.{split}: {error}") from error
    return _side(table, task, data, split)


def _side(table: Table, task: TableTask, data: DataConfig, split: str) -> Side:
    questions: list[Question] = []
    bad = list(table.bad)
    for row in table.rows:
        try:
            questions.append(_question(row, task, data, split))
        except _Unusable as problem:
            bad.append(BadRow(table.source, row.line, str(problem)))
    return Side(table.source, _unique_ids(questions, split), bad)


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
    content = boxed(answer, beside=False)
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


def without_repeats(side: Side) -> Side:
    """Keep the first of questions with the same text."""
    first: dict[str, int | None] = {}
    kept: list[Question] = []
    bad = list(side.bad)
    for question in side.questions:
        text = _same(question.text)
        if text in first:
            bad.append(BadRow(side.source, question.line or 0, f"duplicate of line {first[text]}"))
        else:
            first[text] = question.line
            kept.append(question)
    return Side(side.source, kept, bad)


def without_leaks(train: Side, test: Side) -> Side:
    """Drop train questions that are asked in the test set, too."""
    tested = {_same(question.text): question.line for question in test.questions}
    kept = [question for question in train.questions if _same(question.text) not in tested]
    leaked = [question for question in train.questions if _same(question.text) in tested]
    problem = "also a test question ({} line {})"
    bad = [
        BadRow(train.source, question.line or 0, problem.format(test.source, tested[_same(question.text)]))
        for question in leaked
    ]
    return Side(train.source, kept, train.bad + bad)


def gradable(side: Side, grader: Grader) -> Side:
    """Drop questions whose gold answer the grader does not find right against itself."""
    grades = grader.check([question.gold for question in side.questions])
    kept: list[Question] = []
    bad = list(side.bad)
    for question, grade in zip(side.questions, grades, strict=True):
        if grade.verdict == "right":
            kept.append(question)
        else:
            reason = grade.reason or "its own grader calls it wrong"
            problem = f"gold answer {question.gold[:60]!r} fails the {grader.name} grader: {reason}"
            bad.append(BadRow(side.source, question.line or 0, problem))
    return Side(side.source, kept, bad)


def split_off(side: Side, count: int) -> tuple[Side, Side]:
    """Part into (train, held out) by a hash of the question: whatever the order of the rows, the same are held out.

    Raises:
        RecipeError: nothing would be left to train on.
    """
    if count >= len(side.questions):
        raise RecipeError(f"data.held_out = {count} leaves nothing of the {len(side.questions)} rows of {side.source}")
    held = {id(question) for question in sorted(side.questions, key=lambda q: _rank("held out", q))[:count]}
    train = [question for question in side.questions if id(question) not in held]
    test = [question for question in side.questions if id(question) in held]
    return Side(side.source, train, side.bad), Side(side.source, test, [])


def draw(questions: list[Question], count: int, seed: int) -> list[Question]:
    """Choose `count` questions at random by the seed, in their order; all if `count` is 0."""
    if not 0 < count < len(questions):
        return questions
    chosen = {id(question) for question in sorted(questions, key=lambda q: _rank(f"limit {seed}", q))[:count]}
    return [question for question in questions if id(question) in chosen]


def _same(text: str) -> str:
    return " ".join(text.split())


def _rank(purpose: str, question: Question) -> bytes:
    return hashlib.blake2b(f"{purpose}\n{_same(question.text)}".encode(), digest_size=16).digest()
