"""Samplers that compute in the thread of those who ask.

A stepping sampler computes only when nobody has anything left to ask. It hands completions over and waits until the
tasks that got them have come back for the next ones, so that all requests for the children are there before it computes
on. What shares a batch therefore depends on the trees alone and not on how tasks are scheduled: the same requests give
the same bits.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from motif.sampling.base import Completion, OnText, Request


class CompletionStream:
    """The completions of one request, handed over one at a time."""

    def __init__(self, count: int):
        self.closed = False
        self._left = count
        self._items: deque[Completion | BaseException] = deque()
        self._news = asyncio.Event()
        self._asked = asyncio.Event()  # for more than there is

    def __aiter__(self) -> CompletionStream:
        return self

    async def __anext__(self) -> Completion:
        if not self._items:
            self._asked.set()
        if self._left == 0:
            raise StopAsyncIteration
        while not self._items:
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        if isinstance(item, BaseException):
            await self.aclose()
            raise item
        self._left -= 1
        return item

    @property
    def ended(self) -> bool:
        """Whether all completions have been taken."""
        return self._left == 0

    async def aclose(self) -> None:
        """Take no more completions."""
        self.closed = True
        self._asked.set()

    @property
    def awaited(self) -> bool:
        """Whether a task waits for the next completion."""
        return self._asked.is_set()

    def give(self, completion: Completion) -> None:
        """Give a completion to the task that iterates."""
        if not self.closed:
            self._asked.clear()
            self._items.append(completion)
            self._news.set()

    async def used(self) -> None:
        """Wait until the task has made use of what it was given, and asks for the next."""
        await self._asked.wait()

    def fail(self, error: BaseException) -> None:
        """Raise an error where the next completion is waited for."""
        self._items.append(error)
        self._news.set()


class SteppingSampler(ABC):
    """The driver: collects requests, lets `compute` answer them, and hands the completions over."""

    def __init__(self) -> None:
        self._streams: dict[Request, CompletionStream] = {}
        self._driver: asyncio.Task[None] | None = None
        self._computing = False

    def sample(self, request: Request, on_text: OnText | None = None) -> CompletionStream:
        """One completion per key, each as soon as it ends; it does not stream, so `on_text` is not called.

        The request counts from this call on. To be called in a running event loop.
        """
        self.enqueue(request, first=self._computing)
        stream = self._streams[request] = CompletionStream(len(request.keys))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return stream

    @abstractmethod
    def enqueue(self, request: Request, first: bool) -> None:
        """Take a request in. `first`: it continues a response that has ended, and goes before what waits already."""

    @abstractmethod
    async def compute(self) -> None:
        """Answer all requests with `hand_over`, those that come meanwhile included."""

    async def hand_over(self, completions: Sequence[Completion]) -> None:
        """Give completions to the tasks that wait for them, and wait until these have made use of them, in this order.

        A task gets one at a time: of two completions of one request, the second waits for all before it.
        """
        given: dict[Request, CompletionStream] = {}
        for completion in completions:
            if completion.request in given:
                await self._used(given)
            stream = given[completion.request] = self._streams[completion.request]
            if not stream.awaited:  # its task has not begun: others would come before it
                await asyncio.sleep(0)
            stream.give(completion)
        await self._used(given)

    async def _used(self, given: dict[Request, CompletionStream]) -> None:
        for request, stream in given.items():
            await stream.used()
            if stream.ended:
                del self._streams[request]
        given.clear()

    async def _drive(self) -> None:
        self._computing = True
        try:
            await self.compute()
        except Exception as error:
            for stream in self._streams.values():
                stream.fail(error)
        finally:
            self._computing = False
            self._driver = None
            self._streams.clear()
