"""Read rows with their line numbers, and describe those that cannot be used.

Files are JSON lines (.jsonl, .ndjson, .json) or one JSON array, CSV and TSV with any separator, and Parquet; texts may
be compressed by gzip (.csv.gz). A JSON object may hold the array (`{"data": [...]}`), or its columns as lists. The
"line" of a row of an array, of Parquet or of a data set is its number.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from motif.errors import DataError
from motif.hosts import without_waiting_for_the_hub
from motif.text import brief, counted, decoded, expanded

SEPARATORS = (",", "\t", ";", "|")
SNIFFED, SNIFFED_ROWS = 1 << 16, 50
"""Characters and rows of a file by which its separator is recognised."""
SEPARATOR_OF = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".jsonl", ".ndjson", ".json", *SEPARATOR_OF, ".parquet")
GZIP = b"\x1f\x8b"
"""How every file begins that gzip has written."""
HOLDERS = ("data", "rows", "records", "examples", "questions", "items", "instances", "train", "test", "validation")
"""Keys below which a JSON object often holds its rows."""
MAX_LISTED = 10
"""Bad rows listed in a message."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where it is (`source` as the user gave it, 1-based `line`) and what is wrong."""

    source: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.problem}"


class BadRows(DataError):
    """Rows that cannot be used, all of them in `rows`; the message lists the first ten."""

    def __init__(self, rows: list[BadRow]) -> None:
        self.rows = rows
        lines = [str(row) for row in rows[:MAX_LISTED]]
        if len(rows) > MAX_LISTED:
            lines.append(f"… and {len(rows) - MAX_LISTED} more")
        lines.append(
            f"{counted(len(rows), 'row')} cannot be used. Correct them, or set data.skip_bad = true to skip them."
        )
        super().__init__("\n".join(lines))


def reject(bad: list[BadRow], skip: bool) -> None:
    """Raise BadRows if there are any, unless they are to be skipped."""
    if bad and not skip:
        raise BadRows(bad)


class Number(str):
    """A number of a JSON file, as it is written there."""

    __slots__ = ()


