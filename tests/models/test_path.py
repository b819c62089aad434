"""Which way of computing is taken, by what a comparison with plain passes says of each."""

import pytest

from motif.models.path import FAST, GENERAL, Finding, Path, choose, off_by


@pytest.mark.parametrize(
    ("fast", "general", "taken"),
    [
        (Finding(gap=5e-5), None, FAST),  # not even tried
        (Finding("windows"), Finding(gap=5e-5), Path("windows")),
        (Finding("windows"), Finding(gap=3e-4), Path("windows", 3e-4)),
        (Finding(gap=3e-4), Finding(gap=2e-4), Path(gap=3e-4)),  # rounding: both are alike
        (Finding(gap=3e-4), Finding(gap=5e-5), Path(off_by(3e-4))),  # a fault of the fast one, however small
        (Finding(gap=3e-4), Finding("no cache"), Path(gap=3e-4)),
        (Finding("windows"), Finding("no cache"), None),
    ],
)
def test_the_fast_way_is_taken_unless_the_general_one_is_clearly_closer(fast, general, taken):
    path, findings = choose({FAST: fast, GENERAL: general}.__getitem__)
    assert path == taken and findings == [found for found in (fast, general) if found]


@pytest.mark.parametrize(("general", "taken"), [(Finding(gap=1e-5), GENERAL), (Finding("no cache"), None)])
def test_the_general_way_may_be_asked_for(general, taken):
    assert choose({GENERAL: general}.__getitem__, general=True) == (taken, [general])
