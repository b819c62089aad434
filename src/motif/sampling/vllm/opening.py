"""Open what samples on vLLM servers: those that a recipe names, or one that is started beside the trainer."""

from __future__ import annotations

from collections.abc import Callable

from motif.config import Recipe
from motif.distributed import Processes
from motif.models.policy import Policy
from motif.sampling.vllm.adapters import Adapter
from motif.sampling.vllm.colocate import ColocatedSampler
from motif.sampling.vllm.launch import Colocation
from motif.sampling.vllm.sampler import ServerSampler


def open_servers(
    policy: Policy, recipe: Recipe, window: int, processes: Processes, colocation: Colocation | None
) -> ServerSampler:
    """The sampler of `sampler.urls` or, with `colocation`, of `sampler.colocate`; raises as these do.

    The main process loads adapters for all.
    """
    if colocation:
        return ColocatedSampler(policy, recipe, window, colocation)

    def once(work: Callable[[], Adapter]) -> Adapter:
        processes.gather(None)  # nobody samples with the adapter before any more
        return processes.on_main(work)

    return ServerSampler(policy, recipe, window, once)
