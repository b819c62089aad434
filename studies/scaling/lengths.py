"""Response lengths to simulate with: whole trees as a run grew them, or drawn from a made-up distribution.

python studies/scaling/lengths.py RUN --steps 10 > studies/scaling/lengths_demo.json     # from RUN/trees.jsonl

A file holds one tree a line: a list of responses, each `[tokens, child, child, ...]`, or a bare number if it is final.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simulate import Node

Draw = Callable[[random.Random], list[Node]]
"""Draws a tree: its first-round responses."""


def compact(record: dict[str, Any]) -> Any:
    """A node of trees.jsonl as it is kept here."""
    children = [compact(child) for child in record.get("children", [])]
    return [record["tokens"], *children] if children else record["tokens"]


def node(kept: Any, scale: int = 1) -> Node:
    """The inverse of `compact`, with lengths multiplied."""
    if isinstance(kept, int):
        return kept * scale, []
    return kept[0] * scale, [node(child, scale) for child in kept[1:]]


def measured(file: Path, scale: int = 1) -> Draw:
    """Whole trees of a file, drawn with replacement, so that what belongs together stays together."""
    trees = [[node(root, scale) for root in json.loads(line)] for line in file.read_text(encoding="utf-8").splitlines()]
    return lambda dice: dice.choice(trees)


def long_tailed(
    median: float = 300, sigma: float = 0.8, limit: int = 4096, branching: tuple[int, ...] = (8, 4, 1)
) -> Draw:
    """Made up: every length log-normal, independent of all others, cut at a limit. The mean is about 410 tokens."""

    def grow(dice: random.Random, depth: int) -> list[Node]:
        if depth == len(branching):
            return []
        return [
            (min(limit, max(1, round(dice.lognormvariate(math.log(median), sigma)))), grow(dice, depth + 1))
            for _ in range(branching[depth])
        ]

    return lambda dice: grow(dice, 0)


def all_lengths(trees: list[list[Node]]) -> list[list[int]]:
    """Lengths by round."""
    levels: list[list[int]] = []

    def walk(nodes: list[Node], depth: int) -> None:
        for length, children in nodes:
            if depth == len(levels):
                levels.append([])
            levels[depth].append(length)
            walk(children, depth + 1)

    for tree in trees:
        walk(tree, 0)
    return levels


def _lines(run: Path, steps: int) -> Iterator[str]:
    with (run / "trees.jsonl").open(encoding="utf-8") as file:
        for line in file:
            tree = json.loads(line)
            if tree["step"] <= steps:
                yield json.dumps([compact(root) for root in tree["responses"]], separators=(",", ":"))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("--steps", type=int, default=10, help="trees of the first so many steps")
    chosen = options.parse_args()
    print("\n".join(_lines(chosen.run, chosen.steps)))
