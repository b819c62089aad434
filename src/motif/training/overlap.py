"""Sampling the next step's trees while this step trains (`sampler.overlap`).

    time →     sample 1 │ update 1 │ update 2 │ …
                        │ sample 2 │ sample 3 │ …

Step t + 1 is sampled with the weights that step t starts from, so it lags one update behind, never more: the trees are
waited for before the next step begins. Every response carries the version of the weights it came from, and the loss
corrects for the difference (`loss.importance_cap`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from motif.method.tree import Tree
from motif.sampling.base import TrainingSampler, Usage


@dataclass(frozen=True)
class Sampled:
    """A step's graded trees, and what sampling and grading them took."""

    trees: list[Tree]
    usage: Usage
    seconds: float


class Ahead:
    """One step's trees at most, sampled in a thread of its own. `sampler` is what the work samples with."""

    def __init__(self, sampler: TrainingSampler):
        self._sampler = sampler
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._future: Future[Sampled] | None = None

    def start(self, work: Callable[[], Sampled]) -> None:
        """Begin to sample."""
        self._future = self._pool.submit(work)

    def wait(self) -> None:
        """Until the work is done; an error in it is raised by `take`."""
        if self._future:
            wait([self._future])

    def take(self) -> Sampled | None:
        """What was sampled, once; None if nothing was begun.

        Raises:
            SamplerError: see `Sampler.sample`.
        """
        future, self._future = self._future, None
        return future.result() if future else None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        if self._future and not self._future.done():
            self._sampler.close()  # which ends the work
        self._pool.shutdown(cancel_futures=True)
