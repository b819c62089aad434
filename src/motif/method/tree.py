"""The round tree: the one data structure that everything else grows, grades, credits or trains on.

It is plain data without torch. A node is one generated response in one round; its children are the responses of the
next round to its note. `path` names a node inside its tree: (2,) is the third first-round response, (2, 0, 0) a final
response of the first trajectory of that response.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["right", "wrong", "partial", "ungraded"]
"""What a grader says of an answer. `partial`: it is worth something in between, its `score`."""

WORTH: Mapping[str | None, float] = {"right": 1.0, "wrong": 0.0}


def outcome_of(verdict: str | None, score: float | None) -> float | None:
    """What an answer is worth, from 0 (wrong) to 1 (right); None: it has no verdict, or is ungraded."""
    return score if verdict == "partial" else WORTH.get(verdict)


@dataclass(frozen=True)
class Question:
    """One row of a task: a question, and the gold answer that responses are graded against.

    `line` is the 1-based line in the source file, where there is one, so that a bad row can be found. `rounds` is the
    number of rounds that this question is answered in; None: as many as are asked for. `pieces` is what the question is
    about, read in as many rounds: round t shows the question and piece t (`Rounds.asked`). `columns` are those of its
    row, for a reward of the user's own. `steps` is what its task counts its length in, such as events; 0: it does not.
    """

    id: str
    text: str
    gold: str
    line: int | None = None
    rounds: int | None = None
    pieces: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    steps: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.pieces:
            object.__setattr__(self, "rounds", len(self.pieces))

    @property
    def length(self) -> int:
        """How long it is: its number of pieces, or else of steps; 0: nobody has counted."""
        return len(self.pieces) or self.steps

    @property
    def whole(self) -> str:
        """All of it: what is asked, and what it is about."""
        return "\n".join([self.text, *self.pieces])


@dataclass
class Node:
    """One response: its prompt, what the model wrote, how that was read, and what became of it."""

    path: tuple[int, ...]
    prompt_ids: list[int] = field(repr=False)
    token_ids: list[int] = field(repr=False)  # as sampled, never re-tokenised; the end token is in if one was sampled
    logprobs: list[float] = field(repr=False)  # one per token, at the sampling temperature
    text: str
    truncated: bool
    note: str = ""  # shown to the next round
    answer: str | None = None  # shown to a grader
    well_formed: bool = False
    policy: Literal["current", "base", "replayed"] = (
        "current"  # replayed: only its note was taken, from an earlier tree
    )
    version: int | None = None  # steps that the weights were trained for, if the sampler has a copy
    verdict: Verdict | None = None  # leaves only
    reason: str = ""
    score: float | None = None  # of a leaf whose verdict is partial
    parts: Mapping[str, float] = field(default_factory=dict)  # of a leaf's reward, by name, where it has parts
    children: list[Node] = field(default_factory=list, repr=False)
    unused: tuple[
        int, ...
    ] = ()  # the branching of the rounds that this leaf left out, because it gave the answer early
    value: float | None = None  # mean outcome of the graded leaves below; None if there are none
    reward: float | None = None
    advantage: float | None = None  # None: not trained

    @property
    def round(self) -> int:
        """The round this response belongs to, counted from 1."""
        return len(self.path)

    @property
    def trajectories(self) -> int:
        """How many trajectories a leaf ends: one, or as many as would have gone on from it."""
        return math.prod(self.unused)

    @property
    def outcome(self) -> float | None:
        """What a final response is worth, from 0 to 1; None: it is not graded."""
        return outcome_of(self.verdict, self.score)

    def walk(self) -> Iterator[Node]:
        """This node and all nodes below it, parents before children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> Iterator[Node]:
        """The final responses below this node, or the node itself if it has no children."""
        return (node for node in self.walk() if not node.children)

    def mean_outcome(self) -> float | None:
        """The mean outcome of the graded trajectories below; None if none is graded.

        A leaf that ended early counts as the trajectories that it left out: they would all have its outcome.
        """
        return self.mean(lambda leaf, outcome: outcome)

    def mean(self, of: Callable[[Node, float], float]) -> float | None:
        """The mean of a number of a leaf and its outcome over the graded trajectories below; None if none is graded."""
        graded = [(leaf, outcome) for leaf in self.leaves() if (outcome := leaf.outcome) is not None]
        total = sum(leaf.trajectories for leaf, _ in graded)
        return math.fsum(of(leaf, outcome) * leaf.trajectories for leaf, outcome in graded) / total if total else None


@dataclass
class Tree:
    """A question and the responses grown from it; the roots are the first-round responses."""

    question: Question
    step: int
    roots: list[Node] = field(default_factory=list)
    dropped: bool = False  # grown and recorded, but replaced by another question's or left out of the update

    def walk(self) -> Iterator[Node]:
        """All nodes, parents before children, in path order."""
        for root in self.roots:
            yield from root.walk()

    def leaves(self) -> Iterator[Node]:
        """All final responses, in path order."""
        for root in self.roots:
            yield from root.leaves()

    def trajectory(self, leaf: Node) -> list[Node]:
        """The responses of all rounds that lead to a leaf, and the leaf itself."""
        nodes, chain = self.roots, list[Node]()
        for depth in range(1, leaf.round + 1):
            chain.append(next(node for node in nodes if node.path == leaf.path[:depth]))
            nodes = chain[-1].children
        return chain

    def rounds(self) -> list[list[Node]]:
        """The nodes of each round: `rounds()[0]` are the first-round responses."""
        levels: list[list[Node]] = []
        for node in self.walk():
            while len(levels) < node.round:
                levels.append([])
            levels[node.round - 1].append(node)
        return levels

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy with texts and numbers, but without token ids and log-probabilities."""
        question: dict[str, Any] = {"id": self.question.id, "text": self.question.text, "gold": self.question.gold}
        if self.question.rounds is not None:
            question["rounds"] = self.question.rounds
        if self.question.pieces:
            question["pieces"] = list(self.question.pieces)
        record = {
            "step": self.step,
            "question": question,
            "responses": [_node_dict(root) for root in self.roots],
        }
        return record | ({"dropped": True} if self.dropped else {})


def _node_dict(node: Node) -> dict[str, Any]:
    record: dict[str, Any] = {
        "path": list(node.path),
        "text": node.text,
        "tokens": len(node.token_ids),
        "prompt_tokens": len(node.prompt_ids),
        "truncated": node.truncated,
        "well_formed": node.well_formed,
        "note": node.note,
        "answer": node.answer,
        "value": node.value,
        "reward": node.reward,
        "advantage": node.advantage,
    }
    if node.policy != "current":
        record["policy"] = node.policy
    if node.version is not None:
        record["version"] = node.version
    if node.verdict is not None:
        record |= {"verdict": node.verdict, "reason": node.reason}
    if node.score is not None:
        record["score"] = node.score
    if node.parts:
        record["parts"] = dict(node.parts)
    if node.unused:
        record["unused"] = list(node.unused)
    if node.children:
        record["children"] = [_node_dict(child) for child in node.children]
    return record
