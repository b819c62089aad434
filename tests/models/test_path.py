"""Which way of computing is taken, by what a comparison with plain passes says of each."""

import pytest

from motif.models.path import FAST, GENERAL, Finding, Gaps, Path, Paths, choose, off_by

EXACT, ROUNDING, HARSH, HARSHER = (Finding(gaps=Gaps(gap / 5, gap)) for gap in (0.0, 5e-5, 2e-4, 3e-4))


@pytest.mark.parametrize(
    ("fast", "general", "reason", "taken"),
    [
        (ROUNDING, None, "", ROUNDING),  # not even tried
        (Finding("windows"), ROUNDING, "windows", ROUNDING),
        (Finding("windows"), HARSHER, "windows", HARSHER),
        (HARSHER, HARSH, "", HARSHER),  # rounding: both are alike
        (HARSHER, ROUNDING, "", HARSHER),  # rounding: the general one moves, too
        (HARSHER, EXACT, off_by(3e-4), EXACT),  # a fault of the fast one, however small
        (Finding(gaps=Gaps(3e-5, 1.5e-4)), EXACT, "", Finding(gaps=Gaps(3e-5, 1.5e-4))),
        (HARSHER, Finding("no cache"), "", HARSHER),
    ],
)
def test_the_fast_way_is_taken_unless_the_general_one_is_clearly_closer(fast, general, reason, taken):
    path, findings = choose({FAST: fast, GENERAL: general}.__getitem__)
    assert path == Path(reason) and path.gaps == taken.gaps
    assert bool(path.gap) == (taken not in (ROUNDING, EXACT))  # what rounding makes of most models needs no word
    assert findings == [found for found in (fast, general) if found]


def test_a_model_that_both_ways_get_wrong_has_none():
    assert choose({FAST: Finding("windows"), GENERAL: Finding("no cache")}.__getitem__)[0] is None


@pytest.mark.parametrize(("general", "taken"), [(ROUNDING, GENERAL), (Finding("no cache"), None)])
def test_the_general_way_may_be_asked_for(general, taken):
    assert choose({GENERAL: general}.__getitem__, general=True) == (taken, [general])


def test_ways_are_told_with_their_gaps_and_what_they_cost():
    fast = Path(gaps=Gaps(1e-6, 7e-6))
    general = Path("windows", Gaps(1e-5, 3e-4), slower=1.83)
    told = str(Paths(fast, general))
    assert "sampler: fast (7e-6 nats from a plain pass at most, 1e-6 on average)" in told
    assert "update: general (windows; 3e-4 nats" in told and "1.8 times the seconds of the fast path" in told
    assert len(Paths(fast, general).warnings()) == 2  # the path, and the gap
    assert Paths(fast, fast).warnings() == []


def test_what_cannot_be_measured_is_told_so():
    assert (
        Path("no cache", Gaps(1e-6, 7e-6))
        .describe()
        .endswith("; what that costs cannot be measured, because the fast path does not run)")
    )


def test_servers_are_told_apart_from_ways():
    paths = Paths(None, Path(gaps=Gaps(1e-6, 7e-6)))
    assert str(paths).startswith("sampler: server; update: fast") and paths.warnings() == []
    found = paths.to_dict()
    assert found["sampler"].keys() == found["update"].keys() and found["sampler"]["path"] == "server"
