"""Layers that keep a state instead of keys and values: it is forked where sequences part, in sampling and training."""

from __future__ import annotations

import random

import pytest
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoTokenizer

from motif.config import ModelConfig, Recipe
from motif.models.path import FAST, GENERAL
from motif.models.policy import Policy
from motif.models.prefix import UNSHARED, Segment, build_prefix_tree, shortest_shared
from motif.models.recurrent import layer_kinds
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Minibatch, Sample
from motif.training.update import update
from support.tiny import SMALL, write_model
from support.updates import Keep, plain_gradient

HEADS = SMALL | {"head_dim": 8, "max_position_embeddings": 512}
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
DELTA |= {"layer_types": ["linear_attention", "full_attention"]}
MAMBA = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_d_head": 8, "mamba_expand": 2, "mamba_chunk_size": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 32}
KINDS = {
    "Qwen3_5TextConfig": HEADS | DELTA,
    "Qwen3NextConfig": HEADS | DELTA | EXPERTS | {"shared_expert_intermediate_size": 32},
    "Lfm2Config": HEADS | {"block_ff_dim": 64, "layer_types": ["conv", "full_attention"]},
    "GraniteMoeHybridConfig": HEADS | MAMBA | LOCAL | {"mamba_n_groups": 1, "layer_types": ["mamba", "attention"]},
    "FalconH1Config": HEADS | MAMBA | {"mamba_d_ssm": 64, "mamba_n_groups": 1},  # both kinds in every layer
    "JambaConfig": HEADS | EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "Mamba2Config": {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1}
    | {"chunk_size": 16},
}
BOUNDED = {  # both ends of what softplus may return, as tight as to be missed in every step
    "NemotronHConfig": HEADS
    | {"hybrid_override_pattern": "M*", "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16}
    | {"n_groups": 1, "chunk_size": 16, "time_step_min": 0.8},
    "Zamba2Config": HEADS
    | {"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 16, "n_mamba_heads": 8, "adapter_rank": 4}
    | {"num_key_value_heads": 4, "chunk_size": 16, "time_step_min": 0.8},
    "FalconH1Config": KINDS["FalconH1Config"]
    | {"time_step_limit": [0.3, 0.6], "ssm_multipliers": [1.0, 1.0, 1.0, 1.0, 0.5]},
    "Mamba2Config": KINDS["Mamba2Config"] | {"time_step_limit": [0.3, 0.6]},
}


QUICK = ("Qwen3_5TextConfig", "FalconH1Config")


@pytest.fixture(
    scope="module",
    params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def policy(request, tiny_model, tmp_path_factory) -> Policy:
    return build(request.param, tiny_model, tmp_path_factory.mktemp(request.param))


def build(kind: str, tokenizer_folder: str, folder, adapter: str = "full", bounded: bool = False) -> Policy:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = write_model(folder, kind, (BOUNDED if bounded else KINDS)[kind] | {"initializer_range": 0.2}, tokenizer)
    policy = Policy(config.model_copy(update={"adapter": adapter}))
    policy.update_path = FAST
    return policy


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(6, 100) for _ in range(count)]


def plain(policy: Policy, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probabilities by the whole model, one sequence at a time, without a cache."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].float()
    return logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


def test_rows_fork_part_leave_and_enter_with_their_states(policy):
    rng = random.Random(0)
    stem = tokens(rng, 70)  # more than a chunk of any of them
    questions = [stem + tokens(rng, count) for count in (5, 9, 5)]
    prompts = [*questions, questions[0] + tokens(rng, 1), questions[0] + tokens(rng, 12), tokens(rng, 2)]
    requests = [Request(prompt, [1, 2, 3], max_tokens=rng.choice([4, 20])) for prompt in prompts]
    sampler = LocalSampler(policy, max_rows=5)
    done = complete(sampler, requests)
    assert len(done) == 18
    for one in done:
        wanted = plain(policy, one.request.prompt_ids, one.token_ids)
        torch.testing.assert_close(torch.tensor(one.logprobs), wanted, atol=1e-4, rtol=0)


def samples(policy: Policy) -> list[Sample]:
    """Siblings behind a shared stem, some of one token, some that part after twelve."""
    rng = random.Random(1)
    stem, common = tokens(rng, 70), tokens(rng, 12)
    prompts = [stem + tokens(rng, count) for count in (9, 20)]
    prompts += [prompts[0] + tokens(rng, count) for count in (5, 14)]
    pairs = [
        (prompt, response)
        for prompt in prompts
        for response in (tokens(rng, 1), tokens(rng, 2), common + tokens(rng, 1), common + tokens(rng, 30))
    ]
    return [
        Sample(prompt, response, plain(policy, prompt, response).tolist(), rng.gauss(0, 1), 1.0, 0.01)
        for prompt, response in pairs
    ]


def test_the_gradient_flows_through_forked_states(policy):
    batch = samples(policy)
    ours = Minibatch(policy, batch).logprobs(512)
    torch.testing.assert_close(
        ours, torch.tensor([x for one in batch for x in one.sampler_logprobs]), atol=1e-4, rtol=0
    )
    recipe = Recipe.model_validate(
        {"train": {"max_grad_norm": 1e9, "microbatch_tokens": 512}, "model": {"adapter": "full"}}
    )
    policy.wrapped.zero_grad()
    wanted, optimizer = plain_gradient(policy, batch, recipe), Keep(policy.trainable(), lr=0.0)
    policy.wrapped.zero_grad()
    stats = update(policy, optimizer, batch, recipe)
    total = sum(one.length for one in batch)
    shared = shortest_shared(policy) < UNSHARED
    assert (stats.computed_tokens < 0.5 * total) == shared
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for one, other in zip(optimizer.seen, wanted, strict=True):
        assert (one - other).abs().max().item() < 1e-4 * scale


class Float64(TorchFunctionMode):
    """What asks for float32 gets float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            return args[0].double()
        wide = {torch.float32: torch.float64}
        args = tuple(wide.get(one, one) if isinstance(one, torch.dtype) else one for one in args)
        return function(
            *args, **{name: wide.get(one, one) if name == "dtype" else one for name, one in (kwargs or {}).items()}
        )


def test_what_differs_between_shared_and_plain_passes_is_rounding(policy):
    batch, scale = samples(policy), 3.0  # harsh weights: in float32 up to 3e-4 nats
    if hasattr(policy.model, "set_experts_implementation"):
        policy.model.set_experts_implementation("eager")  # grouped products know no float64
    layers = [p for name, p in policy.model.named_parameters() if p.dim() > 1 and "embed" not in name]
    with torch.no_grad():
        policy.model.double()
        for parameter in layers:
            parameter.mul_(scale)
        with Float64():
            shared = Minibatch(policy, batch).logprobs(512)
            alone = [policy.token_logprobs([one.prompt_ids], [one.token_ids], [1.0])[0] for one in batch]
        for parameter in layers:
            parameter.div_(scale)
        policy.model.float()
    assert shared.dtype == torch.float64 and (shared - torch.cat(alone)).abs().max() < 1e-11


def test_recomputed_activations_keep_the_gradient_through_states(tiny_model, tmp_path):
    policy = build("Qwen3_5TextConfig", tiny_model, tmp_path, adapter="lora")
    batch, seen = samples(policy), []
    for active in (False, True):
        recipe = Recipe.model_validate({"train": {"max_grad_norm": 1e9, "activation_checkpointing": active}})
        optimizer = Keep(policy.trainable(), lr=0.0)
        optimizer.zero_grad()
        update(policy, optimizer, batch, recipe)
        seen.append(optimizer.seen)
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)


def test_nothing_is_shared_where_layers_begin_anew(policy):
    begins_anew = policy.model.config.model_type == "jamba"
    assert shortest_shared(policy) == (UNSHARED if begins_anew else 2)
    root = Segment()
    stem = list(range(10, 40))
    ends = build_prefix_tree(root, [stem, [*stem, 1], [*stem, 1], stem], shortest_shared(policy))
    assert ends[0] is ends[3] and ends[1] is ends[2]
    assert (ends[1].parent is root) == begins_anew


@pytest.mark.parametrize("kind", BOUNDED)
def test_time_steps_are_bounded_in_decoding_as_in_the_pass_that_is_trained(kind, tiny_model, tmp_path):
    policy = build(kind, tiny_model, tmp_path, adapter="lora", bounded=True)
    request = Request(tokens(random.Random(0), 20), [1, 2, 3], max_tokens=12)

    def gap(sampler: LocalSampler) -> float:
        with torch.no_grad():
            return max(
                (torch.tensor(one.logprobs) - plain(policy, request.prompt_ids, one.token_ids)).abs().max().item()
                for one in complete(sampler, [request])
            )

    samplers = [LocalSampler(policy, 4, path) for path in (FAST, GENERAL)]
    assert [sampler.path for sampler in samplers] == [FAST, GENERAL]
    assert max(gap(sampler) for sampler in samplers) < 2e-5
    for module in policy.model.modules():
        module._forward_hooks.clear()
    assert min(gap(sampler) for sampler in samplers) > 1e-3  # what transformers decodes


def test_a_model_that_only_attends_has_no_states(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu"))
    assert (policy.recurrent, policy.attends, shortest_shared(policy)) == (False, True, 1)
    assert layer_kinds(transformers.Mamba2Config(num_hidden_layers=1)) == (True, False)
