"""The weights to sample with: the adapter folded in, and laid out for products with few rows.

Decoding multiplies a handful of rows with every weight, and for few rows the kernels for plain matrices are far from
what memory allows. On a CPU, oneDNN's blocked layout is closer to it, and laying out costs about one decoding step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from motif.models.policy import Policy

FEW_ROWS = 16
"""Rows that the layout is chosen for; it serves other numbers as well."""
LARGE = 2**16
"""Elements of a matrix that is worth laying out; below, the call costs more than what is saved."""


@contextlib.contextmanager
def sampling_weights(policy: Policy, name: str) -> Iterator[None]:
    """For a while, `policy` runs as its bare model: for `current` with the adapter folded in, for `base` without it.

    The policy's own weights are put aside, not changed, so they come back exactly. A quantised base is used as it is.
    """
    from peft.tuners.lora import LoraLayer

    adapted: dict[nn.Module, Any] = {
        layer.get_base_layer(): layer for layer in policy.wrapped.modules() if isinstance(layer, LoraLayer)
    }
    with contextlib.ExitStack() as stack:
        if adapted and not (policy.config.four_bit and name == "current"):
            stack.enter_context(policy.adapter_disabled())
        # A layer's adapter is off by now, and no use to lay out.
        ignored = {part for layer in adapted.values() for part in layer.modules()} - adapted.keys()
        for module in () if policy.config.four_bit else policy.model.modules():
            if module in adapted and name == "current":
                stack.enter_context(_running_with(module, _folded(adapted[module]), policy))
            elif module not in ignored and _packs(policy, module):
                stack.enter_context(_running_with(module, module.weight.detach(), policy))
        yield


@torch.no_grad()
def _folded(layer: Any) -> Tensor:
    weight: Tensor = layer.get_base_layer().weight
    return weight + layer.get_delta_weight("default").to(weight.dtype)


@contextlib.contextmanager
def _running_with(module: Any, weight: Tensor, policy: Policy) -> Iterator[None]:
    if _packs(policy, module):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), FEW_ROWS)
        del weight  # a second copy of the model is enough
        bias = None if module.bias is None else module.bias.detach()
        module.forward = lambda rows: torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        try:
            yield
        finally:
            del module.forward
    else:
        own, module.weight.data = module.weight.data, weight
        try:
            yield
        finally:
            module.weight.data = own


def _packs(policy: Policy, module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.numel() >= LARGE
        and policy.device.type == "cpu"
        and not policy.autocast
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
