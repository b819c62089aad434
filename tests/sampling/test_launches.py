"""Sampling with fewer launches, as on a GPU, tried on the CPU: the same responses, and the same weights afterwards."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
import torch

from motif.config import ModelConfig
from motif.models.adapter import lora_layers
from motif.models.launches import fewer_launches
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.local import attention, batch, pool
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.joining import joined_layers
from motif.sampling.local.packing import sampling_weights
from support import ROOT
from support.tape import Tape, tape
from support.tiny import SMALL, write_model
from support.updates import shake

sys.path.insert(0, str(ROOT / "benchmarks"))

import plain_kernels

KINDS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen3Config": {"head_dim": 8},
    "Gemma2Config": {"head_dim": 8, "sliding_window": 8},  # windows, and scores with a cap
    "GptOssConfig": {"head_dim": 8, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1},  # sinks
}


class Counted:
    """Kernels in plain torch, and how often each was called."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(plain_kernels, name)


def sampled(policy: Policy, record: Any = None, kernels: Any = None) -> list[Completion]:
    """Prompts of several lengths, all of whose beginnings are shared with others; rows end and others enter."""
    stem = list(range(6, 24))
    prompts = [stem[:3], [*stem, 30], [*stem, 31, 32, 33], [*stem, *range(40, 52), 6], [*stem, *range(40, 52), 7, 8]]
    requests = [
        Request(prompt, [10 * row, 10 * row + 1], max_tokens=4 + 2 * row, temperature=0.7 if row % 2 else 1.0)
        for row, prompt in enumerate(prompts)
    ]
    sampler = LocalSampler(policy, 6)
    sampler.record, sampler.kernels = record, kernels
    assert not sampler.path.reason
    done = complete(sampler, requests)
    return sorted(done, key=lambda one: (one.request.prompt_ids, one.index))


@pytest.mark.parametrize("kind", KINDS)
def test_the_responses_are_the_same(kind, tiny_tokenizer, tmp_path, monkeypatch):
    policy = Policy(write_model(tmp_path, kind, SMALL | KINDS[kind], tiny_tokenizer))
    shake(policy, 1)
    plain = sampled(policy)
    policy.launch_bound = True
    for record, room in ((None, 0), (tape, pool.REPEATED)):  # for tables with a part for each head
        monkeypatch.setattr(pool, "REPEATED", room)
        replays = Tape.replays
        fused = sampled(policy, record)
        assert policy.launch_bound and (record is None or Tape.replays > replays)
        assert [one.token_ids for one in fused] == [one.token_ids for one in plain]
        for one, other in zip(fused, plain, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_many_rows_and_long_prompts_are_sorted_as_before(tiny_model, monkeypatch):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu"))
    plain = sampled(policy)
    policy.launch_bound = True
    monkeypatch.setattr(pool, "LARGEST", 150)  # between one prompt and all
    placed: list[int] = []
    place = pool.Pool.place
    monkeypatch.setattr(pool.Pool, "place", lambda self, *args: placed.append(1) or place(self, *args))
    assert [one.token_ids for one in sampled(policy)] == [one.token_ids for one in plain]
    assert placed


def states(policy: Policy) -> torch.Tensor:
    ids = torch.arange(6, 26).view(4, 5)
    with fewer_launches(policy), sampling_weights(policy, "current"), torch.inference_mode(), policy.precision():
        return policy.decoder(input_ids=ids, use_cache=False).last_hidden_state.float().clone()


@pytest.mark.parametrize("kind", ["LlamaConfig", "Qwen2Config"])
def test_layers_that_read_the_same_are_one_product(kind, tiny_tokenizer, tmp_path):
    config = write_model(tmp_path, kind, SMALL | KINDS.get(kind, {}), tiny_tokenizer)
    policy = Policy(config.model_copy(update={"dtype": "bfloat16", "lora_alpha": 8}))
    weights = {layer: layer.get_base_layer().weight.clone() for layer in lora_layers(policy.wrapped)}
    found: list[torch.Tensor] = []
    for seed in (1, 2):  # what has been learnt since the last time is sampled with
        shake(policy, seed, size=0.2)
        policy.launch_bound = False
        with policy.in_float32():
            exact = states(policy)
        rounding = (states(policy) - exact).abs().mean()
        policy.launch_bound = True
        found.append(states(policy))
        assert (found[-1] - exact).abs().mean() < 1.5 * rounding
    assert [len(one.layers) for one in joined_layers(policy)] == 2 * [3, 1, 2, 1]
    assert (found[1] - found[0]).abs().mean() > 5 * rounding  # the test can tell
    assert all(torch.equal(layer.get_base_layer().weight, weight) for layer, weight in weights.items())


def test_trained_weights_are_copied_to_bfloat16_once(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, adapter="full", device="cpu", dtype="bfloat16"))
    layer = policy.decoder.layers[0].mlp.down_proj
    weight, plain = layer.weight, states(policy)
    policy.launch_bound = True
    with sampling_weights(policy, "current"):
        assert layer.weight.dtype == policy.model.lm_head.weight.dtype == torch.bfloat16
        assert policy.model.get_input_embeddings().weight.dtype == torch.float32
    assert layer.weight is weight and weight.dtype == torch.float32
    assert torch.allclose(states(policy), plain, atol=0.02 * plain.abs().mean().item())


