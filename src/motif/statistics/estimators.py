"""What several answers to the same questions say about a model: pass@k, majority vote, and their intervals.

Pure functions of numbers and strings. An *outcome* is 1.0 (right), 0.0 (wrong) or None (ungraded); an ungraded answer
is in no numerator and no denominator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from motif.text import percent_interval

Z95 = 1.959963984540054

Outcome = float | None


@dataclass(frozen=True)
class Proportion:
    """The mean of values in [0, 1] over `n` questions with its 95 % interval; the mean of none is NaN in [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return percent_interval(self.value, self.low, self.high)


def estimate(values: Sequence[Outcome], answers: int | None = None) -> Proportion:
    """The mean of one value in [0, 1] per question (None: left out), with an interval that is one over questions.

    Answers to one question are not independent, so `answers` of them are worth fewer: as many as independent answers
    would need to have the variance that is seen between questions. Wilson's interval is taken for that number, which
    is not believed to be below the number of questions or above `answers` (default: one per question, which gives
    Wilson's interval itself). Unlike the normal interval and the bootstrap, this one does not shrink to a point where
    all questions come out alike. Effective sample size: Korn & Graubard 1998 (Survey Methodology 24:193); with
    Wilson's interval and how well it covers: Franco et al. 2019 (J. Survey Statistics and Methodology 7:334).
    """
    known = [value for value in values if value is not None]
    n = len(known)
    if n == 0:
        return Proportion(math.nan, 0.0, 1.0, 0)
    mean = math.fsum(known) / n
    low, high = wilson(mean, _effective(known, mean, max(n, answers or n)))
    return Proportion(mean, low, high, n)


def wilson(mean: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a fraction `mean` of `n` (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _effective(values: Sequence[float], mean: float, answers: int) -> float:
    """How many independent answers would give a mean as uncertain as this one."""
    n = len(values)
    if n < 2:
        return n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n
    return min(max(mean * (1 - mean) / variance, n), answers) if variance > 0 else n


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of k answers, drawn without replacement from n of which `right` are right, is right.

    1 - C(n - right, k) / C(n, k), which is unbiased for the chance with k fresh answers (Chen et al. 2021,
    arXiv 2107.03374, equation 1).

    Raises:
        ValueError: not 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= right <= n, got k = {k}, n = {n}, right = {right}")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n: the k for which pass@k is reported."""
    return [2**exponent for exponent in range(n.bit_length())] if n > 0 else []


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """The mean over one question's graded answers; None without any. Its mean over questions is pass@1 (avg@n)."""
    graded = [outcome for outcome in outcomes if outcome is not None]
    return math.fsum(graded) / len(graded) if graded else None


def question_pass_at_k(outcomes: Sequence[Outcome], k: int) -> Outcome:
    """pass@k of one question from its graded answers; None if fewer than k are graded."""
    graded = [outcome for outcome in outcomes if outcome is not None]
    return pass_at_k(len(graded), graded.count(1.0), k) if len(graded) >= k else None


def majority(
    answers: Sequence[str | None], outcomes: Sequence[Outcome], equal: Callable[[str, str], bool] | None = None
) -> Outcome:
    """Is the commonest answer to one question right? None if none of the answers is graded.

    Answers vote together if their texts are equal without the white space around them, or if `equal(first, other)`
    says so of the first answer of a group and another one. No answer is no vote; without a vote the question is wrong.
    Of tied groups each is chosen with the same chance, and the value is the expectation: no order is preferred, and
    nothing is drawn.
    """
    groups: list[tuple[str, list[float]]] = []
    for answer, outcome in zip(answers, outcomes, strict=True):
        if outcome is None or answer is None:
            continue
        text = answer.strip()
        group = next((group for group in groups if group[0] == text), None)
        if group is None and equal is not None:
            group = next((group for group in groups if equal(group[0], text)), None)
        if group is None:
            groups.append((text, [outcome]))
        else:
            group[1].append(outcome)
    if not groups:
        return None if all(outcome is None for outcome in outcomes) else 0.0
    most = max(len(votes) for _, votes in groups)
    chosen = [math.fsum(votes) / len(votes) for _, votes in groups if len(votes) == most]
    return math.fsum(chosen) / len(chosen)
