"""Does the reader learn to carry on what it has read, and does it read texts four times as long as any in training?

    python studies/start/read.py [--seeds 0 1 2] [--runs runs/read]

Trains the recipe `read` on texts of one to four pieces, a run a seed, and tests the model before and after on texts of
4 and of 16 pieces (300 held-out ones each, greedy). Writes studies/start/read.json. Started again, it resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENTRIES = 2
TEXTS = {4: "seen in training", 16: "four times as long"}


def motif(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "motif", *arguments], check=True)


def tested(run: Path, pieces: int, base: bool) -> dict[str, float]:
    """The accuracy on held-out texts of so many pieces."""
    entries, file = pieces * ENTRIES, run / f"{'before' if base else 'after'}-{pieces}.json"
    lengths = [f"data.ledger.{name}={entries}" for name in ("shortest", "longest")]
    settings = [part for setting in lengths for part in ("--set", setting)]
    motif("eval", str(run), "--questions", "300", "--json", str(file), *settings, *["--base"] * base)
    numbers = json.loads(file.read_text(encoding="utf-8"))["pieces"]
    return {name: numbers[name] for name in ("accuracy", "low", "high", "n", "well_formed")}


def main() -> None:
    """Train, test, and write the numbers."""
    parser = argparse.ArgumentParser(description="Train and test the recipe `read`.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/read"), help="folder of the runs")
    arguments = parser.parse_args()
    found = {}
    for seed in arguments.seeds:
        run = arguments.runs / f"seed-{seed}"
        motif("train", "read", "--out", str(run), "--resume", "--set", f"train.seed={seed}")
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        by_pieces = {
            when: {f"{pieces} pieces": tested(run, pieces, base) for pieces in TEXTS}
            for when, base in (("before", True), ("after", False))
        }
        found[f"seed {seed}"] = by_pieces | {"ledger": summary["ledger"], "versions": summary["versions"]}
        (HERE / "read.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for seed, numbers in found.items():
        for pieces, words in TEXTS.items():
            before, after = (numbers[when][f"{pieces} pieces"]["accuracy"] for when in ("before", "after"))
            print(f"{seed}, {pieces} pieces ({words}): {100 * before:.1f} → {100 * after:.1f} %")


if __name__ == "__main__":
    main()
