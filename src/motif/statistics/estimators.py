"""Accuracy from several answers to each question: pass@k, the majority vote, and their intervals.

These are pure functions of numbers and strings. An *outcome* is a number from 0.0 (wrong) to 1.0 (right), or None
(ungraded). An ungraded answer counts in no numerator and in no denominator.
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
    """A mean in [0, 1] over `n` questions with its 95 % interval. The mean of no question is NaN, and its interval is
    all of [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return percent_interval(self.value, self.low, self.high)


def proportion(values: Sequence[Outcome], answers: int | None = None, partial: bool = False) -> Proportion:
    """The mean of one value in [0, 1] per question (None: left out), with an interval over questions.

    Answers to one question are not independent, so `answers` of them count as fewer. The effective number is that of
    independent answers with the same variance between questions. It is bounded by the number of questions from below
    and by `answers` from above (default: one per question, which gives Wilson's interval itself). The interval is
    Wilson's for that number. Unlike the normal interval and the bootstrap, it does not shrink to a point where all
    questions come out alike.

    With `partial`, answers may be worth something in between, and Wilson's interval, which takes the variance of right
    and wrong ones, would be too wide. The interval is then the bootstrap's over questions: the 2.5 % and 97.5 %
    quantiles of the means of 10,000 resamples. Where the questions all come out alike, it would be a point; it is
    Wilson's there.

    The effective sample size is that of Korn & Graubard 1998 (Survey Methodology 24:193). Franco et al. 2019 (J. Survey
    Statistics and Methodology 7:334) combine it with Wilson's interval and study its coverage.
    """
    graded = [value for value in values if value is not None]
    n = len(graded)
    if n == 0:
        return Proportion(math.nan, 0.0, 1.0, 0)
    mean = math.fsum(graded) / n
    if partial and max(graded) > min(graded):
        from motif.statistics.paired import bootstrap_of_ratio

        low, high = bootstrap_of_ratio(graded, [1.0] * n)
    else:
        low, high = wilson(mean, _effective_size(graded, mean, max(n, answers or n)))
    return Proportion(mean, low, high, n)


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a fraction `mean` of `n` (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = Z95
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _effective_size(values: Sequence[float], mean: float, answers: int) -> float:
    """The number of independent answers that would give a mean as uncertain as this one."""
    n = len(values)
    if n < 2:
        return n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n
    return min(max(mean * (1 - mean) / variance, n), answers) if variance > 0 else n


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that k of n answers, drawn without replacement, contain at least one of the `right` right ones.

    This is 1 - C(n - right, k) / C(n, k), an unbiased estimate of the probability with k fresh answers (Chen et al.
    2021, arXiv 2107.03374, equation 1).

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
    """The mean over the graded answers to one question; None without any. Its mean over questions is pass@1 (avg@n)."""
    graded = [outcome for outcome in outcomes if outcome is not None]
    return math.fsum(graded) / len(graded) if graded else None


def question_pass_at_k(outcomes: Sequence[Outcome], k: int) -> Outcome:
    """pass@k of one question from its graded answers; None where fewer than k are graded.

    It is the expected outcome of the best of k answers: with outcomes in between, the mean over all choices of k graded
    answers of the largest one. Where all are 0 or 1, that is `pass_at_k`.
    """
    graded = sorted(outcome for outcome in outcomes if outcome is not None)
    n = len(graded)
    if n < k:
        return None
    if all(outcome in (0.0, 1.0) for outcome in graded):
        return pass_at_k(n, graded.count(1.0), k)
    # The outcome at place i, from 0, is the largest in C(i, k - 1) of the C(n, k) choices.
    return math.fsum(outcome * math.comb(place, k - 1) for place, outcome in enumerate(graded)) / math.comb(n, k)


def vote(
    answers: Sequence[str | None], outcomes: Sequence[Outcome], equal: Callable[[str, str], bool] | None = None
) -> tuple[float, Outcome]:
    """The share of graded answers that say what most of them say, and whether that is right (None: none is graded).

    Answers vote together if their texts are equal without the white space around them, or if `equal(first, other)` is
    true of the first answer of a group and another one. A missing answer does not vote; without a vote the question is
    wrong. Tied groups are equally likely to win, and the value is the expectation over them. So the order of the
    answers does not matter, and nothing is drawn at random.
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
    graded = sum(outcome is not None for outcome in outcomes)
    if not groups:
        return 0.0, (0.0 if graded else None)
    most = max(len(votes) for _, votes in groups)
    chosen = [math.fsum(votes) / len(votes) for _, votes in groups if len(votes) == most]
    return most / graded, math.fsum(chosen) / len(chosen)
