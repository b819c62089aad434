"""Which of two ways of computing a model takes, and why: prompts shared between responses, or each by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RIGHT = 1e-4
"""Difference of a log-probability (nats) that rounding makes in float32 of nearly all models; it needs no word."""
ALLOWED = 1e-3
"""Difference (nats) that rounding may make where weights are harsh: beyond it a way is wrong."""
CLEARLY = 3
"""How many times smaller than the fast way's the difference of the general way is, unless both are rounding."""


@dataclass(frozen=True)
class Path:
    """A way of computing: the fast one, in which prompts are shared, or else the general one.

    reason: why it is not the fast one, in a few words. gap: the largest difference of a log-probability (nats) from a
    plain pass in float32, if it is more than `RIGHT`. rerouted: the share of tokens that rounding to bfloat16 sends to
    other experts.
    """

    reason: str = ""
    gap: float = 0.0
    rerouted: float = 0.0

    @property
    def general(self) -> bool:
        """Whether prompts are not shared."""
        return bool(self.reason)

    def __str__(self) -> str:
        return f"general ({self.reason})" if self.reason else "fast"


FAST = Path()
GENERAL = Path("asked for")
NOT_COMPARED = Path("not compared with a plain pass yet")


@dataclass(frozen=True)
class Finding:
    """What a comparison with plain passes says of a way: what is wrong with it, in a few words, or its largest gap.

    cause: the exception that says what is wrong, if one did.
    """

    problem: str = ""
    gap: float = 0.0
    rerouted: float = 0.0
    cause: Exception | None = None


def choose(compare: Callable[[Path], Finding], general: bool = False) -> tuple[Path | None, list[Finding]]:
    """The way to take, and what was found out: of the fast one, and of the general one if that had to be tried.

    The fast one where it is right. Where it is off, but not by more than rounding might make it, the general one if
    that is clearly closer. No path: both are wrong. With `general`, nothing else is tried.
    """
    findings = [] if general else [compare(FAST)]
    fast = findings[0] if findings else Finding(GENERAL.reason)
    if not fast.problem and fast.gap <= RIGHT:
        return Path(rerouted=fast.rerouted), findings
    other = compare(GENERAL)
    findings.append(other)
    if not other.problem and (fast.problem or other.gap < fast.gap / CLEARLY):
        gap = other.gap if other.gap > RIGHT else 0.0
        return Path(fast.problem or off_by(fast.gap), gap, other.rerouted), findings
    return None if fast.problem else Path("", fast.gap, fast.rerouted), findings


def off_by(gap: float) -> str:
    """How a difference in nats is told."""
    return f"log-probabilities are off by {gap:.2g}"
