"""Standard streams that whoever starts a command has closed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PAIR = json.dumps({"gold": "4", "prediction": "4"})


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("grade - <&-", 2, "standard input is closed"),
        ("solve - <&- >&1", 2, "standard input is closed"),
        ("grade in.jsonl --grader exact >&-", 2, "standard output is closed: give --out"),
        ("grade in.jsonl --grader exact --out out.jsonl <&- >&- 2>&-", 0, ""),
    ],
)
def test_closed_streams(tmp_path, arguments, status, said):
    (tmp_path / "in.jsonl").write_text(PAIR)
    command = f"{sys.executable} -m motif {arguments}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert said in done.stderr
    if not status:  # what is written to a closed stream is in no file
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert [json.loads(line)["verdict"] for line in lines] == ["right"]
