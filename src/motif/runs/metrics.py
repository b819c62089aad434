"""The numbers of a step: what a line of metrics says of its trees."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from motif.config import Recipe
from motif.method.credit import CreditCounts
from motif.method.tree import Node, Tree


def step_metrics(trees: Sequence[Tree], counts: Sequence[CreditCounts], recipe: Recipe) -> dict[str, Any]:
    """What one step's trees look like: rewards, outcomes, groups, and lengths, form and truncation round by round.

    All trees count that were grown, also those that `rollout.refill` has dropped: without them the numbers would be of
    questions that were chosen by their outcomes.
    """
    deepest = max([recipe.rollout.longest, *(tree.question.rounds or 0 for tree in trees)])
    levels: list[list[Node]] = [[] for _ in range(deepest)]
    for tree in trees:
        for level, nodes in zip(levels, tree.rounds(), strict=False):
            level.extend(nodes)
    first = levels[0]
    levels = [[node for node in level if node.policy != "replayed"] for level in levels]  # what has been sampled
    nodes = [node for level in levels for node in level]
    rates = [root.mean_outcome() for root in first]
    means = [[root.mean_outcome() for root in tree.roots] for tree in trees]
    solved = [values for group in means if (values := [mean for mean in group if mean is not None])]
    before_last = [node for node in nodes if node.children or node.unused]
    notes = [node for node in before_last if node.children]
    groups, dead = sum(count.groups for count in counts), sum(count.dead_groups for count in counts)
    spreads = [
        statistics.stdev(r) for tree in trees if len(r := [x.reward for x in tree.roots if x.reward is not None]) > 1
    ]
    metrics: dict[str, Any] = {
        "reward": _mean([root.reward for root in first if root.reward is not None]),
        "reward_std": _mean(spreads),
        "frac_reward_zero_std": dead / groups if groups else None,
        "groups": groups,
        "dead_groups": dead,
        "completions/mean_length": _mean([len(node.token_ids) for node in nodes]),
        "completions/clipped_ratio": _mean([node.truncated for node in nodes]),
        "outcome/mean": _mean(rates),
        "outcome/rate_counts": _rate_counts(first),
        "outcome/ungraded": sum(count.ungraded for count in counts),
        "outcome/ungraded_reason": _commonest(
            leaf.reason for tree in trees for leaf in tree.leaves() if leaf.verdict == "ungraded"
        ),
        "outcome/never": _mean([max(values) == 0 for values in solved]),
        "outcome/always": _mean([min(values) == 1 for values in solved]),
        "outcome/sometimes": _mean([max(values) > 0 and min(values) < 1 for values in solved]),
        "note/empty": _mean([not node.note for node in notes]),
        "note/mean_characters": _mean([len(node.note) for node in notes]),
        "note/early_answer": _mean([node.answer is not None for node in before_last]),
    }
    metrics |= _reward_parts([leaf for tree in trees for leaf in tree.leaves()])
    if recipe.rounds.may_finish or any(tree.question.rounds for tree in trees):
        metrics |= _depths([leaf for tree in trees for leaf in tree.leaves()])
    for index, level in enumerate(levels, start=1):
        metrics[f"length/round_{index}"] = _mean([len(node.token_ids) for node in level])
        metrics[f"truncated/round_{index}"] = _mean([node.truncated for node in level])
        metrics[f"format/rate_{index}"] = _mean([node.well_formed for node in level])
    return metrics


def refill_metrics(trees: Sequence[Tree], places: int) -> dict[str, int]:
    """How many questions of a step were tried, trained on, and dropped because all their groups were dead.

    `refill/short`: so many of the step's places were left without a live question.
    """
    dropped = sum(tree.dropped for tree in trees)
    kept = len(trees) - dropped
    return {"refill/tried": len(trees), "refill/kept": kept, "refill/dropped": dropped, "refill/short": places - kept}


def _reward_parts(leaves: Sequence[Node]) -> dict[str, float | None]:
    """Of rewards that are not only right or wrong: how many are in between, and of each part its mean and deviation."""
    graded = [leaf for leaf in leaves if leaf.outcome is not None]
    partial = sum(leaf.verdict == "partial" for leaf in graded)
    metrics: dict[str, float | None] = {"outcome/partial": partial / len(graded)} if partial else {}
    for name in dict.fromkeys(name for leaf in graded for name in leaf.parts):
        values = [leaf.parts[name] for leaf in graded if name in leaf.parts]
        metrics |= {f"rewards/{name}/mean": _mean(values), f"rewards/{name}/std": statistics.pstdev(values)}
    return metrics


def _depths(leaves: Sequence[Node]) -> dict[str, float | None]:
    """The mean number of rounds of a trajectory, and the share of trajectories that ended early."""
    count = sum(leaf.trajectories for leaf in leaves)
    rounds = sum(leaf.round * leaf.trajectories for leaf in leaves)
    early = sum(leaf.trajectories for leaf in leaves if leaf.unused)
    return {"rounds/mean": rounds / count, "rounds/early": early / count} if count else {}


def _rate_counts(first: Sequence[Node]) -> list[int]:
    """How many first-round responses had 0, 1, …, k right trajectories (those with an ungraded one are left out)."""
    counts: list[int] = []
    for root in first:
        verdicts = [leaf.verdict for leaf in root.leaves() for _ in range(leaf.trajectories)]
        if "ungraded" not in verdicts:
            counts += [0] * (len(verdicts) + 1 - len(counts))
            counts[verdicts.count("right")] += 1
    return counts


def _commonest(reasons: Iterable[str]) -> str | None:
    counted = Counter(reasons).most_common(1)
    return counted[0][0] if counted else None


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None
