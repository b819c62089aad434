"""What a model keeps and computes of each token: counted in the model, and measured by passes without numbers.

On torch's `meta` device a model has the shapes of its tensors and nothing else, so a pass of one of any size takes
a moment. What its cache holds afterwards, and what autograd has saved, is exact for whatever transformers runs.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motif.models.adapter import is_stack
from motif.models.architecture import decoder_of, text_parts, towers

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""What decoders call their caches, as an argument and in their outputs. The newest name is first: those who know it
warn of the others. Recurrent ones differ."""
EXPERTS_EACH = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
"""What configurations call the number of experts that a token goes to."""
STATE_BYTES = 4
"""Of a number of a recurrent state: layers compute them in float32."""
TRIAL = 64
"""Tokens of the shortest pass, a multiple of the pieces in which most recurrent layers compute."""


@dataclass(frozen=True)
class LayerCache:
    """What each of `layers` equal layers keeps of a sequence, in numbers (not bytes).

    per_token: of keys and values, or what stands in their place. window: of how many tokens at most; None: of all.
    state: whatever the length. attends: whether it attends at all, be it to what another layer keeps.
    """

    layers: int
    per_token: int
    window: int | None = None
    state: int = 0
    attends: bool = True

    def bytes(self, tokens: Any, size: float, windows: bool) -> Any:
        """Of all its layers, for sequences of so many tokens (a number or an array), in numbers of `size` bytes.

        `windows`: whether only the window is kept, which is so in servers and in transformers' own caches.
        """
        kept = _least(tokens, self.window) if windows else tokens
        return self.layers * (self.per_token * size * kept + self.state * STATE_BYTES)

    def attended(self, tokens: Any) -> Any:
        """Tokens to which one token attends, summed over layers, if so many are before it."""
        return self.layers * _least(tokens, self.window) if self.attends else 0 * tokens


def _least(tokens: Any, most: int | None) -> Any:
    if most is None:
        return tokens
    return tokens - (tokens - most) * (tokens > most)


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    parameters: all. towers: of these, in models that text does not pass. text: that text passes, which
    `adapter = "full"` trains. computed: that take part in the products of one token. Tables that are only looked up
    and experts that are not chosen do not. experts: in stacks; chosen: of these, for one token. matrices: of text,
    without embeddings and output head: what an adapter could reach.
    """

    parameters: int
    towers: int
    text: int
    computed: int
    experts: int
    chosen: int
    matrices: int


def count(model: Any, chosen: Mapping[nn.Module, int]) -> Counts:
    """Count a bare model's parameters; `chosen`: how many experts a token passes, by module (see `choices`)."""
    parts = text_parts(model)
    text = {id(p): p.numel() for part in parts for p in part.parameters()}
    head = {id(p) for p in parts[1].parameters()}
    modules = {id(module): module for part in parts for module in part.modules()}.values()
    tables = {
        id(p): p.numel() for module in modules if isinstance(module, nn.Embedding) for p in module.parameters(False)
    }
    fallback = _per_token(model.config.get_text_config())
    stacks = [
        (p.numel(), min(1.0, chosen.get(module, fallback or p.shape[0]) / p.shape[0]))
        for module in modules
        for p in module.parameters(recurse=False)
        if is_stack(module, p)
    ]
    experts, used = sum(size for size, _ in stacks), sum(size * share for size, share in stacks)
    looked_up = sum(size for key, size in tables.items() if key not in head)
    flat = sum(p.numel() for part in parts[:1] for p in part.parameters() if p.dim() < 2)
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()),
        towers=sum(p.numel() for tower in towers(model) for p in tower.parameters()),
        text=sum(text.values()),
        computed=sum(text.values()) - looked_up - experts + round(used),
        experts=experts,
        chosen=round(used),
        matrices=sum(size for key, size in text.items() if key not in head and key not in tables) - flat,
    )


def _per_token(config: Any) -> int:
    """Experts that a token passes, by a text configuration; 0 if it does not say."""
    for name in EXPERTS_EACH:
        if isinstance(value := getattr(config, name, None), int):
            return value
    return 0