@dataclass(frozen=True)
class Row:
    """One row: its 1-based line and its columns."""

    line: int
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one source, and what in it is not a row."""

    source: str
    rows: list[Row]
    bad: list[BadRow]


def names_of(columns: Mapping[str, Any], depth: int = 2) -> Iterator[str]:
    """The names of columns, and of what lies in them: `reward_model.ground_truth`."""
    for name, value in columns.items():
        yield str(name)
        if isinstance(value, Mapping) and depth:
            yield from (f"{name}.{below}" for below in names_of(value, depth - 1))


def has_column(columns: Mapping[str, Any], name: str) -> bool:
    """Whether there is a column of this name, or a value below one; of several columns in braces, each of them."""
    try:
        for part in named_in(name) or [name]:
            column(columns, part)
    except KeyError:
        return False
    return True


def named_in(name: str) -> list[str]:
    """The columns that a name joins by braces, as in `{context} {question}`; none if it is the name of one."""
    return re.findall(r"\{([^{}]+)\}", name)


def column(columns: Any, name: str) -> Any:
    """The value of a column, or of what lies in one, by dotted names; of a list by places, the last being -1.

    Raises:
        KeyError: there is none.
    """
    if isinstance(columns, Mapping) and name in columns:
        return columns[name]
    first, dot, rest = name.partition(".")
    if isinstance(columns, list | tuple) and re.fullmatch(r"-?\d+", first):
        place = int(first)
        if not -len(columns) <= place < len(columns):
            raise KeyError(name)
        return column(columns[place], rest) if dot else columns[place]
    if not isinstance(columns, Mapping) or not dot:
        raise KeyError(name)
    return column(columns[first], rest)


def read(source: str, subset: str = "", split: str = "train") -> Table:
    """Read a file, or else a split of a Hugging Face data set (an id or a folder).

    Raises:
        DataError: it cannot be read; the message says why and what to do.
    """
    source = expanded(source)
    path = Path(source)
    if path.is_file():
        return _read_file(path, source)
    if not path.is_dir() and (_suffix(path) in SUFFIXES or source.startswith(("/", ".", "~"))):
        raise DataError(f"{source}: no such file (looked in {Path.cwd()})")
    return _read_dataset(source, subset, split)


def _read_file(path: Path, source: str) -> Table:
    check_name(path, source)
    suffix = _suffix(path)
    if suffix == ".parquet":
        rows: Iterable[Row | BadRow] = _parquet(path, source)
    else:
        text = _text(path, source)
        rows = _csv(text, source, SEPARATOR_OF[suffix]) if suffix in SEPARATOR_OF else _jsonl(text, source)
    return _table(source, rows)


def check_name(path: Path, source: str) -> None:
    """Refuse a file whose name does not say that rows are in it.

    Raises:
        DataError: so it is; the message says which names do.
    """
    if (suffix := _suffix(path)) not in SUFFIXES:
        problem = f"cannot read a {suffix} file" if suffix else "its name does not say what it holds"
        raise DataError(f"{source}: {problem}: known are {', '.join(SUFFIXES)} (texts also with .gz)")


def _suffix(path: Path) -> str:
    """The ending that says what a file holds, whether it is compressed or not."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def _table(source: str, rows: Iterable[Row | BadRow]) -> Table:
    good: list[Row] = []
    bad: list[BadRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            good.append(row)
    if not good and not bad:
        raise DataError(f"{source}: has no rows")
    return Table(source, good, bad)


def _text(path: Path, source: str) -> str:
    try:
        content = path.read_bytes()
        return decoded(gzip.decompress(content) if content.startswith(GZIP) else content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{source}: a damaged gzip file: copy or download it again") from None
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{source}:{error}") from None


def _jsonl(text: str, source: str) -> Iterator[Row | BadRow]:
    if text.lstrip().startswith("["):
        yield from _json_array(text, source)
        return
    document = _parsed(text, 1, source)  # of several rows, only the first is read before it is found not to be alone
    if isinstance(document, dict):
        yield from _json_object(document, source)
        return
    # Not splitlines, which also splits at characters that are allowed in a JSON string (U+2028).
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json_row(line, number, source)


def _json_array(text: str, source: str) -> Iterator[Row | BadRow]:
    """The objects of a file that is one JSON array; the "line" of each is its number."""
    records = _parsed(text, 1, source)
    if isinstance(records, BadRow):
        raise DataError(f"{source}: starts a JSON array, and is {records.problem}: write one JSON object on each line")
    for number, columns in enumerate(records, start=1):
        is_row = isinstance(columns, dict)
        yield Row(number, columns) if is_row else BadRow(source, number, "not a JSON object")


def _json_object(document: dict[str, Any], source: str) -> Iterator[Row | BadRow]:
    """The rows of a file that is one JSON object: those that it holds, or of its columns, or the object itself."""
    holders = [key for key, value in document.items() if key.strip().casefold() in HOLDERS and _are_objects(value)]
    if len(holders) > 1:
        names = ", ".join(map(repr, holders))
        raise DataError(f"{source}: holds several lists of rows ({names}): write each into a file of its own")
    lists = [value for value in document.values() if isinstance(value, list)]
    plain = not any(isinstance(part, list | dict) for value in lists for part in value)
    if holders:
        rows = document[holders[0]]
    elif len(lists) == len(document) > 1 and plain and len({*map(len, lists)}) == 1:
        rows = [dict(zip(document, values, strict=True)) for values in zip(*lists, strict=True)]
    else:
        rows = [document]
    yield from (Row(number, columns) for number, columns in enumerate(rows, start=1))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _json_row(line: str, number: int, source: str) -> Row | BadRow:
    columns = _parsed(line, number, source)
    if isinstance(columns, BadRow):
        return columns
    return Row(number, columns) if isinstance(columns, dict) else BadRow(source, number, "not a JSON object")


def _parsed(text: str, number: int, source: str) -> Any:
    """What a JSON text says, or the bad row that it is."""
    try:
        # Numbers keep their spelling: 0.10 stays 0.10, and a very long one is not an error. NaN, which is not JSON, is
        # how some libraries write a missing value.
        return json.loads(
            text, parse_float=Number, parse_int=Number, parse_constant=lambda name: None, object_pairs_hook=_columns
        )
    except json.JSONDecodeError as error:
        return BadRow(source, number, f"not JSON: {error.msg} at column {error.colno}")
    except _Repeated as error:
        return BadRow(source, number, f"the key {brief(repr(str(error)))} occurs twice")
    except RecursionError:
        return BadRow(source, number, "JSON that is nested too deeply")


class _Repeated(Exception):
    pass


def _columns(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    columns = dict(pairs)
    if len(columns) < len(pairs):
        seen: set[str] = set()
        raise _Repeated(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return columns


def _csv(text: str, source: str, separator: str) -> Iterator[Row | BadRow]:
    csv.field_size_limit(sys.maxsize)  # for the whole process: a cell may be as long as the file
    separator = _separator(text, separator)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # where the next record starts: a quoted field may span lines
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield BadRow(source, line, f"not CSV: {error}")
            continue
        if fields is None:
            return
        if not fields:
            continue
        if not header:
            header = _header(fields, source)
        elif len(fields) != len(header):
            yield BadRow(source, line, f"{len(fields)} fields, but the header has {len(header)}")
        else:
            yield Row(line, dict(zip(header, fields, strict=True)))


def _header(fields: list[str], source: str) -> list[str]:
    names = [name.strip() for name in fields]
    if len(set(names)) < len(names):
        raise DataError(f"{source}:1: a column name occurs twice: {brief(', '.join(names))}")
    return names


def _separator(text: str, usual: str) -> str:
    """What separates the columns: the usual separator, unless another divides the first lines and it does not."""

    def width(separator: str) -> int:
        """Columns of the header, if the first records have as many; else 0."""
        reader = csv.reader(io.StringIO(text[:SNIFFED], newline=""), delimiter=separator)
        try:
            widths = [len(fields) for fields in itertools.islice(reader, SNIFFED_ROWS) if fields]
        except csv.Error:
            return 0
        whole = widths if len(text) <= SNIFFED else widths[:-1]  # the last one may be cut off
        return whole[0] if whole and all(count == whole[0] for count in whole) else 0

    header = text.partition("\n")[0]
    if usual in header and (width(usual) or not any(width(other) > 1 for other in SEPARATORS)):
        return usual
    return max((usual, *SEPARATORS), key=lambda separator: (width(separator) > 1, header.count(separator)))


def _parquet(path: Path, source: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read as Parquet: {brief(str(error))}") from None
    return (Row(number, record) for number, record in enumerate(records, start=1))


def _read_dataset(source: str, subset: str, split: str) -> Table:
    name = ":".join(filter(None, (source, subset, split)))
    try:
        records = _dataset(source, subset, split)
    except Exception as error:  # whatever the hub, the network or a loader raises
        reason = str(error).strip().split("\n")[0][:300]
        raise DataError(
            f"{name}: neither a file nor a data set that can be loaded ({type(error).__name__}: {reason}). "
            f"Give a {', '.join(SUFFIXES)} file or a data set id such as openai/gsm8k; without network, download the "
            "file first"
        ) from error
    return _table(name, (Row(number, record) for number, record in enumerate(records, start=1)))


def splits_of(source: str, subset: str = "") -> list[str]:
    """The names of a data set's splits; none where there is one alone, or where they cannot be told."""
    import datasets

    folder = Path(source)
    if (folder / "state.json").is_file():
        return []
    try:
        if (folder / "dataset_dict.json").is_file():
            return list(datasets.load_from_disk(source))
        with without_waiting_for_the_hub():
            return list(datasets.get_dataset_split_names(source, subset or None))
    except Exception:  # whatever the hub, the network or a loader raises: the rows themselves have been read
        return []


def _dataset(source: str, subset: str, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    folder = Path(source)
    if (folder / "state.json").is_file():  # written by save_to_disk, which load_dataset refuses
        records = datasets.load_from_disk(source)
    elif (folder / "dataset_dict.json").is_file():
        records = datasets.load_from_disk(source)[split]
    else:
        with without_waiting_for_the_hub():
            records = datasets.load_dataset(source, subset or None, split=split)
    return cast("Iterable[Mapping[str, Any]]", records)
