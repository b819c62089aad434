"""Runs of a study, several at a time, each in its own process, so that a study can be stopped, spread and gone on with.

A run is claimed by an exclusive lock on `FOLDER/.lock`, which its process inherits: it is held exactly as long as the
process lives, and any number of invocations on machines that share the disk can work on one study. What has finished is
not run again; what was begun is resumed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from motif.compare.study import Run
from motif.config import Recipe, flat, load_recipe
from motif.errors import RecipeError
from motif.runs.disk import claim
from motif.runs.folder import write_atomically

POLL = 0.2
"""Seconds between two looks at the processes."""
FREE = {"about", "name", "track", "track_project", "train.save_every", "train.keep_checkpoints", "train.threads"}
"""Settings that do not change what a run computes (threads: but for the last bits)."""


@dataclass
class Active:
    """A run that this invocation has a process for."""

    run: Run
    process: subprocess.Popen[bytes]
    started: float


@dataclass
class Tally:
    """Where the runs of an invocation stand. `failed` maps a run to the last line it wrote."""

    total: int
    finished: list[Run] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def command(run: Run) -> list[str]:
    """The process of a run."""
    return [sys.executable, "-m", "motif.compare.worker", str(run.folder)]


class Runner:
    """Works through runs with a number of processes.

    Args:
        on_change: called whenever something has begun or ended, and about once a second.
        command: what process a run is; tests put a quick one here.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        workers: int = 1,
        keep_trees: bool = True,
        on_change: Callable[[Runner, Run | None], None] = lambda runner, run: None,
        command: Callable[[Run], list[str]] = command,
    ):
        self.waiting = list(runs)
        self.workers = workers
        self.keep_trees = keep_trees
        self.on_change = on_change
        self.command = command
        self.active: list[Active] = []
        self.elsewhere = 0
        self.tally = Tally(len(self.waiting))

    def work(self) -> Tally:
        """Until every run has finished, here or elsewhere, or has failed, or the user stops it.

        Raises:
            RecipeError: a folder holds a run with other settings; nothing has been started then.
        """
        for run in self.waiting:
            refuse_other_run(run)
        for run in [run for run in self.waiting if is_finished(run)]:
            self.waiting.remove(run)
            self._ended(run)
        told = 0.0
        with self._interruptions():
            while self.active or (self.waiting and not self.tally.stopped):
                self._fill()
                if not self._reap():
                    time.sleep(POLL)
                if time.monotonic() - told > 1:
                    told = time.monotonic()
                    self.on_change(self, None)
        return self.tally

    def _fill(self) -> None:
        """Start what can be started."""
        if len(self.active) >= self.workers:
            return
        self.elsewhere = 0
        for run in list(self.waiting):
            if len(self.active) >= self.workers or self.tally.stopped:
                return
            run.folder.mkdir(parents=True, exist_ok=True)
            lock = claim(run.folder / ".lock")
            if lock is None:
                self.elsewhere += 1
                continue
            try:
                self.waiting.remove(run)
                refuse_other_run(run)
                if is_finished(run):
                    self._ended(run)
                    self.on_change(self, run)
                else:
                    self._start(run, lock)
            except RecipeError as error:  # made by someone else since we looked
                self.tally.failed[str(run)] = str(error)
            finally:
                os.close(lock)  # the process has its own

    def _start(self, run: Run, lock: int) -> None:
        write_atomically(run.folder / "recipe.toml", run.recipe.to_toml())
        environment = os.environ | {"OMP_NUM_THREADS": str(run.recipe.train.threads), "TOKENIZERS_PARALLELISM": "false"}
        with (run.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                self.command(run),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
        self.active.append(Active(run, process, time.monotonic()))
        self.on_change(self, run)

    def _reap(self) -> bool:
        """Take note of what has ended; was there anything?"""
        ended = [active for active in self.active if active.process.poll() is not None]
        for active in ended:
            self.active.remove(active)
            if active.process.stdin:
                active.process.stdin.close()
            if is_finished(active.run):
                self._ended(active.run)
            elif self.tally.stopped:
                continue
            else:
                self.tally.failed[str(active.run)] = last_words(active.run, active.process.returncode)
            self.on_change(self, active.run)
        return bool(ended)

    def _ended(self, run: Run) -> None:
        if not self.keep_trees:
            (run.folder / "trees.jsonl").unlink(missing_ok=True)
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        self.tally.finished.append(run)

    @contextmanager
    def _interruptions(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets the runs end their steps and save, the second aborts them."""

        def handle(number: int, frame: FrameType | None) -> None:
            if not self.tally.stopped:
                print("\nthe runs finish their steps and save (Ctrl-C again: stop now)", flush=True)
            self.tally.stopped = True
            for active in self.active:
                active.process.send_signal(signal.SIGINT)

        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for active in self.active:  # an error of our own: their lifelines are cut
                if active.process.stdin:
                    active.process.stdin.close()


def is_finished(run: Run) -> bool:
    """Whether the folder holds this run, to its end."""
    try:
        summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(summary.get("status") == "finished" and summary.get("steps") == run.recipe.train.steps)


def refuse_other_run(run: Run) -> None:
    """Never mix runs with different settings.

    Raises:
        RecipeError: the folder holds a run with other settings; says which.
    """
    begun = any((run.folder / name).exists() for name in ("metrics.jsonl", "checkpoints", "summary.json"))
    if not begun:
        return
    try:
        there = load_recipe(run.folder / "recipe.toml")
    except RecipeError as error:
        raise RecipeError(f"{run.folder} holds a run whose recipe cannot be read: {error}") from None
    if different := differences(there, run.recipe):
        told = "; ".join(f"{key} is {old!r} there, {new!r} in the study" for key, (old, new) in different.items())
        raise RecipeError(f"{run.folder} holds a run with other settings ({told}): remove it, or choose another --out")


def differences(one: Recipe, two: Recipe) -> dict[str, tuple[Any, Any]]:
    """Settings in which two recipes differ, as dotted keys, without those that change no result."""
    a, b = (dict(flat(recipe.model_dump(mode="json"))) for recipe in (one, two))
    return {key: (a.get(key), b.get(key)) for key in b if key not in FREE and a.get(key) != b.get(key)}


def last_words(run: Run, status: int) -> str:
    """Why a run failed, as far as its log tells."""
    try:
        lines = (run.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{said} ({ended}; {run.folder / 'log.txt'})"
