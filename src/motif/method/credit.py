"""From graded leaves to advantages: rewards and baselines on a tree, one small function per rule.

The notation is that of arXiv 2507.02851. An *outcome* is a number from 0 to 1: of a right answer 1, of a wrong one 0,
and a reward of the user's own may be anything in between. A node's *value* is the mean outcome of the leaves below it
(r^a of the paper, for a first-round response with k trajectories). Its *reward* adds the format reward r^f. Its
*advantage* compares it with a group of other nodes.

The rules (`credit.group`) are in the table `RULES`; each is a function of a graded tree. Whom they compare, and why
that is fair:

* `siblings`: all children of one parent answered the same prompt. So their values differ by what they wrote, and by the
  luck of their continuations. In round 1 the siblings are the m responses to the question, which is the group of the
  paper. An only child is compared with the responses of its round below its nearest ancestor that has others there,
  itself left out. These did not see the same note, but they share everything up to that ancestor, and leaving the
  response itself out keeps the baseline independent of it.
* `round`: all nodes of one round under a question. Every round of a trajectory earns the outcome of the trajectory and
  is compared with the other trajectories of the question. The prompts differ, so part of the comparison is the luck of
  the earlier rounds. This is multi-round GRPO with one shared reward (InftyThink+, arXiv 2602.06960).
* `mixed`: a weighted mean of the two (LoGo-GRPO, arXiv 2605.21768).
* `progress`: what a response adds to the value of its prompt, V(t + 1) - V(t) (SPO, arXiv 2505.23564).
* `chain`: the same, where the other children only estimate the value of the prompt (VinePPO, arXiv 2410.01679).

A trajectory may end early, with an answer (`rounds.may_finish`). Its leaf then stands for the trajectories that would
have gone on from it: all of them would have had its outcome. So it has their weight in the values above it, and it is
among the nodes that later ones are compared with. Without that, a value would depend on how often a child branched, and
the later rounds would be compared with the hard cases only.

With `credit.efficiency` = e, a right trajectory earns up to e more for the rounds that it did not need: a node's reward
adds e times the mean over its trajectories of outcome · (unused rounds) / (n - 1), for n rounds. So a right answer in
round 1 earns 1 + e and one in round n earns 1. A wrong answer never earns anything, however early: the bonus is paid
with the outcome. InftyThink+ pays fewer iterations in the same way, and only right answers; its bonus falls with the
square of their number, ours in proportion, so that every round saved is worth the same. Values stay mean outcomes.

A group whose rewards are all equal is *dead*: it has no gradient, so it is counted and skipped. A *question* is dead if
every group of its tree that is compared is dead, so that no response of it has a gradient, or if no group could be
graded. With all rounds trained, one group of siblings in a later round that differs keeps a question alive, even if its
first-round responses are all worth the same. DAPO (arXiv 2503.14476, eq. 11) asks that some but not all answers be
right, which is the same for one round graded by its answer alone; here the format reward counts as it does in training.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from motif.config import CreditConfig
from motif.method.tree import Node, Tree

TOLERANCE = 1e-9
"""Rewards that differ by less are equal: averages of the same outcomes may differ in the last bit."""
STD_FLOOR = 1e-4
"""Added to a group's standard deviation before dividing by it, as in TRL."""


@dataclass
class CreditCounts:
    """Counts of compared groups, of dead ones among them, and of leaves without a verdict."""

    groups: int = 0
    dead_groups: int = 0
    ungraded: int = 0

    @property
    def dead(self) -> bool:
        """Whether nothing can be learnt from the tree: every group is dead, or there is none."""
        return self.dead_groups == self.groups


