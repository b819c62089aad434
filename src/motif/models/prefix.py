"""Common prefixes of token sequences, run through the model once.

Each path through a tree of `Segment`s spells one sequence: the system prompt and the question at the top, the prompts
with notes below, the responses below those. `build_prefix_tree` builds the tree. `forward` runs some of its segments as
one batch behind the keys and values of their ancestors. Sampling and training both use these two.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import CausalBias, CausalVariant

from motif.models.policy import Policy
from motif.models.recurrent import RECURRENT, PassStates, StateCache, States

MIN_SHARED_TOKENS = 8
"""Tokens that sharing a segment must save; fewer are not worth a forward pass of their own."""

LAUNCH_TOKENS = 1024
"""The same where a pass is `launch_bound`: launching its operations takes as long as computing so many tokens more."""

MASK_WIDTH = 16
"""Numbers of which each row of a mask has a multiple in memory: kernels of GPUs copy others."""

UNSHARED = sys.maxsize
"""As `shortest` of `build_prefix_tree`: only equal sequences share anything."""

KeysValues = tuple[Tensor, Tensor]


@dataclass(eq=False)
class Segment:
    """Tokens that follow those of the parent; the root of a tree has none.

    `keys_values`, by layer: (heads, T, head size) each. `recurrent`: the states of recurrent layers at its end.
    `states` (T, D): the decoder's last hidden states. The caller sets all three, and deletes them.
    """

    tokens: list[int] = field(default_factory=list)
    parent: Segment | None = None
    start: int = 0  # position of the first token
    children: list[Segment] = field(default_factory=list)
    keys_values: dict[int, KeysValues] = field(default_factory=dict)
    recurrent: States = field(default_factory=dict)
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
            segment.keys_values, segment.recurrent, segment.states = {}, {}, None
            waiting += segment.children

    def split(self, count: int) -> Segment:
        """Move the first `count` tokens, with their states, keys and values, to a new parent, which is returned.

        The states of recurrent layers are known at a segment's end only: with such layers it cannot be split.
        """
        assert self.parent is not None and self.states is not None and 0 < count < len(self.tokens)
        assert not self.recurrent
        top = Segment(self.tokens[:count], self.parent, self.start, [self])
        siblings = self.parent.children
        siblings[siblings.index(self)] = top
        top.states, self.states = self.states[:count], self.states[count:]
        for layer, (keys, values) in self.keys_values.items():
            top.keys_values[layer] = keys[:, :count], values[:, :count]
            self.keys_values[layer] = keys[:, count:], values[:, count:]
        self.tokens, self.parent, self.start = self.tokens[count:], top, self.start + count
        return top


def worth_a_pass(policy: Policy) -> int:
    """Tokens that sharing a segment must save in training, as `worth` of `build_prefix_tree` and `batches`."""
    return LAUNCH_TOKENS if policy.launch_bound else MIN_SHARED_TOKENS


def build_prefix_tree(
    parent: Segment, sequences: Sequence[Sequence[int]], shortest: int = 1, worth: int = MIN_SHARED_TOKENS
) -> list[Segment]:
    """Add segments below `parent` that spell the sequences, which all begin with the tokens that lead to `parent`.

    A common prefix becomes a segment of its own if that saves `worth` tokens, and if it has `shortest`.
    Equal sequences end in the same segment.

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
        saved = (len(group) - 1) * (common - begun) if common - begun >= shortest else 0
        if common > begun and (alone or saved >= worth):
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


