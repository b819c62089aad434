"""Pre-empt real `motif train` processes: SIGTERM at any moment, SIGKILL after a deadline; go on, and compare.

    python tests/campaigns/preempt.py --tries 40 --out runs/campaigns/preempt.jsonl

A chain is a fresh run that is sent away up to three times and then left alone to its end, which must be that of a run
that nobody disturbed (see crash.py). A process that ends before its deadline must have said how to go on (exit status
130) and have lost nothing: its last checkpoint is of the last step in its record. A line of the output is one SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from crash import CHAIN, RECIPES
from records import Records
from trials import differences, kill_all

from motif.runs import checkpoint

SETTINGS = [*RECIPES["lora"]]
BEGUN = "time "
"""In the plan, which is printed as the model has been loaded."""
DEADLINES = (0.0, 0.1, 0.5, 2.0, 30.0)
"""Seconds from SIGTERM to SIGKILL; with the last one, whatever has begun can end."""


def command(folder: Path) -> list[str]:
    """The run from the command line."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "motif", "train", "demo", "--out", str(folder), "--resume", *settings]


def begin(folder: Path, log: Path) -> subprocess.Popen:
    """Start or go on with the run; returns when it has said its plan."""
    with log.open("w") as output:
        process = subprocess.Popen(command(folder), stdout=output, stderr=output)
    while BEGUN not in log.read_text() and process.poll() is None:
        time.sleep(0.01)
    return process


def send_away(folder: Path, moment: float, deadline: float, log: Path) -> dict:
    """Start or go on with the run, and send it away `moment` seconds after it has begun; a record of how it ended."""
    process = begin(folder, log)
    record = {"moment": round(moment, 3), "deadline": deadline, "differences": []}
    try:
        process.wait(moment)
        return record | {"ended": "over before the signal", "seconds": None}
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    try:
        status = process.wait(deadline)
    except subprocess.TimeoutExpired:
        kill_all(process.pid)
        process.wait()
        return record | {"ended": "killed at the deadline", "seconds": deadline}
    record["seconds"] = round(time.monotonic() - signalled, 3)
    if status == -signal.SIGTERM:
        return record | {"ended": "before its handler stood"}
    return record | {"ended": "in time", "differences": [] if status == 0 else lost(folder, status, log)}


def lost(folder: Path, status: int, log: Path) -> list[str]:
    """What is wrong with a run that has stopped because it was told to."""
    found = [] if status == 130 else [f"exit {status}: {log.read_text()[-300:]}"]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    saved = [int(path.name.rpartition("-")[2]) for path in checkpoint.all_checkpoints(folder)]
    if saved[-1:] != (steps[-1:] or [0]):
        found.append(f"recorded steps {steps}, saved {saved}")
    return found


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--steps", type=int, default=16, help="of a run: long beside what it takes to begin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("preempt.jsonl"))
    options = parser.parse_args()
    SETTINGS.append(f"train.steps={options.steps}")
    records = Records(options.out)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole, broken, log = place / "whole", place / "broken", place / "log"
        process, begun = begin(whole, log), time.monotonic()
        if process.wait() != 0:
            raise SystemExit(f"the undisturbed run failed: {log.read_text()[-500:]}")
        took = time.monotonic() - begun
        while len(records) < options.tries:
            shutil.rmtree(broken, ignore_errors=True)
            dice, signals = random.Random(f"{options.seed}/{len(records)}"), []
            for _ in range(min(CHAIN, options.tries - len(records))):
                signals.append(send_away(broken, dice.uniform(0, 0.5) * took, dice.choice(DEADLINES), log))
                if signals[-1]["ended"] == "over before the signal":
                    break
            last = subprocess.run(command(broken), capture_output=True, text=True, check=False)
            found = differences(whole, broken) if last.returncode == 0 else [last.stderr[-300:]]
            records.add([record | {"differences": record["differences"] + found} for record in signals])
            print(len(records), [(r["ended"], r["differences"]) for r in records.all[-len(signals) :]], flush=True)
    endings = Counter(record["ended"] for record in records.all)
    print(f"{len(records)} signals, {records.failures()} failures; {dict(endings)}")
    return 1 if records.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
