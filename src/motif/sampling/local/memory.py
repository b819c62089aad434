"""What a decoding batch keeps of its prompts and rows, and the model's passes over them: one interface, two ways.

`TreeMemory` is the fast one: a tree of prompts whose common parts are computed and stored once.
`ForkedMemory` (`motif.sampling.local.forked`) is the general one, on transformers' own caches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from motif.models.policy import Policy
from motif.models.prefix import (
    MIN_SHARED_TOKENS,
    UNSHARED,
    Segment,
    batches,
    build_prefix_tree,
    common_prefix_length,
    forward,
    shortest_shared,
)
from motif.sampling.base import Usage
from motif.sampling.local.graphs import Decoder, Recorder
from motif.sampling.local.kernels import Kernels

PREFILL_TOKENS = 8192
"""Prompt tokens (with padding) in one forward pass."""
IDLE_TOKENS = 4096
"""Tokens of prompts that are kept although no row needs them now: the next notes of their questions soon will."""


class Memory(ABC):
    """What the model keeps of prompts (segments below `prompts`) and of rows, which are numbers from 0 on."""

    def __init__(self, policy: Policy, usage: Usage):
        self.policy, self.usage = policy, usage
        self.prompts = Segment()  # the root of the tree of prompts

    @abstractmethod
    def read(self, prompts: Sequence[Sequence[int]]) -> list[Segment]:
        """The segments that the prompts end with, computed; each has at least its last hidden state."""

    @abstractmethod
    def enter(self, first: int, prompts: Sequence[Segment], width: int) -> None:
        """Rows from `first` on begin, each behind its prompt, with room for responses of `width` tokens."""

    @abstractmethod
    def copy(self, source: np.ndarray, target: np.ndarray, length: int) -> None:
        """Rows `target` become copies of rows `source`, whose responses have at most `length` tokens."""

    @abstractmethod
    def decode(self, prompts: Sequence[Segment], tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Last hidden states (rows, D) of all rows alive.

        Args:
            prompts: with which each row's prompt ends. tokens, positions: (rows,) the last token of each row, and its
                position in the response.
        """

    def forget(self) -> None:
        """Drop prompts that no row needs, the oldest first, beyond what may soon be continued."""
        idle = [segment for segment in self.prompts.leaves() if not segment.users]
        kept = 0
        for segment in reversed(idle):  # children are in the order in which they came
            kept += len(segment.tokens)
            if kept > IDLE_TOKENS:
                segment.drop()

    def clear(self) -> None:
        """Let go of all that is kept."""
        self.prompts.clear()


class TreeMemory(Memory):
    """Common prefixes of prompts are computed and stored once; rows attend to them with `TreeCache`."""

    def __init__(self, policy: Policy, usage: Usage, record: Recorder | None = None, kernels: Kernels | None = None):
        super().__init__(policy, usage)
        self.decoder = Decoder(policy, record, kernels)
        self.cache = self.decoder.cache
        self.shortest = shortest_shared(policy)

    def enter(self, first: int, prompts: Sequence[Segment], width: int) -> None:
        """Make room; states are copied, all else of prompts is looked up in the tree by each step."""
        self.cache.reserve(first + len(prompts), width)
        self.cache.enter(first, prompts)

    def copy(self, source: np.ndarray, target: np.ndarray, length: int) -> None:
        """Copy keys and values."""
        self.cache.copy(source, target, length)

    def decode(self, prompts: Sequence[Segment], tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """One pass over all rows."""
        self.cache.begin(prompts, positions)
        return self.decoder(tokens, np.array([prompt.end for prompt in prompts]) + positions)

    def read(self, prompts: Sequence[Sequence[int]]) -> list[Segment]:
        """The segments that the prompts end with, all of their states, keys and values computed."""
        below: dict[Segment, list[int]] = {}
        for index, prompt in enumerate(prompts):
            below.setdefault(self._find(prompt), []).append(index)
        ends: dict[int, Segment] = {}
        level: list[Segment] = []
        for known, indices in below.items():
            old = set(known.children)
            added = build_prefix_tree(known, [prompts[index] for index in indices], self.shortest)
            ends |= dict(zip(indices, added, strict=True))
            level += [child for child in known.children if child not in old]
        while level:
            for segments in batches(level, PREFILL_TOKENS, padded=not self.policy.recurrent):
                states, fresh = forward(self.policy, segments)
                copy = not self.policy.launch_bound  # thousands of them; padding takes less than they
                fresh.give(segments, copy)
                for row, segment in enumerate(segments):
                    own = states[row, : len(segment.tokens)]
                    segment.states = own.clone() if copy else own
                    self.usage.prefill_tokens += len(segment.tokens)
            level = [child for segment in level for child in segment.children]
        return [ends[index] for index in range(len(prompts))]

    def _find(self, prompt: Sequence[int]) -> Segment:
        """The segment up to whose end a prompt is known."""
        segment = self.prompts
        while segment.end < len(prompt):
            rest = prompt[segment.end :]
            if not segment.children:
                break
            matches = ((common_prefix_length(child.tokens, rest), child) for child in segment.children)
            known, child = max(matches, key=lambda match: match[0])
            if known == len(child.tokens) and (known == len(rest) or self.shortest < UNSHARED):
                segment = child
            elif known >= MIN_SHARED_TOKENS // 2 and not self.policy.recurrent:
                # Nothing is lost by a split but that every decoding step visits one more level.
                segment = child.split(known)
            else:
                break
        return segment
