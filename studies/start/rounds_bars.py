"""What the runs of rounds.toml show: a line of JSON for each comparison, with 95 % intervals over seeds and questions.

    python studies/start/rounds_bars.py runs/rounds > studies/start/results/rounds.jsonl

Accuracy and tokens at 3 and 6 rounds of every arm; for each arm, 6 rounds less 3 rounds on the lengths trained on and,
where `longer.sh` has been run, on chains of ten steps; `early` less `whole`, and others less `told`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motif.statistics.paired import crossed_interval

Outcomes = dict[str, list[float | None]]


def last_outcomes(file: Path) -> Outcomes:
    """The mean outcome of each question, by row, of the last evaluation in a file."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {line["row"]: line["outcomes"] for line in lines}


def difference(runs_a: Sequence[Outcomes], row_a: str, runs_b: Sequence[Outcomes], row_b: str) -> dict[str, Any] | None:
    """a less b, in points: paired by seed and question."""
    pairs = [(a[row_a], b[row_b]) for a, b in zip(runs_a, runs_b, strict=True) if row_a in a and row_b in b]
    if not pairs:
        return None
    gaps = [[None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
    interval = crossed_interval(gaps)
    return {"seeds": len(gaps), "questions": len(gaps[0])} | {
        name: round(100 * value, 2) for name, value in interval.to_dict().items() if isinstance(value, float)
    }


def main() -> None:
    """Print the comparisons."""
    arms = {arm.name: sorted(arm.glob("seed-*")) for arm in sorted(Path(sys.argv[1]).iterdir()) if arm.is_dir()}
    arms = {name: [run for run in runs if (run / "summary.json").is_file()] for name, runs in arms.items()}
    trained = {name: [last_outcomes(run / "outcomes.jsonl") for run in runs] for name, runs in arms.items() if runs}
    longer = {name: [last_outcomes(run / "longer/outcomes.jsonl") for run in arms[name]] for name in trained}
    for name in trained:
        after = [json.loads((run / "summary.json").read_text())["after"] for run in arms[name]]
        for row in ("rounds_3", "rounds_6"):
            means = {
                key: round(statistics.fmean(of[row][key] for of in after), 4) for key in ("accuracy", "mean_tokens")
            }
            print(json.dumps({"arm": name, "row": row, "seeds": len(after)} | means))
    for name, outcomes in trained.items():
        for lengths, found in (("2 to 5", outcomes), ("10", longer[name])):
            if gap := difference(found, "rounds_6", found, "rounds_3"):
                print(json.dumps({"arm": name, "steps": lengths, "what": "6 rounds less 3 rounds"} | gap))
    for row in ("rounds_3", "rounds_6"):
        for a, b in (("early", "whole"), ("early-1", "whole"), ("untold", "told"), ("both", "told")):
            if a in trained and b in trained and len(trained[a]) == len(trained[b]):
                gap = difference(trained[a], row, trained[b], row)
                print(json.dumps({"what": f"{a} less {b}", "row": row, "steps": "2 to 5"} | (gap or {})))


if __name__ == "__main__":
    main()
