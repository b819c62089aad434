"""Fewer launches: what a GPU computes together is what the layers compute one by one, tried on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from motif.config import ModelConfig, Recipe
from motif.models.launches import fewer_launches
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.models.prefix import LAUNCH_TOKENS, Segment, batches, build_prefix_tree
from motif.training.batch import Minibatch, UpdateStats, _plan_passes
from support.tiny import SMALL, write_model
from support.updates import samples, shake

KINDS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {},
    "Qwen3Config": {"head_dim": 8},
    "Gemma3TextConfig": {"head_dim": 8},
    "GlmConfig": {"head_dim": 8},
    "GPTNeoXConfig": {},
}
RECIPE = Recipe.model_validate({"model": {"name": "x"}, "train": {"microbatch_tokens": 4096}})


@pytest.mark.parametrize("kind", KINDS)
def test_fused_norms_and_rotary_embeddings_compute_the_same(kind, tiny_tokenizer, tmp_path):
    policy = Policy(write_model(tmp_path, kind, SMALL | KINDS[kind], tiny_tokenizer))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    ids = torch.arange(6, 26).view(2, 10)

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        states = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state
        return states, list(torch.autograd.grad(states.square().sum(), policy.trainable(), allow_unused=True))

    plain, gradients = run()
    policy.launch_bound = True
    forwards = {module: module.forward for module in policy.decoder.modules()}
    with fewer_launches(policy):
        replaced = [module for module, forward in forwards.items() if module.forward != forward]
        states, others = run()
    assert bool(replaced) == (kind != "GPTNeoXConfig")  # whose norms subtract the mean
    assert torch.allclose(states, plain, atol=1e-5)
    assert all(
        torch.allclose(a, b, atol=1e-3, rtol=1e-4) for a, b in zip(others, gradients, strict=True) if a is not None
    )
    assert torch.equal(policy.decoder(input_ids=ids, use_cache=False).last_hidden_state, plain)  # and are gone


def gradient(policy: Policy, given: list, recompute: bool = False) -> tuple[list[torch.Tensor], UpdateStats]:
    stats = UpdateStats()
    with policy.activation_checkpointing(recompute):
        Minibatch(policy, given).gradient(RECIPE, 4096, stats)
    found = [parameter.grad.clone() for parameter in policy.trainable()]
    policy.wrapped.zero_grad(set_to_none=True)
    return found, stats


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_is_the_same(tiny_model, dtype, recompute):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, lora_alpha=8, device="cpu", dtype=dtype))
    policy.update_path = FAST
    shake(policy, 1)
    given = samples(policy)
    plain, before = gradient(policy, given)
    policy.launch_bound = True
    fused, after = gradient(policy, given, recompute)
    allowed = 1e-5 if dtype == "float32" else 0.05
    error = sum((a - b).square().sum() for a, b in zip(fused, plain, strict=True)).sqrt()
    assert error / sum(b.square().sum() for b in plain).sqrt() < allowed
    assert all(one.dtype == torch.float32 for one in fused)
    assert after.tokens == before.tokens and after.loss == pytest.approx(before.loss, abs=allowed)


def test_copies_follow_the_weights_and_leave_a_disabled_adapter_off(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu", dtype="bfloat16"))
    policy.update_path, policy.launch_bound = FAST, True
    batch = Minibatch(policy, samples(policy))
    untrained = batch.logprobs(4096)
    shake(policy, 1, size=0.5)
    assert (batch.logprobs(4096) - untrained).abs().max() > 0.1
    with policy.adapter_disabled():
        assert torch.equal(batch.logprobs(4096), untrained)


def test_a_pass_is_made_only_where_it_saves_as_much():
    prompt = list(range(300))
    responses = [[*prompt, *([7, 8, 9] if row < 2 else []), 1000 + row, *range(30 * row)] for row in range(8)]
    few, many = Segment(), Segment()
    build_prefix_tree(few, responses)
    build_prefix_tree(many, responses, worth=LAUNCH_TOKENS)
    assert [len(child.tokens) for child in many.children] == [300]
    inner, leaves = _plan_passes(many, 4096, True, LAUNCH_TOKENS)
    assert len(inner) == len(leaves) == 1
    assert sum(len(segment.tokens) for segment in leaves[0]) + 8 * 300 == sum(map(len, responses))
    uneven = [Segment([1] * 2000), *(Segment([1] * 10) for _ in range(8))]
    assert [len(part) for part in batches(uneven, 20_000, worth=LAUNCH_TOKENS)] == [1, 8]
    assert [len(part) for part in batches(uneven[1:], 40, worth=LAUNCH_TOKENS)] == [4, 4]
