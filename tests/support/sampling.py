"""Asking samplers outside the loop that grows trees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from motif.sampling.base import Completion, Request, Sampler
from motif.sampling.concurrency import run, together


def expand(
    sampler: Sampler, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]
) -> list[Completion]:
    """Sample requests and all that `then` makes of each completion; completions in the order in which they ended."""
    completions: list[Completion] = []

    async def take(stream: AsyncIterator[Completion], group: asyncio.TaskGroup) -> None:
        async for completion in stream:
            completions.append(completion)
            for request in then(completion):
                group.create_task(take(sampler.sample(request), group))

    async def main() -> None:
        streams = [sampler.sample(request) for request in requests]
        async with together() as group:
            for stream in streams:
                group.create_task(take(stream, group))

    run(main())
    return completions
