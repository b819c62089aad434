"""Let the disk fail at every place where a run writes, then go on with one that works: the end must be the same.

    python tests/campaigns/full.py --tries 150 --out runs/campaigns/full.jsonl

Three ways: the n-th time that the run opens, makes, renames, removes or syncs something, for n = 1, 2, 3, …, it gets
"no space left on device", "quota exceeded", "read-only", "I/O error" or "too many open files"; a write beyond the n-th
byte of any file fails, so the file is torn there (a limit of the system on file size); and, where this may be mounted,
a file system of n KiB in memory (as root).
"""

from __future__ import annotations

import argparse
import errno
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from crash import RECIPES
from records import Records
from trials import Fault, attempt, differences, training, warm_up

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE)


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("full.jsonl"))
    parser.add_argument("--only", choices=RECIPES, default="lora", help="the kind of run")
    options = parser.parse_args()
    warm_up()
    settings, records = [*RECIPES[options.only], "train.steps=2"], Records(options.out)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole, log = place / "whole", place / "log"
        ended = attempt(training(whole, settings), whole, Fault("none", 0), log)
        assert ended.status == 0, ended
        largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        total = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        planned = faults(options.tries, ended.events, largest, total, random.Random(options.seed))
        for fault, kib in itertools.islice(planned, len(records), None):
            record = one(place, settings, whole, fault, kib)
            records.add([record])
            if record["result"] == "failed":
                print(record, flush=True)
    counts = Counter(record["result"] for record in records.all)
    print(f"{len(records)} tries: {dict(counts)}")
    return 1 if counts["failed"] else 0


def faults(tries: int, events: int, largest: int, total: int, dice: random.Random):
    """Half of them at events (evenly over all), the others at bytes of files and of file systems."""
    half = min(events, tries // 2)
    for index in range(half):
        yield Fault("event", 1 + index * events // half, error=ERRORS[index % len(ERRORS)]), 0
    rest = tries - half
    mounted = rest // 3 if may_mount() else 0
    for _ in range(rest - mounted):
        yield Fault("byte", int(largest ** dice.uniform(0, 1)), error=errno.EFBIG), 0
    for _ in range(mounted):
        yield Fault("none", 0), dice.randint(8, max(9, total // 1024))


def one(place: Path, settings: list[str], whole: Path, fault: Fault, kib: int) -> dict:
    """A run that meets the fault, is resumed when there is room, and compared."""
    broken, log = place / "broken", place / "log"
    broken.mkdir()
    if kib:
        mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(broken))
    try:
        ended = attempt(training(broken / "run", settings), broken / "run", fault, log)
        if kib:
            mount("-o", "remount,size=64m", str(broken))
        last = attempt(training(broken / "run", settings, resume=True), broken / "run", Fault("none", 0), log)
        found = differences(whole, broken / "run") if last.status == 0 else [f"exit {last.status}: {last.said}"]
    finally:
        if kib:
            subprocess.run(["umount", str(broken)], check=True)
        shutil.rmtree(broken)
    # In, not at the beginning: the limit can cut the line before it in the child's log.
    if ended.status not in (0, 1) or (ended.status == 1 and "motif: " not in ended.said):
        found.append(f"exit {ended.status}: {ended.said}")
    result = "failed" if found else "not met" if ended.status == 0 else "recovered"
    return {
        "kind": f"file system of {kib} KiB" if kib else fault.kind,
        "error": errno.errorcode.get(fault.error, ""),
        "place": fault.place,
        "phase": ended.phase,
        "said": ended.said.replace(str(place), ""),
        "result": result,
        "differences": found,
    }


def mount(*arguments: str) -> None:
    """Run mount."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def may_mount() -> bool:
    """Whether this process can mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


if __name__ == "__main__":
    sys.exit(main())
