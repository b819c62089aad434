"""What callers of samplers share: running coroutines, task groups, and one call per response."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from motif.sampling.base import Completion, Request, Sampler

T = TypeVar("T")


async def sample_each(
    request: Request, complete: Callable[[Request, int], Coroutine[Any, Any, Completion]]
) -> AsyncIterator[Completion]:
    """Make one call per key of a request, all at once; completions as they end. One that fails ends the others."""
    calls = [asyncio.ensure_future(complete(request, index)) for index in range(len(request.keys))]
    try:
        for call in asyncio.as_completed(calls):
            yield await call
    finally:
        for call in calls:
            call.cancel()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where an event loop runs already (in a notebook, say)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    with ThreadPoolExecutor(1, thread_name_prefix="motif-run") as pool:
        started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
        interrupted = threading.Event()

        async def cancellable() -> T:
            task = asyncio.current_task()
            assert task is not None
            started.append((asyncio.get_running_loop(), task))
            if interrupted.is_set():  # before there was a task to cancel
                task.cancel()
            return await main

        future = pool.submit(asyncio.run, cancellable())
        try:
            return future.result()
        except KeyboardInterrupt:
            interrupted.set()
            for loop, task in started:
                loop.call_soon_threadsafe(task.cancel)
            raise


def complete(sampler: Sampler, requests: Iterable[Request]) -> list[Completion]:
    """Sample requests by themselves, outside a tree; completions in the order in which they ended."""
    completions: list[Completion] = []

    async def collect(stream: AsyncIterator[Completion]) -> None:
        async for completion in stream:
            completions.append(completion)

    async def main() -> None:
        streams = [sampler.sample(request) for request in requests]  # all are there before the first is waited for
        async with together() as group:
            for stream in streams:
                group.create_task(collect(stream))

    run(main())
    return completions


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error itself, not a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep it lies."""
    error = errors.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
