"""A run whose rollouts are in 8 bits: resumed and by two processes it is the same run, and it measures in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import motif.training.loop
from motif.cli.app import app
from motif.display import Display
from motif.sampling.local import packing, precision
from motif.training.loop import train
from support.runs import metric_lines
from support.samples import by_parity

SETTINGS = [
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2]",
    "rollout.tokens_first=14",
    "rollout.tokens_continue=9",
    "rounds.note_tokens=6",
    "train.save_every=1",
    "eval.questions=2",
]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Layers of the embedded model are large enough, and every step has something to train on."""
    monkeypatch.setattr(motif.training.loop, "collect", by_parity)
    for module in (packing, precision):
        monkeypatch.setattr(module, "LARGE", 1)


def steps(run: Path) -> list[dict]:
    return [line for line in metric_lines(run) if "reward" in line]


def run(out: Path, asked: str, count: int, **options) -> dict:
    settings = [*SETTINGS, f"sampler.precision={asked}", f"train.steps={count}"]
    train("demo", out, settings=settings, display=Display(quiet=True), **options)
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
def test_a_resumed_run_keeps_what_auto_chose_and_is_the_same(tmp_path, monkeypatch):
    whole, broken, plain = tmp_path / "whole", tmp_path / "broken", tmp_path / "plain"
    run(whole, "int8", 2)
    monkeypatch.setattr(precision, "timed", lambda shape, forward: [(2.0, 1.0)])
    chosen = run(broken, "auto", 1)["precision"]
    assert chosen["asked"] == "auto" and chosen["precision"] == "int8" and chosen["times_faster"] == 2.0
    monkeypatch.setattr(precision, "timed", lambda shape, forward: [(1.0, 2.0)])
    summary = run(broken, "auto", 2, resume=True)
    assert summary["precision"]["precision"] == "int8"
    assert (whole / "trees.jsonl").read_bytes() == (broken / "trees.jsonl").read_bytes()
    assert steps(whole) == steps(broken)
    assert all(line["sampler/precision"] == "int8" and 0 < line["sampler/mean_gap"] < 0.3 for line in steps(whole))
    assert 'precision = "int8"' in (broken / "recipe.toml").read_text()
    # Updates and evaluations are in float32: before the first step nothing differs from a plain run but rollouts.
    assert "precision" not in run(plain, "float32", 1) and "sampler/precision" not in steps(plain)[0]
    first = [json.loads((folder / "outcomes.jsonl").read_text().splitlines()[0]) for folder in (whole, plain)]
    assert first[0] == first[1]
    assert steps(whole)[0]["sampler/mean_gap"] > 100 * steps(plain)[0]["sampler/mean_gap"]
    # The other way round, a run in float32 is not resumed in 8 bits unawares.
    refused = CliRunner().invoke(
        app, ["train", "demo", "--out", str(plain), "--resume", "--set", "sampler.precision=int8"]
    )
    assert refused.exit_code and "sampler.precision" in refused.output + refused.stderr


def test_a_run_in_8_bits_answers_in_float32_unless_asked(tmp_path):
    run(tmp_path / "run", "int8", 1)
    command = ["solve", "What is 12 × 3?", "--run", str(tmp_path / "run"), "--json"]
    plain, asked = (
        CliRunner().invoke(app, command),
        CliRunner().invoke(app, [*command, "--set", "sampler.precision=int8"]),
    )
    assert plain.exit_code == asked.exit_code == 0, plain.output + asked.output
    assert "int8" not in plain.stderr and "sampled in int8" in asked.stderr
