"""The sizes of a model, from its configuration alone, and how long its sequences can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from motif.config import Recipe
from motif.models.adapter import adapted
from motif.models.architecture import (
    check_blocks,
    check_files,
    check_head,
    model_class,
    quantisation,
    stored_as,
    text_parts,
)
from motif.models.hub import load_config, locate, readable_errors
from motif.models.sizes import Counts, LayerCache, Passes, count, measure


@dataclass(frozen=True)
class Shape:
    """The sizes that estimates of memory and time need.

    counts: of parameters. caches: what layers keep. activations, pairs: what an update keeps (see `sizes.Passes`).
    adapter: trained parameters for each rank; reached: weights that the adapter changes. stored: how the weights are
    quantised in their files, which are read as plain numbers.
    """

    counts: Counts
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    caches: tuple[LayerCache, ...]
    max_length: int  # tokens, see `context_limit`
    activations: float
    pairs: float
    adapter: int
    reached: int
    stored: str = ""

    @classmethod
    def dense(
        cls,
        parameters: int,
        layers: int,
        hidden: int,
        intermediate: int,
        vocabulary: int,
        cache_per_token: int,
        max_length: int,
    ) -> Shape:
        """A plain decoder whose layers are equal, with tied embeddings and an adapter on all linear layers.

        `cache_per_token`: numbers of keys and values, of all layers together.
        """
        matrices = layers * (4 * hidden * hidden + 3 * hidden * intermediate)
        return cls(
            counts=Counts(parameters, 0, parameters, parameters, 0, 0, matrices),
            layers=layers,
            hidden=hidden,
            intermediate=intermediate,
            vocabulary=vocabulary,
            caches=(LayerCache(layers, cache_per_token // layers),),
            max_length=max_length,
            activations=_dense_activations(layers, hidden, intermediate),
            pairs=0.0,
            adapter=layers * (8 * hidden + 3 * (hidden + intermediate)),
            reached=matrices,
        )

    @property
    def parameters(self) -> int:
        """All of them, those of towers included."""
        return self.counts.parameters

    def cache(self, tokens: Any, size: float, windows: bool = True) -> Any:
        """Bytes that a sequence of so many tokens takes, in numbers of `size` bytes (see `LayerCache.bytes`)."""
        return sum(layer.bytes(tokens, size, windows) for layer in self.caches)

    def attended(self, tokens: Any) -> Any:
        """Tokens to which one token attends, over all layers, if so many are before it."""
        return sum(layer.attended(tokens) for layer in self.caches)


def _dense_activations(layers: int, hidden: int, intermediate: int) -> float:
    return layers * (14 * hidden + 5 * intermediate) / TRANSIENT


TRANSIENT = 1.25
"""Memory of an update as a multiple of what autograd keeps. With it the estimate for dense models is the one that was
compared with measured runs (docs/reliability.md)."""


def model_shape(name: str, lora_targets: str | list[str] = "all-linear") -> Shape:
    """The sizes of a model, without its weights (see `motif.models.hub.locate` for names).

    Raises:
        ModelError: the model cannot be found, or is not a causal language model.
        RecipeError: `lora_targets` names nothing of it.
    """
    config = load_config(name)
    loaded_by = model_class(name, config)
    stored_as(name, config)  # refuses what cannot be read, as the next line does
    check_files(name, Path(locate(name)))
    check_blocks(name, Path(locate(name)), config)
    check_head(name, Path(locate(name)), config)
    with readable_errors(name), torch.device("meta"):
        model = loaded_by.from_config(config, dtype=torch.bfloat16)
    modules, stacks = adapted(model, text_parts(model), lora_targets)
    weights = [model.get_submodule(module).weight for module in modules] + [model.get_parameter(s) for s in stacks]
    text = config.get_text_config()  # of models that also see or hear, the part that writes
    hidden, intermediate = _largest(text, "hidden_size"), _largest(text, "intermediate_size")
    intermediate = intermediate or 4 * hidden
    passes = measure(model) or Passes(
        _caches_by_configuration(text), _dense_activations(text.num_hidden_layers, hidden, intermediate), 0.0, {}
    )
    return Shape(
        counts=count(model, passes.chosen),
        layers=text.num_hidden_layers,
        hidden=hidden,
        intermediate=intermediate,
        vocabulary=text.vocab_size,
        caches=passes.caches,
        max_length=context_limit(config),
        activations=passes.activations,
        pairs=passes.pairs,
        adapter=sum(math.prod(w.shape[:-2]) * sum(w.shape[-2:]) for w in weights),
        reached=sum(weight.numel() for weight in weights),
        stored=quantisation(config).get("quant_method", ""),
    )


def _caches_by_configuration(text: Any) -> tuple[LayerCache, ...]:
    """Keys and values of all heads, in every layer."""
    heads = _largest(text, "num_attention_heads") or 1
    size = _largest(text, "head_dim") or _largest(text, "hidden_size") // heads
    return (LayerCache(text.num_hidden_layers, 2 * (_largest(text, "num_key_value_heads") or heads) * size),)


def _largest(config: Any, name: str) -> int:
    """A size of a configuration, of layers that differ the largest; 0 if it has none."""
    try:
        size = getattr(config, name, None)
    except RuntimeError:  # transformers' answer where layers differ
        size = [getattr(layer, name) for layer in config.per_layer_config]
    return max(size) if isinstance(size, list | tuple) else size or 0


def context_limit(config: Any) -> int:
    """The longest sequence, in tokens, in which a model of this configuration computes each token from all before it
    in one and the same way: up to its last position, or the length at which `longrope` turns the keys of all
    positions, also those that are kept."""
    config = config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None) or 2**20]
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(part for part in ropes.values() if isinstance(part, dict))):
        if rope.get("rope_type") == "longrope":
            limits.append(rope["original_max_position_embeddings"])
    return int(min(limits))


WINDOWS = {"sliding_window": "sliding", "attention_chunk_size": "chunked"}
"""What configurations call the sizes of windows, with a word that is in the names of the layers that have them."""


def windows(config: Any) -> dict[str, int]:
    """The sizes, by name in a text configuration, of the windows or chunks to which some layers are limited."""
    kinds = getattr(config, "layer_types", None)
    sizes = {name: getattr(config, name, None) for name in WINDOWS}
    return {
        name: size
        for name, size in sizes.items()
        if isinstance(size, int) and size > 0 and (kinds is None or any(WINDOWS[name] in kind for kind in kinds))
    }


def window_of(recipe: Recipe, model_limit: int) -> int:
    """The context window in tokens: the recipe's, or else the model's own limit."""
    return min(recipe.rollout.window or model_limit, model_limit)
