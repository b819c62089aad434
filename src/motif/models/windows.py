"""Layers that see only the last tokens: how far they see, and how to check what is beyond without long sequences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from motif.models.policy import Policy
from motif.models.shape import context_limit, windows

NARROW = 23
"""Tokens of a window during a check: odd, and several windows are still a short sequence."""
LENGTH = 96
"""Tokens of the longest prompt in a check, where windows are as narrow."""
FARTHEST = 4096
"""Tokens of the widest window that is checked as it is."""


@contextlib.contextmanager
def narrowed(policy: Policy) -> Iterator[int]:
    """Narrow all windows inside the block to `NARROW`, in the model and so in whatever is compared with it.

    Yields the length that a prompt should have to reach beyond windows: `LENGTH`, or more for a model whose windows
    cannot be narrowed.
    """
    found = _within(policy.text_config)
    with contextlib.ExitStack() as stack:
        ids = torch.arange(1, 2 * NARROW).unsqueeze(0) % policy.vocabulary
        wide = _states(policy, ids) if found else None
        for config in _configs(policy):
            for name in _within(config):
                stack.enter_context(_set(config, name))
        if wide is None or max(found.values()) <= NARROW or not torch.equal(wide, _states(policy, ids)):
            yield LENGTH
        else:
            yield max(LENGTH, min(FARTHEST, max(found.values())) + NARROW)


def _within(config: Any) -> dict[str, int]:
    """The windows that a sequence may be longer than."""
    return {name: size for name, size in windows(config).items() if size < context_limit(config)}


def _configs(policy: Policy) -> list[Any]:
    """All configurations that parts of the model refer to: some are copies of others."""
    parts = [policy.model, *policy.model.modules()]
    configs = {id(config): config for part in parts if (config := getattr(part, "config", None)) is not None}
    return [policy.text_config, *(config for config in configs.values() if config is not policy.text_config)]


@contextlib.contextmanager
def _set(config: Any, name: str) -> Iterator[None]:
    size = getattr(config, name)
    setattr(config, name, min(size, NARROW))
    try:
        yield
    finally:
        setattr(config, name, size)


@torch.no_grad()
def _states(policy: Policy, ids: torch.Tensor) -> torch.Tensor:
    with policy.precision():
        states: torch.Tensor = policy.decoder(input_ids=ids.to(policy.device), use_cache=False).last_hidden_state
    return states
