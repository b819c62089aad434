"""Samplers that compute in the thread of those who ask: the order of work, errors, and callers that give up."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete, run
from motif.sampling.stepping import SteppingSampler
from support.sampling import expand


class Echo(SteppingSampler):
    """Answers one request after the other, all of its keys, and keeps their order."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.queue: deque[Request] = deque()
        self.order: list[int] = []
        self.fails_at = fails_at

    def enqueue(self, request: Request, first: bool) -> None:
        self.queue.appendleft(request) if first else self.queue.append(request)

    async def compute(self) -> None:
        try:
            while self.queue:
                request = self.queue.popleft()
                for index, key in enumerate(request.keys):
                    if key == self.fails_at:
                        raise MemoryError("no memory left")
                    self.order.append(key)
                    await self.hand_over([Completion(request, index, [key], [0.0], False)])
        finally:
            self.queue.clear()


def asked(*keys: int) -> Request:
    return Request([1, 2], list(keys), 3)


def test_children_go_before_roots_that_wait():
    sampler = Echo()

    def then(completion: Completion) -> list[Request]:
        key = completion.request.keys[completion.index]
        return [asked(10 * key)] if key < 100 else []

    expand(sampler, [asked(1), asked(2), asked(3)], then)
    assert sampler.order == [1, 10, 100, 2, 20, 200, 3, 30, 300]


def test_the_next_completion_comes_when_the_last_one_has_been_made_use_of():
    sampler, events = Echo(), []

    async def take() -> None:
        async for completion in sampler.sample(asked(1, 2, 3)):
            events.append(("taken", completion.index, list(sampler.order)))
            await asyncio.sleep(0.001)  # the sampler waits for it
            events.append(("used", completion.index, list(sampler.order)))

    run(take())
    assert events == [(what, index, [1, 2, 3][: index + 1]) for index in range(3) for what in ("taken", "used")]


def test_an_error_reaches_everybody_and_the_sampler_can_be_used_again():
    sampler = Echo(fails_at=2)

    async def main() -> list[str]:
        async def take(key: int) -> str:
            try:
                return str([completion.token_ids async for completion in sampler.sample(asked(key))])
            except MemoryError as error:
                return str(error)

        return list(await asyncio.gather(*(take(key) for key in (1, 2, 3))))

    assert run(main()) == ["[[1]]", "no memory left", "no memory left"]
    assert [completion.token_ids for completion in complete(sampler, [asked(4)])] == [[4]]


def test_a_caller_that_gives_up_holds_nobody_up():
    sampler = Echo()

    async def main() -> list[int]:
        given_up = sampler.sample(asked(1, 2, 3))
        kept = sampler.sample(asked(4, 5))
        assert (await anext(given_up)).index == 0
        await given_up.aclose()
        return [completion.index async for completion in kept]

    assert run(main()) == [0, 1]


def test_running_inside_a_loop_that_runs_already():
    async def inner() -> str:
        await asyncio.sleep(0)
        return "done"

    async def outer() -> str:
        return run(inner())  # as in a notebook

    assert asyncio.run(outer()) == "done"


def test_an_interrupt_inside_a_running_loop_ends_the_work(monkeypatch):
    ended = []

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def outer() -> None:
        from concurrent.futures import Future

        result = Future.result

        def interrupted(self: Future[None], timeout: float | None = None) -> None:
            while not self.running():
                pass
            monkeypatch.setattr(Future, "result", result)
            raise KeyboardInterrupt

        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(endless())

    asyncio.run(outer())
    assert ended == [True]
