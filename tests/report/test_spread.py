"""Charts of what the trees show together: histograms of rewards and advantages, each question over time, speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motif.report.sections import with_speed
from motif.report.spread import BINS, curriculum, histograms
from motif.report.trees import Forest


def forest(folder: Path, *trees: tuple[int, str, list[float]]) -> Forest:
    """Trees of a step, a question and the rewards of responses, of which those above 1 end right."""
    lines = []
    for step, question, rewards in trees:
        nodes = [
            {"verdict": "right" if reward > 1 else "wrong", "reward": reward, "advantage": reward - 1}
            for reward in rewards
        ]
        lines.append({"step": step, "question": {"id": question, "text": f"about {question}"}, "responses": nodes})
    (folder / "trees.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Forest(folder / "trees.jsonl")
    found.refresh()
    return found


def test_histograms_tell_early_from_late(tmp_path: Path) -> None:
    early = [(1, f"a{at}", [0.0, 0.0, 0.0, 2.0]) for at in range(2)]
    late = [(step, f"b{step}", [2.0, 2.0]) for step in range(2, 11)]
    rewards, advantages = histograms(forest(tmp_path, *early, *late))
    assert [series["name"] for series in rewards["series"]] == ["early (step 1)", "late (step 10)"]
    first, last = (series["raw"] for series in rewards["series"])
    assert len(first) == len(rewards["x"]) == BINS + 2 and rewards["own"] == "reward"
    assert (first[1], first[BINS], first[0], first[-1]) == (0.75, 0.25, 0, 0) and last[BINS] == 1.0
    assert advantages["x"][1] == pytest.approx(-1 + 2 / BINS / 2)


def test_histograms_of_few_steps_and_of_equal_rewards(tmp_path: Path) -> None:
    [rewards, _] = histograms(forest(tmp_path, (1, "a", [0.5, 0.5])))
    assert [series["name"] for series in rewards["series"]] == ["all steps"]
    assert sum(rewards["series"][0]["raw"]) == 1.0
    assert histograms(forest(tmp_path)) == []


def test_questions_that_come_back_have_a_row(tmp_path: Path) -> None:
    trees = [(1, "hard", [0.0, 0.0]), (1, "once", [2.0, 2.0]), (2, "easy", [2.0, 2.0])]
    trees += [(3, "hard", [0.0, 2.0]), (4, "easy", [2.0, 2.0])]
    [chart] = curriculum(forest(tmp_path, *trees))
    assert chart["rows"] == [
        {"name": "about easy", "cells": [(2, 1.0), (4, 1.0)]},
        {"name": "about hard", "cells": [(1, 0.0), (3, 0.5)]},
    ]
    assert curriculum(forest(tmp_path, *trees[:3])) == []


def test_speed_is_that_of_each_step() -> None:
    totals = [{"ledger/generated_tokens": 100.0 * at**2, "ledger/seconds": 10.0 * at} for at in (1, 2, 3)]
    lines: list[dict[str, Any]] = [{"step": at} | total for at, total in enumerate(totals, start=1)]
    assert [record["speed"] for record in with_speed([*lines, {"step": 4}])] == [10, 30, 50, None]
