"""The general way to decode: transformers' own caches, forked, for whatever transformers runs.

Each distinct prompt is read once and never padded: prompts of one length are read together. Where all that a model
keeps is keys and values (of all tokens, or of the last in a window), rows of any length are decoded together, padded
and masked on the left as `generate` does it. Otherwise rows of one total length are, so that no recurrent state ever
sees padding. Rows that part, leave or enter only change what is noted of them: which row of which cache is theirs. The
next step gathers the rows that are decoded together into one cache, and copies nothing while they stay the same.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from motif.models.device import to_device
from motif.models.policy import Policy
from motif.models.prefix import Segment
from motif.sampling.base import Usage
from motif.sampling.local import memory
from motif.sampling.local.memory import Memory


@dataclass(eq=False)
class _Rows:
    """A cache of the model's own, the number of its rows, and its tokens with the padding before them.

    One that `keeps` prompts is never decoded with.
    """

    cache: Any
    count: int
    keeps: bool
    length: int


_Place = tuple[_Rows, int]
"""A cache, and a row of it."""


class ForkedMemory(Memory):
    """Prompts are stored for each row that begins with them.

    With `padded`, rows of different lengths share a cache if it is of a kind that can be padded.

    Raises:
        NotImplementedError: the model's decoder takes no cache.
    """

    def __init__(self, policy: Policy, usage: Usage, padded: bool = True):
        super().__init__(policy, usage)
        self._name = policy.cache_argument
        arguments = inspect.signature(type(policy.decoder).forward).parameters
        self._padded = padded and {"attention_mask", "position_ids"} <= arguments.keys()
        if not self._name:
            raise NotImplementedError("its decoder takes no cache")
        self._known: dict[tuple[int, ...], Segment] = {}
        self._kept: dict[Segment, _Place] = {}
        self._places: dict[int, _Place] = {}

    def read(self, prompts: Sequence[Sequence[int]]) -> list[Segment]:
        """The segments of the prompts, each below the root: nothing is shared but equal prompts."""
        wanted = [tuple(prompt) for prompt in prompts]
        fresh = sorted(
            {prompt for prompt in wanted if prompt not in self._known}, key=lambda prompt: (len(prompt), prompt)
        )
        while fresh:
            length = len(fresh[0])
            limit = max(1, memory.PREFILL_TOKENS // max(1, length))
            together = [prompt for prompt in fresh[:limit] if len(prompt) == length]
            del fresh[: len(together)]
            states, cache = self._run(np.array(together), None)
            self._padded = self._padded and can_be_padded(cache)
            rows = _Rows(cache, len(together), keeps=True, length=length)
            for index, prompt in enumerate(together):
                segment = self.prompts.add(list(prompt))
                segment.states = states[index : index + 1]
                self._known[prompt], self._kept[segment] = segment, (rows, index)
            self.usage.prefill_tokens += length * len(together)
        return [self._known[prompt] for prompt in wanted]

    def enter(self, first: int, prompts: Sequence[Segment], width: int) -> None:
        """Begin with what is kept of the prompts."""
        for row, prompt in enumerate(prompts, first):
            self._places[row] = self._kept[prompt]

    def copy(self, source: np.ndarray, target: np.ndarray, length: int) -> None:
        """Note that the targets' rows are the sources' until the next step, which parts them."""
        for one, other in zip(source.tolist(), target.tolist(), strict=True):
            self._places[other] = self._places[one]

    def decode(self, prompts: Sequence[Segment], tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """One pass over all rows, or over those of each length."""
        lengths = np.array([prompt.end for prompt in prompts]) + positions
        order: list[int] = []
        states: list[Tensor] = []
        for together in [np.arange(len(lengths))] if self._padded else _alike(lengths):
            rows, gathered = self._gathered(together.tolist(), int(lengths[together].max()))
            part, gathered.cache = self._run(tokens[rows][:, None], gathered.cache, lengths[rows])
            gathered.length += 1
            order += rows
            states.append(part)
        self._places = {row: self._places[row] for row in order}  # those that left are let go of
        back = torch.from_numpy(np.argsort(order)).to(self.policy.device)
        return torch.cat(states)[back]

    def forget(self) -> None:
        """Drop prompts that no row needs, the oldest first."""
        super().forget()
        kept = set(self.prompts.children)
        self._known = {tokens: segment for tokens, segment in self._known.items() if segment in kept}
        self._kept = {segment: place for segment, place in self._kept.items() if segment in kept}

    def clear(self) -> None:
        """Let go of all that is kept."""
        super().clear()
        self._known, self._kept, self._places = {}, {}, {}

    def _gathered(self, rows: list[int], length: int) -> tuple[list[int], _Rows]:
        """Rows, ordered as they lie in the cache of their own that they have from now on, of the longest's length."""
        of_cache: dict[_Rows, list[int]] = {}
        for row in rows:
            of_cache.setdefault(self._places[row][0], []).append(row)
        for held in of_cache.values():
            held.sort(key=lambda row: self._places[row][1])
        ordered = [row for held in of_cache.values() for row in held]
        parts = [(held, [self._places[row][1] for row in of_cache[held]]) for held in of_cache]
        [(only, slots), *others] = parts
        if others or only.keeps or slots != list(range(only.count)):
            indices = [torch.tensor(slots, device=self.policy.device) for _, slots in parts]
            caches = [padded(held.cache, length - held.length) for held, _ in parts]
            joined = gather(caches, [held.count for held, _ in parts], indices)
            only = _Rows(joined, len(ordered), keeps=False, length=length)
        for slot, row in enumerate(ordered):
            self._places[row] = only, slot
        return ordered, only

    def _run(self, ids: np.ndarray, cache: Any, lengths: np.ndarray | None = None) -> tuple[Tensor, Any]:
        """Last hidden states (rows, D) of tokens (rows, T) that follow those in a cache, and the cache then.

        Args:
            lengths: of each row in the cache, without padding; None: there is none.
        """
        behind = {} if cache is None else {self._name: cache}
        if lengths is not None and self._padded and lengths.min() < lengths.max():
            longest = int(lengths.max())
            lengths_1 = to_device(lengths[:, None], self.policy.device)
            places = torch.arange(longest + 1, device=self.policy.device)
            behind |= {"attention_mask": (places >= longest - lengths_1).long(), "position_ids": lengths_1}
        output = self.policy.decoder(input_ids=torch.from_numpy(ids).to(self.policy.device), use_cache=True, **behind)
        cache = getattr(output, self._name, None)
        if cache is None:
            raise NotImplementedError("its decoder returns no cache")
        return output.last_hidden_state[:, -1], cache


