"""Rewards and advantages: numbers computed by hand, and what must hold on any tree."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from motif.config import CreditConfig
from motif.method.credit import assign, group_advantages, original_code_reward
from motif.method.tree import Node, Tree
from support.trees import make_node, make_tree

OUTCOMES = st.sampled_from([0, 1, 0.1, 0.7])


def credit(outcomes: list[Any], well_formed: bool = True, **settings: Any) -> Tree:
    tree = make_tree(outcomes, well_formed)
    assign(tree, CreditConfig(**settings))
    return tree


def roots(tree: Tree, name: str = "advantage") -> list[Any]:
    return [getattr(root, name) for root in tree.roots]


def at(tree: Tree, *path: int) -> Node:
    return next(node for node in tree.walk() if node.path == path)


# -- the worked example: What is 15 × 24? ------------------------------------------------------------------------------

EXAMPLE = [[[1], [0]], [[1], [1]]]  # two responses, two trajectories each: 1 of 2 and 2 of 2 end in 360


@pytest.mark.parametrize(("weight", "rewards"), [(1.0, [1.5, 2.0]), (0.2, [0.7, 1.2])])
def test_worked_example_values_and_rewards(weight, rewards):
    tree = credit(EXAMPLE, format_weight=weight)
    assert roots(tree, "value") == [0.5, 1.0]
    assert roots(tree, "reward") == pytest.approx(rewards)


@pytest.mark.parametrize(
    ("settings", "advantage"),
    [
        ({}, 0.70691),  # 0.25 / (0.35355 + 0.0001)
        ({"format_weight": 0.2}, 0.70691),  # as in the README and the recipe `demo`
        ({"divide_by_std": False}, 0.25),
        ({"divide_by_std": False, "baseline": "leave_one_out"}, 0.5),
        ({"baseline": "leave_one_out"}, 1.41381),
    ],
)
def test_worked_example_advantages(settings, advantage):
    assert roots(credit(EXAMPLE, **settings)) == pytest.approx([-advantage, advantage], abs=1e-5)


def test_worked_example_counts():
    counts = assign(make_tree(EXAMPLE), CreditConfig())
    assert (counts.groups, counts.dead_groups, counts.ungraded) == (1, 0, 0)


def test_only_the_first_round_is_trained_unless_asked():
    later = [node for node in credit(EXAMPLE).walk() if node.round > 1]
    assert all(node.advantage is None and node.reward is not None and node.value is not None for node in later)


# -- one rule after the other ------------------------------------------------------------------------------------------


def test_siblings_on_the_whole_tree():
    """Round 2 is compared below each response; the only children of round 3 with their cousins."""
    tree = make_tree(EXAMPLE)
    counts = assign(tree, CreditConfig(train_rounds="all", divide_by_std=False))
    assert roots(tree) == [-0.25, 0.25]
    assert [at(tree, 0, 0).advantage, at(tree, 0, 1).advantage] == [0.5, -0.5]
    assert [at(tree, 1, 0).advantage, at(tree, 1, 1).advantage] == [0.0, 0.0]
    # Round 3 below response 0: one right, one wrong, each an only child: 1 - 0 and 0 - 1.
    assert [at(tree, 0, 0, 0).advantage, at(tree, 0, 1, 0).advantage] == [1.0, -1.0]
    assert [at(tree, 1, 0, 0).advantage, at(tree, 1, 1, 0).advantage] == [0.0, 0.0]
    assert (counts.groups, counts.dead_groups) == (1 + 2 + 4, 1 + 2)


def test_an_only_child_is_left_out_of_its_own_baseline():
    tree = credit([[[1], [0], [0]], [[1], [1], [1]]], train_rounds="all", divide_by_std=False)
    assert at(tree, 0, 0, 0).advantage == 1.0  # against two wrong cousins below the same response
    assert at(tree, 0, 1, 0).advantage == -0.5  # against one right and one wrong
    assert at(tree, 0, 2, 0).advantage == -0.5


def test_an_only_child_of_an_only_child_looks_further_up():
    tree = credit([[[1]], [[0]], [[0]]], train_rounds="all", divide_by_std=False)
    assert [at(tree, i, 0, 0).advantage for i in range(3)] == [1.0, -0.5, -0.5]
    assert [at(tree, i, 0).advantage for i in range(3)] == [1.0, -0.5, -0.5]


def test_an_only_child_divided_by_the_spread_of_all_of_them():
    tree = credit([[1], [0], [0]], train_rounds="all")
    spread = statistics.stdev([2.0, 1.0, 1.0]) + 1e-4
    assert [at(tree, i, 0).advantage for i in range(3)] == pytest.approx([1 / spread, -0.5 / spread, -0.5 / spread])


def test_a_single_chain_has_nobody_to_be_compared_with():
    tree = make_tree([[[1]]])
    counts = assign(tree, CreditConfig(train_rounds="all"))
    assert [node.advantage for node in tree.walk()] == [None, None, None]
    assert counts.groups == 0


def test_round_groups_share_one_comparison():
    tree = make_tree([[1], [0], [0], [1]])
    counts = assign(tree, CreditConfig(group="round", train_rounds="all", divide_by_std=False))
    assert roots(tree) == [0.5, -0.5, -0.5, 0.5]
    assert [at(tree, i, 0).advantage for i in range(4)] == [0.5, -0.5, -0.5, 0.5]
    assert (counts.groups, counts.dead_groups) == (2, 0)


def test_round_groups_reach_across_responses():
    tree = credit(EXAMPLE, group="round", train_rounds="all", divide_by_std=False)
    level = [at(tree, i, j).advantage for i in range(2) for j in range(2)]
    assert level == [0.25, -0.75, 0.25, 0.25]
    assert [at(tree, 0, 1, 0).advantage, at(tree, 1, 1, 0).advantage] == [-0.75, 0.25]


def test_format_weight():
    tree = make_tree([[1, 0], [1, 1]])
    tree.roots[1].well_formed = False
    assign(tree, CreditConfig(format_weight=0.2, divide_by_std=False))
    assert roots(tree, "reward") == [0.7, 1.0]
    assert roots(tree) == pytest.approx([-0.15, 0.15])
    assign(tree, CreditConfig(format_weight=0.0))
    assert roots(tree, "reward") == [0.5, 1.0]
    assign(tree, CreditConfig())
    assert roots(tree, "reward") == [1.5, 1.0]


def test_ungraded_leaves_count_in_no_mean():
    tree = make_tree([[1, None, 0], [1, None, None], [None, None, None], [0, 0, 1]])
    counts = assign(tree, CreditConfig(divide_by_std=False))
    assert roots(tree, "value") == [0.5, 1.0, None, pytest.approx(1 / 3)]
    assert tree.roots[2].reward is None and tree.roots[2].advantage is None
    mean = (1.5 + 2.0 + 4 / 3) / 3
    assert [tree.roots[i].advantage for i in (0, 1, 3)] == pytest.approx([1.5 - mean, 2.0 - mean, 4 / 3 - mean])
    assert (counts.groups, counts.ungraded) == (1, 6)


def test_a_value_is_the_mean_over_leaves_not_over_children():
    assert credit([[[1, 1, 0], [0, None, None]], [[0], [0]]]).roots[0].value == 0.5  # 2 of 4, not (2/3 + 0) / 2


def test_a_response_without_any_verdict_below_is_neither_compared_nor_trained():
    tree = credit([[None], [1]], train_rounds="all")
    assert [node.advantage for node in tree.walk()] == [None, None, None, None]


def test_dead_groups_are_counted_and_have_no_gradient():
    tree = make_tree([[1, 0], [0, 1]])
    counts = assign(tree, CreditConfig())
    assert roots(tree) == [0.0, 0.0]
    assert (counts.groups, counts.dead_groups) == (1, 1)


def test_equal_up_to_rounding_is_dead():
    assert group_advantages([0.1 + 0.2, 0.3, 0.3], CreditConfig()) == [0.0, 0.0, 0.0]
    assert any(group_advantages([0.3, 0.3, 0.301], CreditConfig()))


def test_one_unlucky_trajectory_of_32_weighs_two_and_a_half_deviations():
    """Weakness W6 of the paper's rule, and why the recommended recipe does not divide."""
    outcomes = [[0, 1, 1, 1]] + [[1, 1, 1, 1]] * 7
    assert roots(credit(outcomes))[:2] == pytest.approx([-2.47, 0.353], abs=5e-3)
    assert roots(credit(outcomes, divide_by_std=False))[:2] == pytest.approx([-0.21875, 0.03125])


