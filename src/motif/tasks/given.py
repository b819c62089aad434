"""Questions that a caller has in memory, as a file that a recipe can name.

Lists of dicts, data frames, data sets and other iterables of rows are written to a JSONL file whose name holds its
hash. So a run that is resumed, evaluated or read elsewhere finds the same rows, and other rows are another file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from motif.errors import DataError
from motif.tasks.table import LIKELY, is_missing

MOST_ROWS = 5_000_000
"""Rows that are taken from an iterable, which may have no end."""
FIRST = 100
"""Rows that are looked at to find out what a column holds."""
KEYS = ("question_column", "answer_column", "answer_pattern")


@dataclass(frozen=True)
class GivenRows:
    """The file of a caller's rows, how many there are, and the settings of `[data]` with which they are read."""

    path: Path
    count: int
    reading: dict[str, str]


def keep_rows(rows: Any, name: str, folder: Path, known: Mapping[str, Any] | None = None) -> GivenRows:
    """Write a caller's rows to a file in a folder.

    Args:
        rows: a list or another iterable of dicts, a data frame of pandas or polars, a data set of Hugging Face.
        name: what the caller calls them, for errors, and for the file's name.
        known: settings of `[data]` that are given; what is not is found out (see `KEYS`).

    Raises:
        DataError: these are no rows, or a value cannot be kept in a file; says where.
    """
    table = [_row(row, place, name) for place, row in enumerate(_records(rows, name), start=1)]
    if not table:
        raise DataError(f"{name}: has no rows")
    reading = _reading(table, name, dict(known or {}))
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode("utf-8", "surrogatepass")
    path = folder.resolve() / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(content)
        partial.replace(path)
    return GivenRows(path, len(table), reading)


def _records(rows: Any, name: str) -> Iterator[Any]:
    if hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "iterrows") and hasattr(rows, "to_dict"):  # pandas
        rows = rows.to_dict("records")
    elif isinstance(rows, Mapping):
        splits = ", ".join(map(repr, itertools.islice(rows, 5)))
        if all(hasattr(part, "column_names") for part in rows.values()):
            raise DataError(f"{name}: these are several data sets ({splits}): choose one, as in data[{splits[:20]}]")
        rows = _of_columns(rows, name)
    elif isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise DataError(f"{name}: give a list of dicts, a data frame or a data set, not {type(rows).__name__}")
    for place, row in enumerate(rows):
        if place == MOST_ROWS:
            raise DataError(f"{name}: more than {MOST_ROWS:,} rows: give a part of them")
        yield row


def _of_columns(columns: Mapping[Any, Any], name: str) -> list[dict[str, Any]]:
    lists = [value for value in columns.values() if isinstance(value, Sequence) and not isinstance(value, str)]
    if not lists or len(lists) < len(columns) or len(set(map(len, lists))) > 1:
        raise DataError(f"{name}: one dict is one row: give a list of dicts, or a dict of columns of the same length")
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _row(row: Any, place: int, name: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise DataError(f"{name}: row {place} is a {type(row).__name__}, not a dict with a question and an answer")
    where = f"{name}: row {place}: column"
    return {str(column): _kept(value, f"{where} {column!r}") for column, value in row.items()}


def _kept(value: Any, where: str) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _kept(part, where) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_kept(part, where) for part in (value if isinstance(value, (list, tuple)) else sorted(value, key=repr))]
    if hasattr(value, "tolist"):  # of numpy, and of torch
        return _kept(value.tolist(), where)
    if is_missing(value):
        return None
    if hasattr(value, "isoformat"):  # a date or a time
        return value.isoformat()
    if isinstance(value, (Decimal, Fraction, UUID, PurePath)):
        return str(value)
    raise DataError(f"{where} holds a {type(value).__name__}, which cannot be kept in a file: leave the column out")


def _reading(table: list[dict[str, Any]], name: str, known: dict[str, Any]) -> dict[str, str]:
    """The columns of questions and answers, where nobody says which; a question in chat form becomes a text."""
    columns = list(dict.fromkeys(column for row in table[:FIRST] for column in row))
    plain = {column.strip().casefold(): column for column in reversed(columns)}

    def likely(key: str) -> str:
        found = next((plain[word] for word in LIKELY[key] if word in plain), "")
        return known[key] if known.get(key) in columns else found

    question, answer = likely("question_column"), likely("answer_column")
    for key, column in (("question_column", question), ("answer_column", answer)):
        wanted = known.get(key)
        if column and wanted and wanted not in (column, "set"):  # the other side has it under another name
            for row in table:
                row[wanted] = row.get(column)
    if question and any(isinstance(row.get(question), list) for row in table):
        for place, row in enumerate(table, start=1):
            row["question"] = _text_of_chat(row.get(question), f"{name}: row {place}: column {question!r}")
        question = "question"
    found = {"question_column": question, "answer_column": answer if answer != question else ""}
    if not known.get("answer_pattern") and answer and _all_marked(table, answer):
        found["answer_pattern"] = "#### (.+)"
    return {key: value for key, value in found.items() if value and not known.get(key)} | (
        {"question_column": question} if question == "question" else {}
    )


def _all_marked(table: list[dict[str, Any]], answer: str) -> bool:
    """Whether all answers are worked solutions that end in `#### answer`, as those of GSM8K do."""
    return all("#### " in str(row.get(answer) or "") for row in table[:FIRST])


def _text_of_chat(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(turn, dict) and "content" in turn for turn in value):
        raise DataError(f"{where} is neither a text nor a list of messages")
    if any(turn.get("role") not in ("user", "system") for turn in value):
        raise DataError(f"{where} has turns beside those of system and user: a question is asked in one turn")
    texts = [turn["content"] for turn in value]
    parts = [[part.get("text", "") for part in text] if isinstance(text, list) else [text] for text in texts]
    return "\n\n".join(str(part) for part in itertools.chain.from_iterable(parts) if part)
