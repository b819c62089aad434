"""Decoder layers of the common form in 8 bits: what norms and steps multiply by is one number for each row.

A norm divides a row, its scale is in the weights, and whole numbers are made of multiples of a row's largest number. So
they are the same of a row as of its norm, which need not be computed: its divisor goes to the steps. With few rows, the
calls between the products take longer than the products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.int8 import ROWS, Int8Linear
from motif.models.launches import norm_weight
from motif.models.sizes import cache_in
from motif.sampling.local.attention import TreeCache
from motif.sampling.local.layers import ATTENTION, HEAD_NORMS, read_together

Products = Mapping[nn.Module, tuple[Sequence[nn.Module], Int8Linear]]
"""By the first of the layers that are one product: all of them, and the product."""


class Int8Layer:
    """The forward pass of a decoder layer that has the form, with states that come rotated.

    Attention to more than one token is left to the layer's own.
    """

    def __init__(self, layer: Any, products: Products, sines: list[Tensor]):
        self.layer, self.attention, self.sines = layer, layer.self_attn, sines
        self.asked, self.out, self.gated, self.down = (products[_base(group[0])][1] for group in read_together(layer))
        self.size = self.attention.head_dim
        self.heads = [_base(getattr(self.attention, name)).out_features // self.size for name in ATTENTION[:2]]
        self.eps = [_eps(norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        self.norms = [getattr(self.attention, name) for name in HEAD_NORMS if hasattr(self.attention, name)]

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """States (B, T, D) of states; see transformers for the arguments."""
        cache, around = cache_in(kwargs), kwargs.get("position_embeddings")
        if args or around is None or not isinstance(cache, TreeCache) or hidden_states.shape[1] > 1:
            normed = self.layer.input_layernorm(hidden_states)
            states = hidden_states + self.attention(normed, *args, **kwargs)[0]
        else:
            rows = hidden_states[:, 0]
            attended = self._attended(rows, cache, around, kwargs.get("attention_mask"))
            states = (rows + self.out(attended))[:, None]
        parts = [part + self._mixed(part) for part in states.flatten(0, 1).split(ROWS)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(states.shape)

    def _attended(self, rows: Tensor, cache: TreeCache, around: tuple[Tensor, Tensor], mask: Any) -> Tensor:
        """What rows (R, D) of one token each read from all before them, (R, heads * size)."""
        product = _normed(self.asked, rows, self.eps[0])
        heads, value = product.unflatten(1, (-1, self.size)).split([sum(self.heads), self.heads[1]], dim=1)
        if self.norms:
            parts = zip(self.norms, heads.split(self.heads, dim=1), strict=True)
            heads = torch.cat([norm(part) for norm, part in parts], dim=1)
        query, key = self._turned(heads, *around).split(self.heads, dim=1)
        keys, values = cache.update(key[:, :, None], value[:, :, None], self.attention.layer_idx)
        query = query.unflatten(1, (key.shape[1], -1))
        return cache.attend(query, keys, values, mask, self.attention.scaling, None, None, None).flatten(1)

    def _turned(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Heads (R, H, size) turned by their positions; all layers of a pass get the same sines."""
        if not self.sines or self.sines[0] is not sin:
            below, above = sin.chunk(2, dim=-1)
            self.sines[:] = sin, torch.cat([-below, above], dim=-1)
        swapped = heads.unflatten(2, (2, -1)).flip(2).flatten(2)
        return torch.addcmul(heads * cos, swapped, self.sines[1])

    def _mixed(self, rows: Tensor) -> Tensor:
        """What the MLP adds to rows (R, D)."""
        gate, up = _normed(self.gated, rows, self.eps[1]).chunk(2, dim=1)
        return self.down.outputs(*self.down.taken(F.silu(gate).mul_(up)))


def has_products(layer: Any, products: Products) -> bool:
    """Whether those layers of a decoder layer that has the form are one product which read the same."""
    bases = [[_base(part) for part in group] for group in read_together(layer)]
    return all(group[0] in products and list(products[group[0]][0]) == group for group in bases)


def _normed(linear: Int8Linear, rows: Tensor, eps: float) -> Tensor:
    """Outputs (R, N) of the norms of rows (R, K), without computing these."""
    multiples, steps = linear.taken(rows)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return linear.outputs(multiples, steps.mul_(length.square_().div_(rows.shape[1]).add_(eps).rsqrt_()))


def _base(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _eps(norm: Any) -> float:
    found = norm_weight(norm)
    assert found is not None
    return found[1]
