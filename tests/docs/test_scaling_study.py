"""The simulation of studies/scaling: cases that can be worked out by hand, invariants, and a measured sampler."""

import json
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import ROOT

STUDY = ROOT / "studies" / "scaling"
sys.path.insert(0, str(STUDY))
import lengths  # noqa: E402
import measure  # noqa: E402
import run  # noqa: E402
from simulate import Costs, cycle, sample  # noqa: E402

from motif.planning.copies import Replica  # noqa: E402
from motif.planning.devices import TABLE  # noqa: E402

FLAT = Costs([0.0] + [1.0] * 64)  # a step takes a second, however many rows


def leaf(tokens):
    return tokens, []


def chain(*tokens):
    """One response after another."""
    return tokens[0], [chain(*tokens[1:])] if len(tokens) > 1 else []


@pytest.mark.parametrize("growth", ["level", "continuous"])
def test_one_chain_takes_the_sum_of_its_rounds(growth):
    seconds, busy = sample([[chain(3, 4, 5)]], 1, FLAT, growth)
    assert (seconds, busy) == (pytest.approx(12), pytest.approx(1))


def test_level_by_level_waits_for_the_longest_of_each_round():
    tree = [chain(1, 9), chain(9, 1)]
    assert sample([tree], 1, FLAT, "level")[0] == pytest.approx(18)
    assert sample([tree], 1, FLAT, "continuous")[0] == pytest.approx(10)


def test_rows_share_a_step_at_its_pace():
    costs = Costs([0.0, 1.0, 3.0])
    # Two rows for 2 steps of 3 s, then one for 3 steps of 1 s.
    assert sample([[leaf(2), leaf(5)]], 1, costs, "continuous")[0] == pytest.approx(2 * 3 + 3 * 1)


def test_who_does_not_fit_waits():
    costs = Costs([0.0, 1.0, 1.0])
    assert sample([[leaf(4), leaf(4), leaf(4)]], 1, costs, "continuous")[0] == pytest.approx(8)


def test_prompts_stop_everything_and_siblings_share_theirs():
    costs = Costs([0.0] + [1.0] * 8, prefill=0.1, prompt=20, note=10)
    assert sample([[leaf(4), leaf(4)]], 1, costs, "continuous")[0] == pytest.approx(2 + 4)
    assert sample([[chain(4, 4)]], 1, costs, "continuous")[0] == pytest.approx(2 + 4 + 1 + 4)


def test_a_response_may_stop_everything():
    costs = Costs([0.0] + [1.0] * 8, response=0.5)
    assert sample([[leaf(4), leaf(4)]], 1, costs, "continuous")[0] == pytest.approx(2 * 0.5 + 4)


def test_newcomers_may_have_to_be_many():
    # With 8 rows running, one newcomer is fewer than a quarter, and waits until so few run that it is one.
    tree = [chain(1, 5)] + [leaf(10)] * 8
    eager, patient = Costs([0.0] + [1.0] * 16), Costs([0.0] + [1.0] * 16, admit=0.25)
    assert sample([tree], 1, eager, "continuous")[0] == pytest.approx(10)
    assert sample([tree], 1, patient, "continuous")[0] == pytest.approx(15)


def test_requests_are_dealt_out_but_siblings_stay_together():
    costs = Costs([0.0, 1.0, 2.0, 3.0, 4.0])
    trees = [[leaf(5), leaf(5)], [leaf(5), leaf(5)]]
    assert sample(trees, 1, costs, "continuous")[0] == pytest.approx(20)
    assert sample(trees, 2, costs, "continuous") == (pytest.approx(10), pytest.approx(1))
    assert sample(trees, 4, costs, "continuous") == (pytest.approx(10), pytest.approx(0.5))


forest = st.lists(
    st.lists(st.builds(chain, st.integers(1, 50), st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(forest, st.integers(1, 4))
def test_bounds(trees, servers):
    """No tree ends before its longest chain, and continuous growth without a cost of rows takes just that."""
    longest = max(root[0] + root[1][0][0] + root[1][0][1][0][0] for roots in trees for root in roots)
    assert sample(trees, servers, FLAT, "continuous")[0] == pytest.approx(longest)
    level = sample(trees, servers, FLAT, "level")[0]
    rounds = lengths.all_lengths(trees)
    assert level == pytest.approx(sum(max(values) for values in rounds))


def test_work_is_conserved():
    """With a pace in proportion to rows, one server takes as long as all tokens one after the other."""
    dice = random.Random(3)
    trees = [lengths.long_tailed()(dice) for _ in range(5)]
    tokens = sum(sum(values) for values in lengths.all_lengths(trees))
    costs = Costs([0.001 * rows for rows in range(400)])
    for growth in ("level", "continuous"):
        assert sample(trees, 1, costs, growth)[0] == pytest.approx(0.001 * tokens)


@pytest.mark.parametrize("name", ["measured", "long tail"])
def test_continuous_growth_and_more_servers_pay(name):
    world = run.World.of(name)
    trees = world.trees(16, 0)
    level, *continuous = (
        sample(trees, servers, world.costs, growth)[0]
        for servers, growth in ((1, "level"), (1, "continuous"), (2, "continuous"), (4, "continuous"))
    )
    assert level > continuous[0] > continuous[1] > continuous[2] > continuous[0] / 4


@pytest.mark.parametrize("name", ["measured", "long tail"])
@pytest.mark.parametrize("servers", [1, 4])
def test_the_forecast_is_the_simulation_level_by_level(name, servers):
    """The closed formula of `motif.planning.costs`, within a fifth of the simulated mean."""
    world = run.World.of(name)
    questions, replica = 32, Replica(TABLE["H100"], server=True, rows=world.forecast.server_rows())
    said = world.forecast.sampling_time(world.forecast.step_levels(questions), replica, servers)
    seen = [sample(world.trees(questions, step), servers, world.costs, "level")[0] for step in range(6)]
    assert said == pytest.approx(sum(seen) / len(seen), rel=0.2)


def test_overlap_hides_the_shorter_part():
    assert cycle(5, 3, 1, lag=0) == 9
    assert cycle(5, 3, 1, lag=1) == 6
    assert cycle(3, 5, 1, lag=1) == 6


def test_kept_lengths_are_whole_trees():
    lines = (STUDY / "lengths_demo.json").read_text().splitlines()
    assert len(lines) == 80
    tree = [lengths.node(root) for root in json.loads(lines[0])]
    assert [len(level) for level in lengths.all_lengths([tree])] == [8, 32, 32]
    doubled = [lengths.node(root, 2) for root in json.loads(lines[0])]
    assert lengths.all_lengths([doubled])[2] == [2 * length for length in lengths.all_lengths([tree])[2]]


def test_the_readme_shows_the_results():
    results = json.loads((STUDY / "results.json").read_text())
    assert (STUDY / "README.md").read_text() == run.readme(results)
    assert (STUDY / "figure.svg").read_text() == run.draw(results)


def test_the_single_machine_end_agrees_with_the_measured_sampler():
    """Seconds within 30 % and what continuous growth saves within 10 %, on the machine of measured.json."""
    rows = measure.compare(json.loads((STUDY / "measured.json").read_text()))
    assert [row["questions"] for row in rows] == list(measure.QUESTIONS)
    for row in rows:
        for growth in ("level", "continuous"):
            assert row[f"simulated {growth}"] == pytest.approx(row[f"measured {growth}"], rel=0.30)
        assert row["simulated ratio"] == pytest.approx(row["measured ratio"], rel=0.10)
