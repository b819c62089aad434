"""Does a reader learn to carry on what it has read, and does it read texts longer than any in training?

    python studies/start/read.py [read | stories-smollm2] [--seeds 0 1 2] [--runs runs/read]

Trains the recipe, a run a seed, and tests the model on 300 held-out texts of each length, greedy. The small reader is
tested before training, too; of SmolLM2, whose 300 untrained answers take long, the run's own evaluations say that.
Writes studies/start/read.json or stories.json. Started again, it resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Test:
    """What a recipe is tested on. lengths: pieces of a text and what they are to the model."""

    section: str
    items_per_piece: int
    lengths: dict[int, str]
    results: str
    before: bool


TESTS = {
    "read": Test("ledger", 2, {4: "seen in training", 16: "four times as long"}, "read.json", True),
    "stories-smollm2": Test("stories", 1, {3: "seen in training", 6: "twice as long"}, "stories.json", False),
}


def motif(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "motif", *arguments], check=True)


def tested(run: Path, test: Test, pieces: int, base: bool) -> dict[str, float]:
    """The accuracy on held-out texts of so many pieces."""
    file = run / f"{'before' if base else 'after'}-{pieces}.json"
    if not file.exists():
        items = pieces * test.items_per_piece
        lengths = [f"data.{test.section}.{name}={items}" for name in ("shortest", "longest")]
        settings = [part for setting in lengths for part in ("--set", setting)]
        motif("eval", str(run), "--questions", "300", "--json", str(file), *settings, *["--base"] * base)
    numbers = json.loads(file.read_text(encoding="utf-8"))["pieces"]
    return {name: numbers[name] for name in ("accuracy", "low", "high", "n", "well_formed")}


def evaluations(run: Path) -> dict[str, dict[str, object]]:
    """What the run measured itself: before training, after the warm start, and after the last step."""
    found = {}
    for record in map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        if "eval" in record:
            found["before" if record["step"] == 0 else f"step {record['step']}"] = record["eval"]["pieces"]
        elif "eval" in record.get("warmstart", {}):
            found["after the warm start"] = record["warmstart"]["eval"]["pieces"]
    return found


def main() -> None:
    """Train, test, and write the numbers."""
    parser = argparse.ArgumentParser(description="Train and test a recipe that reads texts in pieces.")
    parser.add_argument("recipe", nargs="?", default="read", choices=sorted(TESTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="folder of the runs; without it: runs/RECIPE")
    arguments = parser.parse_args()
    test, found = TESTS[arguments.recipe], {}
    for seed in arguments.seeds:
        run = (arguments.runs or Path("runs") / arguments.recipe) / f"seed-{seed}"
        motif("train", arguments.recipe, "--out", str(run), "--resume", "--set", f"train.seed={seed}")
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        whens = {"before": True, "after": False} if test.before else {"after": False}
        by_pieces = {
            when: {f"{pieces} pieces": tested(run, test, pieces, base) for pieces in test.lengths}
            for when, base in whens.items()
        }
        found[f"seed {seed}"] = by_pieces | {"ledger": summary["ledger"], "versions": summary["versions"]}
        if not test.before:
            found[f"seed {seed}"]["the run's own evaluations"] = evaluations(run)
        (HERE / test.results).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for seed, numbers in found.items():
        for pieces, words in test.lengths.items():
            shares = [f"{100 * numbers[when][f'{pieces} pieces']['accuracy']:.1f}" for when in whens]
            print(f"{seed}, {pieces} pieces ({words}): {' → '.join(shares)} %")


if __name__ == "__main__":
    main()
