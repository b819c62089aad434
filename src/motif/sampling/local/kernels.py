"""What a GPU computes in one kernel where torch launches several; Triton, which CUDA builds of torch need, makes them.

`attend` is used whatever the architecture, the others in decoder layers of the common form
(`motif.sampling.local.layers`). A sampler that computes something else with them does without.
"""

from __future__ import annotations

import importlib.util
from typing import Protocol, cast

import torch
from torch import Tensor


class Kernels(Protocol):
    """R rows, each with one token; `product` (R, N + K) and `up` (K, N): see `motif.sampling.local.joining`."""

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        table: tuple[Tensor, Tensor] | None,
        ranges: Tensor,
        last: Tensor,
        bias: Tensor | None,
        sinks: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Attention of queries (R, key heads, group, size) over parts of a table and each row's own tokens.

        Args:
            keys, values: own ones (R, key heads, T, size), of which those up to `last` (R,) are seen.
            table: keys and values (key heads, N, size) of prompts; None: there are none.
            ranges: (R, D, 2) where in the table what a row sees begins, and how much it is.
            bias: (R, N + T) to be added to scores after `scale` and `softcap`. sinks: (key heads, group).

        Returns:
            (R, key heads, group, size of values).
        """
        ...

    def turn(
        self,
        product: Tensor,
        up: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        eps: float,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        last: Tensor,
        heads: int,
    ) -> Tensor:
        """Queries, keys and values of a product, turned by position; keys and values are written where they belong.

        Args:
            norms: weights (size,) of the norms of each query's and key's head. cos, sin: (R or 1, size).
            keys, values: own ones (R, key heads, T, size). last: (R,) where the new ones go. heads: of queries.

        Returns:
            Queries (R, key heads, group, size).
        """
        ...

    def add_norm(
        self, product: Tensor, up: Tensor, residual: Tensor, weight: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        """The outputs of a product, added to `residual` (R, N), and the norm of that; without `weight`, anything."""
        ...

    def swiglu(self, product: Tensor, up: Tensor) -> Tensor:
        """silu(a) × b (R, N / 2) for the two halves a and b of a product's outputs."""
        ...


def find_kernels(device: torch.device) -> Kernels | None:
    """The kernels for a device; None if there are none."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from motif.sampling.local import triton_kernels

    return cast(Kernels, triton_kernels)