def test_what_is_computed_together_wrongly_is_computed_one_by_one(tiny_model, monkeypatch):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu"))
    policy.launch_bound = True
    right = attention.joint_values
    monkeypatch.setattr(attention, "joint_values", lambda *parts: right(*parts[:2], parts[2].flip(1)))
    assert not LocalSampler(policy).path.reason
    assert not policy.launch_bound


@pytest.mark.parametrize("kind", KINDS)
def test_the_responses_are_the_same_with_kernels(kind, tiny_tokenizer, tmp_path):
    policy = Policy(write_model(tmp_path, kind, SMALL | KINDS[kind], tiny_tokenizer))
    shake(policy, 1)
    plain = sampled(policy)
    policy.launch_bound = True
    for record in (None, tape):
        counted = Counted()
        fused = sampled(policy, record, counted)
        assert counted.calls["attend"] and [one.token_ids for one in fused] == [one.token_ids for one in plain]
        for one, other in zip(fused, plain, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", ["LlamaConfig", "Qwen3Config", "GraniteConfig"])
def test_layers_of_the_common_form_are_decoded_by_kernels(kind, tiny_tokenizer, tmp_path):
    config = write_model(tmp_path, kind, SMALL | KINDS.get(kind, {"residual_multiplier": 0.5}), tiny_tokenizer)
    policy = Policy(config.model_copy(update={"dtype": "bfloat16", "lora_alpha": 8}))
    shake(policy, 1, size=0.2)
    policy.launch_bound = True
    prompts = [[*range(6, 24), *range(30, 30 + more)] for more in range(4)]
    requests = [Request(prompt, [10 * row], max_tokens=6) for row, prompt in enumerate(prompts)]
    sampler = LocalSampler(policy, 4)
    sampler.record = tape
    plain, counted = complete(sampler, requests), Counted()
    sampler.kernels = counted
    fused = complete(sampler, requests)
    assert bool(counted.calls["add_norm"]) == (kind != "GraniteConfig")  # what its layers add is multiplied first
    assert counted.calls["attend"] and counted.calls["add_norm"] == 2 * counted.calls["turn"]
    same = 0
    for one, other in zip(
        *(sorted(done, key=lambda c: len(c.request.prompt_ids)) for done in (plain, fused)), strict=True
    ):
        equal = [a == b for a, b in zip(one.token_ids, other.token_ids, strict=True)] + [False]
        same += equal.index(False)
        assert one.logprobs[: equal.index(False)] == pytest.approx(other.logprobs[: equal.index(False)], abs=0.05)
    assert same > 12


def test_kernels_that_are_wrong_are_given_up(tiny_model, monkeypatch, capsys):
    wrong = Counted()
    wrong.attend = lambda query, keys, *rest: query  # type: ignore[attr-defined]
    monkeypatch.setattr(batch, "find_kernels", lambda device: wrong)
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu"))
    policy.launch_bound = True
    sampler = LocalSampler(policy)
    assert policy.launch_bound and sampler.kernels is None and not sampler.path.reason
    assert "sampled without Triton kernels, slower (log-probabilities are off by" in capsys.readouterr().err
