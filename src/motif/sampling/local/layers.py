"""Decoder layers of the common form, decoded in nine launches by the kernels of `motif.sampling.local.kernels`.

The form is that of Llama, Qwen and Mistral: norm, attention, residual; norm, gated MLP, residual. Whether a layer has
it is seen from the names of its parts, and from what it computes in float32. R rows, one token each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from motif.models.launches import CLOSE, norm_weight, replaced
from motif.models.policy import Policy
from motif.models.sizes import cache_in
from motif.sampling.local.attention import TreeCache
from motif.sampling.local.joining import Joined
from motif.sampling.local.kernels import Kernels

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
ATTENTION, HEAD_NORMS = ("q_proj", "k_proj", "v_proj"), ("q_norm", "k_norm")
MLP = ("gate_proj", "up_proj")
Norm = tuple[Tensor, float]
"""Weight and epsilon."""


@contextlib.contextmanager
def fused_layers(policy: Policy, joined: Sequence[Joined], kernels: Kernels) -> Iterator[None]:
    """Decode with the kernels inside the block, in which these products are active, wherever layers have the form."""
    layers = list(getattr(policy.decoder, "layers", []))
    products = {layer: one for one in joined for layer in one.layers}
    if policy not in _FORMS:
        _FORMS[policy] = {layer for layer in layers if _has_products(layer, products) and has_form(policy, layer)}
    forms = _FORMS[policy]
    final, normed = getattr(policy.decoder, "norm", None), _Normed()
    with contextlib.ExitStack() as stack:
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            if layer in forms:
                follows = after.input_layernorm if after in forms else final if after is None else None
                fused = _Layer(layer, products, kernels, norm_weight(follows), normed)
                stack.enter_context(replaced(layer, "forward", fused))
        if forms and layers[-1] in forms and norm_weight(final):
            stack.enter_context(replaced(final, "forward", normed.instead_of(final)))
        yield


_FORMS: WeakKeyDictionary[Policy, set[Any]] = WeakKeyDictionary()


@dataclass
class _Normed:
    """The norm of the states that the last kernel has left, if it has computed it."""

    pair: list[Tensor] = field(default_factory=list)

    def put(self, states: Tensor, normed: Tensor) -> Tensor:
        self.pair[:] = states, normed
        return states

    def take(self, states: Tensor) -> Tensor | None:
        found = self.pair[1] if self.pair and self.pair[0] is states else None
        self.pair.clear()
        return found

    def instead_of(self, norm: Any) -> Any:
        own = norm.forward

        def forward(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            found = self.take(states)
            return own(states, *args, **kwargs) if found is None else found.view(states.shape)

        return forward


class _Layer:
    """A layer's forward pass; `follows` is the norm of what comes after it."""

    def __init__(
        self, layer: Any, products: dict[Any, Joined], kernels: Kernels, follows: Norm | None, normed: _Normed
    ):
        self.layer, self.kernels, self.follows, self.normed = layer, kernels, follows, normed
        self.own = layer.forward
        attention = self.attention = layer.self_attn
        self.size = attention.head_dim
        self.asked, self.out, self.gated, self.down = (products[group[0]] for group in read_together(layer))
        self.heads = self.asked.sizes[0] // self.size
        norms = [norm_weight(getattr(attention, name, None)) for name in HEAD_NORMS]
        self.norms = None if norms[0] is None or norms[1] is None else (norms[0][0], norms[1][0])
        self.eps = norms[0][1] if norms[0] else 0.0
        self.inner = norm_weight(layer.post_attention_layernorm)

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        cache, around = cache_in(kwargs), kwargs.get("position_embeddings")
        if args or around is None or not isinstance(cache, TreeCache) or hidden_states.shape[1] > 1:
            return self.own(hidden_states, *args, **kwargs)
        assert self.inner is not None and cache.write is not None
        normed = self.normed.take(hidden_states)
        if normed is None:
            normed = self.layer.input_layernorm(hidden_states)[:, 0]
        product, (cos, sin) = self.asked.product(normed), around
        sizes = self.asked.sizes[1] // self.size, self.size
        keys, values = cache.own(self.attention.layer_idx, product, sizes, sizes)
        query = self.kernels.turn(
            product, self.asked.up, self.norms, self.eps, cos[:, 0], sin[:, 0], keys, values, cache.write, self.heads
        )
        mask = kwargs.get("attention_mask")
        attended = cache.attend(query, keys, values, mask, self.attention.scaling, None, None, None).flatten(1)
        states = hidden_states[:, 0]
        states, normed = self.kernels.add_norm(self.out.product(attended), self.out.up, states, *self.inner)
        mixed = self.kernels.swiglu(self.gated.product(normed), self.gated.up)
        states, normed = self.kernels.add_norm(
            self.down.product(mixed), self.down.up, states, *(self.follows or (None, 0.0))
        )
        return self.normed.put(states[:, None], normed) if self.follows else states[:, None]