def batches(
    segments: Sequence[Segment], budget: int, padded: bool = True, worth: int = MIN_SHARED_TOKENS
) -> Iterator[list[Segment]]:
    """Split segments into batches of similar length with at most `budget` tokens each, padding included.

    A single segment longer than the budget gets a batch of its own. Unless `padded`, all of a batch are equally long.
    `worth`: padding that a pass of its own is worth, if that is more than `MIN_SHARED_TOKENS`.
    """
    batch: list[Segment] = []
    for segment in sorted(segments, key=lambda segment: -len(segment.tokens)):  # the first of a batch is its longest
        unequal = not padded and batch and len(segment.tokens) != len(batch[0].tokens)
        if batch and (unequal or _ends_before(batch, segment, budget, worth)):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def _ends_before(batch: Sequence[Segment], segment: Segment, budget: int, worth: int) -> bool:
    longest = len(batch[0].tokens)
    padded = longest * (len(batch) + 1)
    if worth > MIN_SHARED_TOKENS:
        padding = padded - len(segment.tokens) - sum(len(one.tokens) for one in batch) > worth
    else:  # a batch that already keeps the machine busy is better closed than padded
        padding = len(segment.tokens) < 0.75 * longest and longest * len(batch) >= 512
    return padding or padded > budget


@dataclass
class Fresh:
    """What a pass has computed of segments for those that continue them.

    `keys_values`, by layer: (segments, heads, T, head size) each. `recurrent`, by name: (segments, ...).
    """

    keys_values: dict[int, KeysValues]
    recurrent: States

    def give(self, segments: Sequence[Segment], copy: bool = True) -> None:
        """Give each segment its own: copies, or parts of the whole, which stays in memory then as long as any is."""
        for row, segment in enumerate(segments):
            for layer, whole in self.keys_values.items():
                keys, values = (tensor[row, :, : len(segment.tokens)] for tensor in whole)
                segment.keys_values[layer] = (keys.clone(), values.clone()) if copy else (keys, values)
            segment.recurrent = {name: state[row].clone() for name, state in self.recurrent.items()}


def forward(policy: Policy, segments: Sequence[Segment]) -> tuple[Tensor, Fresh]:
    """Run segments whose ancestors have their keys, values and states, as one batch padded on the right.

    Of a recurrent model (`Policy.recurrent`), the states of those that are shorter than the longest are of no use.

    Returns:
        Hidden states (segments, T, D), and what children need. Gradients flow to the ancestors' keys, values and
        states where those require them.
    """
    # In training, of a single token some layers change the given state in place.
    least = 2 if policy.recurrent and torch.is_grad_enabled() else 1
    ids = _padded_ids(segments, policy.device, least)
    cache = _Context(segments, policy.device, policy.local)
    states: Tensor = policy.decoder(
        input_ids=ids,
        attention_mask=cache.mask(policy, ids.shape[1]) if policy.attends else None,
        position_ids=cache.positions(ids.shape[1]),
        use_cache=True,
        **{policy.cache_argument: cache},
    ).last_hidden_state
    return states, Fresh(cache.fresh, cache.store.fresh)


def shortest_shared(policy: Policy) -> int:
    """Tokens of the shortest segment that can be continued, as `shortest` of `build_prefix_tree`.

    Recurrent layers have no gradient of a single token behind a state. Some (of the first Mamba) even run several
    tokens as if there were none, without a word.
    """
    if policy.recurrent and policy.continues is None:
        policy.continues = _continues(policy)
    return 1 if not policy.recurrent else 2 if policy.continues else UNSHARED


def _continues(policy: Policy) -> bool:
    """Whether everything that recurrent layers compute of several tokens depends on the state before them."""
    root = Segment()
    first = root.add([1, 2, 3, 4])
    with policy.precision():
        with torch.no_grad():
            forward(policy, [first])[1].give([first])
        states = [state.requires_grad_() for name, state in first.recurrent.items() if name[0] == RECURRENT]
        with torch.enable_grad():
            hidden, _ = forward(policy, [first.add([5, 6, 7])])
            gradients = torch.autograd.grad(hidden.float().sum(), states, allow_unused=True) if states else ()
    root.clear()
    return all(gradient is not None for gradient in gradients)


def forward_alone(policy: Policy, segments: Sequence[Segment]) -> tuple[Tensor, Fresh]:
    """Run segments without ancestors as one batch padded on the right, without a cache: whatever the architecture.

    Returns:
        Hidden states (segments, T, D), and nothing for children.
    """
    states: Tensor = policy.decoder(input_ids=_padded_ids(segments, policy.device), use_cache=False).last_hidden_state
    return states, Fresh({}, {})


