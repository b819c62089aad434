"""A sampler that does not compute what the trainer computes: corrected for where it rounds, and stopped beyond that."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from motif.config import Recipe, load_recipe
from motif.display import Display
from motif.errors import SamplerMismatch
from motif.runs import checkpoint
from motif.runs.read import recipe_of
from motif.session import open_session
from motif.training.loop import train

SETTINGS = ["rollout.questions_per_step=3", "rollout.branching=[4,2]", "eval.questions=0", "train.save_every=50"]


def quietly(out, *settings: str, **more):
    return train("demo", out, settings=[*SETTINGS, "train.steps=3", *settings], display=Display(quiet=True), **more)


def shift_from(monkeypatch, step: int, nats: float) -> None:
    """From a step on, the sampler reports other log-probabilities."""
    module = sys.modules["motif.training.loop"]
    collect = module.collect

    def collected(trees, recipe, rounds):
        samples = collect(trees, recipe, rounds)
        if trees[0].step < step:
            return samples
        return [dataclasses.replace(one, sampler_logprobs=[x - nats for x in one.sampler_logprobs]) for one in samples]

    monkeypatch.setattr(module, "collect", collected)


def test_a_run_stops_before_it_trains_on_them_and_resumes(tmp_path, monkeypatch):
    whole = quietly(tmp_path / "whole")
    with monkeypatch.context() as patch:
        shift_from(patch, 2, 0.4)
        with pytest.raises(
            SamplerMismatch, match=r"differ by 0\.4 nats on average, above sampler.max_mean_gap = 0\.3.*motif resume"
        ):
            quietly(tmp_path / "cut")
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert checkpoint.all_checkpoints(tmp_path / "cut")[-1].name == "step-000001"
    assert quietly(tmp_path / "cut", "sampler.max_mean_gap=0.5", resume=True).finished and whole.finished
    one, other = ((tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "cut"))
    assert one == other


@pytest.mark.parametrize(("limit", "nats"), [(0.0, 5.0), (0.5, 0.4)])
def test_the_limit_is_a_setting(tmp_path, monkeypatch, limit, nats):
    shift_from(monkeypatch, 1, nats)
    assert quietly(tmp_path / "run", f"sampler.max_mean_gap={limit}", "train.steps=1").finished


@pytest.mark.parametrize(
    ("settings", "cap"),
    [
        (["model.dtype=float32"], 0.0),
        (["model.dtype=bfloat16"], 2.0),
        (["model.dtype=bfloat16", "loss.importance_cap=0"], 0.0),
        (["model.dtype=bfloat16", "loss.importance_cap=5"], 5.0),
        (["model.dtype=float32", "loss.importance_cap=3"], 3.0),
    ],
)
def test_the_importance_cap_follows_the_precision(settings, cap):
    recipe = load_recipe("demo", settings)
    assert load_recipe_text(recipe) == recipe
    session = open_session(load_recipe_text(recipe))  # as the runs of a study get it
    session.close()
    assert session.recipe.loss.importance_cap == cap
    assert load_recipe_text(session.recipe).with_importance_cap(half=True).loss.importance_cap == cap


def load_recipe_text(recipe: Recipe) -> Recipe:
    import tomllib

    return load_recipe(tomllib.loads(recipe.to_toml()))


def test_a_run_folder_says_which_cap_was_used(tmp_path):
    quietly(tmp_path / "run", "train.steps=0", "model.dtype=bfloat16")
    assert "importance_cap = 2.0" in (tmp_path / "run" / "recipe.toml").read_text()
    assert recipe_of(tmp_path / "run").loss.importance_cap == 2.0
