"""Runs of a study, several at a time, each in its own process, so that a study can be stopped, spread and resumed.

A run is claimed by an exclusive lock on `FOLDER/.lock`, which its process inherits: it is held exactly as long as the
process lives, and any number of invocations on machines that share the disk can work on one study. What has finished is
not run again; what was begun is resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from motif.compare.study import Run
from motif.errors import MotifError, RunFolderError
from motif.runs.disk import try_lock
from motif.runs.files import LOG, STUDY_LOCK
from motif.runs.folder import drop_details, write_recipe
from motif.runs.provenance import changed, described, settings
from motif.runs.read import has_begun, recipe_of

POLL = 0.2
"""Seconds between two looks at the processes."""


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
            RunFolderError: a folder holds a run with other settings; nothing has been started then.
        """
        for run in self.waiting:
            refuse_other_run(run)
        for run in [run for run in self.waiting if run.is_finished]:
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
            lock = try_lock(run.folder / STUDY_LOCK)
            if lock is None:
                self.elsewhere += 1
                continue
            try:
                self.waiting.remove(run)
                refuse_other_run(run)
                if run.is_finished:
                    self._ended(run)
                    self.on_change(self, run)
                else:
                    self._start(run, lock)
            except RunFolderError as error:  # made by someone else since we looked
                self.tally.failed[str(run)] = str(error)
            finally:
                os.close(lock)  # the process has its own

    def _start(self, run: Run, lock: int) -> None:
        write_recipe(run.folder, run.recipe)
        environment = os.environ | {"OMP_NUM_THREADS": str(run.recipe.train.threads), "TOKENIZERS_PARALLELISM": "false"}
        with (run.folder / LOG).open("ab") as log:
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
            if active.run.is_finished:
                self._ended(active.run)
            elif self.tally.stopped:
                continue
            else:
                self.tally.failed[str(active.run)] = last_words(active.run, active.process.returncode)
            self.on_change(self, active.run)
        return bool(ended)

    def _ended(self, run: Run) -> None:
        if not self.keep_trees:
            drop_details(run.folder)
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


def refuse_other_run(run: Run) -> None:
    """Never mix runs with different settings.

    Raises:
        RunFolderError: the folder holds a run with other settings; says which.
    """
    if not has_begun(run.folder):
        return
    try:
        begun = recipe_of(run.folder)
    except MotifError as error:
        raise RunFolderError(f"{run.folder} holds a run whose recipe cannot be read: {error}") from None
    if changes := changed(settings(begun), settings(run.recipe)):
        raise RunFolderError(
            f"{run.folder} holds a run with other settings than the study's ({'; '.join(described(changes))}): "
            "remove it, or choose another --out"
        )


def last_words(run: Run, status: int) -> str:
    """Why a run failed, as far as its log tells."""
    try:
        lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{said} ({ended}; {run.folder / LOG})"
