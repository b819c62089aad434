"""Layers that see less than all, or that share what others have computed: windows, chunks, sinks, latent attention.

The reference is the whole model's forward pass, without a cache or padding, of one sequence at a time.
"""

import random
from dataclasses import replace

import pytest
import torch

from motif.models.policy import Policy
from motif.models.shape import windows
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from support.architectures import HEADS, LOCAL_EXPERTS, SMALL, ZOO, Architecture, shake_adapter
from support.architectures import build as build_one
from support.parity import TOLERANCE, measure, plain_logprobs, requests
from support.tape import Tape, tape

KINDS = ["sliding_attention", "full_attention"]
GROWN = {
    "Gemma 3n": "lora",  # layers that use the keys and values of others
    "Gemma 4": "full",  # the same, and heads of several sizes
    "gpt-oss": "full",  # sinks
    "Llama 4": "full",  # chunks
    "DeepSeek V2": "lora",  # keys and values of which only latents are kept
    "StableLM": "lora",  # no arguments reach its attention
}


SHARED = {"num_kv_shared_layers": 2}
MODELS = ZOO | {"Gemma 4": replace(ZOO["Gemma 4"], options=ZOO["Gemma 4"].options | SHARED)}


@pytest.mark.parametrize("name", [pytest.param("Gemma 3n", marks=pytest.mark.slow), *list(GROWN)[1:]])
def test_sampler_and_update_are_the_plain_forward_pass_of(name, tmp_path):
    config = build_one(MODELS[name], tmp_path).model_copy(update={"adapter": GROWN[name]})
    gaps = measure(config)
    assert gaps.fine and gaps.tokens >= 4 * (ZOO[name].window or 0), gaps
    assert (gaps.sampler_path, gaps.update_path) == ("fast", "fast"), gaps


def shuffled(seed: int) -> Architecture:
    """A model whose layers see windows or chunks of an odd size in any order, with any number of heads."""
    rng = random.Random(f"windows/{seed}")
    kind = rng.choice(["Gemma2Config", "Gemma3TextConfig", "GptOssConfig", "Olmo3Config", "Cohere2Config"])
    layers = [*KINDS, *rng.choices(KINDS, k=rng.randrange(2))]
    rng.shuffle(layers)
    heads, key_heads = rng.choice([(4, 4), (4, 1), (6, 3), (8, 2), (3, 3), (5, 1)])
    options = (HEADS if kind not in ("Olmo3Config", "Cohere2Config") else SMALL) | {
        "num_hidden_layers": len(layers),
        "layer_types": layers,
        "sliding_window": rng.choice([1, 2, 3, 7, 13, 16, 23, 64, 1000]),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "hidden_size": 8 * heads,
    }
    return Architecture(kind, options | (LOCAL_EXPERTS if kind == "GptOssConfig" else {}))


@pytest.mark.parametrize("seed", range(8))
def test_layers_in_any_order_with_windows_of_any_size(seed, tmp_path):
    gaps = measure(build_one(shuffled(seed), tmp_path).model_copy(update={"adapter": ("lora", "full")[seed % 2]}))
    assert gaps.fine, (gaps, shuffled(seed).options)


@pytest.mark.parametrize("name", ["Gemma 3", "Llama 4", "Gemma 4", "gpt-oss", "DeepSeek V2"])
def test_with_recorded_steps_the_same_is_sampled_by(name, tmp_path, monkeypatch):
    monkeypatch.setattr(Tape, "replays", 0)
    monkeypatch.setattr(LocalSampler, "recorder", staticmethod(lambda device: tape))
    policy = Policy(build_one(MODELS[name], tmp_path))
    shake_adapter(policy)
    sampler = LocalSampler(policy, max_rows=8)
    assert sampler.record is not None  # the check at the start has found nothing to say against it
    with torch.no_grad():
        for one in complete(sampler, requests(policy.vocabulary, 96, 24, random.Random(1))):
            plain = plain_logprobs(policy, one.request.prompt_ids, one.token_ids)
            assert (torch.tensor(one.logprobs) - plain).abs().max().item() < TOLERANCE
    assert Tape.replays


def test_the_window_does_not_bound_the_context(tmp_path):
    policy = Policy(build_one(ZOO["Mistral, window"], tmp_path))
    assert policy.max_length == SMALL["max_position_embeddings"] > 4 * policy.text_config.sliding_window


def test_layers_are_local_by_their_kinds(tmp_path):
    import transformers

    chunked = transformers.Llama4TextConfig(**HEADS, layer_types=["chunked_attention", "full_attention"])
    assert windows(chunked)
    chunked.layer_types = ["full_attention"] * 2
    assert not windows(chunked)
    assert windows(transformers.MistralConfig(sliding_window=8))
    assert not windows(transformers.MistralConfig(sliding_window=None))
    assert not windows(transformers.Qwen2Config(**SMALL, use_sliding_window=False))
