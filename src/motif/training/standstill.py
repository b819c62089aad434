"""Why a run makes no update: what the responses of its dead steps have in common, and what to try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from motif.config import Recipe
from motif.evaluation.accuracy import Accuracy
from motif.method.tree import Tree
from motif.text import counted, percent

SAID_AFTER = 3
"""Dead steps in a row after which the terminal says why."""
MOST, FEW = 0.9, 0.1
"""Shares from which on nearly all responses, or hardly any, are alike."""


@dataclass
class Standstill:
    """Counts over the steps in a row that made no update because every group was dead; an update begins another."""

    steps: int = 0
    responses: int = 0
    well_formed: int = 0
    cut_off: int = 0
    finals: int = 0
    answered: int = 0
    right: int = 0
    ungraded: int = 0
    reason: str = ""

    def add(self, trees: Sequence[Tree]) -> None:
        """Count the trees of a dead step."""
        nodes = [node for tree in trees for node in tree.walk()]
        leaves = [leaf for tree in trees for leaf in tree.leaves()]
        self.steps += 1
        self.responses += len(nodes)
        self.well_formed += sum(node.well_formed for node in nodes)
        self.cut_off += sum(node.truncated for node in nodes)
        self.finals += len(leaves)
        self.answered += sum(leaf.answer is not None for leaf in leaves)
        self.right += sum(leaf.verdict == "right" for leaf in leaves)
        reasons = Counter(leaf.reason for leaf in leaves if leaf.verdict == "ungraded")
        self.ungraded += reasons.total()
        self.reason = reasons.most_common(1)[0][0] if reasons else self.reason

    def too_long(self, limit: int) -> bool:
        """Whether the run has to stop: after every `limit` dead steps in a row, so that it can be resumed."""
        return limit > 0 and self.steps > 0 and self.steps % limit == 0

    def explain(self, recipe: Recipe) -> str:
        """What is wrong, and two lines for the recipe that may help."""
        cause, lines = self._cause(recipe)
        return (
            f"no update in {counted(self.steps, 'step')}: in every group all rewards are equal, because {cause}. Try, "
            "in a new run:\n" + "\n".join(f"    {line}" for line in lines)
        )

    def summary(self, recipe: Recipe) -> dict[str, Any]:
        """The counts, and the explanation."""
        return asdict(self) | {"text": self.explain(recipe)}

    def _cause(self, recipe: Recipe) -> tuple[str, tuple[str, str]]:
        def share(count: int, total: int) -> float:
            return count / total if total else 0.0

        def shown(count: int, total: int) -> str:
            return percent(share(count, total), decimals=0)

        rollout = recipe.rollout
        warm, wider = _warm(recipe), f"branching = {_wider(rollout.branching)}"
        if share(self.ungraded, self.finals) > MOST:
            cause = f"{shown(self.ungraded, self.finals)} of final responses could not be graded ({self.reason})"
            return cause, ("[data]", 'grader = "…"  # one that can read these answers (docs/tasks.md)')
        if share(self.cut_off, self.responses) > MOST:
            longer = 2 * max(rollout.tokens_first, rollout.tokens_continue)
            cause = f"{shown(self.cut_off, self.responses)} of responses are cut off by the token limit"
            return cause, ("[rollout]", f"tokens_first = {longer}  # and tokens_continue = {longer}")
        if share(self.well_formed, self.responses) < FEW:
            return f"only {shown(self.well_formed, self.responses)} of responses keep to the form", warm
        if share(self.answered, self.finals) < FEW:
            marks = " and ".join(recipe.rounds.answer_marks)
            return f"only {shown(self.answered, self.finals)} of final responses have an answer between {marks}", warm
        if self.right == 0:
            return f"all {self.finals:,} final responses are wrong", ("[rollout]", wider + "  # or easier questions")
        if self.right + self.ungraded == self.finals:
            return f"all {self.right:,} graded answers are right", ("[data]", 'train = "…"  # harder questions')
        return "each question is always solved or never", ("[rollout]", wider)


def without_form(accuracies: Mapping[str, Accuracy], recipe: Recipe) -> str | None:
    """A warning before training, if hardly any evaluated answer keeps to the form at the training number of rounds."""
    row = accuracies.get(recipe.main_row)
    if row is None or recipe.warmstart.source or row.well_formed >= FEW:
        return None
    return (
        f"warning: {percent(row.well_formed, decimals=0)} of the evaluated answers keep to the form. If sampled "
        "responses do no better, nothing can be learnt from them. A warm start teaches the form first. Try, in a new "
        "run:\n" + "\n".join(f"    {line}" for line in _warm(recipe))
    )


def _warm(recipe: Recipe) -> tuple[str, str]:
    source = "solutions" if recipe.data.task in ("gsm8k", "math") else "self"
    return "[warmstart]", f'source = "{source}"'


def _wider(branching: Sequence[int]) -> list[int]:
    return [2 * branching[0], *branching[1:]]