def _padded_ids(segments: Sequence[Segment], device: torch.device, least: int = 1) -> Tensor:
    longest = max(least, *(len(segment.tokens) for segment in segments))
    ids = torch.zeros(len(segments), longest, dtype=torch.long)
    for row, segment in enumerate(segments):
        ids[row, : len(segment.tokens)] = torch.tensor(segment.tokens)
    return ids.to(device)


class ImplicitMask(CausalBias):
    """The causal mask of queries behind a context, in words: kernels that know what is meant read no numbers.

    Others, as a CPU's, write it down. A pass of 8,192 tokens behind as many has a mask of 134 million numbers.
    """

    @staticmethod
    def __new__(cls, queries: int, keys: int) -> ImplicitMask:
        """As large as transformers expects of a mask that is ready: it has four dimensions."""
        return torch.Tensor._make_subclass(cls, torch.empty(1, 1, 1, 1))

    def __init__(self, queries: int, keys: int):
        super().__init__(CausalVariant.LOWER_RIGHT, queries, keys)


def _added_to_scores(visible: Tensor, policy: Policy) -> Tensor:
    """What layers add to their scores (rows, 1, queries, keys), from the booleans of what is visible.

    Kernels take booleans, too, but make this of them in every layer, and keep each for the backward pass.
    """
    if policy.text_config._attn_implementation == "eager":
        dtype = policy.model.dtype
        hidden = torch.finfo(dtype).min
    else:
        dtype, hidden = torch.bfloat16 if policy.autocast else torch.float32, -torch.inf
    keys = visible.shape[-1]
    room = -(-keys // MASK_WIDTH) * MASK_WIDTH
    return visible.new_zeros(*visible.shape[:-1], room, dtype=dtype)[..., :keys].masked_fill_(~visible, hidden)


class _Context(StateCache):
    """A cache that puts the keys and values of the segments' ancestors before the fresh ones, which it collects.

    Shorter ancestors are padded on the right, or before all else if layers are `local`: then keys and queries are as
    far from one another as in the sequences, and from where padding ends the model builds the mask of each layer.
    Recurrent layers begin in the states at the ends of the segments' parents.
    """

    store: PassStates

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
        self.store = PassStates([parent.recurrent if parent else {} for parent in parents], path_of, device)
        self.fresh: dict[int, KeysValues] = {}

    def positions(self, longest: int) -> Tensor | None:
        """Positions (segments or 1, T); None without context, which the model knows itself."""
        return self._starts[:, None] + torch.arange(longest, device=self.device) if self.length else None

    def mask(self, policy: Policy, longest: int) -> Tensor | None:
        """What is visible, as the policy's layers want it, of context + T keys, for T queries of each segment.

        None without context: that is the plain causal pass, for which kernels are fastest. With `local` layers, which
        keys are no padding (segments, context + T).
        """
        if not self.length:
            return None
        starts = self._starts
        if self.local:
            present = torch.arange(self.length + longest, device=self.device) >= self.length - starts[:, None]
            return present.expand(self.count, -1)
        if policy.implicit_masks and torch.is_grad_enabled() and min(self.lengths) == self.length:
            return ImplicitMask(longest, self.length + longest)
        offsets = torch.arange(longest, device=self.device)
        before = torch.arange(self.length, device=self.device) < starts[:, None]
        context = before[:, None, None, :].expand(-1, 1, longest, -1)
        causal = (offsets[None, :] <= offsets[:, None])[None, None].expand(len(starts), 1, -1, -1)
        return _added_to_scores(torch.cat([context, causal], dim=-1), policy)

    @functools.cached_property
    def _starts(self) -> Tensor:
        """Tokens before each segment (segments or 1)."""
        starts = torch.tensor(self.lengths, device=self.device)
        return starts if self.path_of is None else starts[self.path_of]

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
