"""Agreement against accuracy, and what not answering gains."""

from __future__ import annotations

import random

import pytest

from motif.statistics.calibration import calibrate
from motif.statistics.estimators import vote


def test_the_vote_has_its_share_and_its_outcome():
    assert vote(["1", "1 ", "2", None], [1.0, 1.0, 0.0, 0.0]) == (0.5, 1.0)
    assert vote(["1", "2"], [1.0, 0.0]) == (0.5, 0.5)  # a tie is won by either alike
    assert vote([None, None], [0.0, 0.0]) == (0.0, 0.0)
    assert vote(["1", "1", "2"], [1.0, None, 0.0]) == (0.5, 0.5)  # an ungraded answer does not count
    assert vote(["1"], [None]) == (0.0, None)


def test_the_curve_begins_with_the_surest_and_ends_with_all():
    found = calibrate([(1.0, 1.0), (1.0, 1.0), (0.5, 1.0), (0.5, 0.0), (0.25, 0.0), (0.75, None)])
    assert [(point.agreement, point.coverage) for point in found.curve] == [(1.0, 0.4), (0.5, 0.8), (0.25, 1.0)]
    assert [point.accuracy.value for point in found.curve] == [1.0, 0.75, 0.6]
    assert (found.over_half.coverage, found.over_half.accuracy.value) == (0.4, 1.0)
    assert found.overconfidence.mean == pytest.approx((1 + 1 + 0.5 + 0.5 + 0.25) / 5 - 0.6)
    assert found.risk == pytest.approx(0.4)
    assert found.area == pytest.approx((0 + 0 + 0.5 / 3 + 1 / 4 + 2 / 5) / 5)
    assert calibrate([]) is None and calibrate([(0.5, None)]) is None


def test_agreement_that_knows_nothing_gains_nothing():
    rng = random.Random(0)
    blind = calibrate([(rng.randint(1, 8) / 8, float(rng.random() < 0.6)) for _ in range(4000)])
    assert blind.area == pytest.approx(blind.risk, abs=0.05)
    knowing = calibrate([(level / 8, float(rng.random() < level / 8)) for level in range(1, 9) for _ in range(500)])
    assert knowing.overconfidence.low < 0 < knowing.overconfidence.high
    assert knowing.area < knowing.risk - 0.1


def test_nobody_sure_is_said_without_an_accuracy():
    found = calibrate([(0.5, 1.0), (0.25, 0.0)]).to_dict()
    assert found["over_half"] == {"agreement": 0.5, "coverage": 0.0, "accuracy": None, "low": 0.0, "high": 1.0, "n": 0}
