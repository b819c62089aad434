"""The records of a campaign: a line for each try. An interrupted campaign resumes after the last of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Records:
    """The records in a file, one JSON object a line; a line that an interruption cut off is dropped."""

    def __init__(self, out: Path):
        self.out = out
        text = out.read_text() if out.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        self.all: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(whole)

    def __len__(self) -> int:
        return len(self.all)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Write the records of a try, all of them or none."""
        with self.out.open("a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
        self.all += records

    def failures(self) -> int:
        """The number of records with differences."""
        return sum(bool(record["differences"]) for record in self.all)
