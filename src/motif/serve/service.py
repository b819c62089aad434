"""The service behind the routes: the served model, its admission queue, and the answers in progress."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from motif.serve.admission import AdmissionQueue, ServerLimits
from motif.serve.metrics import ServerMetrics
from motif.serve.requests import ServedModel


class Service:
    """The served model and all that its requests share.

    Args:
        ready: returns why the model cannot answer now, or None if it can.

    Attributes:
        running: tasks that answer requests. draining: no new requests are expected. stopped: none are answered.
    """

    def __init__(self, served: ServedModel, limits: ServerLimits, ready: Callable[[], Awaitable[str | None]]):
        self.served, self.limits, self.ready = served, limits, ready
        self.queue = AdmissionQueue(limits.concurrency, limits.queue)
        self.running: set[asyncio.Task[None]] = set()
        self.draining = self.stopped = False
        self.metrics = ServerMetrics()
        self.metrics.gauge("answers_running", "Answers in progress.", lambda: self.queue.taken)
        self.metrics.gauge("requests_waiting", "Requests in the queue.", lambda: len(self.queue.waiting))
        self.metrics.gauge(
            "responses_decoding",
            "Rows of the batch in this process.",
            lambda: served.sampler.decoding,
        )

    def stop(self) -> None:
        """Cancel all answers in progress; their clients get an error."""
        self.draining = self.stopped = True
        for task in self.running:
            task.cancel()