def assign(tree: Tree, config: CreditConfig) -> CreditCounts:
    """Write value, reward and advantage on the nodes of a graded tree.

    An ungraded leaf has no outcome and counts in no mean. A node without a graded leaf below it has no value, is not
    compared and is not trained. Nodes of untrained rounds get a value and a reward, but no advantage.
    """
    counts = CreditCounts()
    for node in tree.walk():
        # The mean over leaves, not over children: where some are ungraded, every trajectory should count the same.
        node.value = node.mean_outcome()
    counts.ungraded = sum(leaf.outcome is None for leaf in tree.leaves())
    for node in tree.walk():
        if node.value is not None:
            node.reward = node.value + config.format_weight * node.well_formed
            if config.efficiency:
                node.reward += config.efficiency * (node.mean(_saved) or 0.0)
    if config.reward == "original_code":
        for root in tree.roots:
            if root.value is not None:
                root.reward = original_code_reward(root, tree.question.gold)
    for nodes, advantages in RULES[config.group](tree, config):
        counts.groups += 1
        counts.dead_groups += not any(advantages)
        for node, advantage in zip(nodes, advantages, strict=True):
            node.advantage = advantage
    return counts


def _saved(leaf: Node, outcome: float) -> float:
    """The share of the rounds after the first that an answer left unused, times what the answer is worth."""
    return outcome * len(leaf.unused) / max(1, leaf.round + len(leaf.unused) - 1)


