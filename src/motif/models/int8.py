"""Linear layers in 8 bits on a CPU: weights and inputs are whole numbers, which its 8-bit units multiply.

Each output channel of a weight has a scale, and so has each token of an input. Both are rotated before, in blocks along
the input, by a Hadamard matrix: that leaves the product as it is and spreads outliers, which would otherwise make the
steps coarse for all others (the idea of QuaRot, arXiv 2404.00456). Sums of products are exact, so they do not depend on
the rows that are computed together.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motif.models.path import Gaps

BLOCK = 64
"""Inputs that are rotated together, if the width can be divided by it; else the largest power of two that divides."""
LEVELS = 127
"""The largest whole number; -128 is not used."""
COLUMNS, ROWS = 4096, 512
"""Output channels and rows in one product. Blocks stay in the processor's cache; and one that falls into a kernel that
is not made for it is bounded: a whole vocabulary at once did not come back."""
TIMED_ROWS = (1, 8, 32)
"""Rows for which a shape is timed."""
TRIES = 5
SMALLEST = 1e-30
"""Taken for the largest number of a row of zeros."""

Shape = tuple[int, int]
"""Output channels and inputs of a layer."""
Forward = Callable[[Tensor], Tensor]
"""Outputs (..., N) of inputs (..., K)."""


@dataclass(frozen=True)
class Precision:
    """The numbers that a sampler multiplies, and why these.

    asked: the setting. reason: why it is not what was asked for, or what `auto` found. gain: seconds of the layers in
    float32 ÷ those in 8 bits, timed on this machine. layers: how many are in 8 bits. left: what stays in float32, in
    words. slow: shapes that do because they were slower. gaps: how far log-probabilities are off on random tokens.
    """

    asked: str = "float32"
    int8: bool = False
    reason: str = ""
    gain: float | None = None
    layers: int = 0
    left: tuple[str, ...] = ()
    slow: frozenset[Shape] = field(default=frozenset())
    gaps: Gaps | None = None

    @property
    def name(self) -> Literal["float32", "int8"]:
        """The value of the setting that asks for it."""
        return "int8" if self.int8 else "float32"

    def describe(self) -> str:
        """What was chosen, why, and what it means."""
        if not self.int8:
            return f"float32 ({self.reason})" if self.reason else "float32"
        parts = [self.reason] if self.reason else []
        parts += [f"{self.layers} layers in {1 / self.gain:.2g} of float32's seconds"] if self.gain else []
        parts += [f"in float32: {', '.join(self.left)}"] if self.left else []
        if self.gaps:
            parts.append(f"log-probabilities of random tokens off by {self.gaps.mean:.2g} nats on average")
        return f"int8 ({'; '.join(parts)})" if parts else "int8"

    def to_dict(self) -> dict[str, Any]:
        """For a summary."""
        gap = self.gaps.mean if self.gaps else None
        chosen = {"asked": self.asked, "precision": self.name, "reason": self.reason, "times_faster": self.gain}
        return chosen | {"layers": self.layers, "left": list(self.left), "mean_gap": gap}


FLOAT32 = Precision()


class Inputs:
    """The last input in 8 bits: layers beside each other in one module that get the same one share its form.

    They are called one after the other, and nothing changes an input in between.
    """

    def __init__(self) -> None:
        self._of: tuple[Tensor, str] | None = None
        self._form: tuple[Tensor, Tensor] | None = None

    def form(self, rows: Tensor, parent: str) -> tuple[Tensor, Tensor]:
        """Whole numbers (R, K) of an input (..., K), rotated, and the size (R, 1) of a step of each row.

        Args:
            parent: the module that the layer belongs to.
        """
        if self._form is None or self._of is None or self._of[0] is not rows or self._of[1] != parent:
            self._of, self._form = (rows, parent), quantised(rows.reshape(-1, rows.shape[-1]))
        return self._form


class Int8Linear:
    """A linear layer's forward pass in 8 bits, made from weights in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, inputs: Inputs | None = None, parent: str = ""):
        self.channels = weight.shape[0]
        self.blocks: list[tuple[slice, Tensor, Tensor]] = []  # where its outputs are, (K, N) whole numbers, steps (N,)
        for start in range(0, self.channels, COLUMNS):
            numbers, steps = quantised(weight[start : start + COLUMNS])
            self.blocks.append((slice(start, start + len(numbers)), numbers.t(), steps.flatten()))
        self.bias, self.inputs, self.parent = bias, inputs or Inputs(), parent

    def __call__(self, rows: Tensor) -> Tensor:
        """Outputs (..., N) of inputs (..., K)."""
        numbers, steps = self.inputs.form(rows, self.parent)
        if len(self.blocks) == 1 and len(numbers) <= ROWS:  # what decoding does most
            [(_, weight, scales)] = self.blocks
            output = torch._int_mm(numbers, weight).float().mul_(scales)
        else:
            output = steps.new_empty(len(numbers), self.channels)
            for start in range(0, len(numbers), ROWS):
                some = slice(start, start + ROWS)
                for columns, weight, scales in self.blocks:
                    torch.mul(torch._int_mm(numbers[some], weight), scales, out=output[some, columns])
        output.mul_(steps)
        if self.bias is not None:
            output.add_(self.bias)
        return output.view(*rows.shape[:-1], self.channels)


