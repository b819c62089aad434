"""The records of the campaigns: an interrupted one resumes where it stood."""

from __future__ import annotations

import json
from pathlib import Path

from records import Records


def test_records_go_on_after_the_last_whole_line(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "crash.jsonl"
    first = Records(out)
    first.add([{"try": 0, "differences": []}, {"try": 1, "differences": ["trees.jsonl"]}])
    with out.open("a") as file:
        file.write('{"try": 2, "differ')  # killed in mid-line
    second = Records(out)
    assert [record["try"] for record in second.all] == [0, 1] and second.failures() == 1
    second.add([{"try": 2, "differences": []}])
    assert [json.loads(line)["try"] for line in out.read_text().splitlines()] == [0, 1, 2]
    assert len(Records(out)) == len(second) == 3
