"""Common prefixes of token sequences, run through the model once.

Each path through a tree of `Segment`s spells one sequence: the system prompt and the question at the top, the prompts
with notes below, the responses below those. `build_prefix_tree` builds the tree. `forward` runs some of its segments as
one batch behind the keys and values of their ancestors. Sampling and training both use these two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from motif.models.policy import Policy

MIN_SHARED_TOKENS = 8
"""Tokens that sharing a segment must save; fewer are not worth a forward pass of their own."""

KeysValues = tuple[Tensor, Tensor]


@dataclass(eq=False)
class Segment:
    """Tokens that follow those of the parent; the root of a tree has none.

    `keys_values`, by layer: (heads, T, head size) each. `states` (T, D): the decoder's last hidden states. The caller
    sets both, and deletes them.
    """

    tokens: list[int] = field(default_factory=list)
    parent: Segment | None = None
    start: int = 0  # position of the first token
    children: list[Segment] = field(default_factory=list)
    keys_values: dict[int, KeysValues] = field(default_factory=dict)
    states: Tensor | None = None
    users: int = 0  # rows whose prompt ends here

    @property
    def end(self) -> int:
        """Position after the last token: the length of the sequence that ends here."""
        return self.start + len(self.tokens)

    def add(self, tokens: list[int]) -> Segment:
        """Add a child with these tokens."""
        child = Segment(tokens, self, self.end)
        self.children.append(child)
        return child

    def path(self) -> list[Segment]:
        """The segments from the root's child down to this one."""
        segments: list[Segment] = []
        segment: Segment | None = self
        while segment is not None and segment.parent is not None:
            segments.append(segment)
            segment = segment.parent
        return segments[::-1]

    def leaves(self) -> list[Segment]:
        """The segments below this one that have no children, the oldest first."""
        leaves: list[Segment] = []
        waiting = list(self.children)
        while waiting:
            segment = waiting.pop(0)
            leaves += [] if segment.children else [segment]
            waiting = segment.children + waiting
        return leaves

    def drop(self) -> None:
        """Remove this segment from the tree."""
        if self.parent is not None:
            self.parent.children.remove(self)

    def clear(self) -> None:
        """Let go of the tensors here and below: parents and children refer to one another until the collector comes."""
        waiting = [self]
        while waiting:
            segment = waiting.pop()
            segment.keys_values, segment.states = {}, None
            waiting += segment.children

    def split(self, count: int) -> Segment:
        """Move the first `count` tokens, with their states, keys and values, to a new parent, which is returned."""
        assert self.parent is not None and self.states is not None and 0 < count < len(self.tokens)
        top = Segment(self.tokens[:count], self.parent, self.start, [self])
        siblings = self.parent.children
        siblings[siblings.index(self)] = top
        top.states, self.states = self.states[:count], self.states[count:]
        for layer, (keys, values) in self.keys_values.items():
            top.keys_values[layer] = keys[:, :count], values[:, :count]
            self.keys_values[layer] = keys[:, count:], values[:, count:]
        self.tokens, self.parent, self.start = self.tokens[count:], top, self.start + count
        return top


def build_prefix_tree(parent: Segment, sequences: Sequence[Sequence[int]]) -> list[Segment]:
    """Add segments below `parent` that spell the sequences, which all begin with the tokens that lead to `parent`.

    A common prefix becomes a segment of its own if that saves `MIN_SHARED_TOKENS` tokens. Equal sequences end in the
    same segment.

    Returns:
        The last segment of every sequence.
    """
    ends = [parent] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda index: list(sequences[index]))
    # Each entry: sorted sequences that are equal up to `common`, and whose tokens from `begun` on are not added yet.
    groups = [(order, parent, parent.end, parent.end)] if order else []
    while groups:
        group, above, begun, common = groups.pop()
        first, last = sequences[group[0]], sequences[group[-1]]
        common = common_prefix_length(first, last, common)
        alone = len(group) == 1
        if common > begun and (alone or (len(group) - 1) * (common - begun) >= MIN_SHARED_TOKENS):
            above, begun = above.add(list(first[begun:common])), common
        ended = [index for index in group if len(sequences[index]) == common]
        if ended:  # in the sorted order they come first
            end = above if begun == common else above.add(list(first[begun:]))
            for index in ended:
                ends[index] = end
        group = group[len(ended) :]
        while group:
            token = sequences[group[0]][common]
            count = next((i for i, index in enumerate(group) if sequences[index][common] != token), len(group))
            groups.append((group[:count], above, begun, common))
            group = group[count:]
    return ends


def common_prefix_length(one: Sequence[int], other: Sequence[int], start: int = 0) -> int:
    """The number of tokens in the common prefix of two sequences, of which the first `start` are known to be equal."""
    limit = min(len(one), len(other))
    for position in range(start, limit):
        if one[position] != other[position]:
            return position
    return limit


