"""Kill runs at many moments, go on with them, and compare with runs that nobody disturbed.

    python tests/campaigns/crash.py --tries 100 --out runs/campaigns/crash.jsonl

A chain is a fresh run that is killed, resumed and killed again, up to three times, and then left alone to its end.
What it ends with must be what an undisturbed run ends with: trees, outcomes, weights, best weights byte for byte;
metrics and summary but for clocks; as many good checkpoints as are to be kept. A line of the output is one kill. The
same command resumes an interrupted campaign.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import trials
from records import Records
from trials import (
    LORA,
    TINY,
    Fault,
    attempt,
    comparing,
    differences,
    eval_differences,
    evaluating,
    study_differences,
    training,
)

RECIPES = {
    "lora": [*TINY, *LORA],
    "full weights": [*TINY, "model.adapter=full"],
    "several updates, KL, probe": [
        *TINY,
        *LORA,
        "loss.inner_epochs=2",
        "loss.minibatches=2",
        "loss.kl_beta=0.01",
        "probe.questions=2",
        "probe.every=4",
        "probe.continuations=16",
        "train.save_every=2",
    ],
}
CHAIN = 3


class Kind:
    """One kind of run: what is done, with which settings, and what must be the same in the end."""

    def __init__(self, work: Callable, settings: list[str], compared: Callable, weight: int):
        self.work, self.settings, self.compared, self.weight = work, settings, compared, weight
        self.whole: Path | None = None

    def prepare(self, place: Path, name: str) -> None:
        """An undisturbed run."""
        if self.whole:
            return
        self.whole = place / "whole" / name
        self.whole.parent.mkdir(exist_ok=True)
        self.ended = attempt(self.work(self.whole, self.settings), self.whole, Fault("none", 0), place / "log")
        assert self.ended.status == 0, self.ended
        self.most = max(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())


def kinds(server: str) -> dict[str, Kind]:
    """All kinds of runs by name."""
    found = {name: Kind(training, settings, differences, 4) for name, settings in RECIPES.items()}
    away = [*TINY, *LORA, f'sampler.urls=["{server}"]', "sampler.overlap=true", "sampler.patience=30"]
    found["overlap on a server"] = Kind(training, away, differences, 2)
    found["eval"] = Kind(evaluating, [*TINY, "rollout.max_rows=2"], eval_differences, 3)
    few = ["train.steps=2", "eval.questions=2"]
    found["compare"] = Kind(
        comparing, [setting for setting in TINY if "train.steps" not in setting] + few, study_differences, 1
    )
    return found


@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    """The address of a server with the API of vLLM, in a process of its own."""
    read, write = os.pipe()
    server = os.fork()
    if server == 0:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from motif.config import load_recipe
        from support.fake_vllm import FakeVLLM

        os.write(write, FakeVLLM(load_recipe("demo", LORA).model).url.encode())
        signal.pause()
    try:
        yield os.read(read, 100).decode()
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def choose(dice: random.Random, whole: trials.Outcome, bytes_most: int, resumed: bool) -> Fault:
    """A fault somewhere on the way of a run like `whole`; a resumed one has less before it."""
    kind = dice.choice(("event", "event", "byte", "phase", "phase", "moment"))
    part = 0.6 if resumed else 1.0
    if kind == "event":
        return Fault(kind, dice.randint(1, max(1, int(part * whole.events))))
    if kind == "byte":
        return Fault(kind, int(bytes_most ** dice.uniform(0.3, 1.0)))
    if kind == "moment":
        return Fault(kind, dice.uniform(0.1, 1.0) * part * whole.seconds)
    phase = dice.choice(sorted(whole.entered))
    return Fault(kind, dice.randint(1, max(1, int(part * whole.entered[phase]))) + dice.uniform(0, 0.2), phase)


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("crash.jsonl"))
    parser.add_argument("--only", help="one kind of run: " + ", ".join(kinds("")))
    options = parser.parse_args()
    trials.warm_up()
    records = Records(options.out)
    with tempfile.TemporaryDirectory() as name, stand_in() as server:
        place, found = Path(name), kinds(server)
        order = [options.only] if options.only else [name for name, kind in found.items() for _ in range(kind.weight)]
        random.Random(options.seed).shuffle(order)
        for number in itertools.count(records.all[-1]["chain"] + 1 if records.all else 0):
            if len(records) >= options.tries:
                break
            which = order[number % len(order)]
            found[which].prepare(place, which.partition(" ")[0].strip(","))
            dice = random.Random(f"{options.seed}/{number}")
            kills = chain(dice, found[which], place, min(CHAIN, options.tries - len(records)))
            records.add([{"chain": number, "run": which} | kill for kill in kills])
            print(len(records), which, [(r["kind"], r["phase"], r["differences"]) for r in kills], flush=True)
    phases = Counter(record["phase"] for record in records.all)
    print(f"{len(records)} kills, {records.failures()} failures; by phase: {dict(phases)}")
    return 1 if records.failures() else 0


def chain(dice: random.Random, kind: Kind, place: Path, kills: int) -> list[dict]:
    """Kill a run so often, let it end, compare; a record for each kill."""
    broken, log = place / "broken" / kind.whole.name, place / "log"
    shutil.rmtree(broken, ignore_errors=True)
    broken.parent.mkdir(exist_ok=True)
    records = []
    for index in range(kills):
        fault = choose(dice, kind.ended, kind.most, resumed=index > 0)
        ended = attempt(kind.work(broken, kind.settings, resume=True), broken, fault, log)
        if ended.killed:
            records.append(_record(fault, ended, []))
            continue
        if ended.status != 0:
            records.append(_record(fault, ended, [f"exit {ended.status}: {ended.said}"]))
        break
    last = attempt(kind.work(broken, kind.settings, resume=True), broken, Fault("none", 0), log)
    found = kind.compared(kind.whole, broken) if last.status == 0 else [f"exit {last.status}: {last.said}"]
    for record in records:
        record["differences"] = record["differences"] or found
    return records


def _record(fault: Fault, ended: trials.Outcome, found: list[str]) -> dict:
    return {
        "kind": fault.kind,
        "place": round(fault.place, 4),
        "aimed_at": fault.phase,
        "phase": ended.phase,
        "seconds": round(ended.seconds, 3),
        "differences": found,
    }


if __name__ == "__main__":
    sys.exit(main())
