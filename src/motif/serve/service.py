"""The service behind the routes: the served model, its admission queue, and the answers in progress."""

from __future__ import annotations

import asyncio

from motif.serve.admission import AdmissionQueue, ServerLimits
from motif.serve.metrics import ServerMetrics
from motif.serve.requests import ServedModel


class Service:
    """The served model and all that its requests share.

    Attributes:
        running: tasks that answer requests. draining: the server is about to end. stopped: it answers no request.
    """

    def __init__(self, served: ServedModel, limits: ServerLimits):
        self.served, self.limits = served, limits
        self.queue = AdmissionQueue(limits.concurrency, limits.queue)
        self.running: set[asyncio.Task[None]] = set()
        self.draining = self.stopped = False
        self.metrics = ServerMetrics()
        self.metrics.gauge("answers_running", "Answers in progress.", lambda: self.queue.taken)
        self.metrics.gauge("requests_waiting", "Requests in the queue.", lambda: len(self.queue.waiting))
        self.metrics.gauge("responses_decoding", "Rows of the batch in this process.", lambda: served.sampler.decoding)

    def stop(self) -> None:
        """Cancel all answers in progress; their clients get an error."""
        self.draining = self.stopped = True
        for task in self.running:
            task.cancel()
