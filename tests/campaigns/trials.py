"""Runs that are made to fail at a chosen moment, and the comparison with one that was not.

A trial forks this process, which has imported everything already, so it costs what the run itself costs. The child
dies, or gets an error from the system, at one of

    disk event n    the n-th time that it opens a file for writing, renames, makes or removes something, or syncs
    byte n          a write beyond the n-th byte of any file: the line or checkpoint that it is in is torn there
    phase           some time after it has begun to sample, grade, update, save, evaluate, … for the n-th time
    moment          some time after it has started

All of it stands in this file: the package knows nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TINY = [
    "rollout.questions_per_step=1",
    "rollout.branching=[4,1,1]",
    "rollout.tokens_first=18",
    "rollout.tokens_continue=16",
    "rounds.note_tokens=12",
    "train.steps=4",
    "train.save_every=1",
    "eval.questions=2",
    "eval.every=2",
    "loss.importance_cap=2.0",
    "train.microbatch_tokens=512",
    "data.arithmetic.smallest=10",
    "data.arithmetic.largest=16",
]
LORA = ["model.adapter=lora", "model.lora_rank=2"]
PHASES = (
    "other",
    "sample",
    "grade",
    "update",
    "record",
    "checkpoint",
    "evaluate",
    "probe",
    "weights",
    "summary",
    "compare",
)
SLOTS = len(PHASES)


@dataclass(frozen=True)
class Fault:
    """Where a trial goes wrong. `error`: the system's error number to return there, instead of killing the process."""

    kind: str  # event, byte, phase, moment, none
    place: float
    phase: str = ""
    error: int = 0


class Trace:
    """What a child is doing, in memory that its parent sees: the phase, and how often each was entered."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8 * (SLOTS + 2))

    def __getitem__(self, slot: int) -> int:
        return int.from_bytes(self.memory[8 * slot : 8 * slot + 8], "little")

    def __setitem__(self, slot: int, value: int) -> None:
        self.memory[8 * slot : 8 * slot + 8] = value.to_bytes(8, "little")

    @property
    def phase(self) -> str:
        """What the child is doing, or was when it ended."""
        return PHASES[self[SLOTS]]

    @property
    def events(self) -> int:
        """Disk events so far."""
        return self[SLOTS + 1]

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Note that the block is a phase."""
        number, outer = PHASES.index(phase), self[SLOTS]
        self[SLOTS] = number
        self[number] += 1
        try:
            yield
        finally:
            self[SLOTS] = outer


def warm_up() -> None:
    """Import, before any fork, what a run imports on its way."""
    from motif.config import load_recipe
    from motif.session import open_session

    for name in ("training.loop", "report", "evaluation.any_model", "compare.run", "planning.plan"):
        importlib.import_module(f"motif.{name}")
    open_session(load_recipe("demo", [*TINY, *LORA])).close()


def follow(trace: Trace) -> None:
    """Have the phases of a run in this process noted."""
    from motif.compare import runner
    from motif.evaluation import evaluate, store
    from motif.runs import checkpoint, folder
    from motif.training import learner, loop, rollouts

    def note(owner: Any, name: str, phase: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*arguments: Any, **options: Any) -> Any:
            with trace.during(phase):
                return inner(*arguments, **options)

        setattr(owner, name, outer)

    note(evaluate, "grow", "evaluate")
    note(store.EvalFolder, "put", "record")
    note(store.EvalFolder, "finish", "summary")
    note(runner.Runner, "work", "compare")
    note(rollouts, "grow", "sample")
    note(learner, "update", "update")
    note(loop, "evaluate", "evaluate")
    note(loop, "probe", "probe")
    note(loop, "assign", "grade")
    note(checkpoint, "save", "checkpoint")
    note(folder.RunFolder, "_append", "record")
    note(folder.RunFolder, "write_summary", "summary")
    note(loop, "save_weights", "weights")


def arm(fault: Fault, folder: Path, trace: Trace) -> None:
    """Make this process meet the fault when it gets there, and count its disk events."""
    wanted = int(fault.place) if fault.kind == "event" else 0
    root = str(folder.resolve())

    def event() -> None:
        trace[SLOTS + 1] += 1
        if trace.events == wanted:
            if fault.error:
                raise OSError(fault.error, os.strerror(fault.error), root)
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
                path = os.fsdecode(path)
            else:
                return
        elif name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else root
        else:
            return
        if path.startswith(root):
            event()

    sync = os.fsync

    def fsync(descriptor: int) -> None:
        event()
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)
    if fault.kind == "byte":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if fault.error else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault.place), resource.RLIM_INFINITY))


