"""Linear layers in 8 bits on a CPU: weights and inputs are whole numbers, which its 8-bit units multiply.

Each output channel of a weight has a scale, and so has each token of an input. Both are rotated before, in blocks along
the input, by a Hadamard matrix: that leaves the product as it is and spreads outliers, which would otherwise make the
steps coarse for all others (the idea of QuaRot, arXiv 2404.00456). Where a model allows it, inputs come rotated already
(`motif.sampling.local.rotation`). Sums of products are exact, so they do not depend on the rows that are computed
together.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from motif.models.path import Gaps

BLOCK = 64
"""Numbers that are rotated together, if the width can be divided by it."""
LEVELS = 127
"""The largest whole number; -128 is not used."""
CHANNELS, ROWS = 256, 512
"""Output channels that are changed at once (whole blocks), and rows in one product: their numbers stay in a cache."""
WIDE = 8192
"""Output channels from which on the last of the kernels is the fastest."""
TIMED_ROWS = (1, 8, 32)
"""Rows for which a shape is timed."""
TIMED_CHANNELS, TRIES = 4096, 5

Shape = tuple[int, int]
"""Output channels and inputs of a layer."""
Forward = Callable[[Tensor], Tensor]
"""Outputs (..., N) of inputs (..., K)."""
Kernel = Callable[[Tensor, Tensor], Forward]
"""Makes, from whole numbers (N, K) and the channels' steps (N,), the products with rows (R, K) times these steps; rows
are rounded to whole numbers up to `LEVELS`."""


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


class Int8Linear:
    """A linear layer's forward pass in 8 bits, made from weights (N, K) in float32.

    Args:
        weight: (N, K), or parts of it one after the other: each is done with before the next is asked for.
        turned: size of the blocks in which inputs come rotated; 0: they do not.
    """

    def __init__(self, weight: Tensor | Iterable[Tensor], bias: Tensor | None = None, turned: int = 0):
        parts = weight.split(CHANNELS) if isinstance(weight, Tensor) else weight
        made = [quantised(rotated(part, turned)) for part in parts]
        numbers, steps = torch.cat([part for part, _ in made]), torch.cat([steps for _, steps in made]).flatten()
        self.channels, self.bias, self.turned = len(numbers), bias, turned
        self.products = kernels()[-1 if self.channels > WIDE else 0](numbers, steps)

    def __call__(self, rows: Tensor) -> Tensor:
        """Outputs (..., N) of inputs (..., K)."""
        given = rows.reshape(-1, rows.shape[-1])
        if len(given) <= ROWS:
            output = self.outputs(*self.taken(given))
        else:
            output = given.new_empty(len(given), self.channels)
            for some, its in zip(given.split(ROWS), output.split(ROWS), strict=True):
                its.copy_(self.outputs(*self.taken(some)))
        return output.view(*rows.shape[:-1], self.channels)

    def taken(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What `outputs` takes, of inputs (R, K): rotated, in steps of each row, and the size (R, 1) of these steps."""
        return in_steps(rows if self.turned else rotated(rows))

    def outputs(self, rows: Tensor, steps: Tensor) -> Tensor:
        """Outputs (R, N) of few enough inputs (R, K) in steps of each row, and the sizes (R, 1) of these steps."""
        found = self.products(rows).mul_(steps)
        return found if self.bias is None else found.add_(self.bias)


def in_steps(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, K) as multiples of a step, up to `LEVELS` of them, and the size (R, 1) of a step of each row.

    The multiples of a row of zeros mean nothing, and times a step of zero they do not have to.
    """
    steps = rows.abs().amax(1, keepdim=True).div_(LEVELS)
    return rows / steps, steps


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, K) as whole numbers of 8 bits, and the size (R, 1) of a step of each row; see `in_steps`."""
    multiples, steps = in_steps(rows)
    return multiples.round_().to(torch.int8), steps


# -- kernels -----------------------------------------------------------------------------------------------------------


def fbgemm(numbers: Tensor, steps: Tensor) -> Forward:
    """The faster one for few rows: it rounds them itself, and lays out weights in half of the other's time."""
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():  # a later torch may not have it, and then there is the other kernel
            warnings.filterwarnings("ignore", message=".*quantized tensor creation.*")
            weight = torch._make_per_channel_quantized_tensor(numbers, steps.double(), _zeros(len(steps)), 0)
        blocks = torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine
    return lambda rows: torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(rows, 1.0, 128, blocks)


def onednn(numbers: Tensor, steps: Tensor) -> Forward:
    """The faster one for more than a few rows if there are many channels."""
    blocks, zeros = torch.ops.onednn.qlinear_prepack(numbers, None), _zeros(len(steps))

    def products(rows: Tensor) -> Tensor:
        shifted = rows.round().add_(128).to(torch.uint8)  # its inputs have no sign
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, blocks, steps, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return found

    return products


def _zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


@functools.cache
def kernels() -> tuple[Kernel, ...]:
    """Those of this build of torch that add up products without an error on this processor."""
    return tuple(kernel for kernel in (fbgemm, onednn) if _exact(kernel))


def _exact(kernel: Kernel) -> bool:
    """Whether a kernel rounds to the nearest, and adds up without an error: some units saturate at 16 bits."""
    weight = torch.full((64, 256), LEVELS, dtype=torch.int8)
    weight[1::2] *= -1
    numbers = torch.cat([weight[:2], torch.arange(-127, 129).clamp(max=LEVELS).to(torch.int8)[None]])
    try:
        products = kernel(weight, torch.ones(64))
        found = [products(rows).long() for rows in ((numbers - 0.4 * numbers.sign()), numbers[:1].float())]
    except (RuntimeError, AttributeError, NotImplementedError):  # this build has none
        return False
    return torch.equal(torch.cat(found), (numbers.long() @ weight.t().long())[[0, 1, 2, 0]])


# -- rotation ----------------------------------------------------------------------------------------------------------


def rotated(rows: Tensor, size: int = 0) -> Tensor:
    """Rows (..., K) with each block turned by a Hadamard matrix; products of two that are turned are the same.

    Args:
        size: of a block; 0: `block` of the width.
    """
    size = size or block(rows.shape[-1])
    return rows if size == 1 else torch.mm(rows.reshape(-1, size), hadamard(size)).view(rows.shape)


def block(width: int) -> int:
    """Numbers that are rotated together: `BLOCK`, or the largest power of two that divides a width."""
    return min(BLOCK, width & -width)


@functools.cache
def hadamard(size: int) -> Tensor:
    """The orthogonal Hadamard matrix (size, size) of a power of two, by Sylvester's construction."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


def timed(shape: Shape, plain: Callable[[Tensor], Forward]) -> Iterator[tuple[float, float]]:
    """Seconds of a layer in float32 and in 8 bits, for each of `TIMED_ROWS`; changing the inputs is included.

    Args:
        plain: makes the forward pass in float32 from weights.
    """
    channels, width = min(shape[0], TIMED_CHANNELS), shape[1]
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