def _has_products(layer: Any, products: dict[Any, Joined]) -> bool:
    """Whether a layer's parts are those of the form, and their products are joined."""
    return has_parts(layer) and all(
        group[0] in products and list(products[group[0]].layers) == group for group in read_together(layer)
    )


def read_together(layer: Any) -> list[list[Any]]:
    """The linear layers of one that has the parts, in order; those of a group read the same."""
    attention, mlp = layer.self_attn, layer.mlp
    asked, gated = ([getattr(part, name) for name in names] for part, names in ((attention, ATTENTION), (mlp, MLP)))
    return [asked, [attention.o_proj], gated, [mlp.down_proj]]


def has_parts(layer: Any) -> bool:
    """Whether a layer's parts are those of the form, and its norms divide by the root of the mean square."""
    if {name for name, _ in layer.named_children()} != PARTS:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    names = {name for name, _ in attention.named_children()}
    others = {name for name, _ in mlp.named_children()} - {"act_fn"}
    head_norms = names.intersection(HEAD_NORMS)
    if names - head_norms != {*ATTENTION, "o_proj"} or len(head_norms) == 1:
        return False
    if others != {*MLP, "down_proj"} or not hasattr(attention, "head_dim") or not hasattr(attention, "scaling"):
        return False
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(attention, name) for name in head_norms]
    return all(norm_weight(norm) is not None for norm in norms)


@torch.no_grad()
def has_form(policy: Policy, layer: Any) -> bool:
    """Whether a layer computes what `_expected` does, of three tokens in float32."""
    generator = torch.Generator().manual_seed(0)
    width, size = layer.input_layernorm.weight.shape[0], layer.self_attn.head_dim
    rows = torch.randn(1, 3, width, generator=generator).to(policy.device)
    angles = torch.randn(1, 3, size // 2, generator=generator).repeat(1, 1, 2).to(policy.device)
    around = angles.cos(), angles.sin()
    try:
        with policy.in_float32(), policy.attention("sdpa"):
            expected = _expected(layer, rows, *around)
            found = layer(rows, position_embeddings=around, attention_mask=None)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):  # it wants other arguments
        return False
    return isinstance(found, Tensor) and torch.allclose(found, expected, CLOSE, CLOSE * max(1.0, float(found.std())))


def _expected(layer: Any, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What the kernels compute, of sequences (1, T, D) that see what comes before."""
    attention, mlp = layer.self_attn, layer.mlp
    half = attention.head_dim // 2
    normed = layer.input_layernorm(rows)
    parts = [getattr(attention, name)(normed).unflatten(-1, (-1, 2 * half)).transpose(1, 2) for name in ATTENTION]
    if hasattr(attention, "q_norm"):
        parts[:2] = attention.q_norm(parts[0]), attention.k_norm(parts[1])
    query, key = (
        heads * cos.unsqueeze(1) + torch.cat([-heads[..., half:], heads[..., :half]], -1) * sin.unsqueeze(1)
        for heads in parts[:2]
    )
    attended = F.scaled_dot_product_attention(
        query, key, parts[2], is_causal=True, scale=attention.scaling, enable_gqa=True
    )
    rows = rows + attention.o_proj(attended.transpose(1, 2).flatten(2))
    normed = layer.post_attention_layernorm(rows)
    return rows + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
