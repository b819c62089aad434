"""Layers that read the same tensor as one product, their adapters included: fewer launches on a GPU.

Which layers those are (queries, keys and values; the two halves of a gated MLP) is seen in a pass over one token,
whatever an architecture calls them.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.adapter import lora_layers
from motif.models.int8 import Forward
from motif.models.launches import replaced
from motif.models.policy import Policy


class Joined:
    """Linear layers with LoRA that read the same: y = x [W; A]^T in one product, and B [A x] added to it by another.

    The weights move once into a common tensor, of which each layer's own is a part from then on: no value changes, and
    nothing is held twice. The adapter's are copied for every sampling, in the base's precision.
    """

    def __init__(self, layers: Sequence[Any]):
        self.layers = layers
        bases = [layer.get_base_layer() for layer in layers]
        self.sizes = [base.out_features for base in bases]
        self.ranks = [layer.r["default"] for layer in layers]
        first = bases[0].weight
        self.weight = first.new_empty(sum(self.sizes) + sum(self.ranks), first.shape[1])
        self.up = first.new_zeros(
            sum(self.ranks), sum(self.sizes)
        )  # B of each layer, transposed, in a block of its own
        self.bias = None
        if any(base.bias is not None for base in bases):
            self.bias = first.new_zeros(len(self.weight))
        for base, start, size in zip(bases, _starts(self.sizes), self.sizes, strict=True):
            place = self.weight[start : start + size]
            place.copy_(base.weight.detach())
            base.weight.data = place
            if base.bias is not None and self.bias is not None:
                self.bias[start : start + size] = base.bias.detach()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Let the layers compute together inside the block, with the adapter's present weights."""
        forwards = together(self._compute, self.sizes)
        parts = zip(self.layers, _starts(self.sizes), self.sizes, _starts(self.ranks), self.ranks, strict=True)
        with contextlib.ExitStack() as stack:
            for forward, (layer, column, size, row, rank) in zip(forwards, parts, strict=True):
                up = layer.scaling["default"] * layer.lora_B["default"].weight.detach()
                self.weight[sum(self.sizes) + row :][:rank] = layer.lora_A["default"].weight.detach()
                self.up[row : row + rank, column : column + size] = up.t()
                stack.enter_context(replaced(layer, "forward", forward))
            yield

    def product(self, rows: Tensor) -> Tensor:
        """Outputs of all and inner numbers of their adapters, (rows, N + K) of rows (rows, D)."""
        return F.linear(rows, self.weight, self.bias)

    def _compute(self, rows: Tensor) -> Tensor:
        outputs, low = self.product(rows.flatten(0, -2)).split([sum(self.sizes), sum(self.ranks)], dim=-1)
        outputs.addmm_(low, self.up)
        return outputs.unflatten(0, rows.shape[:-1])


def together(run: Forward, sizes: Sequence[int]) -> list[Forward]:
    """Forward passes of layers of these sizes that read the same: the first that is asked computes those of all.

    Args:
        run: the outputs of all, one after the other in the last dimension.
    """
    if len(sizes) == 1:
        return [run]
    read: list[Tensor] = []
    outputs: dict[int, Tensor] = {}

    def output(index: int, rows: Tensor) -> Tensor:
        if not read or rows is not read[0] or index not in outputs:
            read[:] = [rows]
            outputs.update(enumerate(run(rows).split(sizes, dim=-1)))
        return outputs.pop(index)

    return [functools.partial(output, index) for index in range(len(sizes))]


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


_JOINED: WeakKeyDictionary[Policy, list[Joined]] = WeakKeyDictionary()


def joined_layers(policy: Policy) -> list[Joined]:
    """The linear layers of a policy with LoRA in bfloat16, joined where they read the same; found once."""
    if policy not in _JOINED:
        layers = [layer for layer in lora_layers(policy.wrapped) if _joins(layer)]
        _JOINED[policy] = [Joined(group) for group in reading_the_same(policy, layers)]
    return _JOINED[policy]


@torch.no_grad()
def reading_the_same(policy: Policy, layers: Sequence[Any]) -> list[list[Any]]:
    """Layers that a pass gives the same tensor, together; those that it runs more than once, or never, are left out."""
    read: list[tuple[Tensor, Any]] = []  # keeps the tensors, so that no two have one address
    hooks = [layer.register_forward_pre_hook(lambda one, rows: read.append((rows[0], one))) for layer in layers]
    try:
        _pass(policy)
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(layer for _, layer in read)
    groups: dict[int, list[Any]] = {}
    for rows, layer in read:
        if times[layer] == 1:
            groups.setdefault(id(rows), []).append(layer)
    return list(groups.values())


def _pass(policy: Policy) -> None:
    with policy.precision():
        policy.decoder(input_ids=torch.ones(1, 1, dtype=torch.long, device=policy.device), use_cache=False)


def _joins(layer: Any) -> bool:
    base = layer.get_base_layer()
    return type(base) is nn.Linear and base.weight.dtype == torch.bfloat16 and "default" in layer.lora_A
