"""Which experts a mixture of experts chooses, seen from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motif.models.adapter import is_stack


@contextlib.contextmanager
def recorded_choices(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what routers choose inside the block: of each layer and pass, in order, (tokens, experts per token).

    A layer's stack of experts is given the choice as the second argument, whatever its router is.
    """
    choices: list[Tensor] = []

    def take(stack: nn.Module, inputs: tuple[Any, ...]) -> None:
        if len(inputs) > 1 and isinstance(inputs[1], Tensor) and not inputs[1].is_floating_point():
            choices.append(inputs[1].detach().flatten(0, -2).sort(-1).values.cpu())

    stacks = [one for one in model.modules() if any(is_stack(one, p) for p in one.parameters(recurse=False))]
    hooks = [stack.register_forward_pre_hook(take) for stack in stacks]
    try:
        yield choices
    finally:
        for hook in hooks:
            hook.remove()


def share_changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The share of tokens, in all layers together, that go to other experts after than before."""
    changed = [(one != other).any(-1) for one, other in zip(before, after, strict=True)]
    return torch.cat(changed).float().mean().item() if changed else 0.0
