"""Copy the runs' records into `results/` and print the table of README.md."""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent


def interval(found: dict[str, float]) -> str:
    """Accuracy with its interval, in percent."""
    return f"{100 * found['accuracy']:.1f} [{100 * found['low']:.1f}–{100 * found['high']:.1f}]"


def main() -> None:
    """One row a run."""
    print("| seed | 1 round before | 1 round after | 3 rounds before | 3 rounds after | steps | training, s |")
    print("|---|---|---|---|---|---|---|")
    for run in map(Path, sys.argv[1:]):
        summary = json.loads((run / "summary.json").read_text())
        cells = [interval(summary[when][rounds]) for rounds in ("rounds_1", "rounds_3") for when in ("before", "after")]
        ledger = summary["ledger"]
        print("|", " | ".join([str(summary["seed"]), *cells, str(summary["steps"]), f"{ledger['seconds']:.0f}"]), "|")
        target = HERE / "results" / run.name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "metrics.jsonl", "recipe.toml"):
            shutil.copy(run / name, target / name)


if __name__ == "__main__":
    main()
