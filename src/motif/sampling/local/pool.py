"""All prompts of a decoding batch in one table, with which every row is multiplied: for a GPU.

A `_Level` of `motif.sampling.local.attention` multiplies each row with the keys of its own prompt only, for which rows
are sorted by prompt and back. A GPU has multiplied few rows with all of some short prompts before it could launch that.
Here the scores of prompts that are not a row's own are hidden. R rows, N tokens of all prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from motif.models.prefix import Segment

LARGEST = 2**19
"""Rows times tokens of prompts up to which the arithmetic takes less than launching more operations."""
READ = 2**18
"""Tokens of prompts that rows may read, each its own, where a kernel attends: more are better read once for many."""
REPEATED = 2**14
"""Tokens of prompts times the queries to a head of keys, up to which a table that repeats its heads is read faster than
queries can be sorted by head."""
Expand = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""See `motif.sampling.local.attention`."""


class Places:
    """Tensors by name. With `fixed`, a new value of the same shape is written over the old one, where that one lies."""

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed
        self.moves = 0
        """How often something has got another place."""
        self._tensors: dict[str, Tensor] = {}

    def move(self) -> None:
        """Note that something has got another place."""
        self.moves += 1

    def put(self, name: str, value: Tensor) -> Tensor:
        """The tensor that holds `value` now."""
        old = self._tensors.get(name)
        if self.fixed and old is not None and old.shape == value.shape:
            return old.copy_(value)
        self._tensors[name] = value
        self.moves += 1
        return value


class Pool:
    """The segments of all prompts, one after the other; `places` learns when the tables are made anew.

    `ranges` (R, D, 2): where what a row sees begins, and how many tokens it has.
    """

    def __init__(self, places: Places):
        self.places = places
        self._starts: dict[tuple[Segment, int], int] = {}  # of each segment, with its length: a split shortens it
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def fits(prompts: Sequence[Segment], rows: int, kernels: bool = False) -> bool:
        """Whether prompts are short enough for so many rows, of which `kernels` read each its own only."""
        segments = {segment for prompt in set(prompts) for segment in prompt.path()}
        tokens = sum(len(segment.tokens) for segment in segments)
        if kernels and sum(prompt.end for prompt in prompts) <= READ and rows * tokens <= 16 * LARGEST:
            return True
        return rows * tokens <= LARGEST

    def place(self, prompts: Sequence[Segment], rows: int, device: torch.device) -> None:
        """`prompts`: with which the first rows' prompts end; the others have none."""
        paths = {prompt: [(one, len(one.tokens)) for one in prompt.path()] for prompt in prompts}
        used = dict.fromkeys(segment for path in paths.values() for segment in path)
        if not used.keys() <= self._starts.keys() or 2 * len(used) < len(self._starts):
            ends = np.cumsum([size for _, size in used], dtype=np.int64)
            self._starts = {one: int(end) - one[1] for one, end in zip(used, ends, strict=True)}
            self._tables = {}
            self.places.move()
        tokens = max(start + size for (_, size), start in self._starts.items())
        visible, positions = np.zeros((rows, tokens), dtype=bool), np.zeros(tokens, dtype=np.int64)
        for (segment, size), start in self._starts.items():
            positions[start : start + size] = segment.start + np.arange(size)
        for row, prompt in enumerate(prompts):
            for one in paths[prompt]:
                visible[row, self._starts[one] :][: one[1]] = True
        lines = [merged([(self._starts[one], one[1]) for one in paths[prompt]]) for prompt in prompts]
        ranges = np.zeros((rows, max(map(len, lines)), 2), dtype=np.int64)
        for row, line in enumerate(lines):
            ranges[row, : len(line)] = line
        self.ranges = self.places.put("ranges", torch.from_numpy(ranges).to(device))
        self.visible = torch.from_numpy(visible).to(device)
        self.positions = torch.from_numpy(positions).to(device).expand(rows, -1)

    def table(self, layer: int, expand: Expand | None, group: int = 1) -> tuple[Tensor, Tensor]:
        """Keys and values (heads, N, size) of a layer, each head `group` times if there is room."""
        if layer not in self._tables:
            segments = [segment.keys_values[layer] for segment, _ in self._starts]
            again = group if expand is None and group * sum(size for _, size in self._starts) <= REPEATED else 1
            keys, values = (
                torch.cat([one[kind].unsqueeze(1).expand(-1, again, -1, -1) for one in segments], dim=2).flatten(0, 1)
                for kind in (0, 1)
            )
            if expand:
                keys, values = (part[0] for part in expand(keys[None], values[None]))
            self._tables[layer] = keys, values
        return self._tables[layer]

    def scores(self, keys: Tensor, query: Tensor) -> Tensor:
        """Products of queries (R, heads, group, size) with all keys: (R, heads, group, N)."""
        return self._times(query, keys.transpose(1, 2))

    def values(self, values: Tensor, weights: Tensor) -> Tensor:
        """All values, weighted (R, heads, group, N): (R, heads, group, size)."""
        return self._times(weights, values)

    @staticmethod
    def _times(rows: Tensor, table: Tensor) -> Tensor:
        """(R, heads, group, X) times (heads, X, Y)."""
        count, heads, group, size = rows.shape
        by_head = rows.transpose(0, 1).reshape(heads, count * group, size)
        return torch.bmm(by_head, table.to(rows.dtype)).view(heads, count, group, -1).transpose(0, 1)


def joint_scores(query: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    """Products of queries (R, heads, group, size) with a table for each of their heads, then with the rows' own keys.

    Both are written where they belong: (R, heads, group, N + T).
    """
    rows, heads, group, size = query.shape
    tokens = table.shape[1]
    joined = query.new_empty(rows, heads, group, tokens + keys.shape[2])
    of_prompts, of_own = joined.flatten(1, 2)[..., :tokens], joined.flatten(0, 1)[..., tokens:]
    by_head = query.reshape(rows, heads * group, size).transpose(0, 1)
    torch.bmm(by_head, table.to(query.dtype).transpose(1, 2), out=of_prompts.transpose(0, 1))
    torch.bmm(query.reshape(rows * heads, group, size), keys.flatten(0, 1).transpose(1, 2), out=of_own)
    return joined


def joint_values(weights: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """The values of a table for each head of the weights (R, heads, group, N + T), and the rows' own, weighted."""
    rows, heads, group, _ = weights.shape
    tokens = table.shape[1]
    output = torch.bmm(weights.flatten(0, 1)[..., tokens:], values.flatten(0, 1)).view(rows, heads, group, -1)
    by_head = weights.flatten(1, 2)[..., :tokens].transpose(0, 1)
    output.flatten(1, 2).transpose(0, 1).baddbmm_(by_head, table.to(weights.dtype))
    return output


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (start, count), of which those that lie one after the other are one."""
    found: list[tuple[int, int]] = []
    for start, count in ranges:
        if found and sum(found[-1]) == start:
            found[-1] = found[-1][0], found[-1][1] + count
        else:
            found.append((start, count))
    return found
