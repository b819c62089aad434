"""Lengths that begin short and grow (`data.curriculum`): when the next one joins.

How much is right of the longest questions in use decides, so the lengths are a part of the run's state: a run that is
resumed draws the same questions. Evaluations are of all lengths.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from motif.config import DataConfig
from motif.method.tree import Tree
from motif.text import counted, whole_percent


@dataclass
class Curriculum:
    """Where it stands, as plain data.

    stage: how many lengths have been passed. shares: of the answers to each of the latest questions of the longest
    length in use, how many were right. joined: the lengths in use, each with the step after which it joined. ahead:
    the stage of the questions that are being sampled ahead.
    """

    stage: int = 0
    shares: list[float] = field(default_factory=list)
    joined: list[list[int]] = field(default_factory=list)
    ahead: int = 0

    def add(
        self, trees: Sequence[Tree], lengths: Sequence[int], data: DataConfig, step: int
    ) -> tuple[dict[str, Any], str]:
        """Count the graded trees of a step; what its line of metrics says, and a message where a length is passed."""
        if not lengths:
            return {}, ""
        self.joined = self.joined or [[lengths[0], 0]]
        numbers: dict[str, Any] = {
            "curriculum/length": max(tree.question.length for tree in trees),
            "curriculum/right": None,
        }
        if self.stage == len(lengths):
            return numbers, ""
        longest = lengths[self.stage]
        self.shares += [share for tree in trees if (share := _right(tree, longest)) is not None]
        self.shares = self.shares[-data.curriculum_questions :]
        numbers["curriculum/right"] = right = statistics.fmean(self.shares) if self.shares else None
        if right is None or len(self.shares) < data.curriculum_questions or right < data.curriculum:
            return numbers, ""
        self.stage, seen = self.stage + 1, counted(len(self.shares), "question")
        self.shares = []
        passed = f"curriculum: {whole_percent(right)} right in the last {seen} of length {longest}"
        if self.stage == len(lengths):
            return numbers, f"{passed}, the longest: from now on all lengths come as they lie in the data"
        self.joined.append([lengths[self.stage], step])
        return numbers, f"{passed}: length {lengths[self.stage]} joins"

    def summary(self, lengths: Sequence[int]) -> dict[str, Any]:
        """What the summary says of it; nothing without a curriculum."""
        if not lengths:
            return {}
        return {"curriculum": {"lengths": list(lengths), "passed": self.stage, "joined": self.joined}}

    def unreached(self, lengths: Sequence[int], data: DataConfig) -> str:
        """A sentence on lengths that training has not come to; empty: there are none."""
        if self.stage >= len(lengths) - 1:
            return ""
        return (
            f"the curriculum has come to length {lengths[self.stage]} of {lengths[-1]}: longer questions were not "
            f"trained on. More train.steps or a lower data.curriculum ({data.curriculum:g}) would reach them"
        )


def _right(tree: Tree, length: int) -> float | None:
    """The share of right answers to a question of this length; None: it has another, or none was graded."""
    if tree.question.length != length:
        return None
    outcomes = [mean for root in tree.roots if (mean := root.mean_outcome()) is not None]
    return statistics.fmean(outcomes) if outcomes else None
