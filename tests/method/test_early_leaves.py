"""Trees whose trajectories end in different rounds: values, groups and bonuses computed by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motif.config import CreditConfig, load_recipe
from motif.errors import RecipeError
from motif.method.credit import STD_FLOOR, assign
from motif.method.tree import Tree
from motif.runs.metrics import step_metrics
from motif.statistics.variance import components
from support.trees import make_tree


def credit(outcomes: list[Any], **settings: Any) -> Tree:
    tree = make_tree(outcomes)
    assign(tree, CreditConfig(**{"divide_by_std": False, "format_weight": 0.0} | settings))
    return tree


def of(tree: Tree, name: str) -> dict[str, Any]:
    return {"".join(map(str, node.path)): getattr(node, name) for node in tree.walk()}


# [2, 2, 1]: response 0 gives a right answer at once. Below response 1 one trajectory ends in round 2, wrong, and the
# other goes on to round 3, right.
SMALL = [(1, (2, 1)), [(0, (1,)), [1]]]


def test_values_are_those_of_the_trajectories_that_would_have_been():
    """Response 0 stands for two trajectories, both right; response 1 has one right and one wrong."""
    tree = credit(SMALL)
    assert of(tree, "value") == {"0": 1.0, "1": 0.5, "10": 0.0, "11": 1.0, "110": 1.0}
    assert [leaf.trajectories for leaf in tree.leaves()] == [2, 1, 1]


def test_a_value_does_not_depend_on_how_often_the_others_branched():
    """[2, 2, 3]: a leaf of round 2 weighs as its three trajectories, so the value is 1/2, not 3/4."""
    assert of(credit([[(0, (3,)), [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]]), "value")["0"] == 0.5


def test_the_first_round_alone():
    assert of(credit(SMALL), "advantage") == {"0": 0.25, "1": -0.25, "10": None, "11": None, "110": None}


def test_siblings_in_all_rounds():
    """The only child of round 3 is compared with the leaf of round 2 that ended before it: 1 - 0."""
    tree = credit(SMALL, train_rounds="all")
    assert of(tree, "advantage") == {"0": 0.25, "1": -0.25, "10": -0.5, "11": 0.5, "110": 1.0}


def test_an_only_child_whose_cousins_all_ended_earlier():
    """[3, 1, 1] with two responses that end at once: the third goes on alone and is compared with both, (1 + 0) / 2."""
    tree = credit([(1, (1, 1)), (0, (1, 1)), [[1]]], train_rounds="all")
    assert of(tree, "advantage")["20"] == 0.5
    assert of(tree, "advantage")["200"] == 0.5


def test_rounds_are_compared_with_all_trajectories():
    """[4, 1, 1], shared reward: in round 3, one of four trajectories is left; the others count with their outcomes."""
    tree = credit([(1, (1, 1)), (0, (1, 1)), [(0, (1,))], [[1]]], group="round", train_rounds="all")
    assert of(tree, "advantage") == {"0": 0.5, "1": -0.5, "2": -0.5, "20": -0.5, "3": 0.5, "30": 0.5, "300": 0.5}


def test_an_early_leaf_counts_in_later_rounds_as_often_as_it_left_nodes_out():
    """[2, 2, 1]: in round 2 there would be four nodes, two of them below response 0. Mean (1 + 1 + 0 + 1) / 4."""
    tree = credit(SMALL, group="round", train_rounds="all")
    assert of(tree, "advantage") == {"0": 0.25, "1": -0.25, "10": -0.75, "11": 0.25, "110": 0.25}
    spread = statistics.stdev([0.0, 1.0, 1.0, 1.0]) + STD_FLOOR
    divided = credit(SMALL, group="round", train_rounds="all", divide_by_std=True)
    assert of(divided, "advantage")["10"] == pytest.approx(-0.75 / spread)


def test_dead_groups_are_still_counted():
    tree = make_tree([(1, (1, 1)), [[1]], [(1, (1,))]])
    counts = assign(tree, CreditConfig(group="round", train_rounds="all"))
    assert (counts.groups, counts.dead_groups) == (3, 3)


def test_an_ungraded_early_leaf_counts_nowhere():
    tree = credit([(None, (1, 1)), [(0, (1,))], [[1]]], group="round", train_rounds="all")
    assert of(tree, "value")["0"] is None
    assert of(tree, "advantage") == {"0": None, "1": -0.5, "10": -0.5, "2": 0.5, "20": 0.5, "200": 0.5}


def test_efficiency_pays_right_answers_for_the_rounds_they_left():
    """Three rounds: a right answer in round 1 saves 2 of 2, in round 2 one of 2, in round 3 none."""
    tree = credit([(1, (1, 1)), [(1, (1,))], [[1]], (0, (1, 1)), [(0, (1,))]], efficiency=0.4)
    assert [root.reward for root in tree.roots] == pytest.approx([1.4, 1.2, 1.0, 0.0, 0.0])
    assert [root.value for root in tree.roots] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_efficiency_is_a_mean_over_trajectories():
    """Of response 1's two trajectories one is right and late, one wrong and early: no bonus at all."""
    assert [root.reward for root in credit(SMALL, efficiency=1.0).roots] == [2.0, 0.5]


