"""How long responses are, round by round, and how many questions are dead: the worst, or what a run measured."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motif.errors import RunFolderError
from motif.run_files import TREES
from motif.runs.read import read_trees


@dataclass(frozen=True)
class Lengths:
    """Tokens of responses by round, and the tokens that carried notes add to the prompt of each round.

    Empty: every response and every note uses up its limit, which is an upper bound. dead: the share of questions whose
    groups were all dead; None: not measured. reach: the share of trajectories that come to each round, where some end
    early (`rounds.may_finish`).
    """

    source: str = "every response uses up its tokens (an upper bound; --lengths RUN uses those of an earlier run)"
    responses: tuple[np.ndarray, ...] = ()
    carried: tuple[float, ...] = ()
    dead: float | None = None
    reach: tuple[float, ...] = ()

    def reaching(self, round_: int) -> float:
        """The share of trajectories that come to a round (from 1); all, where nothing was measured."""
        return self.reach[min(round_, len(self.reach)) - 1] if self.reach else 1.0

    def of(self, round_: int, limit: int) -> np.ndarray:
        """Lengths in a round (from 1), none above `limit`; later rounds are like the last one that was measured."""
        if not self.responses:
            return np.array([limit])
        return np.minimum(self.responses[min(round_, len(self.responses)) - 1], limit)

    def note(self, round_: int, most: float) -> float:
        """Tokens that notes add to the prompt of a round (from 1), at most `most`."""
        if round_ == 1 or len(self.carried) < 2:
            return 0.0 if round_ == 1 else most
        return min(most, self.carried[min(round_, len(self.carried)) - 1])

    def __str__(self) -> str:
        if not self.responses:
            return self.source
        means = ", ".join(f"{lengths.mean():,.0f}" for lengths in self.responses)
        return f"as in {self.source}: {means} tokens on average in rounds 1, 2, …; other models and tasks will differ"


def measured(run: str | Path) -> Lengths:
    """The lengths of all responses in the trees of a run.

    Raises:
        RunFolderError: it holds no trees.
    """
    lengths = lengths_of(read_trees(Path(run)), str(run))
    if not lengths.responses:
        raise RunFolderError(f"--lengths: {run} holds no trees: give a run folder with {TREES}")
    return lengths


def lengths_of(trees: Iterable[dict[str, Any]], source: str) -> Lengths:
    """The lengths of all responses in the records of trees (`Tree.to_dict`); empty if there is none."""
    responses: list[list[int]] = []
    prompts: list[list[int]] = []
    dead: list[bool] = []
    early: list[int] = []
    for tree in trees:
        dead.append(not any(node.get("advantage") for _, node in _nodes(tree["responses"])))
        for depth, node in _nodes(tree["responses"]):
            if depth == len(responses):
                responses.append([])
                prompts.append([])
                early.append(0)
            responses[depth].append(node["tokens"])
            prompts[depth].append(node["prompt_tokens"])
            early[depth] += bool(node.get("unused"))
    if not responses:
        return Lengths()
    base = float(np.mean(prompts[0]))
    return Lengths(
        source=source,
        responses=tuple(np.array(level) for level in responses),
        carried=tuple(max(0.0, float(np.mean(level)) - base) for level in prompts),
        dead=float(np.mean(dead)),
        reach=_reach([ended / len(level) for ended, level in zip(early, responses, strict=True)]),
    )


def _reach(early: list[float]) -> tuple[float, ...]:
    """The share of trajectories that come to each round, from the share of a round's responses that end it early."""
    return tuple(itertools.accumulate((1 - share for share in early[:-1]), operator.mul, initial=1.0))


def _nodes(nodes: list[dict[str, Any]], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    for node in nodes:
        yield depth, node
        yield from _nodes(node.get("children", []), depth + 1)
