"""Damage one file of a run folder, at any byte, and go on: what a power cut could do, and worse.

    python tests/campaigns/damage.py --tries 150 --out runs/campaigns/damage.jsonl

A folder that has finished, or was killed half-way, is copied; one of its files is cut off at some byte or filled with
zeros from there; then the run is resumed. It must either end as an undisturbed run does, or be refused with a
sentence and have changed nothing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from crash import RECIPES
from records import Records
from trials import Fault, Outcome, attempt, differences, training, warm_up


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("damage.jsonl"))
    parser.add_argument("--only", choices=RECIPES, default="lora", help="the kind of run")
    options = parser.parse_args()
    warm_up()
    settings, records = RECIPES[options.only], Records(options.out)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole, half, broken, log = (place / part for part in ("whole", "half", "broken", "log"))
        assert attempt(training(whole, settings), whole, Fault("none", 0), log).status == 0
        assert attempt(training(half, settings), half, Fault("phase", 3.0, "update"), log).killed
        for number in range(len(records), options.tries):
            dice = random.Random(f"{options.seed}/{number}")
            source = dice.choice((whole, half))
            file = dice.choice([path for path in sorted(source.rglob("*")) if path.is_file() and path.stat().st_size])
            zeros, byte = dice.random() < 0.4, place_in(file, dice)
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(source, broken)
            hit = broken / file.relative_to(source)
            data = hit.read_bytes()
            hit.write_bytes(data[:byte] + bytes(len(data) - byte if zeros else 0))
            before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
            there = sorted(path.name for path in (broken / "checkpoints").iterdir())
            older = hit.parent.name if hit.parent.name in there[:-1] else ""
            ended = attempt(training(broken, settings, resume=True), broken, Fault("none", 0), log)
            said = [line for line in log.read_text().splitlines() if line.startswith(("warning:", "motif:"))]
            found = verdict(ended, whole, broken, before, older, said)
            record = {
                "folder": source.name,
                "file": str(file.relative_to(source)),
                "byte": byte,
                "of": len(data),
                "zeros": zeros,
                "result": found[0],
                "differences": found[1],
                "said": [line.replace(str(place), "") for line in said],
            }
            records.add([record])
            if found[0] == "failed":
                print(record, flush=True)
    counts = Counter(record["result"] for record in records.all)
    print(f"{len(records)} tries: {dict(counts)}")
    return 1 if counts["failed"] else 0


def place_in(file: Path, dice: random.Random) -> int:
    """A byte to damage a file from: its first or last, a line's end or beside it, or any."""
    size = file.stat().st_size
    ends = [index for index, value in enumerate(file.read_bytes()) if value == 10] or [size]
    near = dice.choice(ends) + dice.choice((-1, 0, 1))
    return min(size - 1, max(0, dice.choice((0, size - 1, near, dice.randrange(size), dice.randrange(size)))))


def verdict(
    ended: Outcome, whole: Path, broken: Path, before: dict[Path, bytes], older: str, said: list[str]
) -> tuple[str, list[str]]:
    """`recovered`, `refused` or `failed`, and why. `older`: the checkpoint that was damaged, if there is a newer one,
    which is what the run goes on from without a look at this one."""
    if ended.status == 0:
        found = [what for what in differences(whole, broken) if not (older and what.startswith(f"{older} is damaged"))]
        # The best weights are of an earlier step and cannot be made again, but that must be said.
        best = any(line.startswith("warning: ") and "/best/" in line for line in said)
        found = [what for what in found if not (best and what.startswith("best/"))]
        return ("failed" if found else "recovered"), found
    after = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    touched = [path.name for path in before if after.get(path) != before[path]]
    if ended.status == 1 and ended.said.startswith("motif: ") and not touched:
        return "refused", []
    return "failed", [f"exit {ended.status}: {ended.said}", *touched]


if __name__ == "__main__":
    sys.exit(main())
