"""What the terminal shows of a run: rows that fit, trends that are true, commands that can be pasted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from motif.display import NARROW, Display, PlainConsole, StepTable, seconds_briefly, sparkline
from motif.runs.ledger import Ledger
from motif.runs.result import Result

STEP: dict[str, Any] = {
    "reward": 0.5,
    "outcome/mean": 0.36,
    "format/rate_1": 1.0,
    "dead_groups": 0,
    "groups": 8,
    "completions/clipped_ratio": 0.0,
    "outcome/ungraded": 0,
    "time/total": 8.1,
}


def rows(steps: int, count: int, **metrics: Any) -> list[str]:
    table = StepTable()
    lines = [table.lines(STEP | metrics | {"step": step}, steps, "2 h 09 min") for step in range(1, count + 1)]
    return [line for part in lines for line in part]


@pytest.mark.parametrize(
    ("steps", "metrics"),
    [
        (8, {}),
        (1000, {"dead_groups": 104, "groups": 104, "completions/clipped_ratio": 1.0, "time/total": 5000.0}),
        (40, {"reward": None, "outcome/mean": None}),
    ],
)
def test_rows_fit_a_narrow_terminal_and_stand_below_their_headings(steps: int, metrics: dict[str, Any]) -> None:
    heading, *others = rows(steps, 8, **metrics)
    assert heading.split()[:2] == ["step", "reward"]
    assert all(len(line) <= NARROW for line in (heading, *others))
    assert {line.find("h 09 min") for line in others} == {others[0].find("h 09 min")}
    assert sum(line.split()[1] == "reward" for line in rows(60, 51)) == 3


def test_change_and_trend_are_those_of_the_reward() -> None:
    table = StepTable()
    shown = [
        table.lines(STEP | {"step": at, "reward": reward}, 9, "")[-1].split()
        for at, reward in enumerate((0.5, 0.75, 0.25), start=1)
    ]
    assert [row[3:5] for row in shown] == [["▅", "36"], ["+0.25", "▁█"], ["−0.25", "▅█▁"]]
    assert sparkline([]) == "" and sparkline([1.0, None, 2.0]) == "▁ █"
    assert [seconds_briefly(value) for value in (0.04, 65, 7500)] == ["0.0 s", "65.0 s", "2:05 h"]


def test_words_are_not_broken_and_commands_not_wrapped(tmp_path: Path) -> None:
    file = io.StringIO()
    display = Display(PlainConsole(file=file, width=NARROW, force_terminal=True, color_system=None))
    run = tmp_path / ("a long name " * 6).strip()
    before, after = ({"accuracy": value, "low": value - 0.1, "high": value + 0.1, "n": 500} for value in (0.4, 0.7))
    ledger = Ledger(questions=320, distinct_questions=317, updates=40, generated_tokens=421985, prefill_tokens=53910)
    result = Result(run, 8, True, {"rounds_3": before}, {"rounds_3": after}, ledger, paths="word " * 40)
    display.finished(result, run / "report.html")
    display.message("Try:\n    [warmstart]\nor, added to the command: " + "--set rollout.refill=4 " * 6)
    lines = file.getvalue().splitlines()
    assert any(f"motif view '{run}'" in line for line in lines)
    assert any(line.split()[:1] == ["3"] and line.split()[-1] == "+30.0" for line in lines)
    assert any(line.count("--set") == 6 for line in lines)
    prose = [line for line in lines if "motif " not in line and "--set" not in line and str(tmp_path) not in line]
    assert all(len(line.rstrip()) <= NARROW for line in prose)
    assert {"word", "updates,", "generated,"} <= set(" ".join(prose).split())
