"""Configurations that nobody has published; `tests/campaigns/mutations.py` tries a hundred."""

import pytest
from mutations import FAILURES, attempt

from support.mutations import mutated

HANDFUL = (2, 5, 6, 7, 11)


@pytest.mark.parametrize("seed", HANDFUL)
def test_what_is_accepted_is_computed_as_the_plain_forward_pass_does(seed, tmp_path):
    record = attempt(seed, tmp_path)
    assert record["result"] not in (*FAILURES, "not built"), record


def test_mutations_are_the_same_for_a_seed():
    assert mutated(3) == mutated(3) != mutated(4)
    name, one, changed = mutated(HANDFUL[0])
    assert changed and name and one.options
