"""The weights to sample with: the adapter folded in (in float32), and laid out for products with few rows.

Decoding multiplies a handful of rows with every weight, and for few rows the kernels for plain matrices are far from
what memory allows. On a CPU, oneDNN's blocked layout is closer to it, and laying out costs about one decoding step. So
are 8-bit numbers, made of the same weights (`motif.models.int8`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.adapter import adapted_parameter, lora_layers
from motif.models.int8 import CHANNELS, Forward, Int8Linear, Shape, rotated
from motif.models.launches import replaced
from motif.models.path import Gaps
from motif.models.policy import Policy
from motif.sampling.local.int8_layers import Int8Layer, has_products
from motif.sampling.local.joining import joined_layers, reading_the_same, together
from motif.sampling.local.kernels import Kernels
from motif.sampling.local.layers import fused_layers
from motif.sampling.local.rotation import PLAIN, Rotation, Turn, find_rotation

FEW_ROWS = 16
"""Rows that the layout is chosen for; it serves other numbers as well."""
LARGE = 2**16
"""Elements of a matrix that is worth laying out; below, the call costs more than what is saved."""


@contextlib.contextmanager
def sampling_weights(
    policy: Policy, name: str, quantiser: Quantiser | None = None, kernels: Kernels | None = None
) -> Iterator[None]:
    """For a while, `policy` runs as its bare model: for `current` with the adapter folded in, for `base` without it.

    The policy's own weights are put aside, not changed, so they come back exactly. In bfloat16 the adapter is added to
    each output instead: folded in, what is smaller than half a step between two bfloat16 numbers would be lost, always
    the same part of it. A quantised base is used as it is. Weights that are trained themselves are copied to bfloat16.

    Args:
        quantiser: makes the large linear layers' passes in 8 bits; an adapter is folded in before.
        kernels: with which layers are decoded where products are joined.
    """
    layers = lora_layers(policy.wrapped)
    apart = policy.half or policy.config.four_bit
    laid_out = _Layout(policy)
    with contextlib.ExitStack() as stack:
        if policy.config.adapter == "full" and policy.autocast and policy.launch_bound and not policy.shards:
            for module in policy.model.modules():  # a recorded step would cast each weight anew
                if type(module) is nn.Linear and module.weight.dtype == torch.float32:
                    copy = module.weight.detach().to(torch.bfloat16)
                    stack.enter_context(laid_out.running_with(module, "weight", copy))
        if name == "current" and apart:
            stack.enter_context(_beside(policy, layers, kernels))
            yield
            return
        if layers:
            stack.enter_context(policy.adapter_disabled())
        # A layer's adapter is off by now, and no use to lay out.
        ignored = {part for layer in layers for part in layer.modules()} - {layer.get_base_layer() for layer in layers}
        large = [m for m in policy.model.modules() if m not in ignored and packs(policy, m)] if not apart else []
        folded = {(layer.get_base_layer(), adapted_parameter(layer)): layer for layer in layers if name == "current"}
        if quantiser:
            taken = dict.fromkeys(module for module in large if quantiser.takes(module))
            wrappers = {layer.get_base_layer(): layer for layer in layers}
            stack.enter_context(quantiser.running(taken, wrappers, fold=name == "current"))
            large = [module for module in large if module not in taken]
            folded = {place: layer for place, layer in folded.items() if place[0] not in taken}
        for (module, parameter), layer in folded.items():
            stack.enter_context(laid_out.running_with(module, parameter, _folded(layer)))
        for module in large:
            if (module, "weight") not in folded:
                stack.enter_context(laid_out.running_with(module, "weight", module.weight.detach()))
        yield


@contextlib.contextmanager
def _beside(policy: Policy, layers: Sequence[Any], kernels: Kernels | None) -> Iterator[None]:
    """Add the adapter to outputs, where launching takes time for layers that read the same together."""
    joined = joined_layers(policy) if policy.launch_bound and policy.autocast and not policy.shards else []
    together = {layer for products in joined for layer in products.layers}
    with contextlib.ExitStack() as stack:
        for products in joined:
            stack.enter_context(products.active())
        for layer in layers:
            if layer not in together:
                stack.enter_context(_added(layer, policy))
        if joined and kernels is not None:
            stack.enter_context(fused_layers(policy, joined, kernels))
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


class Quantiser:
    """Lets the large linear layers of a policy run in 8 bits, but not those of the shapes `slow`.

    Layers that read the same are one product, for which the input is changed once; where the model cannot have that,
    each is `alone`. What never changes, as an output head without an adapter, is made once.
    """

    def __init__(self, policy: Policy, slow: frozenset[Shape] = frozenset()):
        self.policy, self.slow, self.alone = policy, slow, False
        self.rotation: Rotation | None = None
        self._groups: list[list[nn.Linear]] | None = None
        self._made: dict[nn.Linear, Int8Linear] = {}  # by the first of a group

    def takes(self, module: nn.Module) -> bool:
        """Whether a layer is computed in 8 bits."""
        return packs(self.policy, module) and (module.out_features, module.in_features) not in self.slow

    def measured(self, measure: Callable[[], Gaps]) -> Gaps:
        """What a measurement with these layers finds, which shows whether the model takes parts of a joint product."""
        try:
            return measure()
        except RuntimeError:  # it wants them to lie one after the other
            self.alone, self._groups, self._made = True, None, {}
            return measure()

    @contextlib.contextmanager
    def running(self, modules: Collection[Any], wrappers: Mapping[Any, Any], fold: bool) -> Iterator[None]:
        """Compute these modules in 8 bits inside the block, in which adapters are off.

        Args:
            wrappers: the LoRA layer around a module, if there is one: passes leave it out. fold: whether to add its
                adapter to the weights.
        """
        with contextlib.ExitStack() as stack:
            products: dict[nn.Module, tuple[list[nn.Linear], Int8Linear]] = {}
            for group in self._grouped(modules):
                linear = self._linear(group, wrappers, fold)
                products[group[0]] = group, linear
                for module, forward in zip(group, together(linear, [m.out_features for m in group]), strict=True):
                    stack.enter_context(replaced(wrappers.get(module, module), "forward", forward))
            if self.rotation:
                sines: list[Tensor] = []
                for layer in self.policy.decoder.layers:
                    if has_products(layer, products):
                        stack.enter_context(replaced(layer, "forward", Int8Layer(layer, products, sines)))
                stack.enter_context(self.rotation.active())
            yield

    def _grouped(self, modules: Collection[nn.Linear]) -> list[list[nn.Linear]]:
        """The modules, those that read the same together."""
        if self._groups is None:
            self.rotation = find_rotation(self.policy, modules)
            self._groups = [] if self.alone else reading_the_same(self.policy, list(modules))
            grouped = {module for group in self._groups for module in group}
            self._groups += [[module] for module in modules if module not in grouped]
        return self._groups

    @torch.no_grad()
    def _linear(self, group: Sequence[nn.Linear], wrappers: Mapping[Any, Any], fold: bool) -> Int8Linear:
        """The product of layers that read the same."""
        if group[0] in self._made:
            return self._made[group[0]]
        turns = [self.rotation.turns.get(module, PLAIN) if self.rotation else PLAIN for module in group]
        parts = (
            turn.of(rows)
            for module, turn in zip(group, turns, strict=True)
            for rows in _rows(module, wrappers.get(module) if fold else None)
        )
        linear = Int8Linear(parts, _biases(group, turns), turns[0].turned)
        if self.policy.config.adapter == "lora" and not any(module in wrappers for module in group):
            self._made[group[0]] = linear
        return linear


def _rows(module: nn.Linear, adapter: Any) -> Iterator[Tensor]:
    """A layer's weights with a LoRA layer's added to them, a few output channels at a time."""
    weights = module.weight.detach().split(CHANNELS)
    if adapter is None:
        yield from weights
        return
    down, up = (part["default"].weight.detach() for part in (adapter.lora_A, adapter.lora_B))
    for rows, its in zip(weights, up.split(CHANNELS), strict=True):
        yield torch.addmm(rows, its, down, alpha=adapter.scaling["default"])


def _biases(group: Sequence[nn.Linear], turns: Sequence[Turn]) -> Tensor | None:
    """The biases of layers, one after the other; of a layer without, zeros."""
    if all(module.bias is None for module in group):
        return None
    biases = [m.weight.new_zeros(m.out_features) if m.bias is None else m.bias.detach() for m in group]
    return torch.cat([rotated(bias, turn.size) for bias, turn in zip(biases, turns, strict=True)])


class _Layout:
    """Lets modules run with other weights, large linear layers in a layout that few rows are fast with."""

    def __init__(self, policy: Policy):
        self.policy = policy

    @contextlib.contextmanager
    def running_with(self, module: Any, name: str, weight: Tensor) -> Iterator[None]:
        """Inside the block, `weight` stands in for a module's parameter."""
        if packs(self.policy, module):
            module.forward = packed(weight, None if module.bias is None else module.bias.detach())
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
