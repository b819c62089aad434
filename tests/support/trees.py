"""Trees made by hand."""

from __future__ import annotations

from typing import Any

from motif.method.tree import Node, Question, Tree, Verdict


def make_node(
    path: tuple[int, ...],
    children: list[Node] | None = None,
    verdict: Verdict | None = None,
    well_formed: bool = True,
    text: str = "",
    prompt_ids: list[int] | None = None,
    token_ids: list[int] | None = None,
    logprobs: list[float] | None = None,
) -> Node:
    token_ids = token_ids or [7, 8, 1]
    return Node(
        path=path,
        prompt_ids=prompt_ids or [3, 10, 4],
        token_ids=token_ids,
        logprobs=logprobs or [-1.0] * len(token_ids),
        text=text,
        truncated=False,
        well_formed=well_formed,
        verdict=verdict,
        children=children or [],
    )


def make_tree(outcomes: list[Any], well_formed: bool = True, gold: str = "360") -> Tree:
    """A tree from nested lists of outcomes: `[[1, 0], [1, 1]]` is two responses with two trajectories each.

    An outcome is 1 (right), 0 (wrong), in between, or None (ungraded); a list stands for a node with these children. A
    pair of an outcome and the branching of the rounds that are left is a leaf that ended early.
    """
    verdicts: dict[Any, Verdict] = {1: "right", 0: "wrong", None: "ungraded"}

    def grow(path: tuple[int, ...], outcome: Any) -> Node:
        if isinstance(outcome, list):
            children = [grow((*path, index), below) for index, below in enumerate(outcome)]
            return make_node(path, children, well_formed=well_formed)
        outcome, unused = outcome if isinstance(outcome, tuple) else (outcome, ())
        node = make_node(path, verdict=verdicts.get(outcome, "partial"), well_formed=well_formed)
        node.score = None if outcome in verdicts else outcome
        node.unused = tuple(unused)
        return node

    roots = [grow((index,), outcome) for index, outcome in enumerate(outcomes)]
    return Tree(Question("q", "What is 15 × 24?", gold), step=0, roots=roots)