def test_one_round_leaves_nothing_to_pay():
    assert [root.reward for root in credit([1, 0], efficiency=1.0).roots] == [1.0, 0.0]


def test_efficiency_needs_trajectories_that_may_finish():
    with pytest.raises(RecipeError, match="may_finish"):
        load_recipe("demo", ["credit.efficiency=0.2"])
    assert load_recipe("demo", ["credit.efficiency=0.2", "rounds.may_finish=true"]).credit.efficiency == 0.2


LEAF = st.sampled_from([0, 1])
SECOND = st.one_of(st.tuples(LEAF, st.just((1,))), st.lists(LEAF, min_size=1, max_size=1))
FIRST = st.one_of(st.tuples(LEAF, st.just((2, 1))), st.lists(SECOND, min_size=2, max_size=2))
TREES = st.lists(FIRST, min_size=2, max_size=4)


def filled(outcome: Any) -> Any:
    """The same tree with every early leaf continued by the trajectories that it left out."""
    if isinstance(outcome, list):
        return [filled(below) for below in outcome]
    if isinstance(outcome, tuple) and outcome[1]:
        return [filled((outcome[0], outcome[1][1:]))] * outcome[1][0]
    return outcome[0] if isinstance(outcome, tuple) else outcome


@given(TREES, st.sampled_from(["siblings", "round"]), st.sampled_from(["mean", "leave_one_out"]))
def test_credit_is_that_of_the_full_tree(outcomes, group, baseline):
    """What an early leaf left out would have had its outcome: no node that there is gets another credit for it."""
    settings = {"group": group, "baseline": baseline, "train_rounds": "all", "divide_by_std": True}
    early, full = credit(outcomes, **settings), credit(filled(outcomes), **settings)
    for name in ("value", "reward", "advantage"):
        expected = {key: of(full, name)[key] for key in of(early, name)}
        assert of(early, name) == pytest.approx(expected)


@given(TREES, st.floats(0.01, 2))
def test_a_wrong_answer_is_never_paid(outcomes, efficiency):
    for node in credit(outcomes, efficiency=efficiency).walk():
        assert node.reward is not None
        assert node.value is not None
        assert node.value <= node.reward <= node.value * (1 + efficiency) + 1e-9


def test_variance_counts_the_continuations_that_were_left_out():
    assert components([make_tree(SMALL)]) == components([make_tree([[[1], [1]], [[0], [1]]])])


def test_metrics_of_uneven_trees():
    recipe = load_recipe("demo", ["rounds.may_finish=true", "rollout.branching=[2,2,1]"])
    tree = make_tree(SMALL)
    for leaf in tree.leaves():
        leaf.answer = "360"
    metrics = step_metrics([tree], [assign(tree, recipe.credit)], recipe)
    assert metrics["outcome/mean"] == 0.75
    assert metrics["outcome/rate_counts"] == [0, 1, 1]  # one response with one of two right, one with two of two
    assert metrics["rounds/mean"] == (1 + 1 + 2 + 3) / 4
    assert metrics["rounds/early"] == 0.75
    assert metrics["note/early_answer"] == 0.5  # of the four responses before round 3: one in round 1, one in round 2


def test_records_keep_what_was_left_out():
    record = make_tree(SMALL).to_dict()["responses"]
    assert record[0]["unused"] == [2, 1]
    assert "unused" not in record[1]
    assert record[1]["children"][0]["unused"] == [1]
