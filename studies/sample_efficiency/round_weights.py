"""Should rounds weigh the same, or responses? Two arms of `recommended` on paired pilot seeds.

    python studies/sample_efficiency/round_weights.py [--seeds 101 102 103 104]

The arm `responses` is what the package does: with [4, 2, 1] rounds 2 and 3 have 8 responses each and weigh twice as
much as round 1, which has 4. In the arm `rounds` each round has a third of the weight, as in the gradient of the
success after three rounds. The sum of all weights is equal, so learning rates are comparable. Results are appended to
`pilots/round_weights.jsonl`, a line per run; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from motif.config import Recipe
from motif.config.load import flat
from motif.display import Display
from motif.method.tree import Tree
from motif.statistics.paired import mean_interval
from motif.training import loop
from motif.training.batch import Sample, collect

HERE = Path(__file__).parent
RESULTS = HERE / "pilots" / "round_weights.jsonl"
ARMS = ("responses", "rounds")


def rounds_alike(trees: Sequence[Tree], recipe: Recipe) -> list[Sample]:
    """The samples of a batch, reweighted so that the responses of each round have the same weight together."""
    trained = [node.round for tree in trees for node in tree.walk() if node.advantage is not None]
    counts = Counter(trained)
    factors = {number: len(trained) / len(counts) / count for number, count in counts.items()}
    samples = collect(trees, recipe)
    # A name ends with the node's path, which has a number for each round.
    return [
        replace(sample, weight=sample.weight * factors[1 + sample.name.rpartition("/")[2].count(".")])
        for sample in samples
    ]


def run(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one arm with one seed."""
    study = tomllib.loads((HERE / "study.toml").read_text())
    settings = dict(flat(study["set"])) | dict(flat(study["arms"]["recommended"]["set"]))
    settings |= {"train.seed": seed, "train.steps": steps, "train.save_every": 1000, "eval.matched": False}
    loop.collect = rounds_alike if arm == "rounds" else collect  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        pairs = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        loop.train(str(HERE / "base.toml"), out, settings=pairs, display=Display(quiet=True))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    curve = {line["step"]: line["eval"]["rounds_3"]["accuracy"] for line in lines if "eval" in line}
    return {"arm": arm, "seed": seed, "steps": steps, "curve": curve}


def done() -> list[dict[str, Any]]:
    """The runs that are written down."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(steps: int) -> None:
    """Print final accuracies at three rounds, their paired difference, and the means of the curves."""
    runs = {(one["arm"], one["seed"]): one["curve"] for one in done() if one["steps"] == steps}
    seeds = [seed for arm, seed in runs if arm == ARMS[0] and (ARMS[1], seed) in runs]
    print("| seed | responses alike | rounds alike |\n|---|---|---|")
    last = {key: 100 * list(curve.values())[-1] for key, curve in runs.items()}
    for seed in seeds:
        print(f"| {seed} | {last[ARMS[0], seed]:.1f} | {last[ARMS[1], seed]:.1f} |")
    for name, value in (
        ("final", lambda curve: list(curve.values())[-1]),
        ("curve", lambda curve: mean(curve.values())),
    ):
        differences = [100 * (value(runs[ARMS[1], seed]) - value(runs[ARMS[0], seed])) for seed in seeds]
        print(f"{name}: rounds alike minus responses alike, points: {mean_interval(differences)}")


def main() -> None:
    """Run what is missing, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104])
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for arm in ARMS:
            if not any((one["arm"], one["seed"], one["steps"]) == (arm, seed, arguments.steps) for one in done()):
                result = run(arm, seed, arguments.steps)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)
    table(arguments.steps)


if __name__ == "__main__":
    main()
