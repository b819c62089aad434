"""The simulation's single-machine end: the local sampler on this machine, timed both ways.

    python studies/scaling/measure.py --json studies/scaling/measured.json    # a minute, one thread

The embedded model grows the trees of the demo recipe level by level and continuously, in turns; both give the same
trees. Seconds are those of the processor: with one thread and nothing else to wait for they are the clock's, and a busy
neighbour disturbs them less. How long a decoding step of b rows takes is measured apart, on single rounds of different
size, so that the simulation is not fitted to what it is compared with. Responses that have said the same so far are one
row of the local sampler, which the simulation does not know: it is told how many rows a token there were.
`tests/docs/test_scaling_study.py` makes the comparison.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lengths import all_lengths, compact, node
from simulate import GROWTHS, Costs, Growth, sample

from motif.config import RolloutConfig, load_recipe
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request, Usage
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.tasks import load

QUESTIONS = (1, 8, 32)
SIZES = (1, 2, 4, 8, 16, 32)
"""Questions with 8 responses each, in the single rounds that tell how long a step of b rows takes."""


class LevelByLevel:
    """A sampler that starts no request before all earlier ones have ended."""

    def __init__(self, inner: LocalSampler) -> None:
        self.inner = inner

    @property
    def usage(self) -> Usage:
        """The inner sampler's."""
        return self.inner.usage

    def run(self, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]) -> None:
        """See `motif.sampling.base.Sampler`."""
        level = list(requests)
        while level:
            later: list[Request] = []
            self.inner.run(level, lambda done, later=later: later.extend(then(done)) or [])  # type: ignore[misc]
            level = later


class Bench:
    """The embedded model, ready to grow."""

    def __init__(self) -> None:
        recipe = load_recipe("demo")
        self.policy = Policy(recipe.model)
        self.rounds = Rounds(recipe.rounds, self.policy.tokenizer)
        self.shape = recipe.rollout
        self.questions: list[Question] = load(recipe.data).train
        local = LocalSampler(self.policy, self.shape.max_rows)
        self.samplers = {"level": LevelByLevel(local), "continuous": local}

    def grow(self, growth: str, questions: int, repeat: int, shape: RolloutConfig) -> tuple[float, int, list[Tree]]:
        """Seconds of the processor, rows decoded in all steps together, and the trees."""
        asked = self.questions[questions * (repeat + 1) :][:questions]
        usage = self.samplers[growth].usage
        start, rows = time.process_time(), usage.decoded_rows
        trees = grow(asked, self.samplers[growth], self.rounds, shape, seed=repeat)  # type: ignore[arg-type]
        return time.process_time() - start, usage.decoded_rows - rows, trees


def pace(singles: Sequence[tuple[int, int, int, float]]) -> dict[str, float]:
    """Seconds of a decoding step, `fixed + per_row · rows`, and of a response, by least squares over single rounds.

    Args:
        singles: steps (the longest response), decoded rows, responses and seconds of each.
    """
    *work, seconds = np.array(singles).T
    # Relative errors: a round of few rows counts as much as one of many.
    found = np.linalg.lstsq(np.stack(work, axis=1) / seconds[:, None], np.ones(len(seconds)))[0]
    return dict(zip(("fixed", "per_row", "response"), found.tolist(), strict=True))


def measure(repeats: int) -> dict[str, Any]:
    """Seconds of both growths, with the trees that were grown and the pace of a step, all in turns."""
    torch.set_num_threads(1)
    bench = Bench()
    shapes = [bench.shape.model_copy(update={"branching": [8], "tokens_first": tokens}) for tokens in (1, 24)]
    load_before = os.getloadavg()[0]
    singles, runs = [], []
    for repeat in range(-1, repeats):
        for questions, shape in itertools.product(SIZES, shapes):
            took, rows, trees = bench.grow("continuous", questions, repeat, shape)
            # The first token comes with the prompt.
            steps = max(len(root.token_ids) for tree in trees for root in tree.roots) - 1
            singles.append((steps, rows, 8 * questions, took))
        for questions in QUESTIONS:
            found = {name: bench.grow(name, questions, repeat, bench.shape) for name in bench.samplers}
            level, continuous = ([_kept(tree) for tree in trees] for _, _, trees in found.values())
            if level != continuous:
                raise SystemExit("the two growths gave different trees: near-ties of rounding; choose another seed")
            tokens = sum(sum(lengths) for lengths in all_lengths([[node(root) for root in tree] for tree in level]))
            runs.append(
                {
                    "questions": questions,
                    "seconds": {name: took for name, (took, _, _) in found.items()},
                    "rows_per_token": {name: rows / tokens for name, (_, rows, _) in found.items()},
                    "trees": level,
                }
            )
    warm = len(SIZES) * len(shapes), len(QUESTIONS)  # the first turn of each warms up
    return {
        "pace": pace(singles[warm[0] :]),
        "max_rows": bench.shape.max_rows,
        "load_average": [load_before, os.getloadavg()[0]],
        "runs": runs[warm[1] :],
    }


def _kept(tree: Tree) -> list[Any]:
    return [compact(_plain(root)) for root in tree.roots]


def _plain(found: Any) -> dict[str, Any]:
    return {"tokens": len(found.token_ids), "children": [_plain(child) for child in found.children]}


def simulated(run: dict[str, Any], measured: dict[str, Any], growth: Growth) -> float:
    """Seconds that the simulation gives for a measured run."""
    fixed, per_row = measured["pace"]["fixed"], measured["pace"]["per_row"] * run["rows_per_token"][growth]
    pace = [0.0, *(fixed + per_row * rows for rows in range(1, measured["max_rows"] + 1))]
    costs = Costs(pace, response=measured["pace"]["response"], admit=0.25)
    return sample([[node(root) for root in tree] for tree in run["trees"]], 1, costs, growth)[0]


def compare(measured: dict[str, Any]) -> list[dict[str, float]]:
    """Measured and simulated seconds, the median over repeats, for each number of questions."""
    rows = []
    for questions in sorted({run["questions"] for run in measured["runs"]}):
        runs = [run for run in measured["runs"] if run["questions"] == questions]
        row: dict[str, float] = {"questions": questions}
        for growth in GROWTHS:
            row[f"measured {growth}"] = statistics.median(run["seconds"][growth] for run in runs)
            row[f"simulated {growth}"] = statistics.median(simulated(run, measured, growth) for run in runs)
        for what in ("measured", "simulated"):
            row[f"{what} ratio"] = row[f"{what} level"] / row[f"{what} continuous"]
        rows.append(row)
    return rows


def main() -> None:
    """See the top of this file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="write what was measured to this file")
    options.add_argument("--repeats", type=int, default=7)
    chosen = options.parse_args()
    found = measure(chosen.repeats)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    print("load average before and after:", found["load_average"])
    for row in compare(found):
        print(", ".join(f"{name} {value:.3g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
