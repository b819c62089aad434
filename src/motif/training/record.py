"""Answers for a warm start, kept on the disk as they come, so that an interrupted run asks for nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from motif.errors import RunFolderError
from motif.runs.read import Record, parse


class AnswerLog:
    """A file of JSON lines, each of which bears a key of all that its answer depends on.

    Lines with another key are left alone. What a kill has left of a last line is dropped.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key

    def restore(self, take: Callable[[Record], None]) -> None:
        """Call `take` with each line that bears the key, in order.

        Raises:
            RunFolderError: a line cannot be read, or `take` cannot make anything of it.
        """
        content = self.path.read_bytes() if self.path.is_file() else b""
        *lines, last = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._take(parse(line), number, take)
        if not last:
            return
        if record := parse(last):  # whole, in a file that was edited
            self._take(record, len(lines) + 1, take)
            with self.path.open("ab") as file:
                file.write(b"\n")
        else:
            with self.path.open("r+b") as file:
                file.truncate(len(content) - len(last))

    def _take(self, record: Record | None, number: int, take: Callable[[Record], None]) -> None:
        try:
            if record is None:
                raise ValueError("it is not a JSON object")
            if record["key"] == self.key:
                take(record)
        except (ValueError, KeyError, TypeError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise RunFolderError(
                f"{self.path}, line {number} cannot be used ({why}): delete the line, and its question is asked again"
            ) from None

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Append lines, all at once."""
        text = "".join(_line({"key": self.key} | record) for record in records)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def _line(record: dict[str, Any]) -> str:
    line = json.dumps(record, ensure_ascii=False)
    plain = line if line.isascii() or line == line.encode(errors="replace").decode() else json.dumps(record)
    return f"{plain}\n"  # half a surrogate pair, which a server may send, cannot be written as it is