@torch.no_grad()
def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, K) rotated, as whole numbers of 8 bits, and the size (R, 1) of a step of each row."""
    turned = rotated(rows)
    steps = turned.abs().amax(1, keepdim=True).clamp_(min=SMALLEST).div_(LEVELS)
    return (turned / steps).round_().to(torch.int8), steps


def rotated(rows: Tensor) -> Tensor:
    """Rows (R, K) with each block turned by a Hadamard matrix; products of two that are turned are the same."""
    size = block_of(rows.shape[1])
    if size == 1:
        return rows
    return (rows.reshape(-1, size) @ hadamard(size)).view(rows.shape)


def block_of(width: int) -> int:
    """How many inputs are rotated together: the largest power of two up to `BLOCK` that divides the width."""
    return min(BLOCK, width & -width)


@functools.cache
def hadamard(size: int) -> Tensor:
    """The orthogonal Hadamard matrix (size, size) of a power of two, by Sylvester's construction."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


class Quantiser:
    """Makes forward passes in 8 bits for the layers of a model; those of the shapes `slow` stay in float32."""

    def __init__(self, model: nn.Module, slow: frozenset[Shape] = frozenset()):
        self.slow, self.inputs = slow, Inputs()
        self._parents: dict[nn.Module, str] = {
            module: name.removesuffix(".base_layer").rpartition(".")[0]
            for name, module in model.named_modules()
            if type(module) is nn.Linear
        }

    def takes(self, module: nn.Module) -> bool:
        """Whether a layer is computed in 8 bits."""
        return type(module) is nn.Linear and (module.out_features, module.in_features) not in self.slow

    def forward(self, module: nn.Module, weight: Tensor, bias: Tensor | None) -> Forward:
        """The forward pass of a layer with these weights."""
        return Int8Linear(weight, bias, self.inputs, self._parents[module])


def exact() -> bool:
    """Whether this processor adds up products of 8-bit numbers without an error; some units saturate at 16 bits."""
    ones = torch.full((2, 256), LEVELS, dtype=torch.int8)
    ones[1] = -LEVELS
    return torch.equal(torch._int_mm(ones, ones.t()).long(), ones.long() @ ones.long().t())


def timed(shape: Shape, plain: Callable[[Tensor], Forward]) -> Iterator[tuple[float, float]]:
    """Seconds of a layer in float32 and in 8 bits, for each of `TIMED_ROWS`; changing the inputs is included.

    Args:
        plain: makes the forward pass in float32 from weights.
    """
    channels, width = min(shape[0], COLUMNS), shape[1]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(channels, width, generator=generator)
    passes = plain(weight), Int8Linear(weight)
    for count in TIMED_ROWS:
        rows = torch.randn(count, width, generator=generator)
        seconds = [_quickest(one, rows) * shape[0] / channels for one in passes]
        yield seconds[0], seconds[1]


@torch.inference_mode()
def _quickest(run: Forward, rows: Tensor) -> float:
    """Processor time of a pass, the least of some: others may use the machine."""
    taken = []
    for _ in range(TRIES):
        start = time.thread_time()
        run(rows.clone())  # another input each time: that of before has its form already
        taken.append(time.thread_time() - start)
    return min(taken)
