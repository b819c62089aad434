"""Calibration and abstention: is a model that agrees with itself right, and what is gained by not answering?

A question that was answered several times has an *agreement*: the share of its answers that say what most of them say.
It is the model's own confidence, and costs nothing beyond the answers. A *rule for not answering* is a least agreement:
the fewer questions are answered (coverage), the more of them should be right. What is lost of the rest is the risk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from motif.statistics.estimators import Outcome, Proportion, proportion
from motif.statistics.paired import Interval, student_interval

HALF = 0.5
"""The rule that is reported beside the curve: answer where over half of the answers agree."""

Vote = tuple[float, Outcome]
"""The agreement on a question, and whether what most answers say is right (None: ungraded)."""


@dataclass(frozen=True)
class Answered:
    """What a rule gives: the questions with at least this agreement, as a share of all, and how many are right."""

    agreement: float
    coverage: float
    accuracy: Proportion

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without a question there is no accuracy."""
        found = self.accuracy
        value = None if math.isnan(found.value) else found.value
        numbers = {"accuracy": value, "low": found.low, "high": found.high, "n": found.n}
        return {"agreement": self.agreement, "coverage": self.coverage} | numbers


@dataclass(frozen=True)
class Calibration:
    """How agreement and accuracy go together.

    curve: the risk-coverage curve, a point for every agreement that occurs, from the strictest rule to answering all.
    over_half: what answering only where over half of the answers agree gives. No question of the evaluation chose it.
    overconfidence: mean agreement minus the accuracy of the majority, over questions; above 0 the model agrees with
        itself more often than it is right.
    area: the mean risk (share of wrong answers) over all coverages (AURC; Geifman & El-Yaniv 2017, arXiv 1705.08500).
        A rule that knows nothing has `risk`, that of answering every question.
    """

    curve: list[Answered]
    over_half: Answered
    overconfidence: Interval
    area: float
    risk: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "curve": [point.to_dict() for point in self.curve],
            "over_half": self.over_half.to_dict(),
            "overconfidence": self.overconfidence.to_dict(),
            "area": self.area,
            "risk": self.risk,
        }


def calibrate(votes: Sequence[Vote], mean: Callable[[list[float]], Proportion] = proportion) -> Calibration | None:
    """The calibration of the questions that have a graded answer; None if there are none.

    Args:
        mean: the mean of one value a question, with its interval.
    """
    graded = sorted(((agreement, right) for agreement, right in votes if right is not None), reverse=True)
    if not graded:
        return None
    levels = dict.fromkeys(agreement for agreement, _ in graded)
    rights = [right for _, right in graded]
    return Calibration(
        curve=[_answered(graded, mean, level) for level in levels],
        over_half=_answered(graded, mean, HALF, above=True),
        overconfidence=student_interval([agreement - right for agreement, right in graded]),
        area=_area(graded),
        risk=1 - math.fsum(rights) / len(rights),
    )


def _answered(
    graded: Sequence[tuple[float, float]],
    mean: Callable[[list[float]], Proportion],
    least: float,
    above: bool = False,
) -> Answered:
    chosen = [right for agreement, right in graded if agreement > least or (agreement == least and not above)]
    return Answered(least, len(chosen) / len(graded), mean(chosen))


def _area(graded: Sequence[tuple[float, float]]) -> float:
    """The mean over k of the share of wrong answers among the k surest questions; ties in their expectation."""
    before, wrong, risks = 0, 0.0, 0.0
    for _, group in groupby(graded, key=lambda vote: vote[0]):
        rights = [right for _, right in group]
        rate = 1 - math.fsum(rights) / len(rights)
        risks += math.fsum((wrong + rate * k) / (before + k) for k in range(1, len(rights) + 1))
        before, wrong = before + len(rights), wrong + rate * len(rights)
    return risks / before