def _alike(lengths: np.ndarray) -> list[np.ndarray]:
    """The rows of each length."""
    return [np.flatnonzero(lengths == length) for length in np.unique(lengths)]


def can_be_padded(cache: Any) -> bool:
    """Whether a cache holds nothing but keys and values, of all tokens or of the last ones."""
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return type(cache) is DynamicCache and all(type(layer) in kinds for layer in cache.layers)


def padded(cache: Any, width: int) -> Any:
    """A cache with so many more tokens in front of all others; with negative `width`, with so many fewer.

    What is taken away has to be padding.
    """
    if not width:
        return cache
    new = copy.copy(cache)
    new.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in new.layers:
        held, wanted = layer.keys.shape[-2], layer.get_seq_length() + width
        if layer.is_sliding:
            layer.cumulative_length = wanted
            wanted = min(wanted, layer.sliding_window - 1)
        layer.keys, layer.values = (F.pad(one, (0, 0, wanted - held, 0)) for one in (layer.keys, layer.values))
    return new


def gather(caches: Sequence[Any], counts: Sequence[int], indices: Sequence[Tensor]) -> Any:
    """A new cache of some rows of caches of equal length: all tensors in it whose first size is the number of rows.

    Args:
        counts: rows of each cache. indices: which of them are wanted, in which order.

    Raises:
        NotImplementedError: the caches differ in more than their rows.
    """
    first = caches[0]
    if isinstance(first, Tensor):
        if first.dim() and all(one.shape[:1] == (count,) for one, count in zip(caches, counts, strict=True)):
            return torch.cat([one.index_select(0, index) for one, index in zip(caches, indices, strict=True)])
        return first.clone()
    if isinstance(first, dict):
        return {key: gather([one[key] for one in caches], counts, indices) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(gather(items, counts, indices) for items in zip(*caches, strict=True))
    if type(first).__module__.startswith("transformers.") and not isinstance(
        first, PreTrainedConfig | nn.Module | type
    ):
        new = copy.copy(first)
        new.__dict__.update(gather([vars(one) for one in caches], counts, indices))
        return new
    if isinstance(first, bool | int | float) and any(one != first for one in caches):
        raise NotImplementedError("its caches of equal length cannot be joined")
    return first
