"""Decoding steps replayed as CUDA graphs.

A step of a few rows is some thousand small kernels, and launching them from Python takes several times longer than
their work. Steps of one kind (equal shapes, equal places in memory) are recorded once, then launched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from motif.models.policy import Policy
from motif.sampling.local.attention import NAME, TreeCache
from motif.sampling.local.kernels import Kernels

REPEATS = 3
"""Steps of a kind run one by one before it is recorded, which costs about two of them."""


class Recording(Protocol):
    """A recorded step."""

    def replay(self) -> None:
        """Run it again, on what its inputs hold now."""
        ...


Recorder = Callable[[Callable[[], Tensor]], tuple[Recording, Tensor]]
"""Runs a function without effect; returns it as a recording, and its result, which each replay fills."""


class Decoder:
    """The policy's decoder on one token a row, over a `TreeCache`.

    Args:
        record: None: every step is run as it is. kernels: None: torch's own operations.
    """

    def __init__(self, policy: Policy, record: Recorder | None = None, kernels: Kernels | None = None):
        self.policy, self.record = policy, record
        self.cache = TreeCache(policy.device, record is not None, policy.launch_bound, kernels)
        self._kind: tuple[int, ...] = ()
        self._seen = 0
        self._recorded: tuple[Recording, Tensor] | None = None

    def __call__(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Last hidden states (rows, D), after `cache.begin`.

        Args:
            tokens, positions: (rows,) the last token of each row and its position in the sequence.
        """
        spare = (0, self.cache.rows - len(tokens))
        inputs = [torch.from_numpy(np.pad(array, spare)).to(self.policy.device) for array in (tokens, positions)]
        ids, places = (self.cache.places.put(name, new) for name, new in zip(("ids", "at"), inputs, strict=True))

        def run() -> Tensor:
            with self.policy.attention(NAME), self.cache.current():
                states: Tensor = self.policy.decoder(
                    input_ids=ids[:, None],
                    position_ids=places[:, None],
                    use_cache=True,
                    **{self.policy.cache_argument: self.cache},
                ).last_hidden_state
            return states[:, -1]

        return self._step(run)[: len(tokens)]

    def _step(self, run: Callable[[], Tensor]) -> Tensor:
        kind = self.cache.kind
        if kind != self._kind:
            self._kind, self._seen, self._recorded = kind, 0, None
        self._seen += 1
        if self.record is None or self._seen <= REPEATS:
            return run()
        if self._recorded is None:
            self._recorded = self.record(run)
        recording, states = self._recorded
        recording.replay()
        return states


class CudaGraphs:
    """Records what a function launches on the current CUDA device.

    All recordings take their memory from one pool. That is safe because a decoder keeps only its last recording, and
    what one leaves behind is read before another is made.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Record `run`."""
        graph, autocast = torch.cuda.CUDAGraph(), torch.is_autocast_enabled("cuda")
        # What autocast has cast and keeps would lie in memory that is the graph's own.
        uncached = torch.autocast("cuda", torch.get_autocast_dtype("cuda"), autocast, cache_enabled=False)
        with uncached, torch.cuda.graph(graph, pool=self._pool):
            states = run()
        return graph, states
