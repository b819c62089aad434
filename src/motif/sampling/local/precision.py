"""Which numbers rollouts are sampled with: float32, or 8 bits where this processor is faster with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from motif.config import Recipe
from motif.errors import RecipeError
from motif.models.adapter import lora_layers
from motif.models.int8 import FLOAT32, Precision, Shape, kernels, timed
from motif.models.policy import Policy
from motif.sampling.local.packing import LARGE, packed, packs

WORTH = 1.2
"""How many times faster the layers have to be in 8 bits for `auto` to take them."""
SLOW = 4.0
"""How many times slower than in float32 a shape has to be to stay there: far more than timings scatter, so that a
resumed run finds the same."""
FAR = 0.3
"""Mean difference (nats) of log-probabilities that is too large for `auto`."""


def choose_precision(recipe: Recipe, policy: Policy) -> Precision:
    """The numbers that the recipe's rollouts are sampled with in this process.

    Raises:
        RecipeError: 8 bits are asked for, and cannot be had here.
    """
    asked = recipe.sampler.precision
    if asked == "float32":
        return FLOAT32
    loss = recipe.loss
    uncorrected = asked == "auto" and "importance_cap" in loss.model_fields_set and not loss.importance_cap
    problem = "loss.importance_cap = 0 would leave the difference uncorrected" if uncorrected else _problem(policy)
    shapes, left = layers(policy)
    if not problem and not shapes:
        problem = f"none of the model's layers is a linear one of {LARGE:,} weights or more"
    if problem and asked == "int8":
        raise RecipeError(f"sampler.precision = 'int8' cannot be had: {problem}. Leave it out, or set it to 'auto'")
    if problem:
        return Precision(asked, reason=problem)
    slow, gain = _timing(shapes)
    for shape in sorted(slow):
        left[f"layers of {shape[0]:,} × {shape[1]:,}, which are slower in 8 bits"] = shapes[shape]
    told = tuple(f"{count} {what}" for what, count in left.items())
    taken = sum(count for shape, count in shapes.items() if shape not in slow)
    found = Precision(asked, gain > 0, "", gain or None, taken, told, slow)
    if asked == "int8":
        return found if gain else Precision(asked, reason="all layers are several times slower in 8 bits here")
    if gain < WORTH:
        return Precision(asked, reason=f"in 8 bits its layers would be {gain:.2g} times as fast here, too little")
    return replace(found, reason=f"chosen because it was faster by at least {WORTH} times")


def refuse_elsewhere(recipe: Recipe, device: torch.device, half: bool) -> None:
    """Refuse 8 bits where there are none, before weights are loaded.

    Raises:
        RecipeError: see there.
    """
    if recipe.sampler.precision == "int8" and (problem := _not_here(device, half)):
        raise RecipeError(f"sampler.precision = 'int8' cannot be had: {problem}. Leave it out, or set it to 'auto'")


def layers(policy: Policy) -> tuple[Counter[Shape], Counter[str]]:
    """Shapes of the layers that can be in 8 bits, and what else has weights of that size or is linear, in words."""
    adapters = lora_layers(policy.wrapped)
    ignored = {part for layer in adapters for part in layer.modules()} - {layer.get_base_layer() for layer in adapters}
    shapes, left = Counter[Shape](), Counter[str]()
    for module in policy.model.modules():
        if module in ignored or isinstance(module, nn.Embedding):
            continue
        if packs(policy, module):
            shapes[module.out_features, module.in_features] += 1
        elif type(module) is nn.Linear:
            left[f"linear layers of fewer than {LARGE:,} weights"] += 1
        elif any(own.dim() > 1 and own.numel() >= LARGE for own in module.parameters(recurse=False)):
            left[type(module).__name__] += 1
    return shapes, left


def _not_here(device: torch.device, half: bool) -> str:
    if device.type != "cpu":
        return f"the model is on {device}, and 8-bit numbers are for CPUs"
    return "they are made of weights in float32, and the model's are in bfloat16" if half else ""


def _problem(policy: Policy) -> str:
    if problem := _not_here(policy.device, policy.half):
        return problem
    if policy.config.four_bit:
        return "the model's weights are in 4 bits"
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no kernels for them"
    return "" if kernels() else "this processor's 8-bit products are not exact"


def _timing(shapes: Counter[Shape]) -> tuple[frozenset[Shape], float]:
    """The shapes that are far slower in 8 bits, and how many times faster all layers are without them; 0: none is."""
    seconds = {shape: [sum(each) for each in zip(*timed(shape, packed), strict=True)] for shape in shapes}
    slow = frozenset(shape for shape, (plain, whole) in seconds.items() if whole > SLOW * plain)
    taken = [(shapes[shape] * plain, shapes[shape] * whole) for shape, (plain, whole) in seconds.items()]
    taken = [pair for shape, pair in zip(seconds, taken, strict=True) if shape not in slow]
    return slow, sum(plain for plain, _ in taken) / sum(whole for _, whole in taken) if taken else 0.0
