"""A run that learns nothing says why, and stops where it can be resumed."""

import json
from dataclasses import replace

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.evaluation.accuracy import Accuracy
from motif.method.tree import Node, Question, Tree
from motif.training.loop import train
from motif.training.progress import Progress
from motif.training.standstill import Standstill, without_form


def tree(**leaf):
    node = Node((0,), [], [1], [0.0], "", **({"truncated": False, "well_formed": True, "answer": "1"} | leaf))
    return Tree(Question("q", "", ""), 1, [node])


@pytest.mark.parametrize(
    ("leaf", "cause", "line"),
    [
        ({"well_formed": False, "verdict": "wrong"}, "only 0 % of responses keep to the form", "[warmstart]"),
        ({"answer": None, "verdict": "wrong"}, "final responses have an answer", "[warmstart]"),
        ({"verdict": "wrong"}, "all 3 final responses are wrong", "branching = [16, 4, 1]"),
        ({"verdict": "right"}, "all 3 graded answers are right", "[data]"),
        ({"verdict": "ungraded", "reason": "no parser"}, "could not be graded (no parser)", "grader ="),
        ({"truncated": True, "verdict": "wrong"}, "are cut off by the token limit", "tokens_first = 2048"),
    ],
)
def test_each_cause_is_told_with_two_lines(leaf, cause, line):
    standstill = Standstill()
    for _ in range(3):
        standstill.add([tree(**leaf)])
    text = standstill.explain(load_recipe({}))
    assert cause in text and line in text
    assert text.count("\n    ") == 2


def test_a_model_without_form_is_told_before_training():
    recipe = load_recipe({})
    row = Accuracy(0.0, 0.0, 0.1, 20, 1, 0.0, 0, 0.5, 0.05, 30.0)
    assert "5 % of the evaluated answers" in (without_form({"rounds_3": row}, recipe) or "")
    assert without_form({"rounds_3": replace(row, well_formed=0.2)}, recipe) is None
    assert without_form({"rounds_1": row}, recipe) is None


def test_a_dead_run_stops_and_goes_on_when_it_is_resumed(tmp_path, tiny_model):
    rows = "".join(json.dumps({"question": f"{n}+1", "answer": str(n + 1)}) + "\n" for n in range(4))
    (tmp_path / "sums.jsonl").write_text(rows)
    recipe = load_recipe(
        {
            "model": {"name": tiny_model, "adapter": "full", "device": "cpu"},
            "data": {"train": str(tmp_path / "sums.jsonl"), "grader": "numeric"},
            "rounds": {"system_prompt": "", "counter": "", "progress": "{note}", "final": "", "note_tokens": 4},
            "rollout": {"branching": [2, 1], "tokens_first": 4, "tokens_continue": 4, "window": 64},
            "train": {"steps": 9, "stop_when_dead": 4, "threads": 1},
            "eval": {"questions": 0},
        }
    )
    result = train(recipe, tmp_path / "run", display=Display(quiet=True))
    assert (result.steps, result.finished, result.ledger.updates) == (4, False, 0)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["standstill"]["steps"] == 4 and summary["standstill"]["text"] == result.standstill
    assert "Nothing was learnt in the last steps" in (tmp_path / "run/report.html").read_text()
    assert train(recipe, tmp_path / "run", resume=True, display=Display(quiet=True)).steps == 8


def test_an_update_ends_a_standstill():
    state = Progress(4096)
    for dead, steps in ((True, 1), (True, 2), (False, 0), (True, 1)):
        state.count_dead([tree()], dead)
        assert state.standstill.steps == steps
