"""From graded leaves to advantages: rewards and baselines on a tree, one small function per rule.

Notation of arXiv 2507.02851: a node's *value* is the mean outcome of the leaves below it (for a first-round response
with k trajectories, r^a of the paper), its *reward* adds the format reward r^f, its *advantage* compares it to others.

Which others, and why that is fair:

* `siblings`: all children of one parent answered the same prompt, so the difference of their values is due to what
  they wrote (and to the luck of their continuations). In round 1 the siblings are the question's m responses, and this
  is the paper's group. An only child has no siblings; it is compared with the responses of its round below its nearest
  ancestor that has others, itself left out. They did not see the same note, but they did share everything up to that
  ancestor, and leaving itself out keeps the baseline independent of the response.
* `round`: all nodes of one round under a question. Every round of a trajectory is paid with the trajectory's outcome
  and compared with the other trajectories of the question. The prompts differ, so part of the comparison is the luck of
  the earlier rounds. This is multi-round GRPO with one shared reward (InftyThink+, arXiv 2602.06960).

A group whose rewards are all equal is *dead*: it has no gradient, is counted and skipped.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from motif.config import CreditConfig
from motif.method.tree import Node, Tree

TOLERANCE = 1e-9
"""Rewards closer than this are equal: averages of the same outcomes may differ in the last bit."""
STD_FLOOR = 1e-4
"""Added to a group's standard deviation before dividing by it, as in TRL."""


@dataclass
class CreditCounts:
    """What credit assignment saw: compared groups, dead ones among them, and leaves without a verdict."""

    groups: int = 0
    dead_groups: int = 0
    ungraded: int = 0


def assign(tree: Tree, config: CreditConfig) -> CreditCounts:
    """Write value, reward and advantage on the nodes of a graded tree.

    An ungraded leaf has no outcome: it counts in no mean, and a node without any graded leaf below it has no value, is
    compared with nobody and is not trained. Nodes of untrained rounds get a value and a reward, but no advantage.
    """
    counts = CreditCounts()
    for root in tree.roots:
        counts.ungraded += _value(root)
    for node in tree.walk():
        if node.value is not None:
            node.reward = node.value + config.format_weight * node.well_formed
    if config.reward == "original_code":
        for root in tree.roots:
            if root.value is not None:
                root.reward = original_code_reward(root, tree.question.gold)
    for group in _groups(tree, config):
        graded = [node for node in group if node.reward is not None]
        advantages = _advantages(graded, tree, config)
        if advantages:
            counts.groups += 1
            counts.dead_groups += not any(advantages)
            for node, advantage in zip(graded, advantages, strict=True):
                node.advantage = advantage
    return counts


def _advantages(group: list[Node], tree: Tree, config: CreditConfig) -> list[float]:
    """What each node of a group gets; empty where there is nothing to compare it with."""
    if len(group) > 1:
        return group_advantages([_reward(node) for node in group], config)
    if group and config.group == "siblings" and group[0].round > 1:
        cousins = _cousins(tree, group[0])
        return [_only_child_advantage(group[0], cousins, config)] if cousins else []
    return []


def group_advantages(rewards_M: Sequence[float], config: CreditConfig) -> list[float]:
    """Advantages of one group of at least two comparable rewards; all zero if the group is dead.

    GRPO (arXiv 2402.03300) subtracts the mean and divides by the standard deviation (Bessel-corrected, plus 1e-4, as
    TRL computes it). `leave_one_out` subtracts the mean of the *others*, which makes the baseline independent of the
    response (RLOO); it equals m / (m - 1) times the mean-centred advantage.
    """
    mean = statistics.fmean(rewards_M)
    if max(rewards_M) - min(rewards_M) <= TOLERANCE:
        return [0.0] * len(rewards_M)
    scale = 1.0
    if config.baseline == "leave_one_out":
        scale = len(rewards_M) / (len(rewards_M) - 1)
    if config.divide_by_std:
        scale /= statistics.stdev(rewards_M) + STD_FLOOR
    return [(reward - mean) * scale for reward in rewards_M]


def _value(node: Node) -> int:
    """Fill in values bottom-up; returns the number of ungraded leaves.

    A value is the mean over leaves, not over children: with an ungraded leaf below one child they differ, and every
    trajectory should count the same.
    """
    for child in node.children:
        _value(child)
    node.value = node.mean_outcome()
    return sum(leaf.verdict not in ("right", "wrong") for leaf in node.leaves())


def _reward(node: Node) -> float:
    assert node.reward is not None
    return node.reward


def _groups(tree: Tree, config: CreditConfig) -> list[list[Node]]:
    rounds = tree.rounds()
    trained = rounds[:1] if config.train_rounds == "first" else rounds
    if config.group == "round":
        return trained
    families = [tree.roots]
    if config.train_rounds == "all":
        families += [node.children for node in tree.walk() if node.children]
    return families


def _cousins(tree: Tree, node: Node) -> list[Node]:
    """Graded nodes of the same round below the nearest ancestor that has more than this one."""
    level = [other for other in tree.rounds()[node.round - 1] if other.reward is not None]
    for depth in range(node.round - 1, -1, -1):
        others = [other for other in level if other.path[:depth] == node.path[:depth] and other is not node]
        if others:
            return others
    return []


def _only_child_advantage(node: Node, cousins: list[Node], config: CreditConfig) -> float:
    rewards = [_reward(cousin) for cousin in cousins]
    difference = _reward(node) - statistics.fmean(rewards)
    spread = [*rewards, _reward(node)]
    if abs(difference) <= TOLERANCE:
        return 0.0
    return difference / (statistics.stdev(spread) + STD_FLOOR) if config.divide_by_std else difference


# -- the authors' script, bug for bug ------------------------------------------------------------------------------


def original_code_reward(root: Node, gold: str) -> float:
    r"""What https://github.com/purbeshmitra/MOTIF (motif.py, July 2025) pays a first-round response. For ablation only.

    The sum of: the mean over trajectories of 2 if the string \boxed{gold} occurs in the final answer block, else 1 if
    it occurs anywhere in the final response, else 0; two format terms of 0.5 whose patterns never match a response of
    several lines (no DOTALL); and a tag count whose last two terms take 0.001 off for every character after the
    closing tag, counting the whole response where the closing tag is not followed by a newline.
    """
    box = f"\\boxed{{{gold}}}"
    trajectories = [leaf.text for leaf in root.leaves()]
    outcomes = [2.0 if box in _last_answer_block(text) else 1.0 if box in text else 0.0 for text in trajectories]
    soft = re.match(r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", root.text)
    strict = re.match(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$", root.text)
    return statistics.fmean(outcomes) + 0.5 * bool(soft) + 0.5 * bool(strict) + _tag_count(root.text)


def _last_answer_block(text: str) -> str:
    return text.rpartition("<answer>")[2].partition("</answer>")[0]


def _tag_count(text: str) -> float:
    total = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        total += 0.125 - 0.001 * len(text.rsplit("\n</answer>\n", maxsplit=1)[-1])
    if text.count("\n</answer>") == 1:
        total += 0.125 - 0.001 * (len(text.rsplit("\n</answer>", maxsplit=1)[-1]) - 1)
    return total
