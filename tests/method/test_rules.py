"""The credit rules beside siblings and round: trees computed by hand, and what must hold on any tree."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from motif.config import CreditConfig, Recipe
from motif.method.credit import RULES, assign
from motif.method.tree import Tree
from support.trees import make_tree

# Two responses; the first has children of 1/2 and 1, the second of 0 and 1/2.
TREE = [[[1, 0], [1, 1]], [[0, 0], [1, 0]]]
VALUES = {(0,): 0.75, (1,): 0.25, (0, 0): 0.5, (0, 1): 1.0, (1, 0): 0.0, (1, 1): 0.5}


def advantages(outcomes: list[Any], **settings: Any) -> dict[tuple[int, ...], float | None]:
    tree = make_tree(outcomes)
    assign(tree, CreditConfig(**{"train_rounds": "all", "format_weight": 0.0} | settings))
    return {node.path: node.advantage for node in tree.walk()}


def test_mixed_is_the_weighted_mean_of_both():
    plain = {"divide_by_std": False}
    local, globally = advantages(TREE, **plain), advantages(TREE, group="round", **plain)
    assert local[(0, 0)] == -0.25 and globally[(0, 0)] == 0.0  # below its sibling, average in its round
    mixed = advantages(TREE, group="mixed", round_weight=0.2, **plain)
    assert mixed == pytest.approx({path: 0.8 * local[path] + 0.2 * globally[path] for path in local})
    assert mixed[(0,)] == pytest.approx(local[(0,)])  # round 1: both comparisons are the same


def test_mixed_tells_equal_siblings_from_the_rest_of_their_round():
    outcomes = [[1, 1], [0, 0]]
    settings = {"divide_by_std": False, "baseline": "mean"}
    assert advantages(outcomes, **settings)[(0, 0)] == 0.0
    tree = make_tree(outcomes)
    counts = assign(tree, CreditConfig(group="mixed", train_rounds="all", **settings))
    assert [node.advantage for node in tree.rounds()[1]] == [0.25, 0.25, -0.25, -0.25]
    assert (counts.groups, counts.dead_groups) == (3, 0)


def test_mixed_keeps_the_cousins_of_only_children():
    plain = {"divide_by_std": False}
    local, globally = (advantages([[1], [0], [0]], group=name, **plain) for name in ("siblings", "round"))
    mixed = advantages([[1], [0], [0]], group="mixed", **plain)
    assert mixed == pytest.approx({path: (local[path] + globally[path]) / 2 for path in local})


def test_progress_is_the_value_after_less_the_value_before():
    found = advantages(TREE, group="progress")
    assert found[(0,)] == 0.25 and found[(1,)] == -0.25  # 3/4 and 1/4 less 1/2
    assert found[(0, 0)] == -0.25 and found[(0, 1)] == 0.25  # 1/2 and 1 less 3/4
    assert found[(0, 0, 0)] == 0.5 and found[(0, 0, 1)] == -0.5
    assert found[(0, 1, 0)] == 0.0 and found[(1, 0, 1)] == 0.0


def test_progress_weighs_a_prompt_by_its_trajectories():
    """One child has three graded leaves, the other one: the value of the prompt is 1/4, not the mean of 0 and 1."""
    found = advantages([[[0, 0, 0], [1, None, None]], [[0, 0, 0], [0, 0, 0]]], group="progress")
    assert found[(0, 0)] == -0.25 and found[(0, 1)] == 0.75


def test_progress_counts_form_against_the_form_of_the_siblings():
    tree = make_tree([1, 1, 0, 0])
    tree.roots[0].well_formed = False
    assign(tree, CreditConfig(group="progress", format_weight=0.4))
    assert [root.advantage for root in tree.roots] == pytest.approx([0.5 - 0.3, 0.5 + 0.1, -0.5 + 0.1, -0.5 + 0.1])


def test_chain_trains_first_children_only_against_what_the_others_began():
    found = advantages(TREE, group="chain")
    assert found[(0,)] == 0.5 and found[(1,)] == -0.5  # each against the value that the other responses give
    assert found[(0, 0)] == -0.5 and found[(0, 1)] is None  # 1/2 less the 1 of its sibling
    assert found[(0, 0, 0)] == 1.0 and found[(0, 0, 1)] is None
    assert found[(1, 0)] == -0.5 and found[(1, 0, 0)] == 0.0
    assert found[(0, 1, 0)] is None and found[(1, 1, 0)] is None  # below continuations that only estimate


def test_a_chain_whose_first_child_is_ungraded_ends_there():
    tree = make_tree([[[None, None], [1, 1]], [[1, 0], [0, 0]]])
    counts = assign(tree, CreditConfig(group="chain", train_rounds="all"))
    assert [tree.roots[0].children[0].advantage, tree.roots[0].children[1].advantage] == [None, None]
    assert tree.roots[1].children[0].advantage == 0.5
    assert counts.groups == 3  # the question, the second response, and its first child


OUTCOME = st.sampled_from([0, 1, 0.3])


def balanced(m: int, k: int) -> Any:
    return st.lists(st.lists(st.lists(OUTCOME, min_size=k, max_size=k), min_size=k, max_size=k), min_size=m, max_size=m)


@given(balanced(3, 2))
def test_progress_adds_up_to_the_outcome_less_the_value_of_the_question(outcomes):
    tree = make_tree(outcomes)
    assign(tree, CreditConfig(group="progress", train_rounds="all", format_weight=0.0))
    value = sum(leaf.outcome for leaf in tree.leaves()) / 12
    for leaf in tree.leaves():
        assert sum(node.advantage for node in tree.trajectory(leaf)) == pytest.approx(leaf.outcome - value)


@given(balanced(3, 2))
def test_on_a_balanced_tree_the_rules_are_those_of_siblings(outcomes):
    """What SPO and VinePPO compute is the sibling comparison: with the mean, and with the others, as the baseline."""
    mean = advantages(outcomes, divide_by_std=False)
    others = advantages(outcomes, divide_by_std=False, baseline="leave_one_out")
    assert advantages(outcomes, group="progress") == pytest.approx(mean)
    chain = advantages(outcomes, group="chain")
    assert all(not any(path[1:]) for path, value in chain.items() if value is not None)
    assert {path: value for path, value in chain.items() if value is not None} == pytest.approx(
        {path: value for path, value in others.items() if chain[path] is not None}
    )


@pytest.mark.parametrize("group", list(RULES))
def test_advantages_estimate_the_gradient_without_bias(group):
    """The oracle: a response is right with probability p of its own, so what it truly adds is p less the mean p.

    Averaged over many trees, the advantage of each of the two kinds of response is proportional to that.
    """
    rng, settings = random.Random(1), {"format_weight": 0.0, "divide_by_std": False}
    chances, sums, counts = {"good": 0.8, "bad": 0.4}, {"good": 0.0, "bad": 0.0}, {"good": 0, "bad": 0}
    for _ in range(1500):
        kinds = [rng.choice(["good", "bad"]) for _ in range(4)]
        tree: Tree = make_tree([[int(rng.random() < chances[kind]) for _ in range(2)] for kind in kinds])
        assign(tree, CreditConfig(group=group, **settings))
        for kind, root in zip(kinds, tree.roots, strict=True):
            sums[kind] += root.advantage
            counts[kind] += 1
    # A baseline that the response is part of takes a quarter of the difference away; left out of it, nothing.
    kept = 1.0 if group == "chain" else 0.75
    assert sums["good"] / counts["good"] == pytest.approx(kept * 0.2, abs=0.02)
    assert sums["bad"] / counts["bad"] == pytest.approx(-kept * 0.2, abs=0.02)


# -- settings ----------------------------------------------------------------------------------------------------------


def refused(**sections: Any) -> str:
    with pytest.raises(ValidationError) as error:
        Recipe.model_validate(sections)
    return str(error.value)


@pytest.mark.parametrize("group", ["progress", "chain"])
def test_rules_with_a_baseline_of_their_own_refuse_another(group):
    whole = {"branching": [4, 2, 2]}
    assert "baseline of its own" in refused(rollout=whole, credit={"group": group, "baseline": "leave_one_out"})
    assert "divides by nothing" in refused(rollout=whole, credit={"group": group, "divide_by_std": True})
    recipe = Recipe.model_validate({"rollout": whole, "credit": {"group": group, "train_rounds": "all"}})
    assert recipe.credit.divide_by_std is False
    assert "several responses" in refused(rollout={"branching": [4, 2, 1]}, credit=recipe.credit.model_dump())
    Recipe.model_validate({"rollout": {"branching": [4, 2, 1]}, "credit": {"group": group}})  # round 1 has them


def test_the_weight_of_the_round_belongs_to_the_mixed_rule():
    assert "leave it out" in refused(credit={"round_weight": 0.3})
    assert Recipe.model_validate({"credit": {"group": "mixed", "round_weight": 0.3}}).credit.round_weight == 0.3


def test_a_recipe_without_the_new_settings_is_written_as_before():
    assert not {"round_weight", "tokens"} & Recipe().credit.model_dump().keys()
