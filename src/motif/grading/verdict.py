"""The outcome of grading one answer, and the error of gold answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from motif.errors import DataError
from motif.method.tree import Verdict, outcome_of


@dataclass(frozen=True)
class Grade:
    """A verdict, its reason (empty where it speaks for itself), and the wall-clock seconds that it took.

    `ungraded` means that the grader could not decide. It is never evidence against the answer. `partial` means that the
    answer is worth something between wrong and right: its `score`. `parts`: what a reward consists of, by name.
    """

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    score: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, score: float, reason: str = "", parts: Mapping[str, float] | None = None) -> Grade:
        """The grade of an answer that is worth so much: right for 1, wrong for 0.

        Raises:
            ValueError: the score is not a number from 0 to 1.
        """
        if not 0 <= score <= 1:
            raise ValueError(f"a score is a number from 0 to 1, not {score}")
        if 0 < score < 1:
            return cls("partial", reason, score=float(score), parts=parts or {})
        return cls("right" if score else "wrong", reason, parts=parts or {})

    @property
    def outcome(self) -> float | None:
        """What the answer is worth, from 0 to 1; None: it is not graded."""
        return outcome_of(self.verdict, self.score)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the seconds."""
        record: dict[str, Any] = {"verdict": self.verdict, "reason": self.reason}
        if self.score is not None:
            record["score"] = self.score
        return record | ({"parts": dict(self.parts)} if self.parts else {})


class GoldError(DataError):
    """A gold answer that cannot be used; the message says why."""
