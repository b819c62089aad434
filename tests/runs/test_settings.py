"""Which settings differ between two runs."""

from motif.config import Recipe
from motif.runs.settings import UNSET, changed, settings


def test_a_setting_that_an_older_run_did_not_know_differs_only_where_it_departs_from_its_default() -> None:
    now = settings(Recipe())
    older = {key: value for key, value in now.items() if key != "eval.twin"}
    assert changed(older, now) == changed(now, older) == {}
    assert changed(older, now | {"eval.twin": True}) == {"eval.twin": (UNSET, True)}
    assert changed(now, now | {"eval.twin": True}) == {"eval.twin": (False, True)}
    assert changed({}, {"environment": "x"}) == {"environment": (UNSET, "x")}
