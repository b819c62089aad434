"""Decoding attention over a tree of prompts: no row holds a copy of its prompt.

Each row attends to the segments on its prompt's path and to its own response. The keys and values of a segment are
stored once and multiplied with the queries of all rows below it at once (as in Hydragen, arXiv 2402.05099, at every
depth of the tree), so that memory traffic, which limits decoding, grows with the distinct tokens of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from motif.models.prefix import Segment
from motif.models.recurrent import RowStates, StateCache
from motif.sampling.local.kernels import Kernels
from motif.sampling.local.pool import Places, Pool, joint_scores, joint_values

NAME = "motif_tree"
MaskFunction = Callable[..., Tensor]
"""Of transformers: whether a key is visible, from the numbers of row and head and the positions of query and key."""
Expand = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keys and values of what a cache keeps in their place (latent attention): both (rows, heads, T, size)."""
ROWS, LENGTH = 8, 64
"""With fixed shapes: rows, and tokens of responses, are rounded up to multiples of these."""


class TreeCache(StateCache):
    """The keys and values of a decoding batch: those of prompts by segment, those of responses by row.

    The states of recurrent layers, in `store`, are a row's own, from where its prompt ends.

    Rows 0..R-1 are alive. Responses are written in place, each at its own position, into (rows, heads, length, head
    size) with room to spare. With `fixed`, shapes are rounded up and tensors stay where they lie, so that many steps
    in a row run the same operations on the same memory (see `motif.sampling.local.graphs`). `kernels` attend wherever
    prompts are short enough for them.
    """

    store: RowStates

    def __init__(
        self, device: torch.device, fixed: bool = False, launch_bound: bool = False, kernels: Kernels | None = None
    ):
        super().__init__(layers=[])
        self.device, self.fixed, self.launch_bound, self.kernels = device, fixed, launch_bound, kernels
        self.rows = 0  # of a step, with those added for the round number
        self.levels: list[_Level | Pool] = []
        self.places = Places(fixed)
        self._pool = Pool(self.places)
        self.store = RowStates()
        self._prompts: list[Segment] = []
        self._above, self._last = _Level(self.places, whole_path=True), _Level(self.places, whole_path=False)
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._capacity = (0, 0)
        self._length = 0
        self.write: Tensor | None = None
        """(rows,) where in its own response each row's new key goes."""
        self._bias: Tensor | None = None
        self._masked: dict[int, tuple[MaskFunction, Tensor]] = {}  # this step's biases of layers that see less
        self._local = False  # whether there are such layers
        self._biased = kernels is None  # whether scores are hidden by adding something to them
        self._layers: dict[int, int] = {}  # by where their keys lie: some layers use those of another
        self._layer = 0

    def reserve(self, rows: int, length: int) -> None:
        """Room for this many rows and response tokens; grows generously, so that growing stays rare."""
        rows, length = self._rounded(rows, length)
        have_rows, have_length = self._capacity
        if rows > have_rows or length > have_length:
            grown = max(rows, min(2 * have_rows, have_rows + 64)) if rows > have_rows else have_rows
            self._capacity = (grown, max(length, have_length))
            for layer, (keys, values) in self._own.items():
                self._own[layer] = self._resized(keys), self._resized(values)
            self.store.reserve(grown)
            self.places.moves += 1

    def enter(self, first: int, prompts: Sequence[Segment]) -> None:
        """Let rows from `first` on begin behind these prompts, with room reserved for them."""
        self.store.enter(first, [prompt.recurrent for prompt in prompts])

    def _rounded(self, rows: int, length: int) -> tuple[int, int]:
        return (-rows // ROWS * -ROWS, -length // LENGTH * -LENGTH) if self.fixed else (rows, length)

    def _resized(self, old: Tensor) -> Tensor:
        new = old.new_zeros(self._capacity[0], old.shape[1], self._capacity[1], old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new

    def _place(self, prompts: Sequence[Segment]) -> None:
        """The rows alive, by the segments with which their prompts end.

        There are two levels, however deep the tree is: last segments, and all that is above one. Each level costs a
        dozen small operations in every layer of every step.
        """
        self.levels = []
        pooled = self.launch_bound and Pool.fits(prompts, self.rows, self.kernels is not None)
        self._ends = np.pad([prompt.end for prompt in prompts], (0, self.rows - len(prompts)))
        spare: list[Segment | None] = [None] * (self.rows - len(prompts))
        if pooled and any(prompt.end for prompt in prompts):
            self._pool.place(prompts, self.rows, self.device)
            self.levels.append(self._pool)
            return
        above = [prompt.parent if prompt.parent is not None and prompt.parent.end else None for prompt in prompts]
        for level, segments in ((self._above, above), (self._last, prompts)):
            if any(segments):
                level.place([*segments, *spare], self.device)
                self.levels.append(level)

    def copy(self, source: np.ndarray, target: np.ndarray, length: int) -> None:
        """Copy the first `length` positions of rows to others, and their states."""
        self.store.copy(source, target)
        for keys, values in self._own.values() if length else ():
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def begin(self, prompts: Sequence[Segment], positions: np.ndarray) -> None:
        """A decoding step of the rows alive.

        Args:
            prompts: with which each row's prompt ends. positions: (rows,) where in its own response its next key goes.
        """
        self.rows, self._length = self._rounded(len(prompts), int(positions.max()) + 1)
        self.store.rows = self.rows
        if prompts != self._prompts:
            self._place(prompts)
            self._prompts = list(prompts)
        # A row that fills up writes where the next response to enter it will.
        padded = np.pad(positions, (0, self.rows - len(positions)))
        position = torch.from_numpy(padded).to(self.device)
        self.write = self.places.put("write", position)
        self._indices: dict[int, Tensor] = {}  # by number of heads; the first layer with as many computes it
        self._layers, self._masked = {}, {}
        if self._biased or not self._attends_at_once:
            self._put_bias()
        if self._local:
            self._put_positions()

    @property
    def _attends_at_once(self) -> bool:
        """Whether a kernel attends to all that a row sees."""
        return self.kernels is not None and self.levels in ([], [self._pool])

    def _put_bias(self) -> None:
        """What hides from each row the keys that are not its own."""
        assert self.write is not None
        own = torch.arange(self._length, device=self.device) <= self.write[:, None]
        visible = torch.cat([*(level.visible for level in self.levels), own], dim=1)
        bias = torch.zeros(visible.shape, device=self.device).masked_fill_(~visible, float("-inf"))
        self._bias = self.places.put("bias", bias[:, None, None])

    def _put_positions(self) -> None:
        """Positions in the sequence of each row's query (rows, 1) and of all its keys (rows, keys)."""
        assert self.write is not None
        ends = torch.from_numpy(self._ends).to(self.device)[:, None]
        own = ends + torch.arange(self._length, device=self.device)
        keys = torch.cat([*(level.positions for level in self.levels), own], dim=1)
        self._query_at = self.places.put("query at", ends + self.write[:, None])
        self._keys_at = self.places.put("keys at", keys)

    def _bias_of(self, mask: MaskFunction | None) -> Tensor:
        """What to add to the scores of a layer that sees what `mask` says, of what there is."""
        if not self._biased and self._attends_at_once:  # the first layer that asks; from now on it is always there
            self._biased = True
            self._put_bias()
        assert self._bias is not None
        if mask is None:
            return self._bias
        if id(mask) not in self._masked:
            if not self._local:
                self._local = True
                self._put_positions()
            rows = torch.arange(self.rows, device=self.device)[:, None]
            visible = mask(rows, 0, self._query_at, self._keys_at)
            bias = self._bias.masked_fill(~visible[:, None, None], float("-inf"))
            self._masked[id(mask)] = mask, bias
        return self._masked[id(mask)][1]

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Let `tree_attention` look here for the prompts, inside the block: not all models hand arguments on to it."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @property
    def kind(self) -> tuple[int, ...]:
        """Steps of one kind run the same operations on the same places; to be asked after `begin`."""
        return self.rows, self._length, self.places.moves, *(id(level) for level in self.levels)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with its new keys and values; returns those of the rows' responses so far."""
        (rows, heads, _, size), width = key_states.shape, value_states.shape[3]
        stores = self.own(layer_idx, key_states, (heads, size), (heads, width))
        if heads not in self._indices:
            assert self.write is not None
            row_and_head = torch.arange(rows * heads, device=self.device).view(rows, heads)
            self._indices[heads] = (row_and_head * self._capacity[1] + self.write[:, None]).flatten()
        for store, fresh in zip(self._own[layer_idx], (key_states, value_states), strict=True):
            flat, index = store.view(-1, fresh.shape[3]), self._indices[heads]
            if self.launch_bound:  # takes parts of a product as they lie
                flat.index_put_((index.view(rows, heads),), fresh[:, :, 0].to(store.dtype))
            else:
                flat.index_copy_(0, index, fresh.reshape(rows * heads, -1).to(store.dtype))
        return stores

    def own(self, layer: int, like: Tensor, *shapes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer's own responses so far, (rows, heads, length, size) of these heads and sizes."""
        self._layer = layer
        if layer not in self._own:
            rows, length = self._capacity
            made = [like.new_zeros(rows, heads, length, size) for heads, size in shapes]
            self._own[layer] = made[0], made[1]
        keys, values = self._own[layer]
        self._layers[keys.data_ptr()] = layer
        return keys[: self.rows, :, : self._length], values[: self.rows, :, : self._length]

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: MaskFunction | None,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        expand: Expand | None,
    ) -> Tensor:
        """Attention of queries (rows, key heads, group, size) over prompts and own responses.

        Args:
            scale: of scores. sinks: (key heads, group) scores of a key without value, which takes its share of weights.
            expand: makes keys and values of what the cache keeps in their place.
        """
        layer = self._layers.get(keys.data_ptr(), self._layer)
        pooled, attends = self.levels == [self._pool], self.kernels is not None and self._attends_at_once
        if pooled:
            tables = [self._pool.table(layer, expand, 1 if attends else query.shape[2])]
        else:
            tables = [level.table(layer, expand) for level in self.levels]
        if self.kernels is not None and attends:
            assert self.write is not None
            table, ranges = (tables[0], self._pool.ranges) if tables else (None, self.write.new_zeros(self.rows, 0, 2))
            bias = None if mask is None else self._bias_of(mask)[:, 0, 0]
            return self.kernels.attend(query, keys, values, table, ranges, self.write, bias, sinks, scale, softcap)
        # Where launching takes time, scores are scaled and hidden at once.
        later = self.launch_bound and softcap is None
        query = query if later else query * scale
        joint = pooled and len(tables[0][0]) == query.shape[1] * query.shape[2]
        if joint:
            joined = joint_scores(query, keys.to(query.dtype), tables[0][0])
        else:
            scores = [level.scores(table[0], query) for level, table in zip(self.levels, tables, strict=True)]
            scores.append(query @ keys.transpose(2, 3).to(query.dtype))
            joined = torch.cat(scores, dim=-1)
        if softcap is not None:
            joined = torch.tanh(joined / softcap) * softcap
        bias, width = self._bias_of(mask), joined.shape[-1]
        joined = torch.add(bias, joined, alpha=scale, out=joined) if later else joined.add_(bias)
        if sinks is not None:
            joined = torch.cat([joined, sinks.to(joined.dtype).expand(len(joined), -1, -1).unsqueeze(-1)], dim=-1)
        # In float32 in any case; on a GPU the kernel itself rounds, without a cast of its own.
        weights = joined.softmax(-1) if self.launch_bound else joined.softmax(-1, dtype=torch.float32).to(query.dtype)
        weights, values = weights[..., :width], values.to(query.dtype)
        if joint:
            return joint_values(weights.to(query.dtype), values, tables[0][1])
        *shares, own = weights.split([part.shape[-1] for part in scores], dim=-1)
        output = own @ values
        for level, table, share in zip(self.levels, tables, shares, strict=True):
            output += level.values(table[1], share)
        return output

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Asked for by transformers."""
        return self._length - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Asked for by transformers."""
        return self._length, 0


_CURRENT: ContextVar[TreeCache] = ContextVar("tree of the pass that runs")


class _Level:
    """Segments, alone or with all that leads to them (`whole_path`), each with the rows below it as lanes.

    S segments of at most P tokens, at most U rows under one of them.
    """

    def __init__(self, places: Places, whole_path: bool) -> None:
        self.places, self.whole_path = places, whole_path
        self.known: dict[tuple[Segment, int], int] = {}  # slot of each segment, with its length: a split shortens it
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}

    def place(self, at: Sequence[Segment | None], device: torch.device) -> None:
        """`at`: the segment of every row, None for a row without."""
        keys = [None if segment is None else (segment, self._length(segment)) for segment in at]
        used = dict.fromkeys(key for key in keys if key is not None)
        if not used.keys() <= self.known.keys() or 2 * len(used) < len(self.known):
            self.known, self._tables = {key: slot for slot, key in enumerate(used)}, {}
            self.places.moves += 1
        slots = np.array([-1 if key is None else self.known[key] for key in keys])
        present = np.flatnonzero(slots >= 0)
        order = present[np.argsort(slots[present], kind="stable")]
        counts = np.bincount(slots[present], minlength=len(self.known))
        lanes = np.arange(len(order)) - (np.cumsum(counts) - counts)[slots[order]]
        self.count, self.width = len(self.known), int(counts.max())
        if self.places.fixed:
            self.width = 1 << (self.width - 1).bit_length()
        place = np.zeros((self.count, self.width), dtype=np.int64)
        place[slots[order], lanes] = order
        back = np.zeros(len(at), dtype=np.int64)
        back[order] = slots[order] * self.width + lanes
        # With one segment under which all rows are, as with one question, lanes are rows.
        self.whole = self.count == 1 and len(present) == len(at) and not self.places.fixed
        # The scores of a row whose path is shorter are hidden by `visible`; its values are another row's.
        self.absent = None
        if len(present) < len(at) or self.places.fixed:
            self.absent = self._put("absent", torch.from_numpy(slots < 0).to(device)[:, None, None, None])
        self.place_SU = self._put("place", torch.from_numpy(place.ravel()).to(device))
        self.back_R = self._put("back", torch.from_numpy(back).to(device))
        lengths = np.array([length for _, length in self.known])
        self.longest = int(lengths.max())
        mine = np.where(slots >= 0, lengths[slots], 0)
        starts = np.array([0 if self.whole_path else segment.start for segment, _ in self.known])
        self.positions = torch.from_numpy(starts[slots][:, None] + np.arange(self.longest)).to(device)
        self.visible = torch.from_numpy(np.arange(self.longest) < mine[:, None]).to(device)

    def _put(self, name: str, value: Tensor) -> Tensor:
        return self.places.put(f"{name}, {self.whole_path}", value)

    def table(self, layer: int, expand: Expand | None) -> tuple[Tensor, Tensor]:
        """Keys and values (S, heads, P, size) of a layer, padded."""
        if layer not in self._tables:
            kept = self._stacked(layer, 0), self._stacked(layer, 1)
            self._tables[layer] = expand(*kept) if expand else kept
        return self._tables[layer]

    def _length(self, segment: Segment) -> int:
        return segment.end if self.whole_path else len(segment.tokens)

    def _stacked(self, layer: int, kind: int) -> Tensor:
        """The segments' keys (kind 0) or values (1), with zeros after the shorter ones."""
        first = next(iter(self.known))[0].keys_values[layer][kind]
        table = first.new_zeros(self.count, first.shape[0], self.longest, first.shape[2])
        for (segment, _), row in zip(self.known, table, strict=True):
            for part in segment.path() if self.whole_path else [segment]:
                start = part.start if self.whole_path else 0
                row[:, start : start + len(part.tokens)] = part.keys_values[layer][kind]
        return table

    def scores(self, keys: Tensor, query: Tensor) -> Tensor:
        """Products of queries (R, heads, group, size) with the keys of their rows' segments: (R, heads, group, P)."""
        return self._rows(self._lanes(query) @ keys.transpose(2, 3).to(query.dtype), query)

    def values(self, values: Tensor, weights: Tensor) -> Tensor:
        """Values of the rows' segments, weighted (R, heads, group, P): (R, heads, group, size)."""
        rows = self._rows(self._lanes(weights) @ values.to(weights.dtype), weights)
        return rows if self.absent is None else rows.masked_fill(self.absent, 0.0)

    def _lanes(self, tensor: Tensor) -> Tensor:
        """(R, heads, group, X) to (S, heads, U * group, X)."""
        rows, heads, group, size = tensor.shape
        if self.whole and rows == 1:  # there is nothing to move
            return tensor.contiguous()
        lanes = tensor.reshape(rows, -1)
        if not self.whole:
            lanes = lanes.index_select(0, self.place_SU)
        lanes = lanes.view(self.count, self.width, heads, group, size).transpose(1, 2)
        return lanes.reshape(self.count, heads, self.width * group, size)

    def _rows(self, lanes: Tensor, like: Tensor) -> Tensor:
        """(S, heads, U * group, X) back to (R, heads, group, X)."""
        count, heads, group, _ = like.shape
        if self.whole and count == 1:
            return lanes
        rows = lanes.view(self.count, heads, self.width, group, -1).transpose(1, 2)
        if self.whole:
            return rows[0]
        flat = rows.reshape(self.count * self.width, -1).index_select(0, self.back_R)
        return flat.view(len(flat), heads, group, -1)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: MaskFunction | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one query per row, in the form that transformers asks for.

    Args:
        query: (rows, heads, 1, size). key, value: the rows' own, from `TreeCache.update`.
        attention_mask: what the layer sees, see `tree_mask`.
        s_aux: (heads,) scores of attention sinks.

    Raises:
        NotImplementedError: the architecture attends in a way this function does not know.
    """
    if kwargs.get("position_bias") is not None:
        raise NotImplementedError("its attention has position_bias, which motif does not know")
    tree = _CURRENT.get()
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    scale = size**-0.5 if scaling is None else scaling
    sinks = None if s_aux is None else s_aux.view(key.shape[1], -1)
    output = tree.attend(query, key, value, attention_mask, scale, softcap, sinks, getattr(module, "expand_kv", None))
    return output.reshape(rows, 1, heads, -1), None


def tree_mask(*args: Any, mask_function: MaskFunction, **kwargs: Any) -> MaskFunction | None:
    """In place of a mask, the function that says what it holds: where the keys lie, only the tree knows.

    None: all that comes before.
    """
    return None if mask_function is causal_mask_function else mask_function


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, tree_mask)
