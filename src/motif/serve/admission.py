"""Admission of requests: which ones run, which ones wait, and which ones are turned away."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

LONGEST_RETRY = 120
"""The longest Retry-After, in seconds."""


@dataclass(frozen=True)
class ServerLimits:
    """The limits of one server.

    concurrency: answers generated at once. queue: requests that wait for a free place. timeout: seconds from a
    request's arrival until the server gives it up. body: bytes of a request. body_seconds: seconds for a request's body
    to arrive. header_seconds: the same for its headers. max_tokens: new tokens that a request may ask for in one round.
    """

    concurrency: int = 256
    queue: int = 256
    timeout: float = 600.0
    body: int = 2**20
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    max_tokens: int = 1024


class QueueFull(Exception):
    """The queue is full; there should be room in `retry_after` seconds."""

    def __init__(self, retry_after: int):
        super().__init__(f"the server is at capacity and its queue is full: try again in {retry_after} s")
        self.retry_after = retry_after


class AdmissionQueue:
    """Admits requests in the order of their arrival; each takes as many places as it has answers to generate."""

    def __init__(self, places: int, queue: int):
        self.places, self.queue = places, queue
        self.taken = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._seconds = 1.0  # that an answer holds its place, as a moving average
        self._promised = 0.0  # the time until which the places are promised to requests that were turned away

    @asynccontextmanager
    async def enter(self, count: int) -> AsyncIterator[None]:
        """Wait for `count` places and hold them.

        Raises:
            QueueFull: too many requests wait already.
        """
        await self._wait(count)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self.taken -= count
            self._admit()

    async def _wait(self, count: int) -> None:
        if not self.waiting and self.taken + count <= self.places:
            self.taken += count
            return
        if len(self.waiting) >= self.queue:
            raise QueueFull(self._retry_after(count))
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = count, admitted
        self.waiting.append(entry)
        try:
            await admitted
        except BaseException:
            if entry in self.waiting:
                self.waiting.remove(entry)
            elif not admitted.cancelled():  # admitted and cancelled in the same moment
                self.taken -= count
            self._admit()
            raise

    def _admit(self) -> None:
        while self.waiting and self.taken + self.waiting[0][0] <= self.places:
            count, admitted = self.waiting.popleft()
            if not admitted.cancelled():  # else the request has left, but its task has not run since
                self.taken += count
                admitted.set_result(None)

    def _retry_after(self, count: int) -> int:
        """Seconds until there should be room. Each request that is turned away is told a later time than the one before
        it: given one time, all of them would return together and most would be turned away again."""
        now, each = time.monotonic(), self._seconds / self.places
        queued = each * sum(waiting for waiting, _ in self.waiting)
        seconds = min(max(queued, self._promised - now) + each * count, LONGEST_RETRY)
        self._promised = now + seconds
        return max(1, math.ceil(seconds))
