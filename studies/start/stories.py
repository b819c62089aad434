"""Does reinforcement learning go on where a warm start ends? Stories of two to four events, shown whole.

    python studies/start/stories.py [--seeds 0 1 2] [--runs runs/stories-whole]

Trains stories.toml, a run a seed; the runs test themselves on 300 held-out stories, before, after the warm start, and
after reinforcement learning. Writes studies/start/stories_whole.json and prints the table of texts.md. Started again,
it resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from motif.statistics.paired import crossed_interval

HERE = Path(__file__).parent
ROW = "rounds_3"


def lines(file: Path) -> list[dict[str, Any]]:
    """The records of a run's file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def numbers(run: Path) -> dict[str, Any]:
    """What a finished run has measured: its evaluations, its looks, and the gain on the same questions, in points."""
    metrics = lines(run / "metrics.jsonl")
    warm = [record["warmstart"] for record in metrics if "warmstart" in record]
    evaluations = [record["eval"][ROW] for record in metrics if "eval" in record]
    taught = next(record["eval"][ROW] for record in warm if "eval" in record)
    outcomes = [line for line in lines(run / "outcomes.jsonl") if line["row"] == ROW]
    start = next(line["outcomes"] for line in outcomes if "stage" in line)
    gain = crossed_interval([[end - begun for begun, end in zip(start, outcomes[-1]["outcomes"], strict=True)]])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    kept = ("accuracy", "low", "high", "n", "well_formed")
    found = {"before": evaluations[0], "after the warm start": taught, "after reinforcement learning": evaluations[-1]}
    return {
        "looks": [{"step": record["step"]} | record["look"] for record in warm if "look" in record],
        **{when: {name: row[name] for name in kept} for when, row in found.items()},
        "gain": {name: 100 * value for name, value in gain.to_dict().items() if isinstance(value, float)},
        "warm start's minutes": summary["warmstart"]["seconds"] / 60,
        "ledger": summary["ledger"],
        "versions": summary["versions"],
    }


def table_row(seed: str, found: dict[str, Any]) -> str:
    """The seed's row of the table in texts.md."""
    look, warm = found["looks"][-1], found["warm start's minutes"]
    shares = [
        f"{100 * found[when]['accuracy']:.1f} % [{100 * found[when]['low']:.1f}–{100 * found[when]['high']:.1f}]"
        for when in ("before", "after the warm start", "after reinforcement learning")
    ]
    gain = "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**found["gain"])
    start = f"{100 * look['well_formed']:.0f} % and {100 * look['undecided']:.0f} %"
    minutes = f"{warm:.0f} + {found['ledger']['seconds'] / 60 - warm:.0f}"
    return f"| {' | '.join([seed.removeprefix('seed '), shares[0], start, *shares[1:], gain, minutes])} |"


def main() -> None:
    """Train, and write the numbers."""
    parser = argparse.ArgumentParser(description="Train stories.toml, a run a seed.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/stories-whole"), help="folder of the runs")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for seed in arguments.seeds:
        run = arguments.runs / f"seed-{seed}"
        command = ["train", str(HERE / "stories.toml"), "--out", str(run), "--resume", "--set", f"train.seed={seed}"]
        subprocess.run([sys.executable, "-m", "motif", *command], check=True)
        found[f"seed {seed}"] = numbers(run)
        (HERE / "stories_whole.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for seed, of_seed in found.items():
        print(table_row(seed, of_seed))


if __name__ == "__main__":
    main()
