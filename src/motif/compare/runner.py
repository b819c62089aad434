"""Runs the runs of a study, several at a time, each in its own process: a study can be stopped, resumed and shared.

Each run's process inherits an exclusive lock on a file in its folder. The lock is held for exactly as long as the
process lives, so any number of invocations, on machines that share the disk, can work on one study. Runs that have
finished are not repeated, and interrupted runs are resumed.
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

from motif.compare.study import StudyRun
from motif.config import Trust
from motif.errors import MotifError, RunFolderError
from motif.run_files import LOG, STUDY_LOCK
from motif.runs.disk import try_lock
from motif.runs.folder import drop_details, write_recipe
from motif.runs.read import has_begun, recipe_of
from motif.runs.settings import changed, described, settings

POLL = 0.2
"""Seconds between two checks of the processes."""


@dataclass
class Active:
    """A run whose process belongs to this invocation."""

    run: StudyRun
    process: subprocess.Popen[bytes]
    started: float
    interruptions: int = 0
    """How often it has been interrupted."""


@dataclass
class Tally:
    """The state of the runs of an invocation. `failed` maps a run to the last line that it printed."""

    total: int
    finished: list[StudyRun] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def command(run: StudyRun) -> list[str]:
    """The command of a run's process."""
    return [sys.executable, "-m", "motif.compare.worker", str(run.folder)]


class Runner:
    """Works through runs with a number of processes.

    Args:
        on_change: called whenever a run has started or ended, and about once a second without a run.
        command: the command of a run's process; tests use a quick one.
    """

    def __init__(
        self,
        runs: Sequence[StudyRun],
        workers: int = 1,
        keep_trees: bool = True,
        on_change: Callable[[Runner, StudyRun | None], None] = lambda runner, run: None,
        command: Callable[[StudyRun], list[str]] = command,
    ):
        self.waiting = list(runs)
        self.workers = workers
        self.keep_trees = keep_trees
        self.on_change = on_change
        self.command = command
        self.active: list[Active] = []
        self.elsewhere = 0
        self.interruptions = 0
        self.tally = Tally(len(self.waiting))

    def work(self) -> Tally:
        """Work until each run has finished, here or elsewhere, or has failed, or the user stops it.

        Raises:
            RunFolderError: a folder holds a run with other settings; nothing has been started.
        """
        for run in self.waiting:
            refuse_other_run(run)
        for run in [run for run in self.waiting if run.is_finished]:
            self.waiting.remove(run)
            self._ended(run)
        reported = 0.0
        with self._interruptions():
            while self.active or (self.waiting and not self.tally.stopped):
                self._fill()
                self._pass_on()
                if not self._reap():
                    time.sleep(POLL)
                if time.monotonic() - reported > 1:
                    reported = time.monotonic()
                    self.on_change(self, None)
        return self.tally

    def _fill(self) -> None:
        """Start runs up to the number of workers."""
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
            except RunFolderError as error:  # another invocation made the folder since the first check
                self.tally.failed[str(run)] = str(error)
            finally:
                os.close(lock)  # the process has its own

    def _start(self, run: StudyRun, lock: int) -> None:
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
                start_new_session=True,  # Ctrl-C reaches it only through this process, once
            )
        self.active.append(Active(run, process, time.monotonic()))
        self.on_change(self, run)

    def _pass_on(self) -> None:
        """Interrupt each process as often as this one was, the ones that were being started then as well."""
        for active in self.active:
            if active.interruptions < self.interruptions:
                active.interruptions += 1
                active.process.send_signal(signal.SIGINT)

    def _reap(self) -> bool:
        """Collect the processes that have ended; return whether there were any."""
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

    def _ended(self, run: StudyRun) -> None:
        if not self.keep_trees:
            drop_details(run.folder)
        self.tally.finished.append(run)

    @contextmanager
    def _interruptions(self) -> Iterator[None]:
        """Let the runs finish their steps and save at the first Ctrl-C or SIGTERM, and abort them at the second."""

        def handle(number: int, frame: FrameType | None) -> None:
            if not self.tally.stopped:
                print("\nthe runs finish their steps and save (Ctrl-C again stops them now)", flush=True)
            self.tally.stopped = True
            self.interruptions += 1

        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for active in self.active:  # after an error here, closed lifelines stop the runs
                if active.process.stdin:
                    active.process.stdin.close()


def refuse_other_run(run: StudyRun) -> None:
    """Refuse to mix runs with different settings.

    Raises:
        RunFolderError: the folder holds a run with other settings; the message lists them.
    """
    if not has_begun(run.folder):
        return
    try:
        begun = recipe_of(run.folder, trust=Trust(uses=()))  # only compared with the study's
    except MotifError as error:
        raise RunFolderError(f"{run.folder} holds a run whose recipe cannot be read: {error}") from None
    if changes := changed(settings(begun), settings(run.recipe.as_begun(begun))):
        raise RunFolderError(
            f"{run.folder} holds a run with other settings than the study's ({'; '.join(described(changes))}): "
            "remove it, or choose another --out"
        )


def last_words(run: StudyRun, status: int) -> str:
    """Why a run failed: the last line of its log, and how its process ended."""
    try:
        lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{last} ({ended}; {run.folder / LOG})"
