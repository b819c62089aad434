"""The whole thing learns: a short demo run must raise the reward and held-out accuracy by a stated margin."""

import json
from pathlib import Path

import pytest

from motif.display import Display
from motif.runs.result import Result
from motif.training.loop import train


def learnt(recipe: str, out: Path, *settings: str) -> Result:
    return train(recipe, out, settings=settings, display=Display(quiet=True))


@pytest.mark.slow
def test_the_demo_learns(tmp_path):
    result = learnt("demo", tmp_path / "run", "train.steps=12", "eval.questions=120", "eval.every=0", "eval.rounds=[3]")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    outcomes = [line["outcome/mean"] for line in lines if "outcome/mean" in line]
    assert sum(outcomes[-8:]) / 8 >= sum(outcomes[:3]) / 3 + 0.10
    assert result.after["rounds_3"]["accuracy"] >= result.before["rounds_3"]["accuracy"] + 0.10
    gaps = [line["sampler/mean_gap"] for line in lines if line.get("sampler/mean_gap") is not None]
    assert max(gaps) < 1e-4  # sampler and trainer share the weights


@pytest.mark.slow
def test_the_circuit_recipe_learns(tmp_path):
    result = learnt("circuit", tmp_path / "run", "train.steps=6", "eval.questions=60", "eval.rounds=[3]")
    assert result.before["rounds_3"]["accuracy"] < 0.5
    assert result.after["rounds_3"]["accuracy"] > 0.8


@pytest.mark.slow
def test_the_reader_learns_to_carry_what_it_has_read(tmp_path):
    result = learnt("read", tmp_path / "run", "train.steps=10", "eval.questions=150")
    before, after = (numbers["pieces"]["by_pieces"]["4"]["value"] for numbers in (result.before, result.after))
    assert after > before + 0.3