def batches(segments: Sequence[Segment], budget: int) -> Iterator[list[Segment]]:
    """Split segments into batches of similar length with at most `budget` tokens each, padding included.

    A single segment longer than the budget gets a batch of its own.
    """
    batch: list[Segment] = []
    for segment in sorted(segments, key=lambda segment: -len(segment.tokens)):  # the first of a batch is its longest
        if batch and _ends_before(batch, segment, budget):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def _ends_before(batch: Sequence[Segment], segment: Segment, budget: int) -> bool:
    longest = len(batch[0].tokens)
    # A batch that already keeps the machine busy is better closed than padded.
    padding = len(segment.tokens) < 0.75 * longest and longest * len(batch) >= 512
    return padding or longest * (len(batch) + 1) > budget


def forward(policy: Policy, segments: Sequence[Segment]) -> tuple[Tensor, dict[int, KeysValues]]:
    """Run segments whose ancestors have their keys and values, as one batch padded on the right.

    Returns:
        Hidden states (segments, T, D) and, by layer, the fresh keys and values (segments, heads, T, head size).
        Gradients flow to the ancestors' keys and values where those require them.
    """
    ids = _padded_ids(segments, policy.device)
    cache = _Context(segments, policy.device, policy.local)
    positions, mask = cache.positions_and_mask(ids.shape[1])
    states: Tensor = policy.decoder(
        input_ids=ids,
        attention_mask=mask if mask is None or policy.local else policy.attention_mask(mask),
        position_ids=positions,
        use_cache=True,
        **{policy.cache_argument: cache},
    ).last_hidden_state
    return states, cache.fresh


def forward_alone(policy: Policy, segments: Sequence[Segment]) -> tuple[Tensor, dict[int, KeysValues]]:
    """Run segments without ancestors as one batch padded on the right, without a cache: whatever the architecture.

    Returns:
        Hidden states (segments, T, D), and no keys and values.
    """
    states: Tensor = policy.decoder(input_ids=_padded_ids(segments, policy.device), use_cache=False).last_hidden_state
    return states, {}


def _padded_ids(segments: Sequence[Segment], device: torch.device) -> Tensor:
    longest = max(len(segment.tokens) for segment in segments)
    ids = torch.zeros(len(segments), longest, dtype=torch.long)
    for row, segment in enumerate(segments):
        ids[row, : len(segment.tokens)] = torch.tensor(segment.tokens)
    return ids.to(device)


class _Context(Cache):
    """A cache that puts the keys and values of the segments' ancestors before the fresh ones, which it collects.

    Shorter ancestors are padded on the right, or before all else if layers are `local`: then keys and queries are as
    far from one another as in the sequences, and from where padding ends the model builds the mask of each layer.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device, local: bool = False):
        super().__init__(layers=[])
        parents = list(dict.fromkeys(segment.parent for segment in segments))
        self.paths = [parent.path() if parent else [] for parent in parents]
        self.lengths = [path[-1].end if path else 0 for path in self.paths]
        self.length = max(self.lengths)
        self.device, self.local = device, local
        path_of = [parents.index(segment.parent) for segment in segments]
        self.path_of = None if len(parents) == 1 else torch.tensor(path_of, device=device)
        self.count = len(segments)
        self.fresh: dict[int, KeysValues] = {}

    def positions_and_mask(self, longest: int) -> tuple[Tensor | None, Tensor | None]:
        """Positions (segments or 1, T), and which keys are visible (segments or 1, 1, T, context + T).

        With `local` layers, instead of the latter: which keys are no padding (segments, context + T).
        Both are None without context: that is the plain causal pass, for which kernels are fastest.
        """
        if not self.length:
            return None, None
        starts = torch.tensor(self.lengths, device=self.device)
        if self.path_of is not None:
            starts = starts[self.path_of]
        offsets = torch.arange(longest, device=self.device)
        if self.local:
            present = torch.arange(self.length + longest, device=self.device) >= self.length - starts[:, None]
            return starts[:, None] + offsets, present.expand(self.count, -1)
        before = torch.arange(self.length, device=self.device) < starts[:, None]
        context = before[:, None, None, :].expand(-1, 1, longest, -1)
        causal = (offsets[None, :] <= offsets[:, None])[None, None].expand(len(starts), 1, -1, -1)
        return starts[:, None] + offsets, torch.cat([context, causal], dim=-1)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values that a layer attends to; each attention layer calls this with its fresh ones."""
        # Recomputation in a backward pass calls this again; the graph to keep is the first one.
        self.fresh.setdefault(layer_idx, (key_states, value_states))
        if not self.length:
            return key_states, value_states
        keys = torch.cat([self._context(layer_idx, 0), key_states], dim=2)
        return keys, torch.cat([self._context(layer_idx, 1), value_states], dim=2)

    def _context(self, layer: int, kind: int) -> Tensor:
        """The context's keys (kind 0) or values (1): (segments, heads, context, head size)."""
        contexts = [
            torch.cat([segment.keys_values[layer][kind] for segment in path], dim=1) for path in self.paths if path
        ]
        if self.path_of is None:
            return contexts[0].expand(self.count, -1, -1, -1)
        empty = contexts[0][:, :0]
        padded = []
        for path in self.paths:
            context = contexts.pop(0) if path else empty
            padding = self.length - context.shape[1]
            padded.append(F.pad(context, (0, 0, padding, 0) if self.local else (0, 0, 0, padding)))
        return torch.stack(padded)[self.path_of]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Called by transformers."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Called by transformers."""
        return self.length + query_length, 0
