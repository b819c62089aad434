"""Variance components of the outcome: against textbook numbers, against simulated truth, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motif.config import CreditConfig
from motif.method.credit import assign
from motif.method.tree import Tree
from motif.statistics.paired import t_quantile
from motif.statistics.variance import Components, components, jackknife, pooled_icc, question_components
from support.trees import make_tree

OUTCOMES = st.lists(st.lists(st.sampled_from([0.0, 1.0]), max_size=5), min_size=1, max_size=6)


def graded(outcomes: list) -> Tree:
    tree = make_tree(outcomes)
    assign(tree, CreditConfig())
    return tree


def simulated(rng: np.random.Generator, questions: int, m: int, k: int, a: float, b: float) -> list[Components]:
    """Questions whose notes have Beta(a, b) distributed values: the true ICC is 1 / (a + b + 1)."""
    values = rng.beta(a, b, size=(questions, m, 1))
    return [question_components(outcomes) for outcomes in (rng.random((questions, m, k)) < values).tolist()]


# -- one question ------------------------------------------------------------------------------------------------------


def test_a_table_worked_out_by_hand():
    # Means 3/4, 1/4, 1/2 around 1/2; MS_b = (1/4 + 1/4) / 2 = 1/4, MS_w = (3/4 + 3/4 + 1) / 9 = 5/18.
    found = components([graded([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])])
    assert found == Components(pytest.approx(0.5), 2, pytest.approx(2.5), 9, pytest.approx(8.0))
    assert found.n0 == 4
    assert found.between == pytest.approx((1 / 4 - 5 / 18) / 4)
    assert found.icc == pytest.approx((1 / 4 - 5 / 18) / (1 / 4 + 3 * 5 / 18))
    assert found.icc < 0
    assert found.reliability() == pytest.approx(1 - (5 / 18) / (1 / 4))


def test_shrout_and_fleiss_1979():
    """Their table 2 (six targets, four judges): ICC(1,1) = 0.17, ICC(1,4) = 0.44."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = question_components(ratings)
    assert round(found.icc, 2) == 0.17
    assert round(found.reliability(4), 2) == round(found.reliability(), 2) == 0.44


def test_ungraded_leaves_and_groups_of_unequal_size():
    found = components([graded([[1, 1, None, 0], [0, None, None, None], [None, None, None, None], [1, 0, 0, 0]])])
    assert (found.df_between, found.df_within) == (2, 5)
    assert found.n0 == pytest.approx((8 - (9 + 1 + 16) / 8) / 2)
    assert found == question_components([[1, 1, 0], [0], [1, 0, 0, 0]])


def test_later_branches_are_no_independent_trajectories():
    found = components([graded([[[1, 1], [0, 0]], [[1, 0], [0, 0]]])])
    assert found == question_components([[1.0, 0.0], [0.5, 0.0]])


@pytest.mark.parametrize("outcomes", [[1, 0, 1], [[1], [0], [1]], [[1, 0, 1]]], ids=["one round", "k = 1", "m = 1"])
def test_undefined_is_none(outcomes):
    found = components([graded(outcomes)])
    assert found.icc is None
    assert found.reliability() is None
    assert found.metrics()["diag/icc"] is None
    assert pooled_icc([found, found]).value is None


def test_no_variance_at_all_is_undefined_but_no_luck_at_all_is_one():
    assert components([graded([[1, 1], [1, 1]])]).icc is None
    assert components([graded([[1, 1], [0, 0]])]).icc == 1


@given(st.lists(OUTCOMES, max_size=4))
def test_pooling_is_adding_and_survives_the_metrics(questions):
    parts = [question_components(outcomes) for outcomes in questions]
    whole = sum(parts, Components())
    again = sum((Components.from_metrics(part.metrics()) for part in parts), Components())
    for key in ("ss_between", "df_between", "ss_within", "df_within", "weight"):
        assert getattr(again, key) == pytest.approx(getattr(whole, key))
    assert whole.icc is None or whole.icc <= 1


# -- against the truth -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "k"), [(4, 4, 4), (4, 4, 2), (0.5, 0.5, 4), (1, 9, 4), (40, 40, 4)])
def test_the_pooled_icc_is_near_the_true_one(a, b, k):
    found = sum(simulated(np.random.default_rng(1), 3000, 8, k, a, b), Components())
    assert found.icc == pytest.approx(1 / (a + b + 1), abs=0.015)
    mean, true = a / (a + b), 1 / (a + b + 1)
    assert found.within == pytest.approx(mean * (1 - mean) * (1 - true), rel=0.05)
    assert found.reliability(k) == pytest.approx(true / (true + (1 - true) / k), abs=0.03)


@pytest.mark.parametrize(("a", "b", "units", "questions"), [(4, 4, 20, 1), (0.5, 0.5, 10, 8), (1, 9, 20, 8)])
def test_the_interval_covers_the_truth_as_often_as_it_says(a, b, units, questions):
    rng, hits, tries = np.random.default_rng(2), 0, 250
    for _ in range(tries):
        parts = simulated(rng, units * questions, 8, 4, a, b)
        steps = [sum(parts[at : at + questions], Components()) for at in range(0, len(parts), questions)]
        found = pooled_icc(steps)
        hits += found.low <= 1 / (a + b + 1) <= found.high
    assert 0.91 <= hits / tries <= 0.985  # 0.95 up to twice the standard error, and what the t approximation costs


def test_an_interval_needs_two_parts():
    [part] = simulated(np.random.default_rng(0), 1, 8, 4, 1, 1)
    assert pooled_icc([part]).low is None
    assert pooled_icc([]).value is None


# -- the jackknife -----------------------------------------------------------------------------------------------------


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([3.0, 5.0, 4.0, 8.0])
    found = jackknife(np.stack([values, np.ones(4)], axis=-1), lambda s: s[..., 0] / s[..., 1])
    half = 3.182446 * values.std(ddof=1) / 2
    assert found.value == 5
    assert (found.low, found.high) == (pytest.approx(5 - half, rel=1e-2), pytest.approx(5 + half, rel=1e-2))


@pytest.mark.parametrize(
    ("freedom", "point"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (39, 2.02269)]
)
def test_students_t(freedom, point):
    assert t_quantile(0.975, freedom) == pytest.approx(point, rel=2e-3)
