"""Numbers for Prometheus, in its text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper ends of the histogram's buckets."""


class Metrics:
    """What one server has done. `gauges`: name, what it says, and how to read it now."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.totals: Counter[str] = Counter()
        self.buckets: Counter[float] = Counter()
        self.seconds = 0.0
        self.gauges: list[tuple[str, str, Callable[[], float]]] = []

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request that has ended. `path` is a route, so that clients cannot make up labels."""
        self.requests[path, status] += 1
        self.seconds += seconds
        self.buckets[next((end for end in SECONDS if seconds <= end), float("inf"))] += 1

    def thought(self, rounds: int, prompt_tokens: int, completion_tokens: int) -> None:
        """An answer that has been thought to its end."""
        self.totals["answers"] += 1
        self.totals["rounds"] += rounds
        self.totals["prompt_tokens"] += prompt_tokens
        self.totals["completion_tokens"] += completion_tokens

    def text(self) -> str:
        """All numbers."""
        lines: list[str] = []

        def family(name: str, kind: str, about: str) -> None:
            lines.extend([f"# HELP motif_{name} {about}", f"# TYPE motif_{name} {kind}"])

        family("requests_total", "counter", "Requests by route and status (499: the client went away).")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'motif_requests_total{{path="{path}",status="{status}"}} {count}')
        abouts = {
            "answers": "Answers thought to their end.",
            "rounds": "Rounds of these.",
            "prompt_tokens": "Prompt tokens of these, all rounds.",
            "completion_tokens": "Generated tokens of these, all rounds.",
        }
        for name, about in abouts.items():
            family(f"{name}_total", "counter", about)
            lines.append(f"motif_{name}_total {self.totals[name]}")
        for name, about, value in self.gauges:
            family(name, "gauge", about)
            lines.append(f"motif_{name} {value():g}")
        family("request_seconds", "histogram", "Seconds from a request's arrival to its end.")
        below = 0
        for end in SECONDS:
            below += self.buckets[end]
            lines.append(f'motif_request_seconds_bucket{{le="{end:g}"}} {below}')
        count = sum(self.requests.values())
        lines += [f'motif_request_seconds_bucket{{le="+Inf"}} {count}']
        lines += [f"motif_request_seconds_sum {self.seconds:.6f}", f"motif_request_seconds_count {count}"]
        return "\n".join(lines) + "\n"