def test_assigning_twice_is_assigning_once():
    tree = make_tree(EXAMPLE)
    assign(tree, CreditConfig(train_rounds="all"))
    before = [(node.value, node.reward, node.advantage) for node in tree.walk()]
    assign(tree, CreditConfig(train_rounds="all"))
    assert [(node.value, node.reward, node.advantage) for node in tree.walk()] == before


# -- the authors' script, bug for bug ----------------------------------------------------------------------------------


def script_reward(text: str, finals: list[str] | None = None, gold: str = "360") -> float:
    children = [make_node((0, i), text=final) for i, final in enumerate(finals or [""])]
    return original_code_reward(make_node((0,), children, text=text), gold)


def perfect(length: int, end: str = "") -> str:
    """A perfectly formatted response of several lines with this many characters."""
    head, tail = "<reasoning>\n", "\nand so\n</reasoning>\n<answer>\n5\n</answer>" + end
    return head + "y" * (length - len(head) - len(tail)) + tail


@pytest.mark.parametrize(("length", "reward"), [(650, -0.149), (1154, -0.653), (2162, -1.661)])
def test_a_perfect_response_pays_for_its_length(length, reward):
    text = perfect(length)
    assert len(text) == length
    assert script_reward(text) == pytest.approx(reward)  # 4 × 0.125 + 0.001 - 0.001 × length


