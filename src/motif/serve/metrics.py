"""Counts, tokens and times of one server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histogram's buckets."""


class ServerMetrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # no `_created` series beside each counter
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "motif_requests",
            "Requests by route and status (499: the client disconnected).",
            ("path", "status"),
            registry=self.registry,
        )
        self._answers = self._counter("answers", "Completed answers.")
        self._rounds = self._counter("rounds", "Rounds of completed answers.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of completed answers, all rounds.")
        self._completion_tokens = self._counter("completion_tokens", "New tokens of completed answers, all rounds.")
        self._seconds = Histogram(
            "motif_request_seconds",
            "Seconds from a request's arrival to its end.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(f"motif_{name}", about, registry=self.registry)

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a gauge that calls `value` whenever the metrics are read."""
        Gauge(f"motif_{name}", about, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended. `path` is a route, so that clients cannot invent label values."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.observe(seconds)

    def answer(self, rounds: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a completed answer."""
        self._answers.inc()
        self._rounds.inc(rounds)
        self._prompt_tokens.inc(prompt_tokens)
        self._completion_tokens.inc(completion_tokens)

    def text(self) -> bytes:
        """All metrics in the text format, version 0.0.4."""
        return generate_latest(self.registry)
