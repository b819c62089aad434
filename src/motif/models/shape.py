"""The sizes of a model, from its configuration alone, and how long its sequences can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from motif.config import Recipe
from motif.models.architecture import check_files, model_class, stored_as
from motif.models.hub import load_config, locate, readable_errors


@dataclass(frozen=True)
class Shape:
    """The sizes that estimates of memory and time need."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    cache_per_token: int  # numbers (not bytes) of keys and values
    max_length: int  # tokens, see `context_limit`


def model_shape(name: str) -> Shape:
    """The sizes of a model, without its weights (see `motif.models.hub.locate` for names).

    Raises:
        ModelError: the model cannot be found, or is not a causal language model.
    """
    config = load_config(name)
    loaded_by = model_class(name, config)
    stored_as(name, config)  # refuses what cannot be read, as the next line does
    check_files(name, Path(locate(name)))
    with readable_errors(name), torch.device("meta"):
        model = loaded_by.from_config(config)
    text = config.get_text_config()  # of models that also see or hear, the part that writes
    heads, hidden = _largest(text, "num_attention_heads") or 1, _largest(text, "hidden_size")
    head_size = _largest(text, "head_dim") or hidden // heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=hidden,
        intermediate=_largest(text, "intermediate_size") or 4 * hidden,
        vocabulary=text.vocab_size,
        cache_per_token=2 * text.num_hidden_layers * (_largest(text, "num_key_value_heads") or heads) * head_size,
        max_length=context_limit(config),
    )


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
