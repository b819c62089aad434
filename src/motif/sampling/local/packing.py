"""The weights to sample with: the adapter folded in (in float32), and laid out for products with few rows.

Decoding multiplies a handful of rows with every weight, and for few rows the kernels for plain matrices are far from
what memory allows. On a CPU, oneDNN's blocked layout is closer to it, and laying out costs about one decoding step. So
are 8-bit numbers, made of the same weights (`motif.models.int8`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.adapter import adapted_parameter, lora_layers
from motif.models.int8 import Forward, Quantiser
from motif.models.policy import Policy
from motif.sampling.local.joining import joined_layers

FEW_ROWS = 16
"""Rows that the layout is chosen for; it serves other numbers as well."""
LARGE = 2**16
"""Elements of a matrix that is worth laying out; below, the call costs more than what is saved."""


@contextlib.contextmanager
def sampling_weights(policy: Policy, name: str, quantiser: Quantiser | None = None) -> Iterator[None]:
    """For a while, `policy` runs as its bare model: for `current` with the adapter folded in, for `base` without it.

    The policy's own weights are put aside, not changed, so they come back exactly. In bfloat16 the adapter is added to
    each output instead: folded in, what is smaller than half a step between two bfloat16 numbers would be lost, always
    the same part of it. A quantised base is used as it is. Weights that are trained themselves are copied to bfloat16.

    Args:
        quantiser: makes the large linear layers' passes in 8 bits; an adapter is folded in before.
    """
    layers = lora_layers(policy.wrapped)
    apart = policy.half or policy.config.four_bit
    laid_out = _Layout(policy, quantiser)
    with contextlib.ExitStack() as stack:
        if policy.config.adapter == "full" and policy.autocast and policy.launch_bound and not policy.shards:
            for module in policy.model.modules():  # a recorded step would cast each weight anew
                if type(module) is nn.Linear and module.weight.dtype == torch.float32:
                    copy = module.weight.detach().to(torch.bfloat16)
                    stack.enter_context(laid_out.running_with(module, "weight", copy))
        if name == "current" and apart:
            joined = joined_layers(policy) if policy.launch_bound and policy.autocast and not policy.shards else []
            for products in joined:
                stack.enter_context(products.active())
            together = {layer for products in joined for layer in products.layers}
            for layer in layers:
                if layer not in together:
                    stack.enter_context(_added(layer, policy))
            yield
            return
        if layers:
            stack.enter_context(policy.adapter_disabled())
        bases = {layer.get_base_layer() for layer in layers}
        # A layer's adapter is off by now, and no use to lay out.
        ignored = {part for layer in layers for part in layer.modules()} - bases
        folded = {(layer.get_base_layer(), adapted_parameter(layer)): layer for layer in layers if name == "current"}
        for (module, parameter), layer in folded.items():
            stack.enter_context(laid_out.running_with(module, parameter, _folded(layer)))
        for module in () if apart else policy.model.modules():
            if module not in ignored and (module, "weight") not in folded and packs(policy, module):
                stack.enter_context(laid_out.running_with(module, "weight", module.weight.detach()))
        yield


@torch.no_grad()
def _folded(layer: Any) -> Tensor:
    weight: Tensor = getattr(layer.get_base_layer(), adapted_parameter(layer))
    return weight + layer.get_delta_weight("default").to(weight.dtype)


@contextlib.contextmanager
def _added(layer: Any, policy: Policy) -> Iterator[None]:
    """Add a layer's adapter to its output by two products in the base's precision, without peft's casts of every input.

    Adapters of embeddings and experts stay as peft computes them.
    """
    if not isinstance(layer.get_base_layer(), nn.Linear):
        yield
        return
    dtype = torch.bfloat16 if policy.autocast else torch.float32
    down = layer.lora_A["default"].weight.detach().to(dtype)
    up = (layer.scaling["default"] * layer.lora_B["default"].weight.detach()).to(dtype)

    def forward(rows: Tensor) -> Tensor:
        output: Tensor = layer.base_layer(rows)
        return output + F.linear(F.linear(rows.to(dtype), down), up).to(output.dtype)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


class _Layout:
    """Lets modules run with other weights, large linear layers in a layout or numbers that few rows are fast with."""

    def __init__(self, policy: Policy, quantiser: Quantiser | None):
        self.policy, self.quantiser = policy, quantiser

    @contextlib.contextmanager
    def running_with(self, module: Any, name: str, weight: Tensor) -> Iterator[None]:
        """Inside the block, `weight` stands in for a module's parameter."""
        if packs(self.policy, module):
            module.forward = self._forward(module, weight)
            del weight  # a second copy of the model is enough
            try:
                yield
            finally:
                del module.forward
        else:
            own = getattr(module, name)  # an embedding may share it, and has no part in this
            setattr(module, name, nn.Parameter(weight, requires_grad=False))
            try:
                yield
            finally:
                setattr(module, name, own)

    def _forward(self, module: nn.Linear, weight: Tensor) -> Forward:
        bias = None if module.bias is None else module.bias.detach()
        if self.quantiser and self.quantiser.takes(module):
            return self.quantiser.forward(module, weight, bias)
        return packed(weight, bias)


def packed(weight: Tensor, bias: Tensor | None = None) -> Forward:
    """A linear layer's forward pass with weights (N, K) laid out for few rows."""
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), FEW_ROWS)
    del weight
    return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, blocks, bias, "none", [], "")


def packs(policy: Policy, module: nn.Module) -> bool:
    """Whether a module is a linear layer that is worth laying out here."""
    return (
        type(module) is nn.Linear
        and module.weight.numel() >= LARGE
        and policy.device.type == "cpu"
        and not policy.half
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
