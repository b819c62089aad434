"""The simulation's single-machine end: the local sampler on this machine, timed both ways.

    python studies/scaling/measure.py --json studies/scaling/measured.json    # a minute, one thread, quiet machine

The embedded model grows the trees of the demo recipe level by level and continuously, in turns; both give the same
trees. How long a decoding step of b rows takes is measured apart, on single rounds of different size, so that the
simulation is not fitted to what it is compared with. `tests/test_scaling_study.py` makes the comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lengths import compact, node
from simulate import Costs, sample

from motif.config import RolloutConfig, load_recipe
from motif.policy import Policy
from motif.rollout import grow
from motif.rounds import Rounds
from motif.sampling import Completion, Request, Usage
from motif.sampling.local import LocalSampler
from motif.tasks import load
from motif.tree import Question, Tree

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
        """See `motif.sampling.Sampler`."""
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

    def grow(self, growth: str, questions: int, repeat: int, shape: RolloutConfig) -> tuple[float, list[Tree]]:
        """Seconds, and the trees."""
        asked = self.questions[questions * (repeat + 1) :][:questions]
        start = time.perf_counter()
        trees = grow(asked, self.samplers[growth], self.rounds, shape, seed=repeat)  # type: ignore[arg-type]
        return time.perf_counter() - start, trees


def pace(bench: Bench, repeats: int) -> dict[str, float]:
    """Seconds of a decoding step, `fixed + per_row · rows`, by least squares over single rounds."""
    single = bench.shape.model_copy(update={"branching": [8]})
    steps, tokens, seconds = [], [], []
    for repeat in range(-1, repeats):
        for questions in SIZES:
            took, trees = bench.grow("continuous", questions, repeat, single)
            lengths = [len(root.token_ids) for tree in trees for root in tree.roots]
            if repeat >= 0:
                steps.append(max(lengths))
                tokens.append(sum(lengths))
                seconds.append(took)
    # Relative errors: a round of few rows counts as much as one of many.
    weights = 1 / np.array(seconds)
    table = np.stack([steps, tokens], axis=1) * weights[:, None]
    fixed, per_row = np.linalg.lstsq(table, np.ones(len(seconds)), rcond=None)[0]
    return {"fixed": float(fixed), "per_row": float(per_row)}


def measure(repeats: int) -> dict[str, Any]:
    """Seconds of both growths, in turns, with the trees that were grown and the pace of a step."""
    torch.set_num_threads(1)
    bench = Bench()
    load_before = os.getloadavg()[0]
    found = []
    for questions in QUESTIONS:
        for repeat in range(-1, repeats):
            took = {name: bench.grow(name, questions, repeat, bench.shape) for name in ("level", "continuous")}
            kept = {name: [_kept(tree) for tree in trees] for name, (_, trees) in took.items()}
            if kept["level"] != kept["continuous"]:
                raise SystemExit("the two growths gave different trees: near-ties of rounding; choose another seed")
            if repeat >= 0:
                seconds = {name: seconds for name, (seconds, _) in took.items()}
                found.append({"questions": questions, "seconds": seconds, "trees": kept["level"]})
    return {
        "pace": pace(bench, repeats),
        "max_rows": bench.shape.max_rows,
        "load_average": [load_before, os.getloadavg()[0]],
        "runs": found,
    }


def _kept(tree: Tree) -> list[Any]:
    return [compact(_plain(root)) for root in tree.roots]


def _plain(found: Any) -> dict[str, Any]:
    return {"tokens": len(found.token_ids), "children": [_plain(child) for child in found.children]}


def compare(measured: dict[str, Any]) -> list[dict[str, float]]:
    """Measured and simulated seconds, the median over repeats, for each number of questions."""
    fixed, per_row = measured["pace"]["fixed"], measured["pace"]["per_row"]
    costs = Costs([0.0, *(fixed + per_row * b for b in range(1, measured["max_rows"] + 1))], admit=0.25)
    rows = []
    for questions in sorted({run["questions"] for run in measured["runs"]}):
        runs = [run for run in measured["runs"] if run["questions"] == questions]
        row: dict[str, float] = {"questions": questions}
        for growth in ("level", "continuous"):
            row[f"measured {growth}"] = statistics.median(run["seconds"][growth] for run in runs)
            row[f"simulated {growth}"] = statistics.median(
                sample([[node(root) for root in tree] for tree in run["trees"]], 1, costs, growth)[0]  # type: ignore[arg-type]
                for run in runs
            )
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
