"""What a person sees while a study goes on: a live line in a terminal, a plain line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console
from rich.status import Status

from motif.compare.runner import Runner
from motif.compare.study import Run
from motif.display import PlainConsole
from motif.runs.read import last_step, wall_seconds
from motif.text import duration


class StudyProgress:
    """Tells how many runs are done, running and left, and for how long.

    Args:
        planned: seconds that a run of each arm may take, for as long as none has ended; their ratios matter most.
    """

    def __init__(self, planned: Mapping[str, float], console: Console | None = None):
        self.planned = planned
        self.console = console or PlainConsole()
        self.seconds: dict[str, list[float]] = {}
        self.ended = 0
        self._live = Status("", console=self.console) if self.console.is_terminal else None

    def __enter__(self) -> StudyProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, runner: Runner, run: Run | None) -> None:
        """What `Runner` calls: about a run that has begun or ended, or just because time has passed."""
        self._learn(runner)
        if run is not None and all(active.run is not run for active in runner.active):
            failed = runner.tally.failed.get(str(run))
            took = wall_seconds(run.folder)
            told = f"failed: {failed}" if failed else "done" + (f" in {duration(took)}" if took else "")
            self.say(f"{run}: {told}" + ("" if self._live else f"  ({self.line(runner)})"))
        if self._live:
            self._live.update(self.line(runner))

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)

    def line(self, runner: Runner) -> str:
        """Runs done, running (with their steps) and left, and the time left."""
        tally = runner.tally
        running = ", ".join(f"{active.run} ({progress(active.run)})" for active in runner.active)
        left = len(runner.waiting) - runner.elsewhere
        parts = [
            f"{len(tally.finished)} of {tally.total} runs done",
            f"{len(tally.failed)} failed" if tally.failed else "",
            f"running {running}" if running else "",
            f"{runner.elsewhere} elsewhere" if runner.elsewhere else "",
            f"{left} left" if left > 0 else "",
            self.time_left(runner),
        ]
        return ", ".join(part for part in parts if part)

    def time_left(self, runner: Runner) -> str:
        """Rough: by the mean of the arm's ended runs, or the plan as far as it was right for other arms."""
        if not (runner.active or runner.waiting):
            return ""
        now = time.monotonic()
        going = [max(0.0, self.expected(a.run) - (now - a.started)) for a in runner.active]
        total = sum(going) + sum(self.expected(run) for run in runner.waiting)
        return f"about {duration(max(total / runner.workers, max(going, default=0.0)))} left"

    def expected(self, run: Run) -> float:
        """Seconds that a run will take."""
        if run.arm in self.seconds:
            return fmean(self.seconds[run.arm])
        ratios = [fmean(taken) / self.planned[arm] for arm, taken in self.seconds.items() if self.planned[arm]]
        return self.planned[run.arm] * (fmean(ratios) if ratios else 1.0)

    def _learn(self, runner: Runner) -> None:
        for run in runner.tally.finished[self.ended :]:
            if seconds := wall_seconds(run.folder):
                self.seconds.setdefault(run.arm, []).append(seconds)
        self.ended = len(runner.tally.finished)


def progress(run: Run) -> str:
    """The last step in a run's metrics, of how many."""
    return f"{last_step(run.folder)}/{run.recipe.train.steps}"


def count_finished(runs: Sequence[Run]) -> int:
    """How many runs are complete."""
    return sum(run.is_finished for run in runs)