def lift_limits() -> None:
    """Let this process write to its log again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit status, or minus the signal; in which phase; how many disk events; what it said."""

    status: int
    phase: str
    events: int
    entered: dict[str, int]
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether it met a fault that kills."""
        return self.status in (-signal.SIGKILL, -signal.SIGXFSZ)


def attempt(work: Callable[[], Any], folder: Path, fault: Fault, log: Path) -> Outcome:
    """Run `work` in a forked child that meets the fault. 0: it ended well; 1: with one of the package's sentences (the
    last thing it said); 3: with a traceback."""
    trace = Trace()
    begun = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _child(work, folder, fault, trace, log)
    if fault.kind == "phase":
        number = PHASES.index(fault.phase)
        while (
            trace[number] < int(fault.place)
            and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.0005)
        time.sleep(fault.place % 1)
    elif fault.kind == "moment":
        time.sleep(fault.place)
    if fault.kind in ("phase", "moment"):
        kill_all(child)
    _, status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(status)
    entered = {name: trace[number] for number, name in enumerate(PHASES) if trace[number]}
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return Outcome(status, trace.phase, trace.events, entered, time.monotonic() - begun, said[-1] if said else "")


def kill_all(process: int) -> None:
    """Kill a process and those that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for each in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _child(work: Callable[[], Any], folder: Path, fault: Fault, trace: Trace, log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 3
    try:
        from motif.errors import MotifError, ran_out

        follow(trace)
        arm(fault, folder, trace)
        try:
            work()
            code = 0
        except MotifError as error:
            lift_limits()
            print(f"motif: {error}", flush=True)
            code = 1
        except BaseException as error:
            lift_limits()
            # As the command line does for what is outside of a run.
            if reason := ran_out(error):
                print(f"motif: {reason}", flush=True)
                code = 1
            else:
                raise
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def training(folder: Path, settings: list[str], resume: bool = False) -> Callable[[], Any]:
    """The work of `motif train demo`."""

    def work() -> None:
        from motif.display import Display
        from motif.training.loop import train

        display = Display(quiet=True)
        display.message = print  # type: ignore[method-assign]
        train("demo", folder, settings=settings, resume=resume, display=display)

    return work


def evaluating(folder: Path, settings: list[str], resume: bool = False) -> Callable[[], Any]:
    """The work of `motif eval embedded --recipe demo`, which resumes without an option."""

    def work() -> None:
        from motif.display import Display
        from motif.evaluation.any_model import evaluate_model
        from motif.evaluation.rows import EvalOverrides
        from motif.evaluation.target import find_target

        target = find_target("embedded", recipe="demo", overrides=EvalOverrides(questions=12), settings=settings)
        evaluate_model(target, Display(quiet=True), folder)

    return work


def comparing(folder: Path, settings: list[str], resume: bool = False) -> Callable[[], Any]:
    """The work of `motif compare`, two arms of one seed, which resumes without an option. Its runs are processes."""

    def work() -> None:
        from motif.compare.run import compare

        study = folder.parent / "study.toml"
        values = json.dumps(dict(setting.split("=", 1) for setting in settings))
        lines = [f"{key!r} = {value}".replace("'", '"') for key, value in json.loads(values).items()]
        lora = 'set = { "model.adapter" = "lora" }'
        study.write_text(
            'name = "study"\nrecipe = "demo"\nseeds = [0]\nkeep_trees = true\n[set]\n'
            + "\n".join(lines)
            + f"\n[arms.a]\n{lora}\n[arms.b]\n"
        )
        if compare(study, folder) != 0:
            raise RuntimeError("a run of the study failed")

    return work


# -- what must be the same ---------------------------------------------------------------------------------------------

BYTES = ("trees.jsonl", "outcomes.jsonl")
CLOCK = ("seconds", "time/", "memory/")


def timeless(record: Any) -> Any:
    """A record without what is a matter of the clock."""
    if isinstance(record, list):
        return [timeless(item) for item in record]
    if isinstance(record, dict):
        return {key: timeless(value) for key, value in record.items() if not any(part in key for part in CLOCK)}
    return record


def differences(whole: Path, broken: Path, keep: int = 2) -> list[str]:
    """In what a run that failed on its way differs from one that did not; nothing if it is as it must be."""
    from motif.runs import checkpoint
    from motif.runs.trained import CHECKPOINT_FILE

    found = []
    weights = [str(path.relative_to(whole)) for path in whole.rglob("*.safetensors")]
    if not weights:
        found.append("the whole run has no weights")
    for name in (*BYTES, *weights):
        if not (broken / name).is_file():
            found.append(f"{name} is missing")
        elif (whole / name).read_bytes() != (broken / name).read_bytes():
            found.append(f"{name} differs")
    one, two = (_records(run / "metrics.jsonl") for run in (whole, broken))
    if one != two:
        found.append("metrics.jsonl differs" if two is not None else "metrics.jsonl has a torn line")
    one, two = (timeless(json.loads((run / "summary.json").read_text())) for run in (whole, broken))
    if one != two:
        found.append("summary.json differs")
    kept = [folder.name for folder in checkpoint.all_checkpoints(broken)]
    if kept != [folder.name for folder in checkpoint.all_checkpoints(whole)] or len(kept) != keep:
        found.append(f"checkpoints are {kept}")
    for folder in checkpoint.all_checkpoints(broken):
        try:
            checkpoint._read(folder / CHECKPOINT_FILE)
        except ValueError as error:
            found.append(f"{folder.name} is damaged: {error}")
    return found


def eval_differences(whole: Path, broken: Path) -> list[str]:
    """The same of an evaluation: answers, numbers and outcomes byte for byte."""
    names = ("answers.jsonl", "results.json", "outcomes.jsonl")
    return [f"{name} differs" for name in names if (whole / name).read_bytes() != (broken / name).read_bytes()]


def study_differences(whole: Path, broken: Path) -> list[str]:
    """The same of a study: its results but for clocks, and each of its runs."""
    runs = [path.parent.relative_to(whole) for path in sorted(whole.rglob("metrics.jsonl"))]
    found = [f"{run}: {what}" for run in runs for what in differences(whole / run, broken / run)]
    if _records(whole / "results.jsonl") != _records(broken / "results.jsonl"):
        found.append("results.jsonl differs")
    return found + ([] if len(runs) == 2 else [f"{len(runs)} runs"])


def _records(file: Path) -> list[Any] | None:
    try:
        return [timeless(json.loads(line)) for line in file.read_text().splitlines()]
    except ValueError:
        return None
