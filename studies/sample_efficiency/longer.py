"""Train short, run long: test the runs of longer.toml on chains of 10 to 30 steps, and compare arms at each length.

    python studies/sample_efficiency/longer.py RUNS > studies/sample_efficiency/results/longer.jsonl

RUNS is the output folder of `motif compare studies/sample_efficiency/longer.toml`. An arm of one window gets a window
for all steps, an arm of rounds as many windows of 29 tokens as they take, and one more. What has been tested is left
alone, so it can be started again. Fixed before the runs: lengths, questions, and the comparisons in PAIRS (first less
second, by seed and question).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from motif.statistics.paired import crossed_interval

LENGTHS = (10, 15, 20, 25, 30)
QUESTIONS = 200
PAIRS = (("recommended", "long-8"), ("varied", "long-8"), ("multi-24", "long-24"), ("varied", "recommended"))
STEP_TOKENS, FORM_TOKENS, FIT = 6, 14, 3
"""Tokens of a step, of the tags with a boxed answer, and the steps that a window of 29 tokens holds."""
SPARE = 1
"""Rounds beyond those that whole windows take: a round may do less than it could."""


def row_of(arm: str, steps: int) -> tuple[str, list[str]]:
    """The evaluation row of an arm at a length, and what it is tested with."""
    settings = ["--set", f"data.chain.shortest={steps}", "--set", f"data.chain.longest={steps}"]
    if arm.startswith("long"):
        window = STEP_TOKENS * steps + FORM_TOKENS
        return "rounds_1", [*settings, "--rounds", "1", "--set", f"rollout.tokens_first={window}"]
    rounds = math.ceil(steps / FIT) + SPARE
    return f"rounds_{rounds}", [*settings, "--rounds", str(rounds)]


def outcomes(run: Path, steps: int) -> list[float | None]:
    """The outcome of each question of a length, one greedy answer each; tested if that has not been done."""
    row, settings = row_of(run.parent.name, steps)
    out = run / f"longer-{steps}"
    if not (out / "results.json").is_file():
        command = [sys.executable, "-m", "motif", "eval", str(run), "--out", str(out), "--questions", str(QUESTIONS)]
        subprocess.run([*command, "--temperature", "0", *settings], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    return next(list(line["outcomes"]) for line in lines if line["row"] == row)


def main() -> None:
    """Print a line for every arm and length, and for every comparison."""
    arms = {arm.name: sorted(arm.glob("seed-*")) for arm in sorted(Path(sys.argv[1]).iterdir()) if arm.is_dir()}
    runs = {name: [run for run in found if (run / "summary.json").is_file()] for name, found in arms.items()}
    for steps in LENGTHS:
        tested = {name: {run.name: outcomes(run, steps) for run in found} for name, found in runs.items() if found}
        for name, by_seed in tested.items():
            told: dict[str, Any] = {"arm": name, "steps": steps, "row": row_of(name, steps)[0]}
            print(
                json.dumps(
                    told | {"by_seed": {seed: sum(map(_worth, row)) / len(row) for seed, row in by_seed.items()}}
                )
            )
        for a, b in PAIRS:
            seeds = sorted(tested.get(a, {}).keys() & tested.get(b, {}).keys())
            gaps = [[_worth(x) - _worth(y) for x, y in zip(tested[a][s], tested[b][s], strict=True)] for s in seeds]
            if gaps:
                told = {"what": f"{a} less {b}", "steps": steps, "seeds": len(seeds)}
                print(json.dumps(told | {"difference": crossed_interval(gaps).to_dict()}), flush=True)


def _worth(outcome: float | None) -> float:
    return outcome or 0.0


if __name__ == "__main__":
    main()
