"""A file of answers, graded: each line is a JSON object with `gold` and `prediction`, and gets its verdict."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from motif.errors import DataError, UsageError
from motif.grading.grader import Grader
from motif.grading.verdict import Grade
from motif.method.answers import final
from motif.text import is_utf16

BLOCK = 64  # lines that are judged together; all blocks before are written when the user stops


@dataclass(frozen=True)
class Graded:
    """How many lines of a file got each verdict. reason: the first that was given for one."""

    counts: dict[str, int]
    reason: str

    @property
    def any(self) -> bool:
        """Whether any line has been graded."""
        return any(count for verdict, count in self.counts.items() if verdict != "ungraded")


def grade_file(
    source: Path | None,
    target: Path | None,
    rule: str,
    fallback: str = "text",
    seconds: float = 5.0,
    workers: int = 1,
    on_line: Callable[[], object] = lambda: None,
) -> Graded:
    """Grade a file by a rule, line by line, and return how many lines got each verdict.

    Args:
        source: the file to read; None: standard input.
        target: the file to write; None: standard output.
        rule, seconds, workers: see `Grader`.
        fallback: see `motif.method.answers.final`.
        on_line: called after each line.

    Raises:
        UsageError: there is no such file, or standard input is closed.
        DataError: there is no such rule, it cannot be loaded, or the file is UTF-16.
    """
    if source is not None and not source.is_file():
        raise UsageError(f"{source}: {'is a folder' if source.is_dir() else 'no such file'}")
    grader = Grader(rule, seconds, workers)
    counts = dict.fromkeys(("right", "wrong", *(["partial"] if grader.rule.own else []), "ungraded"), 0)
    reason = ""
    with contextlib.ExitStack() as stack:
        stack.callback(grader.close)
        lines = _lines(stack.enter_context(source.open("rb")) if source else _standard_input(), source)
        output = stack.enter_context(target.open("w", encoding="utf-8")) if target else sys.stdout
        for record in grade_lines(lines, grader, fallback):
            counts[record["verdict"]] += 1
            reason = reason or record["reason"] or "ungraded"
            # ASCII only: a prediction may hold half a surrogate pair, which cannot be written to a file.
            print(json.dumps(record), file=output, flush=True)
            on_line()
    return Graded(counts, reason)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("standard input is closed: name a file, or give it something to read")
    return sys.stdin.buffer


def _lines(binary: BinaryIO, source: Path | None) -> Iterator[str]:
    try:
        for number, line in enumerate(binary):
            if number == 0 and is_utf16(line):
                raise DataError(f"{source or 'standard input'}: UTF-16 or UTF-32 text: save the file as UTF-8")
            yield line.decode("utf-8", "replace").lstrip("\ufeff")
    except OSError as error:
        raise UsageError(f"{source or 'standard input'}: {error.strerror or error}") from None


def grade_lines(lines: Iterable[str], grader: Grader, fallback: str = "text") -> Iterator[dict[str, Any]]:
    """Each object with `verdict`, `reason` and `seconds` added, in order. A line without an object gives an `error`.

    `motif.method.answers.final` finds the answer in the prediction, except for rules that read whole responses. Empty
    lines are skipped.

    Raises:
        DataError: the rule cannot be loaded.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while block := list(itertools.islice(numbered, BLOCK)):
        records = [_record(number, line) for number, line in block]
        pairs = [_pair(record, grader.rule.reads_responses, fallback) for record in records]
        grades = iter(grader.grade_many([pair for pair in pairs if not isinstance(pair, Grade)]))
        for record, pair in zip(records, pairs, strict=True):
            grade = pair if isinstance(pair, Grade) else next(grades)
            yield record | grade.to_dict() | {"seconds": round(grade.seconds, 6)}


def _record(number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"line": number, "error": f"not JSON: {error}"[:200]}
    return record if isinstance(record, dict) else {"line": number, "error": "not a JSON object"}


def _pair(record: dict[str, Any], whole: bool, fallback: str) -> tuple[str, str | None] | Grade:
    if "error" in record and "gold" not in record:
        return Grade("ungraded", str(record["error"]))
    if record.get("gold") is None:
        return Grade("ungraded", "no gold answer")
    gold, prediction = _text(record["gold"]), record.get("prediction")
    if prediction is None:
        return gold, None
    text = _text(prediction)
    return gold, text if whole else final(text, fallback)


def _text(value: Any) -> str:
    # A number or an object, such as the truth table of a circuit, stands for its text.
    return value if isinstance(value, str) else json.dumps(value)
