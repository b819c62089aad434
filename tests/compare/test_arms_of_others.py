"""Arms that are not plain training: a vote of the untrained model, and a run that ends with its warm start."""

from __future__ import annotations

import json

import pytest

from motif.compare.analysis import measured
from motif.compare.results import curve
from motif.config import Recipe
from motif.runs.read import Metrics, read_outcomes


def test_of_a_vote_the_majority_counts_and_outcomes_of_single_answers_are_left_out():
    row = {"accuracy": 0.24, "majority": {"value": 0.35}}
    run = {
        "arm": "vote",
        "curve": [{"step": 0, "spent": {}, "rows": {"rounds_3": row}}],
        "outcomes": {"rounds_3": "10"},
    }
    voted = measured(run, "majority")
    assert voted["curve"][0]["rows"]["rounds_3"]["accuracy"] == 0.35 and not voted["outcomes"]
    assert measured(run, "accuracy") is run and row["accuracy"] == 0.24


def warmed(*more: dict) -> Metrics:
    metrics = Metrics()
    for line in (
        {"step": 0, "eval": {"rounds_3": {"accuracy": 0.3}}},
        {"step": 0, "warmstart": {"step": 1, "loss": 1.0, "ledger/generated_tokens": 70, "ledger/prefill_tokens": 5}},
        {"step": 0, "warmstart": {"eval": {"rounds_3": {"accuracy": 0.6}}}},
        *more,
    ):
        metrics.add(line)
    return metrics


def test_a_run_that_ends_with_its_warm_start_ends_with_what_that_came_to():
    points = curve(warmed(), {"generated_tokens": 90, "prefill_tokens": 9})
    assert [(point["spent"]["generated_tokens"], point["rows"]["rounds_3"]["accuracy"]) for point in points] == [
        (0, 0.3),
        (90, 0.6),
    ]
    assert points[-1]["spent"]["computed_tokens"] == 99


def test_where_training_follows_the_warm_start_has_spent_what_its_last_line_says():
    step = {"step": 1, "reward": 1.0, "ledger/generated_tokens": 80, "ledger/prefill_tokens": 8}
    metrics = warmed(step, {"step": 1, "eval": {"rounds_3": {"accuracy": 0.7}}})
    points = curve(metrics, {"generated_tokens": 80, "prefill_tokens": 8})
    assert [point["spent"]["generated_tokens"] for point in points] == [0, 70, 80]


def test_the_outcomes_of_such_a_run_are_those_after_its_warm_start(tmp_path):
    lines = [{"step": 0, "row": "rounds_3", "outcomes": [0]}, {"step": 0, "stage": "warmstart", "row": "rounds_3"}]
    (tmp_path / "outcomes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tmp_path / "summary.json").write_text('{"steps": 5}')
    assert read_outcomes(tmp_path, 0)["rounds_3"]["outcomes"] == [0]
    (tmp_path / "summary.json").write_text('{"steps": 0}')
    assert read_outcomes(tmp_path, 0)["rounds_3"]["stage"] == "warmstart"


def test_answers_in_rounds_are_the_models_own():
    with pytest.raises(ValueError, match="answers applies to source = 'self' only"):
        Recipe.model_validate({"warmstart": {"source": "file", "file": "x.jsonl", "answers": "rounds"}})
    recipe = Recipe.model_validate({"warmstart": {"source": "self"}})
    assert "answers" not in recipe.model_dump()["warmstart"]  # a run of before stays the same
