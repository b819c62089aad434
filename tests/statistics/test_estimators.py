"""pass@k, majority vote and intervals: against enumeration, by their identities, and by how often they cover."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motif.evaluation.accuracy import GradedAnswer, summarise
from motif.statistics.estimators import (
    Z95,
    mean_outcome,
    pass_at_k,
    powers_of_two,
    proportion,
    question_pass_at_k,
    vote,
    wilson,
)

OUTCOMES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8)
GRADED = st.sampled_from([0.0, 1.0, None])


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_k_of_outcomes_in_between_is_the_mean_of_the_best_of_all_subsets(outcomes, k):
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(map(max, subsets)) / len(subsets) if subsets else None
    assert question_pass_at_k(outcomes, k) == pytest.approx(expected)


def test_intervals_of_outcomes_in_between_are_the_bootstrap_of_the_questions():
    values = [round(0.4 + 0.2 * math.sin(place), 3) for place in range(40)]
    found = proportion(values, partial=True)
    half = 1.96 * np.std(values) / math.sqrt(40)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.01)
    assert proportion(values).high - proportion(values).low > 3 * (found.high - found.low)  # as if right and wrong
    assert proportion([0.5] * 40, partial=True).low == wilson(0.5, 40)[0]  # not a point
    answers = {
        str(place): [GradedAnswer("partial", "x", False, True, 1, score=value)] for place, value in enumerate(values)
    }
    row = summarise(answers)
    assert (row.accuracy, row.low, row.high) == (found.value, found.low, found.high) and row.partial == 40


# -- pass@k ------------------------------------------------------------------------------------------------------------


@given(OUTCOMES, st.integers(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(outcomes, k):
    if k > len(outcomes):
        with pytest.raises(ValueError, match="k <= n"):
            pass_at_k(len(outcomes), outcomes.count(1.0), k)
        return
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(max(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(outcomes), outcomes.count(1.0), k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 12), st.integers(1, 12), st.fractions(0, 1, max_denominator=20))
def test_pass_at_k_is_unbiased(n, k, p):
    k = min(k, n)
    chance = [math.comb(n, right) * p**right * (1 - p) ** (n - right) for right in range(n + 1)]
    expected = sum(chance[right] * Fraction(pass_at_k(n, right, k)) for right in range(n + 1))
    assert float(expected) == pytest.approx(float(1 - (1 - p) ** k), abs=1e-9)


@given(st.lists(GRADED, max_size=8))
def test_pass_at_1_is_the_mean_and_more_tries_are_no_worse(outcomes):
    assert question_pass_at_k(outcomes, 1) == pytest.approx(mean_outcome(outcomes))
    graded = sum(outcome is not None for outcome in outcomes)
    rising = [question_pass_at_k(outcomes, k) for k in range(1, graded + 1)]
    assert rising == sorted(rising)
    assert question_pass_at_k(outcomes, graded + 1) is None  # too few graded answers to tell


def test_which_k_are_reported():
    assert [powers_of_two(n) for n in (0, 1, 2, 7, 8)] == [[], [1], [1, 2], [1, 2, 4], [1, 2, 4, 8]]


# -- majority vote -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), GRADED), max_size=7), st.randoms())
def test_no_order_is_preferred(pairs, rng):
    shuffled = rng.sample(pairs, len(pairs))
    value, again = (vote([a for a, _ in some], [o for _, o in some])[1] for some in (pairs, shuffled))
    assert value == pytest.approx(again)


@pytest.mark.parametrize(
    ("answers", "outcomes", "expected"),
    [
        (["5", "5", "7"], [1.0, 1.0, 0.0], 1.0),
        (["7", "5", "7"], [0.0, 1.0, 0.0], 0.0),
        (["5", " 5 ", "7", "7", "7"], [1.0, 1.0, 0.0, 0.0, 0.0], 0.0),
        ([" 5", "5\n", "7"], [1.0, 1.0, 0.0], 1.0),  # white space is no other answer
        (["5", "7"], [1.0, 0.0], 0.5),  # a tie: the expectation of a fair choice
        (["5", "7", "9"], [1.0, 0.0, 0.0], 1 / 3),
        ([None, None, "5"], [0.0, 0.0, 1.0], 1.0),  # no answer is no vote
        ([None, None], [0.0, 0.0], 0.0),
        (["5", "5", "7"], [None, None, 1.0], 1.0),  # an ungraded answer is in nothing
        (["5"], [None], None),
        ([], [], None),
    ],
)
def test_majority(answers, outcomes, expected):
    assert vote(answers, outcomes)[1] == (None if expected is None else pytest.approx(expected))


def test_what_the_grader_calls_equal_votes_together():
    answers, outcomes = ["1/2", "0.5", "3", "3", ".50"], [1.0, 1.0, 0.0, 0.0, 1.0]
    assert vote(answers, outcomes)[1] == 0.0
    assert vote(answers, outcomes, lambda a, b: Fraction(a) == Fraction(b))[1] == 1.0


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_of_one_answer_a_question_it_is_wilsons_interval():
    for right, n in ((0, 10), (3, 10), (10, 10), (1, 200), (1, 1)):
        found = proportion([1.0] * right + [0.0] * (n - right))
        assert (found.low, found.high) == pytest.approx(wilson(right / n, n))
    found = proportion([None, None])
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)


def test_alike_answers_to_a_question_are_worth_one_and_independent_ones_all():
    alike = proportion([1.0] * 30 + [0.0] * 30, answers=60 * 8)
    assert (alike.low, alike.high) == pytest.approx(wilson(0.5, 60))
    independent = proportion([0.5] * 59 + [0.625], answers=60 * 8)
    assert (independent.low, independent.high) == pytest.approx(wilson(independent.value, 60 * 8))


@pytest.mark.parametrize("questions", [30, 100])
@pytest.mark.parametrize("correlation", [0.1, 0.5, 0.9])
def test_intervals_cover_the_truth_near_0_and_1_too(questions, correlation):
    """8 answers to each question, whose chances are beta-distributed with this intraclass correlation."""
    rng = np.random.default_rng(0)
    trials, samples = 400, 8
    covered = {}
    for truth in (0.02, 0.1, 0.5, 0.9, 0.98):
        spread = 1 / correlation - 1
        chances = rng.beta(truth * spread, (1 - truth) * spread, size=(trials, questions))
        means = rng.binomial(samples, chances) / samples
        found = [proportion(row, answers=questions * samples) for row in means.tolist()]
        covered[truth] = np.mean([one.low <= truth <= one.high for one in found])
    assert min(covered.values()) >= 0.86, covered
    assert np.mean(list(covered.values())) >= 0.92, covered
    assert covered[0.5] <= 0.99  # not by being too wide


def test_the_normal_interval_would_not():
    rng = np.random.default_rng(0)
    means = rng.binomial(8, rng.beta(0.02, 0.98, size=(400, 30))) / 8
    half = Z95 * means.std(1, ddof=1) / math.sqrt(30)
    assert np.mean(np.abs(means.mean(1) - 0.02) <= half) < 0.7


# -- a row's numbers ---------------------------------------------------------------------------------------------------


def answer(verdict: str, text: str | None = "1", truncated: bool = False, well_formed: bool = True, tokens: int = 10):
    return GradedAnswer(verdict, text, truncated, well_formed, tokens)


def test_ungraded_answers_are_in_neither_numerator_nor_denominator():
    found = summarise(
        {
            "a": [answer("right"), answer("ungraded"), answer("wrong", "2"), answer("ungraded")],
            "b": [answer("right", tokens=30, truncated=True)] * 4,
            "c": [answer("ungraded", well_formed=False)] * 4,
        },
        temperature=1.0,
    )
    assert (found.accuracy, found.n, found.ungraded, found.samples) == (0.75, 2, 6, 4)
    assert found.outcomes == {"a": 0.5, "b": 1.0, "c": None}
    assert (found.truncated, found.well_formed) == pytest.approx((4 / 12, 8 / 12))
    assert found.mean_tokens == pytest.approx((8 * 10 + 4 * 30) / 12)
    assert found.pass_at[2].value == 1.0
    assert (found.pass_at[4].value, found.pass_at[4].n) == (1.0, 1)  # question a has two graded answers only
    assert found.majority.value == 0.75
    line = found.outcomes_dict("rounds_3")
    assert line == {"row": "rounds_3", "questions": ["a", "b", "c"], "outcomes": [0.5, 1.0, None]}


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_pass_at_1_of_a_row_is_the_mean_over_questions(questions, samples, seed):
    rng = random.Random(seed)
    answers = {str(q): [answer(rng.choice(["right", "wrong"])) for _ in range(samples)] for q in range(questions)}
    found = summarise(answers, 1.0)
    rights = [one.verdict == "right" for given in answers.values() for one in given]
    assert found.accuracy == pytest.approx(sum(rights) / len(rights))
    assert sorted(found.pass_at) == powers_of_two(samples)[1:]
    assert found.low <= found.accuracy <= found.high
    assert (found.majority is None) == (samples == 1)
