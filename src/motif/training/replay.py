"""Notes replayed: later rounds are trained from notes that the run has written to the same question before.

After Reasoning Cache (arXiv 2602.03773; only its abstract and summaries of it were at hand): a round is rewarded for
the answer that it gives itself, from a note out of a buffer, and not for what later rounds make of it. Here the rounds
that only write notes are the stem of a tree, [1, …, 1, m]; they have nobody to be compared with and are not trained.
What is replayed of a stem is a given response with nothing but a note, so a later round costs what a first one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from motif.config import Recipe, RolloutConfig
from motif.method.keys import sampling_key
from motif.method.tree import Node, Question, Tree

KEPT = 8
"""Stems kept of a question: the newest."""


@dataclass
class Replay:
    """The notes of the stems that a run has grown, by question (a key of its text), round by round, as plain data."""

    stems: dict[int, list[list[str]]] = field(default_factory=dict)

    def begin(self, question: Question, step: int, recipe: Recipe) -> Tree:
        """A tree to be grown, perhaps with notes of an earlier one, as far as they go: never its last round.

        It depends on the seed, the step, the question and what is kept of it alone.
        """
        tree, known = Tree(question, step), self.stems.get(sampling_key(question.whole), [])
        chance = sampling_key(recipe.train.seed, step, question.id, "replay") / 2**64
        if not known or chance >= recipe.rollout.replay:
            return tree
        chosen = known[sampling_key(recipe.train.seed, step, question.id, "stem") % len(known)]
        notes = chosen[: (question.rounds or recipe.rollout.rounds) - 1]
        for depth in range(len(notes), 0, -1):
            above = Node((0,) * depth, [], [], [], "", False, note=notes[depth - 1], policy="replayed")
            above.children, tree.roots = tree.roots, [above]
        return tree

    def add(self, trees: Sequence[Tree], rollout: RolloutConfig) -> dict[str, float]:
        """Keep the notes of these stems; what a step's line of metrics says of it."""
        if not rollout.replay:
            return {}
        for tree in trees:
            notes, nodes = list[str](), tree.roots
            while len(nodes) == 1 and nodes[0].children:
                notes.append(nodes[0].note)
                nodes = nodes[0].children
            known = self.stems.setdefault(sampling_key(tree.question.whole), [])
            if notes and not any(stem[: len(notes)] == notes for stem in known):
                others = [stem for stem in known if stem != notes[: len(stem)]]
                known[:] = [*others[1 - KEPT :], notes]
        replayed = [sum(node.policy == "replayed" for node in tree.walk()) for tree in trees]
        return {"replay/notes": sum(replayed), "replay/questions": sum(map(bool, replayed)) / max(1, len(trees))}
