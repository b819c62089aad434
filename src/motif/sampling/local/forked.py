"""The general way to decode: transformers' own caches, forked, for whatever transformers runs.

Each distinct prompt is read once and never padded: prompts of one length are read together. Rows of one total length
are decoded together, so neither attention nor a recurrent state ever sees padding. Rows that part, leave or enter only
change what is noted of them: which row of which cache is theirs. The next step gathers the rows of each length into one
cache, and copies nothing while the rows of a length stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from motif.models.policy import Policy
from motif.models.prefix import Segment
from motif.sampling.base import Usage
from motif.sampling.local import memory
from motif.sampling.local.memory import Memory


@dataclass(eq=False)
class _Rows:
    """A cache of the model's own and the number of its rows; one that `keeps` prompts is never decoded with."""

    cache: Any
    count: int
    keeps: bool


_Place = tuple[_Rows, int]
"""A cache, and a row of it."""


class ForkedMemory(Memory):
    """A cache for each length; prompts are stored for each row that begins with them.

    Raises:
        NotImplementedError: the model's decoder takes no cache.
    """

    def __init__(self, policy: Policy, usage: Usage):
        super().__init__(policy, usage)
        self._name = policy.cache_argument
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
            rows = _Rows(cache, len(together), keeps=True)
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
        """One pass over the rows of each length."""
        lengths = np.array([prompt.end for prompt in prompts]) + positions
        order: list[int] = []
        states: list[Tensor] = []
        for length in np.unique(lengths):
            rows, gathered = self._gathered(np.flatnonzero(lengths == length).tolist())
            part, gathered.cache = self._run(tokens[rows][:, None], gathered.cache)
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

    def _gathered(self, rows: list[int]) -> tuple[list[int], _Rows]:
        """Rows, ordered as they lie in the cache of their own that they have from now on."""
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
            joined = gather([held.cache for held, _ in parts], [held.count for held, _ in parts], indices)
            only = _Rows(joined, len(ordered), keeps=False)
        for slot, row in enumerate(ordered):
            self._places[row] = only, slot
        return ordered, only

    def _run(self, ids: np.ndarray, cache: Any) -> tuple[Tensor, Any]:
        """Last hidden states (rows, D) of tokens (rows, T) that follow those in a cache, and the cache then."""
        behind = {} if cache is None else {self._name: cache}
        output = self.policy.decoder(input_ids=torch.from_numpy(ids).to(self.policy.device), use_cache=True, **behind)
        cache = getattr(output, self._name, None)
        if cache is None:
            raise NotImplementedError("its decoder returns no cache")
        return output.last_hidden_state[:, -1], cache


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