def group_advantages(rewards_M: Sequence[float], config: CreditConfig) -> list[float]:
    """The advantages of one group of at least two comparable rewards; all zero if the group is dead.

    GRPO (arXiv 2402.03300) subtracts the mean and divides by the standard deviation (Bessel-corrected, plus 1e-4, as
    in TRL). `leave_one_out` subtracts the mean of the *others*, so that the baseline is independent of the response
    (RLOO). That equals m / (m - 1) times the mean-centred advantage.
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


def _reward(node: Node) -> float:
    assert node.reward is not None
    return node.reward


# -- the rules ---------------------------------------------------------------------------------------------------------

Compared = tuple[list[Node], list[float]]
"""The graded nodes of a group, and the advantage of each: all zero if the group is dead."""


def _siblings(tree: Tree, config: CreditConfig) -> Iterator[Compared]:
    """A(o) = r(o) - mean r of all children of its parent; an only child against its cousins."""
    for family in _families(tree, config):
        if len(family) > 1:
            yield family, group_advantages([_reward(node) for node in family], config)
        elif family and family[0].round > 1 and (cousins := _cousins(tree, family[0])):
            yield family, [_only_child_advantage(family[0], cousins, config)]


def _round(tree: Tree, config: CreditConfig) -> Iterator[Compared]:
    """A(o) = r(o) - mean r of its round, beside the trajectories that had ended by then."""
    rounds = tree.rounds()
    for number, nodes in enumerate(rounds[:1] if config.train_rounds == "first" else rounds, start=1):
        group, ended = _graded(nodes), _graded(_ended_before(tree, number))
        if group and len(group) + len(ended) > 1:
            rewards = [_reward(node) for node in [*group, *ended]]
            yield group, group_advantages(rewards, config)[: len(group)]


def _mixed(tree: Tree, config: CreditConfig) -> Iterator[Compared]:
    """A(o) = (1 - w) A_siblings(o) + w A_round(o), with w = `credit.round_weight`.

    LoGo-GRPO (Memory-R2, arXiv 2605.21768; only its abstract was at hand) adds a global objective, over whole
    trajectories, to a local one, over responses to the same memory state. Here the local one is `siblings`, and the
    global one `round`. Where a response to a note differs from its siblings the first tells; where all siblings end
    alike, as those of a bad note do, the second still tells them from the rest of their round. In round 1 both agree.
    """
    weight = config.round_weight
    rounds = [zip(nodes, values, strict=True) for nodes, values in _round(tree, config)]
    of_round = {node.path: value for pairs in rounds for node, value in pairs}
    for nodes, values in _siblings(tree, config):
        pairs = zip(nodes, values, strict=True)
        yield nodes, [(1 - weight) * local + weight * of_round[node.path] for node, local in pairs]


def _progress(tree: Tree, config: CreditConfig) -> Iterator[Compared]:
    """A(o) = V(t + 1) - V(t): the value after a response less that of its prompt, without a standard deviation.

    SPO's tree form (arXiv 2505.23564) takes both from the same leaves: V(t) is the mean over all leaves below the
    parent. So the advantages along a trajectory add up to its outcome less the value of the question, and an only child
    adds nothing. On a tree in which all children of a node have equally many leaves this is `siblings` with the mean as
    the baseline and no standard deviation; `leave_one_out` multiplies the advantages of m siblings by m / (m - 1).
    """
    for family in _families(tree, config):
        if len(family) > 1:
            worth = _worth(family)
            yield family, [_difference(_reward(node), worth) for node in family]


def _chain(tree: Tree, config: CreditConfig) -> Iterator[Compared]:
    """A(o) = V(t + 1) - V(t) for the first child of every node of the chain; its siblings only estimate V(t).

    VinePPO (arXiv 2410.01679): the continuations that estimate a value are not trained on, and those of the response
    itself are not in the estimate of V(t), which is so independent of it. Each first-round response begins a chain.
    """
    for family in _families(tree, config):
        parent = family[0].path[:-1] if family else ()
        if len(family) < 2 or any(parent[1:]):
            continue
        on_chain = [node for node in family if not parent or node.path[-1] == 0]
        others = [[other for other in family if other is not node] for node in on_chain]
        pairs = zip(on_chain, others, strict=True)
        if on_chain:
            yield on_chain, [_difference(_reward(node), _worth(rest)) for node, rest in pairs]


RULES: dict[str, Callable[[Tree, CreditConfig], Iterator[Compared]]] = {
    "siblings": _siblings,
    "round": _round,
    "mixed": _mixed,
    "progress": _progress,
    "chain": _chain,
}
"""From `credit.group` to what compares the nodes of a tree."""


def _graded(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.reward is not None]


def _families(tree: Tree, config: CreditConfig) -> Iterator[list[Node]]:
    """The graded responses to each prompt of the trained rounds."""
    yield _graded(tree.roots)
    if config.train_rounds == "all":
        yield from (_graded(node.children) for node in tree.walk() if node.children)


def _worth(family: Sequence[Node]) -> float:
    """The reward to be expected of a response to this prompt: every graded trajectory counts the same."""
    counts = [sum(leaf.trajectories for leaf in node.leaves() if leaf.outcome is not None) for node in family]
    return math.fsum(count * _reward(node) for count, node in zip(counts, family, strict=True)) / sum(counts)


def _difference(reward: float, worth: float) -> float:
    return 0.0 if abs(reward - worth) <= TOLERANCE else reward - worth


def _ended_before(tree: Tree, number: int) -> list[Node]:
    """The leaves of earlier rounds than this one, each as often as there would be nodes of this round below it."""
    early = [leaf for leaf in tree.leaves() if leaf.unused and leaf.round < number]
    return [leaf for leaf in early for _ in range(math.prod(leaf.unused[: number - leaf.round]))]


def _cousins(tree: Tree, node: Node) -> list[Node]:
    """What is to be compared with an only child below its nearest ancestor that has others.

    These are the graded nodes of its round, and the leaves that ended before it.
    """
    compared = [*tree.rounds()[node.round - 1], *_ended_before(tree, node.round)]
    same_round = [other for other in compared if other.reward is not None]
    for depth in range(node.round - 1, -1, -1):
        others = [other for other in same_round if other.path[:depth] == node.path[:depth] and other is not node]
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
    r"""The reward of a first-round response in https://github.com/purbeshmitra/MOTIF (motif.py, July 2025).

    It is here for ablation only, and it is the sum of

    * the mean over trajectories of 2 if the string \boxed{gold} occurs in the final answer block, else 1 if it occurs
      anywhere in the final response, else 0;
    * two format terms of 0.5, whose patterns never match a response of several lines (no DOTALL);
    * a tag count, whose last two terms lose 0.001 for every character after the closing tag, or for the whole response
      where the closing tag is not followed by a newline.
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
