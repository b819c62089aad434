"""A second grader: every answer is judged by another rule, too, and the disagreements are counted and listed.

A study whose conclusion hangs on one grader hangs on that grader's errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from motif.grading import Grader

LISTED = 20
"""Disagreements that stand in results; `motif eval` writes all of them to a file."""


class Judged(NamedTuple):
    """An answer with its first verdict."""

    question: str
    gold: str
    answer: str
    verdict: str | None


@dataclass(frozen=True)
class SecondOpinion:
    """Verdicts of a second grader on the same answers: how many both decided, and those on which they disagree."""

    grader: str
    compared: int
    undecided: int
    disagreements: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the first disagreements."""
        counts = {"grader": self.grader, "compared": self.compared, "undecided": self.undecided}
        return counts | {"disagreements": len(self.disagreements), "listed": self.disagreements[:LISTED]}


def second_opinion(grader: Grader, answers: Sequence[Judged]) -> SecondOpinion:
    """Have a second grader judge answers. Undecided are those that either grader could not grade."""
    compared = undecided = 0
    disagreements = []
    for one, other in zip(answers, grader.grade_many([(one.gold, one.answer) for one in answers]), strict=True):
        if one.verdict not in ("right", "wrong") or other.verdict == "ungraded":
            undecided += 1
            continue
        compared += 1
        if one.verdict != other.verdict:
            disagreements.append(one._asdict() | {"second": other.verdict, "reason": other.reason})
    return SecondOpinion(grader.name, compared, undecided, disagreements)
