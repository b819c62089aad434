"""Configurations that nobody has published: architectures of the zoo with some settings changed at random."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from support.architectures import ZOO, Architecture

ODD_WINDOWS = (1, 2, 3, 5, 7, 11, 17, 23, 31)
CHANGES = 4
"""Settings that are changed, at most."""


def mutated(seed: int) -> tuple[str, Architecture, list[str]]:
    """An architecture of the zoo, changed: its name, its options, and the names of the changed settings.

    Not every one can be built: transformers refuses some, which says nothing about motif.
    """
    import transformers

    rng = random.Random(f"mutated/{seed}")
    name = rng.choice(list(ZOO))
    one = ZOO[name]
    text = dict(one.options["text_config"] if one.nested else one.options)
    defaults = getattr(transformers, one.config)(**(one.options if one.nested else {})).get_text_config()
    changes = [change for change in _changes(text, rng) if all(hasattr(defaults, key) for key in change)]
    chosen = rng.sample(changes, min(len(changes), rng.randint(2, CHANGES)))
    for change in chosen:
        text |= change
    options = one.options | {"text_config": text} if one.nested else text
    window = text.get("sliding_window", one.window) if one.window else None
    spare = rng.choice((0, 1, 7, 39))
    names = sorted({key for change in chosen for key in change})
    return name, replace(one, options=options, window=window, spare=spare), names


def _changes(text: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """What can be changed; each is a group of settings that go together."""
    changes: list[dict[str, Any]] = [
        {"tie_word_embeddings": rng.random() < 0.5},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"logits_scaling": rng.choice((0.5, 3.0, 8.0))},
        {"logit_scale": rng.choice((0.25, 2.0))},
        {"final_logit_softcapping": rng.choice((5.0, 15.0))},
        {"attn_logit_softcapping": rng.choice((2.0, 20.0))},
        {"partial_rotary_factor": rng.choice((0.25, 0.5))},
        {"rms_norm_eps": 1e-3},
        {"residual_multiplier": 0.3},
        {"embedding_multiplier": 3.0},
        {"attention_multiplier": 0.7},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e3, "partial_rotary_factor": 0.5}},
        {"hidden_size": 60, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 12},
        {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8},
        {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 20},
        {"num_attention_heads": 8, "num_key_value_heads": 1},
        {"sliding_window": rng.choice(ODD_WINDOWS)},
        {"time_step_min": rng.choice((0.01, 0.4))},
        {"time_step_limit": rng.choice(([0.05, 0.9], [0.3, 0.6]))},
    ]
    if kinds := text.get("layer_types"):
        count = rng.randint(2, 5)
        drawn = [rng.choice(kinds) for _ in range(count)]
        changes.append({"num_hidden_layers": count, "layer_types": drawn})
        changes.append({"layer_types": rng.sample(kinds, len(kinds))})
    else:
        changes.append({"num_hidden_layers": rng.choice((1, 3, 4))})
    return changes