@contextlib.contextmanager
def choices(model: nn.Module) -> Iterator[dict[nn.Module, int]]:
    """Experts that a token passes, by the module with their stack, of those that are asked inside the block."""
    found: dict[nn.Module, int] = {}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
                found[module] = value.shape[1]

    stacks = [m for m in model.modules() if any(is_stack(m, p) for p in m.parameters(recurse=False))]
    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in stacks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Passes:
    """What passes have shown.

    caches: of the layers. activations: numbers that autograd keeps of a token. pairs: of a token and one to which it
    attends: scores, where attention kernels write them down, else masks.
    """

    caches: tuple[LayerCache, ...]
    activations: float
    pairs: float
    chosen: Mapping[nn.Module, int]


def measure(model: Any) -> Passes | None:
    """Run passes of a model that lies on `meta`, in bfloat16; None: it needs numbers to be run.

    The model is of no other use afterwards.
    """
    decoder, text = decoder_of(model), model.config.get_text_config()
    decoder.config.pad_token_id = None  # which transformers would look for among the tokens
    with contextlib.suppress(ValueError, AttributeError):
        model.set_experts_implementation("grouped_mm")  # others need numbers, or take more memory
    step = max([TRIAL, *(getattr(text, name, None) or 0 for name in ("chunk_size", "mamba_chunk_size"))])
    try:
        with choices(decoder) as chosen:
            (one, first), (two, second) = _run(decoder, step), _run(decoder, 2 * step)
            caches = _layer_caches(first, second, step)
            # Without attention nothing grows faster than the length; layers that read token by token take their time.
            three = _run(decoder, 3 * step)[0] if any(layer.attends for layer in caches) else 2 * two - one
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None
    bend = (three - 2 * two + one) / (2 * step * step)  # of kept = flat + activations * n + pairs * n * n
    slope = (two - one) / step - 3 * step * bend
    if text._attn_implementation == "eager":
        pairs = bend
    else:  # others write down at most the mask: once a pass, or once a layer where the model makes masks from booleans
        masks = sum(layer.layers for layer in caches if layer.attends)
        local = any(layer.window for layer in caches)
        pairs = float(masks if local else min(1, masks))
    return Passes(caches, max(0.0, slope), max(0.0, pairs), dict(chosen))


def _run(decoder: nn.Module, tokens: int) -> tuple[int, list[Any]]:
    """Numbers that autograd keeps of a pass over so many tokens, and the layers of the cache."""
    known = {p.untyped_storage()._cdata for p in decoder.parameters()}
    kept: dict[int, tuple[Any, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage, storage.nbytes() // tensor.element_size()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        output = decoder(input_ids=ids, use_cache=True)
    cache = cache_in(output)
    return sum(size for _, size in kept.values()), list(getattr(cache, "layers", [cache]))


def cache_in(given: Mapping[str, Any]) -> Any:
    """The cache among the arguments or the outputs of a decoder or a layer; None: there is none."""
    return next((given[name] for name in CACHE_NAMES if name in given), None)


def _layer_caches(one: Iterable[Any], two: Iterable[Any], step: int) -> tuple[LayerCache, ...]:
    """From the caches' layers after `step` and twice as many tokens."""
    kinds: Counter[tuple[int, int | None, int, bool]] = Counter()
    for shorter, longer in zip(one, two, strict=True):
        window = getattr(shorter, "sliding_window", None)
        first, second = numbers_of(shorter), numbers_of(longer)
        if window is None:
            per_token = (second - first) // step
            state = first - step * per_token
        else:  # it keeps one less, the next token is the last
            kept, state = min(step, window - 1), 0
            per_token = first // max(1, kept)
        kinds[per_token, window, state, per_token > 0 or not state] += 1
    return tuple(LayerCache(layers, *kind) for kind, layers in kinds.items())


def numbers_of(kept: Any) -> int:
    """Numbers in all tensors that something of a cache of transformers holds, for each sequence in it."""
    if isinstance(kept, Tensor):
        return math.prod(kept.shape[1:]) if kept.dim() > 1 else 0
    if isinstance(kept, dict):
        return sum(map(numbers_of, kept.values()))
    if isinstance(kept, list | tuple):
        return sum(map(numbers_of, kept))
    return numbers_of(vars(kept)) if type(kept).__module__.startswith("transformers.") else 0
