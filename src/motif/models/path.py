"""Which of two ways of computing a model takes, and why: prompts shared between responses, or each by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

RIGHT = 1e-4
"""Difference of a log-probability (nats) that rounding makes in float32 of nearly all models; it needs no word."""
ALLOWED = 1e-3
"""Difference (nats) that rounding may make where weights are harsh: beyond it a way is wrong."""
CLEARLY = 10
"""How many times smaller than the fast way's the difference of the general way is, unless both are rounding.

A deep model's plain pass moves by a quarter of the fast way's difference if only its rows are padded otherwise.
"""
ROUNDING = 2e-5
"""Difference (nats) that is taken for the general way's where it is smaller: it may compute exactly the plain pass."""


@dataclass(frozen=True)
class Gaps:
    """Differences of log-probabilities (nats) from those of a plain pass, in float32."""

    mean: float = 0.0
    largest: float = 0.0

    def __str__(self) -> str:
        return f"{self.largest:.0e} nats from a plain pass at most, {self.mean:.0e} on average".replace("e-0", "e-")


@dataclass(frozen=True)
class Path:
    """A way of computing: the fast one, in which prompts are shared, or else the general one.

    reason: why it is not the fast one, in a few words. gaps: what was found when it was compared. slower: the seconds
    of the general way ÷ those of the fast one, where that was measured (`motif.training.speed`). rerouted: the share of
    tokens that rounding to bfloat16 sends to other experts.
    """

    reason: str = ""
    gaps: Gaps | None = field(default=None, compare=False)
    slower: float | None = field(default=None, compare=False)
    rerouted: float = field(default=0.0, compare=False)

    @property
    def general(self) -> bool:
        """Whether prompts are not shared."""
        return bool(self.reason)

    @property
    def gap(self) -> float:
        """The largest difference, if it is more than `RIGHT`."""
        return self.gaps.largest if self.gaps and self.gaps.largest > RIGHT else 0.0

    def describe(self) -> str:
        """The way, how far it is from a plain pass, and what it costs."""
        parts = ["general" if self.general else "fast"]
        parts += [self.reason] if self.general else []
        parts += [str(self.gaps)] if self.gaps else []
        if self.general and self.slower:
            parts.append(f"{self.slower:.2g} times the seconds of the fast path, measured here on a few tokens")
        elif self.general and self.gaps:
            parts.append("what that costs cannot be measured, because the fast path does not run")
        return f"{parts[0]} ({'; '.join(parts[1:])})" if parts[1:] else parts[0]

    def to_dict(self) -> dict[str, Any]:
        """For a summary."""
        gaps = asdict(self.gaps) if self.gaps else {"mean": None, "largest": None}
        return {
            "path": "general" if self.general else "fast",
            "reason": self.reason,
            "mean_gap": gaps["mean"],
            "largest_gap": gaps["largest"],
            "times_slower": self.slower,
        }

    def __str__(self) -> str:
        return f"general ({self.reason})" if self.reason else "fast"


FAST = Path()
GENERAL = Path("asked for")
NOT_COMPARED = Path("not compared with a plain pass yet")


@dataclass(frozen=True)
class Finding:
    """What a comparison with plain passes says of a way: what is wrong with it, in a few words, or how far off it is.

    gaps: None if they were not measured in float32. cause: the exception that says what is wrong, if one did.
    """

    problem: str = ""
    gaps: Gaps | None = None
    rerouted: float = 0.0
    cause: Exception | None = None

    @property
    def gap(self) -> float:
        """The largest difference that was measured."""
        return self.gaps.largest if self.gaps else 0.0


def choose(compare: Callable[[Path], Finding], general: bool = False) -> tuple[Path | None, list[Finding]]:
    """The way to take, and what was found out: of the fast one, and of the general one if that had to be tried.

    The fast one where it is right. Where it is off, but not by more than rounding might make it, the general one if
    that is clearly closer. No path: both are wrong. With `general`, nothing else is tried.
    """
    findings = [] if general else [compare(FAST)]
    fast = findings[0] if findings else Finding(GENERAL.reason)
    if not fast.problem and fast.gap <= RIGHT:
        return Path(gaps=fast.gaps, rerouted=fast.rerouted), findings
    other = compare(GENERAL)
    findings.append(other)
    if not other.problem and (fast.problem or max(other.gap, ROUNDING) < fast.gap / CLEARLY):
        return Path(fast.problem or off_by(fast.gap), other.gaps, rerouted=other.rerouted), findings
    return None if fast.problem else Path(gaps=fast.gaps, rerouted=fast.rerouted), findings


def off_by(gap: float) -> str:
    """How a difference in nats is told."""
    return f"log-probabilities are off by {gap:.2g}"


@dataclass(frozen=True)
class Paths:
    """The ways that a run takes; `sampler` is None where servers sample."""

    sampler: Path | None
    update: Path

    def __str__(self) -> str:
        sampler = self.sampler.describe() if self.sampler else "server"
        return f"sampler: {sampler}; update: {self.update.describe()}"

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For a summary."""
        server = dict.fromkeys(FAST.to_dict()) | {"path": "server", "reason": ""}
        return {"sampler": self.sampler.to_dict() if self.sampler else server, "update": self.update.to_dict()}

    def metrics(self) -> dict[str, str | float | None]:
        """For a line of metrics: no seconds, so that a resumed run has the same."""
        ways = self.to_dict().items()
        return {f"{name}/path": way["path"] for name, way in ways} | {
            f"{name}/path_gap": way["largest_gap"] for name, way in ways
        }

    def warnings(self) -> list[str]:
        """What the general path and differences that are larger than most mean for the run."""
        lines = []
        if self.sampler and self.sampler.general:
            lines.append(
                f"sampling takes the {self.sampler} path: each distinct prompt is read whole, and with "
                "recurrent states responses of each length are decoded in a pass of their own (docs/models.md)"
            )
        if self.update.general:
            lines.append(
                f"updates take the {self.update} path: a prompt is computed again for each of its responses "
                "(docs/models.md)"
            )
        for name, path in (("sampling", self.sampler), ("updates", self.update)):
            if path and path.gap:
                lines.append(
                    f"log-probabilities of {name} differ from a plain pass by up to {path.gap:.1g} nats in float32, "
                    f"more than the {RIGHT:g} that rounding makes of most models: watch sampler/mean_gap"
                )
        if self.sampler and self.sampler.rerouted:
            lines.append(
                f"rounding to bfloat16 sends {100 * self.sampler.rerouted:.1g} % of tokens to other experts, in "
                "decoding not always to those of the update: sampler/mean_gap shows what comes of it (docs/models.md)"
            )
        return lines
