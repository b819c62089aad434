"""The progress of a study: a live line in a terminal, a plain line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import fmean

from rich.status import Status
from rich.text import Text

from motif.compare.runner import Runner
from motif.compare.study import StudyRun
from motif.display import PlainConsole
from motif.runs.read import last_step, wall_seconds
from motif.text import counted, duration, harmless


class StudyProgress:
    """Shows how many runs are done, running and left, and the time left.

    Args:
        planned: seconds that a run of each arm may take, until one has ended; their ratios matter most.
    """

    def __init__(self, planned: Mapping[str, float], console: PlainConsole | None = None):
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

    def __call__(self, runner: Runner, run: StudyRun | None) -> None:
        """Report a run that has started or ended, or, without one, just the time that has passed."""
        self._learn(runner)
        if run is not None and all(active.run is not run for active in runner.active):
            failure, seconds = runner.tally.failed.get(str(run)), wall_seconds(run.folder)
            outcome = f"failed: {failure}" if failure else "done" + (f" in {duration(seconds)}" if seconds else "")
            text = f"{run}: {outcome}" + ("" if self._live else f"  ({self.line(runner)})")
            self.console.print(text, soft_wrap=True)
        if self._live:
            self._live.update(Text(harmless(self.line(runner))))

    def line(self, runner: Runner) -> str:
        """The runs done, running (with their steps) and left, and the time left."""
        tally = runner.tally
        running = ", ".join(
            f"{active.run} ({last_step(active.run.folder)}/{active.run.recipe.train.steps})" for active in runner.active
        )
        left = len(runner.waiting) - runner.elsewhere
        parts = [
            f"{len(tally.finished)} of {counted(tally.total, 'run')} done",
            f"{len(tally.failed)} failed" if tally.failed else "",
            f"running {running}" if running else "",
            f"{runner.elsewhere} elsewhere" if runner.elsewhere else "",
            f"{left} left" if left > 0 else "",
            self.time_left(runner),
        ]
        return ", ".join(part for part in parts if part)

    def time_left(self, runner: Runner) -> str:
        """A rough estimate: from the arm's runs that have ended, or from the plan, scaled by what other arms took."""
        if not (runner.active or runner.waiting):
            return ""
        now = time.monotonic()
        active = [max(0.0, self.expected(one.run) - (now - one.started)) for one in runner.active]
        total = sum(active) + sum(self.expected(run) for run in runner.waiting)
        return f"about {duration(max(total / runner.workers, max(active, default=0.0)))} left"

    def expected(self, run: StudyRun) -> float:
        """The seconds that a run is expected to take."""
        if run.arm in self.seconds:
            return fmean(self.seconds[run.arm])
        ratios = [fmean(taken) / self.planned[arm] for arm, taken in self.seconds.items() if self.planned[arm]]
        return self.planned[run.arm] * (fmean(ratios) if ratios else 1.0)

    def _learn(self, runner: Runner) -> None:
        for run in runner.tally.finished[self.ended :]:
            if seconds := wall_seconds(run.folder):
                self.seconds.setdefault(run.arm, []).append(seconds)
        self.ended = len(runner.tally.finished)
