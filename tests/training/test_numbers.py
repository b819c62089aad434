"""Numbers that are not finite: no update is made of them, they are counted and named, and many of them stop a run."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import pytest
import torch

from motif.config import Recipe, load_recipe
from motif.display import Display
from motif.errors import ModelError, RecipeError
from motif.models.policy import Policy
from motif.runs import checkpoint
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Sample
from motif.training.loop import train
from motif.training.progress import PATIENCE
from motif.training.update import make_optimizer, update
from support.updates import lora, samples

NAN, INF = float("nan"), float("inf")
SETTINGS = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=2",
    "rollout.branching=[4,2,1]",
    "credit.format_weight=1",
    "rollout.temperature_first=1.5",
    "eval.questions=0",
    "train.save_every=50",
]


def named(policy: Policy) -> list:
    return [dataclasses.replace(one, name=f"q/{place}") for place, one in enumerate(samples(policy))]


def trained(policy: Policy):
    """An optimiser with a state, after a step, and a copy of all that a skipped step must leave alone."""
    optimizer = make_optimizer(policy.trainable(), Recipe().train)
    optimizer.param_groups[0]["lr"] = 1e-3
    assert update(policy, optimizer, samples(policy), Recipe()).updates == 1
    return optimizer, bits(policy, optimizer)


def bits(policy: Policy, optimizer: torch.optim.Optimizer) -> list[bytes]:
    state = optimizer.state_dict()["state"]
    tensors = [*policy.state().values(), *(state[key][name] for key in sorted(state) for name in sorted(state[key]))]
    assert len(tensors) > len(policy.trainable())
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        ({"advantage": NAN}, {}),
        ({"advantage": -INF}, {}),
        ({"sampler_logprobs": NAN}, {"importance_cap": 2.0}),
        ({"weight": INF}, {"kl_beta": 0.1}),
        ({"temperature": 1e-39}, {}),
    ],
)
def test_a_response_whose_loss_is_not_finite_is_named_and_changes_nothing(tiny_model, change, loss):
    policy = lora(tiny_model)
    optimizer, before = trained(policy)
    batch = named(policy)
    if "sampler_logprobs" in change:
        change = {"sampler_logprobs": [NAN, *batch[1].sampler_logprobs[1:]]}
    batch[1] = dataclasses.replace(batch[1], **change)
    stats = update(policy, optimizer, batch, Recipe.model_validate({"loss": loss}))
    assert (stats.updates, stats.skipped, stats.causes) == (0, 1, ["q/1"])
    assert bits(policy, optimizer) == before
    assert (stats.tokens, stats.loss, stats.entropy) == (0, 0.0, 0.0) and stats.computed_tokens > 0
    # The same batch without it is trained on as if nothing had been.
    assert update(policy, optimizer, [batch[0], *batch[2:]], Recipe()).updates == 1
    assert bits(policy, optimizer) != before


def test_only_the_broken_minibatch_is_skipped(tiny_model):
    policy = lora(tiny_model)
    optimizer, before = trained(policy)
    batch = named(policy)
    batch[0] = dataclasses.replace(batch[0], advantage=NAN)
    run = Recipe.model_validate({"loss": {"minibatches": 2, "inner_epochs": 2}})
    stats = update(policy, optimizer, batch, run)
    assert (stats.updates, stats.skipped, stats.causes) == (2, 2, ["q/0"])
    assert bits(policy, optimizer) != before
    assert all(math.isfinite(value) for value in (stats.loss, stats.entropy, stats.grad_norm, stats.clipped))
    assert stats.tokens == 2 * sum(len(one.token_ids) for one in batch[1::2])


def test_a_norm_that_overflows_names_the_whole_batch(tiny_model):
    policy = lora(tiny_model)
    optimizer, before = trained(policy)
    batch = [dataclasses.replace(one, weight=one.weight * 1e24) for one in named(policy)]
    stats = update(policy, optimizer, batch, Recipe())
    assert (stats.updates, stats.skipped) == (0, 1)
    assert stats.causes == [one.name for one in batch]
    assert bits(policy, optimizer) == before


def test_broken_weights_are_no_model(tiny_model, monkeypatch):
    policy = lora(tiny_model)
    with torch.no_grad():
        policy.trainable()[-1].fill_(NAN)  # of the last layer: CPU attention swallows NaN queries
    with pytest.raises(ModelError, match="logits that are not finite"):
        policy._check()
    sampler = LocalSampler.__new__(LocalSampler)
    with monkeypatch.context() as patch:
        patch.setattr(LocalSampler, "_check", lambda self: None)
        sampler.__init__(policy)
    for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (0.7, 0.9)):
        request = Request([5, 6, 7], [1, 2, 3], max_tokens=4, temperature=temperature, top_p=top_p)
        with pytest.raises(FloatingPointError, match="after a prompt of 3 tokens"):
            complete(sampler, [request])


# -- whole runs --------------------------------------------------------------------------------------------------------


def quietly(out, steps: int, **more):
    return train("demo", out, settings=[*SETTINGS, f"train.steps={steps}"], display=Display(quiet=True), **more)


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def break_steps(monkeypatch, broken: set[int]) -> None:
    """Make the advantage of the first response of these steps NaN."""
    module = sys.modules["motif.training.loop"]
    collect = module.collect

    def collected(trees, recipe, rounds):
        found = collect(trees, recipe, rounds)
        if trees[0].step in broken:
            first, name = trees[0].roots[0], f"{trees[0].question.id}/0"
            found = [one for one in found if one.name != name]
            weight = found[0].weight if found else 0.1
            found.append(Sample(first.prompt_ids, first.token_ids, first.logprobs, NAN, 1.0, weight, name))
        return found

    monkeypatch.setattr(module, "collect", collected)


def test_a_run_goes_on_after_a_skipped_update(tmp_path, monkeypatch):
    break_steps(monkeypatch, {2, 3, 5})
    result = quietly(tmp_path / "run", 5)
    steps = lines(tmp_path / "run")
    assert result.finished and [line["update/skipped"] for line in steps] == [0, 1, 1, 0, 1]
    made = [line["grad_norm"] is not None for line in steps]
    assert made[0] and made[3] and not any(made[step - 1] for step in (2, 3, 5))
    assert [line["ledger/updates"] for line in steps] == [1, 1, 1, 2, 2]
    trees = [json.loads(line) for line in (tmp_path / "run" / "trees.jsonl").read_text().splitlines()]
    name, _, path = steps[1]["update/causes"][0].rpartition("/")
    tree = next(tree for tree in trees if tree["step"] == 2)
    assert (name, [int(path)]) in [(tree["question"]["id"], one["path"]) for one in tree["responses"]]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped_updates"] == 3
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_many_in_a_row_stop_the_run_where_it_can_be_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_steps(patch, {2, 3, 4})
        with pytest.raises(FloatingPointError, match=rf"{PATIENCE} steps in a row .* go on with `motif resume"):
            quietly(tmp_path / "run", 5)
    assert checkpoint.all_checkpoints(tmp_path / "run")[-1].name == "step-000004"
    result = quietly(tmp_path / "run", 5, resume=True)
    assert result.finished and [line["update/skipped"] for line in lines(tmp_path / "run")] == [0, 1, 1, 1, 0]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped_updates"] == 3


def test_a_sampler_that_breaks_leaves_a_run_that_resumes_as_if_nothing_had_been(tmp_path, monkeypatch):
    head = Policy.head

    def broken(self, hidden):
        return head(self, hidden) * (NAN if next(calls) > 200 else 1.0)

    assert quietly(tmp_path / "whole", 3).finished
    with monkeypatch.context() as patch:
        calls = iter(range(10**6))
        patch.setattr(Policy, "head", broken)
        with pytest.raises(FloatingPointError, match=r"logits are not finite .*motif resume"):
            quietly(tmp_path / "cut", 3)
    assert 0 < len(lines(tmp_path / "cut")) < 3
    assert quietly(tmp_path / "cut", 3, resume=True).finished
    one, other = ((tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("whole", "cut"))
    assert one == other


@pytest.mark.parametrize("setting", ["train.learning_rate=inf", "train.learning_rate=nan", "train.max_grad_norm=inf"])
def test_settings_are_finite(setting):
    with pytest.raises(RecipeError, match="finite"):
        load_recipe("demo", [setting])
