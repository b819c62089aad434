"""Statistics: known values, brute force, and coverage in simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.statistics import paired as stats

UNIT = st.floats(0, 1, allow_subnormal=False)


def test_t_quantiles_are_the_tables():
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 7: 2.3646, 9: 2.2622, 10: 2.2281, 30: 2.0423, 1000: 1.9623}
    for degrees, quantile in table.items():
        assert stats.t_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-4)
    assert stats.t_quantile(0.95, 9) == pytest.approx(1.8331, abs=1e-4)


def test_few_values_get_students_interval():
    found = stats.mean_interval([0.1, 0.2, 0.6])
    error = np.std([0.1, 0.2, 0.6], ddof=1) / math.sqrt(3)
    assert found.method == "t over seeds"
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - 4.3027 * error, 0.3 + 4.3027 * error), 1e-4)


def test_one_value_has_no_interval_and_equal_values_one_of_no_length():
    assert (stats.mean_interval([0.4]).low, stats.mean_interval([0.4]).n) == (None, 1)
    found = stats.mean_interval([0.25] * 10)
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="no values"):
        stats.mean_interval([])


def test_ten_values_get_the_studentised_bootstrap_always_the_same():
    values = [0.02, 0.05, 0.01, 0.04, 0.03, 0.06, 0.02, 0.03, 0.05, 0.04]
    one, two = stats.mean_interval(values), stats.mean_interval(values)
    assert one == two
    assert one.method == "bootstrap-t over seeds"
    student = stats.student_interval(values)
    assert one.low == pytest.approx(student.low, abs=0.005) and one.high == pytest.approx(student.high, abs=0.005)


def test_values_that_nearly_all_agree_are_left_to_students_interval():
    assert stats.mean_interval([0.0] * 9 + [0.1]).method == "t over seeds"


# Thousandths: between values that differ by 1e-9 alone, the shift would round the differences away.
@given(
    st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=2, max_size=12),
    st.floats(-5, 5),
    st.floats(0.1, 10),
)
@settings(max_examples=30)
def test_intervals_move_and_stretch_with_the_values(values, shift, scale):
    if 0 < np.std(values) < 1e-3:
        return
    one = stats.mean_interval(values)
    two = stats.mean_interval([shift + scale * value for value in values])
    for name in ("mean", "low", "high"):
        assert getattr(two, name) == pytest.approx(shift + scale * getattr(one, name), abs=1e-6)


def coverage(draw, truth: float, times: int = 400) -> float:
    """How often the interval for ten drawn values holds the true mean."""
    found = [stats.mean_interval(draw(), seed) for seed in range(times)]
    return sum(one.low <= truth <= one.high for one in found) / times


def test_ten_seeds_are_covered_as_promised(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(1)

    def accuracies():
        better = np.clip(0.6 + rng.normal(0, 0.03, 10), 0, 1)
        return (rng.binomial(500, better) - rng.binomial(500, 0.55, 10)) / 500

    # Two and a half standard errors of the simulation below 0.95; the percentile bootstrap's 0.90 would not pass.
    assert coverage(lambda: rng.normal(0, 1, 10), 0) >= 0.92
    assert coverage(accuracies, 0.05) >= 0.92
    assert coverage(lambda: rng.exponential(1, 10), 1) >= 0.92


def test_ratios_are_covered_and_scale(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(300):
        a, b = 0.3 * np.exp(rng.normal(0, 0.3, 10)), np.exp(rng.normal(0, 0.3, 10))
        found = stats.ratio_interval(a, b, seed)
        held += found.low <= 0.3 <= found.high
    assert held / 300 >= 0.91
    twice = stats.ratio_interval(2 * a, b)
    once = stats.ratio_interval(a, b)
    assert (twice.mean, twice.low, twice.high) == pytest.approx((2 * once.mean, 2 * once.low, 2 * once.high))
    assert once.mean == pytest.approx(a.mean() / b.mean())


def test_ratios_that_do_not_exist():
    assert stats.ratio_interval([0.0, 0.0], [1.0, 2.0]) is None
    assert stats.ratio_interval([1.0], [0.0]) is None
    assert stats.ratio_interval([], []) is None
    with pytest.raises(ValueError, match="as many"):
        stats.ratio_interval([1.0], [1.0, 2.0])


def test_questions_widen_the_interval_over_seeds():
    rng = np.random.default_rng(3)
    table = (rng.random((10, 50)) < 0.6).astype(float) - (rng.random((10, 50)) < 0.5)
    over_seeds = stats.mean_interval(table.mean(axis=1))
    both = stats.crossed_interval(table.tolist())
    assert both.mean == pytest.approx(over_seeds.mean)
    assert both.low < over_seeds.low and both.high > over_seeds.high


def test_ungraded_answers_are_left_out_of_paired_outcomes():
    found = stats.crossed_interval([[1.0, None, 0.0, None], [1.0, -1.0, None, None]])
    assert found.mean == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match="no graded"):
        stats.crossed_interval([[None, None]])


def test_one_pair_of_runs_is_bootstrapped_over_questions():
    rng = np.random.default_rng(4)
    row = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.7, 0.2])
    found = stats.crossed_interval([row.tolist()])
    half = 1.96 * row.std() / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((row.mean() - half, row.mean() + half), abs=0.006)


@given(st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=64)
def test_mcnemar_against_all_coin_tosses(only_a, only_b):
    total = only_a + only_b
    tosses = [sum(coins) for coins in itertools.product((0, 1), repeat=total)]
    as_far = sum(abs(2 * heads - total) >= abs(only_a - only_b) for heads in tosses)
    assert stats.mcnemar(only_a, only_b) == pytest.approx(float(Fraction(as_far, 2**total)))


def test_mcnemar_of_a_large_benchmark():
    assert stats.mcnemar(1500, 1400) == pytest.approx(0.0661, abs=5e-4)  # normal approximation, corrected: 0.0661
    assert stats.mcnemar(2000, 1) < 1e-300


def test_discordant_pairs():
    assert stats.discordant([1.0, 0.0, 1.0, None, 0.75], [0.0, 1.0, 1.0, 1.0, 0.25]) == (2, 1)


curves = st.lists(st.tuples(st.integers(0, 5), UNIT), min_size=1, max_size=8).map(
    lambda parts: (list(itertools.accumulate(float(gap) for gap, _ in parts)), [value for _, value in parts])
)


@given(curves, st.floats(-1, 45))
def test_curves_are_read_between_their_points_and_nowhere_else(curve, amount):
    xs, ys = curve
    found = stats.value_at(xs, ys, amount)
    assert (found is None) == (amount < xs[0] or amount > xs[-1])
    if found is not None:
        before = [y for x, y in zip(xs, ys, strict=True) if x <= amount][-1]
        after = next((y for x, y in zip(xs, ys, strict=True) if x > amount), before)
        assert min(before, after) - 1e-12 <= found <= max(before, after) + 1e-12


@given(curves)
def test_a_curve_goes_through_its_points(curve):
    xs, ys = curve
    for x in xs:
        last = max(index for index, other in enumerate(xs) if other == x)
        assert stats.value_at(xs, ys, x) == ys[last]


@given(st.lists(UNIT, min_size=1, max_size=30))
def test_the_monotone_curve_is_monotone_and_nearest(values):
    fitted = stats.isotonic(values)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(fitted))
    assert sum(fitted) == pytest.approx(sum(values))
    # Nearest in squares: the max-min formula of isotonic regression.
    for place in range(len(values)):
        formula = max(
            min(sum(values[low : high + 1]) / (high + 1 - low) for high in range(place, len(values)))
            for low in range(place + 1)
        )
        assert fitted[place] == pytest.approx(formula, abs=1e-9)


@given(curves, UNIT)
def test_what_is_needed_lies_on_the_monotone_curve(curve, target):
    xs, ys = curve
    needed = stats.amount_to_reach(xs, ys, target)
    fitted = stats.isotonic(ys)
    assert (needed is None) == (fitted[-1] < target - 1e-12)
    if needed is not None:
        assert xs[0] <= needed <= xs[-1]
        assert not any(x < needed and y > target + 1e-9 for x, y in zip(xs, fitted, strict=True))


def test_needed_amounts_by_hand():
    assert stats.amount_to_reach([0, 100, 200], [0.4, 0.5, 0.7], 0.6) == pytest.approx(150)
    assert stats.amount_to_reach([0, 100, 200], [0.4, 0.5, 0.7], 0.4) == 0
    assert stats.amount_to_reach([0, 100, 200], [0.4, 0.5, 0.7], 0.71) is None
    # A lucky evaluation at 100 is not where 0.6 is reached.
    assert stats.amount_to_reach([0, 100, 200, 300], [0.4, 0.62, 0.5, 0.7], 0.6) > 200
