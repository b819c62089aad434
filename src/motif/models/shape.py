"""The sizes of a model, from its configuration alone, and how long its sequences can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from motif.config import Recipe
from motif.models.hub import load_config, readable_errors


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
    from transformers import AutoModelForCausalLM

    config = load_config(name)
    with readable_errors(name), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        cache_per_token=2 * config.num_hidden_layers * key_heads * head_size,
        max_length=context_limit(config),
    )


def context_limit(config: Any) -> int:
    """The longest sequence, in tokens, in which a model of this configuration attends to everything before a token."""
    limit = getattr(config, "max_position_embeddings", None) or 2**20
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        limit = min(limit, window)
    return int(limit)


def window_of(recipe: Recipe, model_limit: int) -> int:
    """The context window in tokens: the recipe's, or else the model's own limit."""
    return min(recipe.rollout.window or model_limit, model_limit)
