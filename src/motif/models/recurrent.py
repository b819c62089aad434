"""States of convolution and recurrent layers (gated delta net, Mamba, short convolutions), forked where sequences part.

Such a layer keeps no keys and values but a state of fixed size, which each token changes. transformers' layers read and
write it through four methods of their cache, here those of `StateCache`. Behind them is one of two stores: `PassStates`
for a forward pass behind ancestors, through which gradients flow, and `RowStates` for decoding, written in place.
A state has read everything, padding too, so a segment that is continued must not be padded (`motif.models.prefix`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, LinearAttentionCacheLayerMixin

CONVOLUTION, RECURRENT = "convolution", "recurrent"
StateName = tuple[str, int, int]
"""`CONVOLUTION` or `RECURRENT`, the layer, and which of the layer's states of this kind."""
States = dict[StateName, Tensor]


def layer_kinds(config: Any) -> tuple[bool, bool]:
    """Whether a model of this text configuration has layers with such states, and whether it has any that attend."""
    try:
        layers: Sequence[Any] = DynamicCache(config=config).layers
    except (AttributeError, KeyError, ValueError):  # transformers makes no cache for it
        return False, True
    recurrent = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
    return recurrent, not layers or any(isinstance(layer, CacheLayerMixin) for layer in layers)


def bound_time_steps(model: nn.Module) -> None:
    """Let Mamba 2 layers of a model bound their time steps also when they decode.

    Such a layer bounds softplus(dt + dt_bias) by its `time_step_limit` when it runs several tokens, as in the pass that
    is trained, but its step for a single token does not know the limit (transformers 5.23, and mamba-ssm's kernel).
    Here dt itself is bounded, so that softplus cannot leave the limit: the same, up to rounding.
    """
    for mixer in model.modules():
        low, high = getattr(mixer, "time_step_limit", None) or (0.0, math.inf)
        if (low > 0 or high < math.inf) and hasattr(mixer, "dt_bias") and hasattr(mixer, "in_proj"):
            projection: Any = mixer.in_proj
            projection.register_forward_hook(functools.partial(_bound_single_token, mixer))


def _bound_single_token(mixer: Any, projection: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Bound the last part of what `in_proj` returns (rows, T, ...), a dt for each head, where T is 1."""
    if output.shape[1] != 1:
        return output
    bias = mixer.dt_bias.float()
    scale = getattr(mixer, "mup_vector", None)  # by which Falcon-H1 multiplies what this returns
    factor = 1.0 if scale is None else scale.flatten()[-len(bias) :].float()
    ends = [(_softplus_inverse(end) - bias) / factor for end in mixer.time_step_limit]
    rest, dt = output.split([output.shape[-1] - len(bias), len(bias)], dim=-1)
    bounded = dt.float().clamp(torch.minimum(*ends), torch.maximum(*ends))
    return torch.cat([rest, bounded.to(dt.dtype)], dim=-1)


def _softplus_inverse(value: float) -> float:
    if value <= 0:
        return -math.inf
    return value + math.log(-math.expm1(-value))  # also for large ones


class Store(Protocol):
    """Where a `StateCache` has its states."""

    in_place: bool
    """Whether layers may write into what `get` returns."""

    def get(self, name: StateName) -> Tensor | None:
        """The state before the tokens of the pass (rows, ...); None: nothing has been read yet."""
        ...

    def put(self, name: StateName, state: Tensor) -> None:
        """Take the state after the tokens of the pass."""
        ...


class StateCache(Cache):
    """What convolution and recurrent layers of transformers ask of a cache, answered from `store`."""

    store: Store

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The inputs that a convolution still needs: (rows, channels, kernel)."""
        return self.store.get((CONVOLUTION, layer_idx, state_idx))

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Take the inputs of a convolution (rows, channels, T); returns them behind those that it still needs."""
        name = (CONVOLUTION, layer_idx, state_idx)
        before = self.store.get(name)
        if before is None:
            kernel = conv_kernel_size or conv_states.shape[-1]
            inputs = F.pad(conv_states, (max(0, kernel - conv_states.shape[-1]), 0))
        else:
            kernel = before.shape[-1]
            inputs = torch.cat([before.to(conv_states.dtype), conv_states], dim=-1)
        self.store.put(name, inputs[..., -kernel:])
        return inputs

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The state of a recurrent layer: (rows, heads, ...)."""
        return self.store.get((RECURRENT, layer_idx, state_idx))

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Take the new state of a recurrent layer."""
        self.store.put((RECURRENT, layer_idx, state_idx), recurrent_states)
        return recurrent_states

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Asked for by transformers."""
        return self.get_conv_state(layer_idx or 0, state_idx or 0) is not None

    def is_recording_past(self, layer_idx: int) -> bool:
        """True: a convolution over one token must not change the state that it was given, and calls the update."""
        return not self.store.in_place


class PassStates:
    """States for a forward pass of segments: those at the end of their parents, and `fresh` ones at their own."""

    in_place = False

    def __init__(self, parents: Sequence[States], parent_of: Sequence[int], device: torch.device):
        self.parents = parents
        self.parent_of = torch.tensor(parent_of, device=device)
        self._given: States = {}
        self._taken: States = {}

    def get(self, name: StateName) -> Tensor | None:
        """The parents' states, stacked; zeros, which are the same as none, for a parent that has read nothing."""
        known = [states.get(name) for states in self.parents]
        first = next((state for state in known if state is not None), None)
        if first is None:
            return None
        stacked = torch.stack([torch.zeros_like(first) if state is None else state for state in known])
        state = stacked.index_select(0, self.parent_of)
        self._given.setdefault(name, state)
        return state

    def put(self, name: StateName, state: Tensor) -> None:
        """Keep the state. Recomputation in a backward pass calls this again; the graph to keep is the first one."""
        self._taken.setdefault(name, state)

    @property
    def fresh(self) -> States:
        """By name, the states (segments, ...) at the end of the pass."""
        return self._given | self._taken  # without gradients, one token may have changed the given ones in place


class RowStates:
    """The states of the rows of a decoding batch, in tensors (rows, ...) that are written in place."""

    in_place = True

    def __init__(self) -> None:
        self.rows = 0
        """How many rows the next step is of."""
        self._states: States = {}
        self._capacity = 0

    def reserve(self, rows: int) -> None:
        """Make room for this many rows."""
        if rows == self._capacity:
            return
        self._capacity = rows
        for name, old in self._states.items():
            new = old.new_zeros(rows, *old.shape[1:])
            new[: len(old)] = old
            self._states[name] = new

    def enter(self, first: int, states: Sequence[States]) -> None:
        """Let rows from `first` on begin in these states."""
        for name in states[0] if states else ():
            fresh = torch.stack([one[name] for one in states])
            if name not in self._states:
                self._states[name] = fresh.new_zeros(self._capacity, *fresh.shape[1:])
            self._states[name][first : first + len(fresh)] = fresh

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        """Copy the states of rows to others."""
        for state in self._states.values():
            state[target] = state[source]

    def get(self, name: StateName) -> Tensor | None:
        """The states of the rows alive."""
        state = self._states.get(name)
        return None if state is None else state[: self.rows]

    def put(self, name: StateName, state: Tensor) -> None:
        """Write the new states over the old ones."""
        self._states[name][: self.rows].copy_(state)