def test_no_tags_cost_nothing():
    assert script_reward("no tags, " * 300) == 0.0


def test_with_a_newline_at_the_end_the_full_tag_count():
    assert script_reward(perfect(650, end="\n")) == pytest.approx(0.5)


def test_characters_after_the_closing_tag_count_twice():
    # 4 × 0.125 - 0.001 × 10 - 0.001 × (11 - 1)
    assert script_reward(perfect(100, end="\n") + "z" * 10) == pytest.approx(0.48)


def test_the_format_patterns_match_single_lines_only():
    assert script_reward("<reasoning>x</reasoning>\n<answer>5</answer>") == 0.5
    # the strict one wants one line in each block and a newline at the end; the soft one no newline inside a block
    one_line = "<reasoning>\nx\n</reasoning>\n<answer>\n5\n</answer>\n"
    assert script_reward(one_line) == pytest.approx(0.5 + 0.5)
    assert script_reward(one_line.replace("x", "x\nx")) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("final", "reward"),
    [
        ("<answer>\\boxed{360}</answer>", 2.0),
        ("<answer>\\boxed{1} or \\boxed{360}</answer>", 2.0),
        ("no tags at all, \\boxed{360}", 2.0),
        ("<answer>a</answer> <answer>\\boxed{360}", 2.0),
        ("<reasoning>\\boxed{360}</reasoning><answer>7</answer>", 1.0),
        ("<answer>\\boxed{360}</answer><answer>7</answer>", 1.0),
        ("<answer>7</answer> \\boxed{360}", 1.0),
        ("<answer>\\boxed{ 360}</answer>", 0.0),
        ("<answer>\\boxed{360.0}</answer>", 0.0),
        ("<answer>360</answer>", 0.0),
    ],
)
def test_answers_are_matched_as_strings(final, reward):
    assert script_reward("", [final]) == reward


def test_a_thousands_comma_in_the_gold_answer_is_never_matched():
    assert script_reward("", ["<answer>\\boxed{1360}</answer>"], gold="1,360") == 0.0


def test_the_outcome_is_the_mean_over_trajectories():
    finals = ["<answer>\\boxed{360}</answer>", "\\boxed{360} <answer>7</answer>", "", ""]
    assert script_reward("", finals) == 0.75


def test_original_code_rewards_are_what_the_group_compares():
    tree = make_tree([[1, 1], [0, 0]])
    for root, word in zip(tree.roots, ("360", "7"), strict=True):
        root.text = "no tags"
        for leaf in root.children:
            leaf.text = f"<answer>\\boxed{{{word}}}</answer>"
    assign(tree, CreditConfig(reward="original_code", divide_by_std=False))
    assert roots(tree, "reward") == [2.0, 0.0]
    assert roots(tree) == [1.0, -1.0]
    assert roots(tree, "value") == [1.0, 0.0]


# -- what holds on any tree --------------------------------------------------------------------------------------------

