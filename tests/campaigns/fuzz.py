"""The fuzzing campaign: every target in turn, each slice in a process of its own, until the minutes are spent.

    python tests/campaigns/fuzz.py --minutes 60 --out runs/fuzz

OUT/heartbeat.json holds the counts so far (the same command resumes an interrupted campaign, one with more minutes adds
to them), OUT/failures.jsonl each different failure with its smallest input, OUT/corpus.jsonl inputs that did something
new. The exit status is 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST_KEPT = 4_000  # characters of an input in the corpus
KEPT = 60  # inputs of each target in the corpus
MEMORY = 8 << 30  # bytes of a slice's address space
BLOCK = 300  # tries between looks at the clock
SHRINKING = 8.0  # seconds in which smaller inputs with the same failure are looked for
GRACE = 1200.0  # seconds that a slice may take beyond its own before it counts as hung: others may need the machine


class Hung(Exception):
    """An input took more computing time than its target allows."""


def fuzz(name: str, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """One slice, in this process: tries, different failures, and the most memory it needed."""
    import resource

    from targets import TARGETS

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target, seen = TARGETS[name], known(out, name)
    latest = (out / f"latest-{name}.json").open("w")
    counts = {"tries": 0, "new": 0}
    failures: dict[str, dict[str, Any]] = {}  # with the smallest input so far
    first: dict[str, float] = {}

    def hung(*_: object) -> None:
        raise Hung(f"took more than {target.seconds} s")

    signal.signal(signal.SIGPROF, hung)

    def attempt(given_input: Any) -> None:
        counts["tries"] += 1
        latest.seek(0)
        latest.truncate()
        latest.write(json.dumps(given_input))
        latest.flush()  # what crashes this process can be read there
        if counts["tries"] > 1:  # the first imports what the target needs
            signal.setitimer(signal.ITIMER_PROF, target.seconds)
        try:
            label = target.check(given_input)
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            failure = described(name, error, given_input)
            what = failure["what"]
            if what not in failures or len(str(given_input)) < len(str(failures[what]["input"])):
                failures[what] = failure
            if time.monotonic() - first.setdefault(what, time.monotonic()) < SHRINKING:
                raise
            return  # known by now: what else is there?
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if label not in seen:
            seen.add(label)
            line = json.dumps({"target": name, "label": label, "input": given_input})
            if len(seen) <= KEPT and len(line) <= LONGEST_KEPT:
                counts["new"] += 1
                append(out / "corpus.jsonl", line)

    generate(name, attempt, 20 if target.slow else BLOCK, seconds, seed)
    own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(usage.ru_utime + usage.ru_stime for usage in (own, below))
    return counts | {"failures": list(failures.values()), "memory_mib": own.ru_maxrss // 1024, "cpu": spent}


def generate(name: str, attempt: Callable[[Any], None], tries: int, seconds: float, seed: int) -> None:
    """Make inputs for a target, a block of tries at a time, until the time is spent."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from inputs import INPUTS

    end = time.monotonic() + seconds
    for block in itertools.count():
        if time.monotonic() >= end:
            break
        run = settings(
            max_examples=tries,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given(INPUTS[name])(attempt))
        with contextlib.suppress(Exception):  # recorded by `attempt`
            seeded(f"{seed}/{block}")(run)()


def described(name: str, error: BaseException, given_input: Any) -> dict[str, Any]:
    """A failure with where it came from, so that the same one is not counted twice."""
    places = [f"{Path(frame.filename).name}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if not place.startswith(("core.py", "engine.py", "fuzz.py", "contextlib.py"))]
    what = f"{type(error).__name__} in {own[-1] if own else '?'}"
    return {"target": name, "what": what, "message": str(error)[:500], "places": own[-6:], "input": given_input}


def known(out: Path, name: str) -> set[str]:
    """Labels that the corpus of this campaign has."""
    file = out / "corpus.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {line["label"] for line in lines if line["target"] == name}


def append(file: Path, line: str) -> None:
    """Add a line."""
    with file.open("a") as stream:
        stream.write(line + "\n")


def campaign(names: list[str], minutes: float, slice_seconds: float, out: Path) -> None:
    """Slices of all targets in turn until the time is spent."""
    out.mkdir(parents=True, exist_ok=True)
    heartbeat = out / "heartbeat.json"
    state: dict[str, Any] = (
        json.loads(heartbeat.read_text()) if heartbeat.is_file() else {"seconds": 0.0, "targets": {}}
    )
    found = {(f["target"], f["what"]) for f in map(json.loads, lines_of(out / "failures.jsonl"))}
    begun, before = time.monotonic(), state["seconds"]
    seed = int(before * 1000)
    for turn in itertools.count():
        for name in names:
            left = 60 * minutes - before - (time.monotonic() - begun)
            if left <= 5:
                return
            one, started = run_slice(name, min(slice_seconds, left), seed + turn, out), time.monotonic()
            counts = state["targets"].setdefault(
                name, dict.fromkeys(("tries", "seconds", "cpu", "failures", "memory_mib"), 0)
            )
            counts["tries"] += one["tries"]
            for clock in ("seconds", "cpu"):
                counts[clock] = round(counts[clock] + one[clock], 1)
            counts["memory_mib"] = max(counts["memory_mib"], one["memory_mib"])
            for failure in one["failures"]:
                if (failure["target"], failure["what"]) not in found:
                    found.add((failure["target"], failure["what"]))
                    counts["failures"] += 1
                    append(out / "failures.jsonl", json.dumps(failure))
            state["seconds"] = round(before + started - begun, 1)
            partial = heartbeat.with_suffix(".partial")
            partial.write_text(json.dumps(state, indent=2) + "\n")
            partial.replace(heartbeat)


def lines_of(file: Path) -> list[str]:
    """The lines of a file, none if it is not there."""
    return file.read_text().splitlines() if file.is_file() else []


def run_slice(name: str, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """One slice in a process of its own, whose crash or hang is a failure of its latest input."""
    command = [
        sys.executable,
        __file__,
        "--slice",
        name,
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        text, _ = process.communicate(timeout=seconds + GRACE)
        end = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, end = process.communicate()[0], "hung"
    took = time.monotonic() - started
    if process.returncode == 0:
        return json.loads(text.splitlines()[-1]) | {"seconds": took}
    latest = "".join(lines_of(out / f"latest-{name}.json"))
    failure = {"target": name, "what": f"the process ended: {end}", "message": text[-500:], "input": latest}
    return {"tries": 0, "failures": [failure], "memory_mib": 0, "cpu": 0, "seconds": took}


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--targets", default="", help="some of them, with commas; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--seconds", type=float, default=45, help="of one slice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.slice:
        print(json.dumps(fuzz(arguments.slice, arguments.seconds, arguments.seed, arguments.out)))
        return 0
    from targets import TARGETS

    names = arguments.targets.split(",") if arguments.targets else list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {sorted(unknown)[0]!r}: known are {', '.join(TARGETS)}")
    campaign(names, arguments.minutes, arguments.seconds, arguments.out)
    return 1 if lines_of(arguments.out / "failures.jsonl") else 0


if __name__ == "__main__":
    sys.exit(main())
