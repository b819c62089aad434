"""Sizes that are known before a model is loaded: those of the loaded one, its adapter and its caches."""

from __future__ import annotations

import pytest
import torch

from motif.errors import RecipeError
from motif.models.policy import Policy
from motif.models.shape import TRANSIENT, model_shape
from motif.models.sizes import LayerCache, cache_in, numbers_of
from support.architectures import ZOO, build

KINDS = (  # every way to keep something: per head, in windows, chunks, latent, shared, as states; experts, towers, ties
    "Qwen2",
    "GPT-2",
    "Falcon",
    "BLOOM",
    "MPT",
    "GPT-Neo",
    "Gemma 3",
    "Gemma 3n",
    "Gemma 4",
    "Gemma 3 that sees",
    "Llama 4",
    "gpt-oss",
    "Mixtral",
    "JetMoE",
    "DeepSeek V3",
    "Qwen3.5-MoE",
    "LFM2",
    "Granite 4",
    "Falcon-H1",
    "Zamba 2",
    "Mamba",
    "Mamba 2",
)
TOKENS = 40
"""More than the windows of these models."""


def real_cache(policy: Policy, tokens: int) -> int:
    """Numbers in the cache of a model that has read so many tokens."""
    with torch.no_grad():
        output = policy.decoder(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=True)
    return numbers_of(list(cache_in(output).layers))


class Renamed(dict):
    """Arguments or outputs of transformers 5.24 and later, which warn of the old names."""

    def __contains__(self, name):
        assert name == "cache", f"warns of {name}"
        return super().__contains__(name)


def test_a_cache_is_found_by_any_name_and_the_new_one_is_asked_first():
    cache = object()
    assert cache_in(Renamed(hidden_states=None, cache=cache)) is cache
    for name in ("past_key_values", "cache_params", "state"):
        assert cache_in({"hidden_states": None, name: cache}) is cache
    assert cache_in({"hidden_states": None}) is None


@pytest.mark.parametrize("name", KINDS)
def test_sizes_are_those_of_the_loaded_model(name, tmp_path):
    config = build(ZOO[name], tmp_path)
    shape = model_shape(config.name)
    policy = Policy(config)
    adapter = sum(parameter.numel() for parameter in policy.trainable())
    assert adapter == config.lora_rank * shape.adapter
    assert policy.parameter_count - adapter == shape.parameters
    assert policy.computed_parameters - adapter == shape.counts.computed
    assert (
        policy.trained_share == pytest.approx(shape.reached / shape.counts.matrices) and 0.4 < policy.trained_share <= 1
    )
    kept = sum(
        layer.layers * (layer.per_token * (min(TOKENS, layer.window - 1) if layer.window else TOKENS) + layer.state)
        for layer in shape.caches
    )
    assert kept == real_cache(policy, TOKENS)
    full = Policy(config.model_copy(update={"adapter": "full"}))
    assert sum(parameter.numel() for parameter in full.trainable()) == shape.counts.text
    assert shape.counts.text + shape.counts.towers <= shape.parameters


@pytest.mark.parametrize("name", ["Qwen2", "Mamba 2", "Mixtral", "Gemma 2", "Falcon-H1"])
def test_what_an_update_keeps_is_foreseen(name, tmp_path):
    """Numbers that autograd keeps in a pass over a text, of the model that trains."""
    policy = Policy(build(ZOO[name], tmp_path))
    shape = model_shape(policy.config.name)
    lengths = 256, 512  # whole pieces of what recurrent layers compute in pieces
    kept = [saved(policy, length) for length in lengths]
    for numbers, length in zip(kept, lengths, strict=True):
        foreseen = TRANSIENT * (shape.activations + shape.pairs * length) * length + shape.counts.experts
        assert 0.4 * foreseen < numbers <= foreseen, (name, numbers, foreseen)


def saved(policy: Policy, tokens: int) -> int:
    known = {parameter.untyped_storage().data_ptr() for parameter in policy.wrapped.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = tensor, storage.nbytes() // tensor.element_size()
        return tensor

    ids = list(range(tokens))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.decoder(input_ids=torch.tensor([[one % policy.vocabulary for one in ids]]), use_cache=False)
    return sum(size for _, size in kept.values())


def test_a_layer_keeps_at_most_its_window_and_states_do_not_grow():
    layer = LayerCache(3, 10, window=100, state=7)
    assert layer.bytes(50, 2, windows=True) == layer.bytes(50, 2, windows=False) == 3 * (10 * 2 * 50 + 7 * 4)
    assert layer.bytes(500, 2, windows=True) == 3 * (10 * 2 * 100 + 7 * 4)
    assert layer.bytes(500, 2, windows=False) == 3 * (10 * 2 * 500 + 7 * 4)
    assert layer.attended(500) == 300 and LayerCache(3, 0, state=7, attends=False).attended(500) == 0


def test_targets_that_name_nothing_are_refused_without_weights(tmp_path):
    config = build(ZOO["Qwen2"], tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert model_shape(config.name, ["q_proj"]).adapter == 2 * (64 + 64)
    with pytest.raises(RecipeError, match="names no layer of this model: it has"):
        model_shape(config.name, ["query"])
