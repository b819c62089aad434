"""Who may think at once, who waits, and who is sent away."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

LONGEST_RETRY = 120
"""Seconds that a client is at most told to wait."""


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    concurrency: answers being thought at once. queue: requests that wait for that. timeout: seconds from a request's
    arrival until it is given up. body: bytes of a request. body_seconds: until its body must be there. max_tokens: new
    tokens that a request may ask for in one round.
    """

    concurrency: int = 256
    queue: int = 256
    timeout: float = 600.0
    body: int = 2**20
    body_seconds: float = 30.0
    max_tokens: int = 1024


class Busy(Exception):
    """The queue is full; `retry_after` seconds from now there should be room."""

    def __init__(self, retry_after: int):
        super().__init__(f"all places are taken and the queue is full: try again in {retry_after} s")
        self.retry_after = retry_after


class Gate:
    """Lets requests in, in the order in which they come; each takes as many places as it has answers to think."""

    def __init__(self, places: int, queue: int):
        self.places, self.queue = places, queue
        self.taken = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._seconds = 1.0  # that an answer holds its place, on average of late
        self._promised = 0.0  # until when the places are promised to those who were sent away

    @asynccontextmanager
    async def enter(self, count: int) -> AsyncIterator[None]:
        """Hold `count` places, once they are free.

        Raises:
            Busy: too many wait already.
        """
        await self._wait(count)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self.taken -= count
            self._let_in()

    async def _wait(self, count: int) -> None:
        if not self.waiting and self.taken + count <= self.places:
            self.taken += count
            return
        if len(self.waiting) >= self.queue:
            raise Busy(self._retry_after(count))
        entry = (count, asyncio.get_running_loop().create_future())
        self.waiting.append(entry)
        try:
            await entry[1]
        except BaseException:
            if entry in self.waiting:
                self.waiting.remove(entry)
            else:  # let in and cancelled in the same moment
                self.taken -= count
            self._let_in()
            raise

    def _let_in(self) -> None:
        while self.waiting and self.taken + self.waiting[0][0] <= self.places:
            count, future = self.waiting.popleft()
            self.taken += count
            future.set_result(None)

    def _retry_after(self, count: int) -> int:
        """Those who were sent away earlier come earlier: were all told the same, most would be sent away again."""
        now, each = time.monotonic(), self._seconds / self.places
        queued = now + each * sum(waiting for waiting, _ in self.waiting)
        self._promised = min(max(queued, self._promised) + each * count, now + LONGEST_RETRY)
        return max(1, math.ceil(self._promised - now))
