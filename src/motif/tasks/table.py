"""Tasks whose questions are rows of a table: which columns are read, and which rows cannot be used."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motif.config import DataConfig
from motif.config.data import BOXED, PLACES
from motif.errors import DataError, RecipeError
from motif.method.answers import boxed
from motif.method.tree import Question
from motif.tasks.rows import BadRow, Number, Row, Table, column, has_column, named_in, names_of, read
from motif.tasks.sides import Side
from motif.tasks.splits import Split
from motif.text import brief, counted

ID_COLUMNS = ("id", "unique_id", "ID")
SEEN = 1000  # rows whose columns are looked at before any row is read
LIKELY = {
    "question_column": ("question", "problem", "prompt", "query", "instruction", "input", "text", "q"),
    "answer_column": ("answer", "gold", "target", "solution", "label", "output", "response", "expected", "result", "a"),
}
"""Names that columns of others often have, the most likely first."""
ROLES = {"human": "user", "gpt": "assistant"}
"""Roles of messages that have other names in some data."""


@dataclass(frozen=True)
class Source:
    """A file, or a split of a Hugging Face data set."""

    name: str
    subset: str = ""
    split: str = "train"
    rows: int = 0
    """The known number of rows; a data set with another number is another data set. 0: unknown."""

    def read(self) -> Table:
        """Read the rows.

        Raises:
            DataError: the source cannot be read, or its number of rows has changed.
        """
        table = read(self.name, self.subset, self.split)
        if self.rows and len(table.rows) != self.rows:
            raise DataError(
                f"{self.name} has {counted(len(table.rows), 'row')}, not {self.rows}: it has changed at its source"
            )
        return table


@dataclass(frozen=True)
class TableTask:
    """A task whose questions are rows of a table. Of several column names, the first that a row has is read."""

    grader: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    train: Source | None = None
    test: Source | None = None
    pattern: str = ""
    solution: str = ""
    """Column whose last box is the answer, for sources without an answer column."""
    worked: str = "solution"
    """Column of worked solutions, for `warmstart`."""
    clean: Callable[[str], str] = str.strip
    """Applied to the answer last."""
    gold: Callable[[Mapping[str, Any]], str] | None = None
    """Makes the gold answer from a row's columns, if it is not the text of one column; raises ValueError."""
    joined: bool = False
    """Join all question columns, instead of reading the first that a row has."""

    def sides(self, data: DataConfig) -> tuple[Side, Side]:
        """Read both sides from the recipe's sources, or else the task's own. A side without a source is empty.

        Raises:
            RecipeError: there is no source at all, or none that `data.held_out` can be split off.
            DataError: a source cannot be read, or has changed.
        """
        own_test = None if data.held_out else self.test
        if not (data.train or data.test or self.train or own_test):
            raise RecipeError(f"task {data.task!r} needs data.train: a file or a data set id")
        if data.held_out and not (data.train or self.train):
            raise RecipeError(f"data.held_out = {data.held_out} is split off data.train, which is empty")
        train = Source(data.train, data.subset, data.train_split) if data.train else self.train
        test = Source(data.test, data.subset, data.test_split) if data.test else own_test
        return self._side(data, "train", train), self._side(data, "test", test)

    def _side(self, data: DataConfig, split: Split, source: Source | None) -> Side:
        if source is None:
            return Side()
        try:
            table = source.read()
            if not data.skip_bad:
                self._check_columns(table, data)
        except DataError as error:
            raise DataError(f"data.{split}: {error}") from error
        questions: list[Question] = []
        bad = list(table.bad)
        for row in table.rows:
            try:
                questions.append(_question(row, self, data, split))
            except _Unusable as problem:
                bad.append(BadRow(table.source, row.line, str(problem)))
        return Side(table.source, _unique_ids(questions, split), bad)

    def solutions(self, data: DataConfig, name: str = "") -> tuple[str, dict[int, str]]:
        """The name of the source to train on, and the worked solution in each row that has one, by its line.

        Where the answer is taken out of the same column, the solution ends before it.

        Raises:
            DataError: the source cannot be read, or has no such column.
        """
        source = Source(data.train, data.subset, data.train_split) if data.train else self.train
        name = name or self.worked
        table = source.read() if source else Table(f"task {data.task!r}", [], [])
        if not any(has_column(row.columns, name) for row in table.rows):
            has = brief(", ".join(dict.fromkeys(str(name) for row in table.rows[:SEEN] for name in row.columns)))
            raise DataError(
                f"{table.source}: no column {name!r} of worked solutions (has: {has}): set "
                "warmstart.solution_column, or warmstart.source = 'self'"
            )
        pattern = data.answer_pattern or self.pattern
        shared = name in _columns(data, "answer_column", self.answers)
        texts: dict[int, str] = {}
        for row in table.rows:
            with contextlib.suppress(_Unusable, KeyError):
                text = _text(row, name)
                texts[row.line] = _before_answer(text, pattern) if pattern and shared else text
        return table.source, texts

    def _check_columns(self, table: Table, data: DataConfig) -> None:
        """Refuse a table none of whose rows has a column of questions, or of answers.

        Raises:
            DataError: names the columns that there are, and the setting.
        """
        has = list(dict.fromkeys(name for row in table.rows[:SEEN] for name in names_of(row.columns)))
        needed = {"question_column": _columns(data, "question_column", self.questions)}
        if self.gold is None and not data.own_grader:
            solution = (self.solution,) if self.solution else ()
            needed["answer_column"] = (*_columns(data, "answer_column", self.answers), *solution)
        rows = table.rows[:SEEN]
        missing = {
            key: names
            for key, names in needed.items()
            if not any(has_column(row.columns, name) for name in names for row in rows)
        }
        if not has or not missing:
            return
        wanted = " and ".join(f"no column {' or '.join(map(repr, names))}" for names in missing.values())
        settings = " and ".join(f'data.{key} = "{_nearest(key, names, has)}"' for key, names in missing.items())
        raise DataError(f"{table.source}: {wanted} (has: {brief(', '.join(has[:50]))}): set {settings}")