FLAT = st.lists(st.lists(OUTCOMES, min_size=3, max_size=3), min_size=2, max_size=6)
DEEP = st.lists(st.lists(st.lists(OUTCOMES, min_size=1, max_size=3), min_size=1, max_size=3), min_size=2, max_size=4)
SETTINGS = st.fixed_dictionaries(
    {
        "divide_by_std": st.booleans(),
        "baseline": st.sampled_from(["mean", "leave_one_out"]),
        "format_weight": st.sampled_from([0.0, 0.2, 1.0]),
    }
)


def close(values: list[float]) -> Any:
    return pytest.approx(values, abs=1e-9, rel=1e-9)


@given(DEEP, SETTINGS, st.data())
def test_advantages_of_siblings_sum_to_zero(outcomes, settings, data):
    tree = make_tree(outcomes)
    for node in tree.walk():
        node.well_formed = data.draw(st.booleans())
    assign(tree, CreditConfig(train_rounds="all", **settings))
    for family in [tree.roots, *(node.children for node in tree.walk())]:
        if len(family) > 1:
            assert math.fsum(node.advantage for node in family) == pytest.approx(0.0, abs=1e-9)


@given(FLAT, SETTINGS, st.randoms(use_true_random=False))
def test_a_permutation_of_responses_permutes_advantages(outcomes, settings, rng):
    order = list(range(len(outcomes)))
    rng.shuffle(order)
    plain = roots(credit(outcomes, **settings))
    assert roots(credit([outcomes[i] for i in order], **settings)) == close([plain[i] for i in order])


@given(st.lists(OUTCOMES, min_size=2, max_size=8), SETTINGS)
def test_with_one_trajectory_motif_and_multi_round_grpo_agree_on_round_one(outcomes, settings):
    """[m, 1, 1]: a response's value is its trajectory's outcome, whoever it is compared with."""
    tree = [[[outcome]] for outcome in outcomes]
    motif = roots(credit(tree, group="siblings", train_rounds="first", **settings))
    grpo = credit(tree, group="round", train_rounds="all", **settings)
    assert motif == close(roots(grpo))
    assert [at(grpo, i, 0, 0).advantage for i in range(len(outcomes))] == close(motif)


@given(st.lists(OUTCOMES, min_size=2, max_size=8))
def test_one_round_is_grpo(outcomes):
    mean, spread = statistics.fmean(outcomes), statistics.stdev(outcomes)
    expected = [(outcome - mean) / (spread + 1e-4) for outcome in outcomes]
    for group in ("siblings", "round"):
        for train_rounds in ("first", "all"):
            assert roots(credit(outcomes, group=group, train_rounds=train_rounds)) == close(expected)


REWARDS = st.lists(st.floats(-3, 3).map(lambda reward: round(reward, 3)), min_size=2, max_size=8)


@given(REWARDS, st.booleans())
def test_leave_one_out_is_the_mean_of_the_others(rewards, divide_by_std):
    assume(max(rewards) > min(rewards))
    m = len(rewards)
    centred = group_advantages(rewards, CreditConfig(divide_by_std=divide_by_std))
    left_out = group_advantages(rewards, CreditConfig(divide_by_std=divide_by_std, baseline="leave_one_out"))
    assert left_out == close([advantage * m / (m - 1) for advantage in centred])
    if not divide_by_std:
        others = [statistics.fmean(rewards[:i] + rewards[i + 1 :]) for i in range(m)]
        assert left_out == close([reward - other for reward, other in zip(rewards, others, strict=True)])


@given(REWARDS, st.floats(-10, 10), SETTINGS)
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, constant, settings):
    config = CreditConfig(**settings)
    shifted = group_advantages([reward + constant for reward in rewards], config)
    assert shifted == pytest.approx(group_advantages(rewards, config), abs=1e-6)


@given(REWARDS, SETTINGS)
def test_better_rewards_have_better_advantages(rewards, settings):
    advantages = group_advantages(rewards, CreditConfig(**settings))
    ranked = sorted(zip(rewards, advantages, strict=True))
    assert all(a <= b + 1e-12 for (_, a), (_, b) in itertools.pairwise(ranked))


@given(DEEP, SETTINGS, st.sampled_from(["siblings", "round"]))
def test_dead_groups_are_those_without_differences(outcomes, settings, group):
    tree = make_tree(outcomes)
    counts = assign(tree, CreditConfig(group=group, **settings))
    dead = len({round(root.value, 9) for root in tree.roots}) == 1
    assert (counts.groups, counts.dead_groups) == (1, int(dead))
    assert dead == (not any(roots(tree)))
