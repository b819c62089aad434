"""What a model is, told from its configuration: layers by kind, heads, windows, experts, vocabulary, context."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from motif.models.architecture import model_class
from motif.models.hub import load_config
from motif.models.recurrent import layer_kinds
from motif.models.shape import context_limit, windows
from motif.models.sizes import EXPERTS_EACH
from motif.text import counted

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call the number of experts; of those that a token goes to: `EXPERTS_EACH`."""


@dataclass(frozen=True)
class Description:
    """A model as its text configuration describes it.

    kind, text_kind: the model type, and that of the part that writes, of a model that also sees or hears. layers: how
    many there are of each kind. windows: tokens that some layers are limited to, by name.
    """

    kind: str
    architecture: str
    text_kind: str
    layers: dict[str, int]
    recurrent: bool
    heads: int
    key_value_heads: int
    windows: dict[str, int]
    experts: int
    experts_each: int
    vocabulary: int
    context: int

    def __str__(self) -> str:
        layers = ", ".join(f"{count} {kind}" for kind, count in self.layers.items())
        parts = [f"{counted(sum(self.layers.values()), 'layer')} ({layers})"]
        if self.heads:
            shared = f" on {self.key_value_heads} of keys and values" if self.key_value_heads != self.heads else ""
            parts.append(counted(self.heads, "head") + shared)
        parts += [f"{name.replace('_', ' ')} {size:,} tokens" for name, size in self.windows.items()]
        if self.experts:
            each = f", {self.experts_each} for each token" if self.experts_each else ""
            parts.append(f"{self.experts} experts{each}")
        return ", ".join([*parts, f"{self.vocabulary:,} tokens in its vocabulary", f"context {self.context:,} tokens"])


def describe(name: str) -> Description:
    """Describe a model without its weights (see `motif.models.hub.locate` for names).

    Raises:
        ModelError: it cannot be found, or is not a language model.
    """
    config = load_config(name)
    whole = model_class(name, config)._model_mapping[type(config)].__name__
    text = config.get_text_config()
    recurrent, _ = layer_kinds(text)
    heads = _first(text, ("num_attention_heads",))
    return Description(
        kind=config.model_type,
        architecture=whole,
        text_kind=text.model_type,
        layers=_layers(text, recurrent),
        recurrent=recurrent,
        heads=heads,
        key_value_heads=_first(text, ("num_key_value_heads",)) or heads,
        windows=windows(text),
        experts=_first(text, EXPERTS),
        experts_each=_first(text, EXPERTS_EACH),
        vocabulary=text.vocab_size,
        context=context_limit(config),
    )


def _layers(config: Any, recurrent: bool) -> dict[str, int]:
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if not kinds:
        limited = "sliding attention" if windows(config) else "full attention"
        kinds = ["recurrent" if recurrent else limited] * config.num_hidden_layers
    return dict(Counter(str(kind).replace("_", " ") for kind in kinds))


def _first(config: Any, names: tuple[str, ...]) -> int:
    """The first of these sizes that a configuration has, of layers that differ the largest; 0 if it has none."""
    for name in names:
        try:
            size = getattr(config, name, None)
        except RuntimeError:  # transformers' answer where layers differ
            size = [getattr(layer, name, 0) or 0 for layer in config.per_layer_config]
        size = max(size, default=0) if isinstance(size, list | tuple) else size
        if isinstance(size, int) and size > 0:
            return size
    return 0