def _nearest(key: str, names: tuple[str, ...], columns: list[str]) -> str:
    """The column that is most likely meant; dots if none is like what is wanted."""
    plain = {name.strip().casefold(): name for name in reversed(columns)}
    wanted = [*(name.casefold() for name in names), *LIKELY[key]]
    found = next((plain[name] for name in wanted if name in plain), None)
    close = difflib.get_close_matches(names[0].casefold(), plain, n=1)
    return found or (plain[close[0]] if close else "…")


class _Unusable(Exception):
    pass


def _question(row: Row, task: TableTask, data: DataConfig, split: str) -> Question:
    names = _columns(data, "question_column", task.questions)
    if task.joined and names == task.questions:
        text = " ".join(_text(row, _name(row, (name,))) for name in names)
    else:
        text = _text(row, _name(row, names), chat=True)
    if task.gold is not None:
        try:
            gold = task.gold(row.columns)
        except ValueError as error:
            raise _Unusable(str(error)) from None
    else:
        gold = _gold(row, task, data)
    columns = {str(name): _plain(value) for name, value in row.columns.items()} if data.own_grader else {}
    pieces = _pieces(row, data)
    return Question(_id(row) or f"{split}-{row.line}", text, gold, row.line, pieces=pieces, columns=columns)


def _plain(value: Any) -> Any:
    """A value of a column as Python has it: numbers are numbers, and a missing value is None."""
    if isinstance(value, Number):
        return json.loads(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return None if is_missing(value) else value


def _pieces(row: Row, data: DataConfig) -> tuple[str, ...]:
    """What a question is about: texts, one a round, or one that is still to be cut (`data.piece_tokens`)."""
    if not data.pieces_column:
        return ()
    value = column(row.columns, _name(row, (data.pieces_column,)))
    if data.piece_tokens and isinstance(value, str):
        return (_text(row, data.pieces_column),)
    if not isinstance(value, (list, tuple)):
        hint = "a list of texts" if data.piece_tokens else "a list of texts: to cut one text, set data.piece_tokens"
        raise _Unusable(f"column {data.pieces_column!r} must hold {hint}")
    if not value:
        raise _Unusable(f"column {data.pieces_column!r} has no pieces")
    for number, piece in enumerate(value, start=1):
        if not isinstance(piece, str) or isinstance(piece, Number):
            raise _Unusable(f"piece {number} is a {type(piece).__name__.lower()}, not text")
        if not piece.strip():
            raise _Unusable(f"piece {number} is empty")
    return tuple(piece.strip() for piece in value)


def _gold(row: Row, task: TableTask, data: DataConfig) -> str:
    answers = _columns(data, "answer_column", task.answers)
    if data.own_grader and not {*answers, task.solution} & {*row.columns}:
        return ""  # it may judge by other columns, or by the response alone
    # A source without an answer column is complete if it has worked solutions.
    name = _name(row, (*answers, task.solution) if task.solution in row.columns else answers)
    value = column(row.columns, name)
    text = as_word(value) if isinstance(value, bool) else _text(row, name)
    gold = task.clean(_extracted(text, data.answer_pattern or task.pattern, boxes=name == task.solution))
    if not gold:
        raise _Unusable("the answer is empty")
    return gold


def _columns(data: DataConfig, key: str, of_task: tuple[str, ...]) -> tuple[str, ...]:
    # A resolved recipe spells out every default, so only another name is a choice of the user.
    name = str(getattr(data, key))
    return of_task if name == DataConfig.model_fields[key].default else (name,)


def _name(row: Row, names: tuple[str, ...]) -> str:
    for name in names:
        if has_column(row.columns, name):
            return name
    columns = brief(", ".join(map(str, itertools.islice(row.columns, 50))))
    raise _Unusable(f"no column {' or '.join(map(repr, names))} (has: {columns})")


def _text(row: Row, name: str, chat: bool = False) -> str:
    """The text of a column. chat: it may also be a list of messages, of which the user's is read."""
    if chat and name not in row.columns and (parts := named_in(name)):
        texts = {part: _shown(row, part) for part in parts}
        return re.sub(r"\{([^{}]+)\}", lambda match: texts[match[1]], name).strip()
    value = column(row.columns, name)
    if chat and isinstance(value, (list, tuple)):
        value = user_message(value)
        if value is None:
            raise _Unusable(f"column {name!r} holds a list that is not one user's message")
    if isinstance(value, (bool, list, dict, bytes)):
        raise _Unusable(f"column {name!r} holds a {type(value).__name__}, not text")
    text = "" if is_missing(value) else str(value).strip()
    if not text:
        raise _Unusable(f"column {name!r} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Unusable(f"column {name!r} holds half of a surrogate pair, which is not a character") from None
    return text


def as_word(value: bool) -> str:
    """An answer that is true or false, as a model writes it."""
    return "true" if value else "false"


def _shown(row: Row, name: str) -> str:
    """A column as a part of a question: its text, or a list as choices A, B, C, …"""
    value = column(row.columns, name)
    if not isinstance(value, list | tuple):
        return _text(row, name)
    if not value or not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in value):
        raise _Unusable(f"column {name!r} holds a list that is not one of choices")
    return "\n".join(f"{chr(65 + place)}. {str(choice).strip()}" for place, choice in enumerate(value))


def user_message(messages: Sequence[Any]) -> str | None:
    """The text of a chat of one turn: of the user's message, without those of the system and an answer at its end; None
    if it is something else.

    Instructions of the system are left out because the recipe has its own (`rounds.system_prompt`).
    """
    if not messages or not all(isinstance(message, Mapping) for message in messages):
        return None
    roles = [ROLES.get(role := message.get("role", message.get("from")), role) for message in messages]
    asked = [role for role in roles if role != "system"]
    if asked not in (["user"], ["user", "assistant"]):
        return None
    message = messages[roles.index("user")]
    content = message.get("content", message.get("value"))
    if isinstance(content, (list, tuple)):  # parts, as in OpenAI's API
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "\n".join(part for part in parts if part) if all(isinstance(part, str) for part in parts) else None
    return content if isinstance(content, str) else None


def _before_answer(solution: str, pattern: str) -> str:
    """A worked solution as far as the answer that is taken out of it."""
    if pattern != BOXED and pattern not in PLACES:
        matches = list(re.finditer(pattern, solution))
        return solution[: matches[-1].start()].strip() if matches else solution
    return solution  # its box stands in a sentence or a formula, which demonstrations write without the marks


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: None, a float or decimal NaN, or pandas' NaT and NA."""
    try:
        return value is None or bool(value != value)  # noqa: PLR0124
    except TypeError:  # NA is neither equal to itself nor not
        return True


def _extracted(answer: str, pattern: str, boxes: bool) -> str:
    if pattern in PLACES:
        return _letter(answer.strip(), PLACES[pattern])
    if pattern and pattern != BOXED:
        # The last match counts: steps and headings bear the same marks as the answer, and come before it.
        matches = [match[1] or "" for match in re.finditer(pattern, answer)]
        if not matches:
            raise _Unusable(f"the answer does not match {pattern!r}: {answer[-60:]!r}")
        return next((match for match in reversed(matches) if match.strip()), "")
    if not boxes and pattern != BOXED:
        return answer
    content = boxed(answer, join=False)
    if content is None:
        raise _Unusable("the solution has no \\boxed{...} answer")
    return content


def _letter(place: str, first: int) -> str:
    """The letter of the choice at a place; some data has letters in some of its rows."""
    if re.fullmatch("[A-Z]", place):
        return place
    if not re.fullmatch(r"\d{1,2}", place, re.ASCII) or not first <= int(place) < first + 26:
        raise _Unusable(f"the answer {place[:60]!r} is not the place of a choice, counted from {first}")
    return chr(65 + int(place) - first)


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
