"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from motif.text import duration, harmless, percent

if TYPE_CHECKING:
    from motif.evaluation.accuracy import Accuracy
    from motif.evaluation.evaluate import Row
    from motif.evaluation.probe import ProbeResult
    from motif.planning.plan import DevicePlan, Plan
    from motif.runs.folder import Ledger
    from motif.statistics.estimators import Estimate
    from motif.training.loop import Result

PLAIN_EVERY = 10.0
"""Seconds between progress lines when the output is not a terminal."""
WIDE = 400
"""Characters in which a table may stand when the output is not a terminal, so that no number is broken over lines."""


class PlainConsole(Console):
    """A console on which text is text: no markup in it is followed, and no escape sequence leaves it."""

    def __init__(self, **options: Any):
        super().__init__(**({"highlight": False, "markup": False, "emoji": False} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich makes of all strings, those in tables too."""
        return super().render_str(harmless(text), **options)


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """A counter on standard error, where that is a terminal; the value counts one more."""
    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.completed} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda: bar.advance(task)


class Display:
    """Progress of one run on a console. `Display(quiet=True)` says nothing."""

    def __init__(self, console: Console | None = None, quiet: bool = False):
        self.console = console or PlainConsole(quiet=quiet)
        self._live = self.console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._what = ""
        self._first_step: tuple[int, float] | None = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """A line of text."""
        self.console.print(harmless(text), soft_wrap=True, markup=False)

    def plan(self, plan: Plan | DevicePlan) -> None:
        """The plan, before anything is spent."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in plan.rows():
            table.add_row(Text(name, style="bold"), harmless(value))
        self.console.print(table, markup=False)

    @contextmanager
    def _counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        task = self._bar.add_task(what, total=total)
        done, last = 0, time.monotonic()

        def advance(*_: object) -> None:
            nonlocal done, last
            done += 1
            self._bar.advance(task)
            if not self._live and time.monotonic() - last >= PLAIN_EVERY:
                last = time.monotonic()
                self.message(f"  {what}: {done} of {total}")

        try:
            yield advance
        finally:
            self._bar.remove_task(task)

    def sampling(self, trajectories: int) -> Any:
        """A context that counts trajectories as they end."""
        return self._counting(f"sampling {self._what}".strip(), trajectories)

    def evaluating(self, answers: int) -> Any:
        """A context that counts evaluation answers as they end."""
        return self._counting("evaluating", answers)

    def probing(self, answers: int) -> Any:
        """A context that counts a probe's answers as they end."""
        return self._counting("probing", answers)

    def step(self, metrics: dict[str, Any], steps: int) -> None:
        """One line per training step."""
        number = metrics["step"]
        now = time.monotonic()
        if self._first_step is None:
            # The first step of this process took its own time; what is left is estimated from the steps since.
            self._first_step = (number - 1, now - metrics["time/total"])
        begun, at = self._first_step
        left = (now - at) / (number - begun) * (steps - number)
        parts = [
            f"step {number:>{len(str(steps))}}/{steps}",
            f"reward {_number(metrics['reward'])}",
            f"right {percent(metrics['outcome/mean'], decimals=0)}",
            f"well formed {percent(metrics['format/rate_1'], decimals=0)}",
            f"dead groups {metrics['dead_groups']}/{metrics['groups']}",
            f"cut off {percent(metrics['completions/clipped_ratio'], decimals=0)}",
            f"{metrics['time/total']:.1f} s",
            f"{duration(left)} left" if number < steps else "",
        ]
        if metrics["outcome/ungraded"]:
            parts.append(f"ungraded {metrics['outcome/ungraded']} ({metrics['outcome/ungraded_reason']})")
        if metrics.get("update/skipped"):
            named = ", ".join(metrics["update/causes"][:3])
            parts.append(f"update skipped: its gradient was not finite ({named})")
        self._what = f"step {number + 1}/{steps}" if number < steps else ""
        self.message("  ".join(part for part in parts if part))

    def evaluated(self, step: int, results: dict[str, Accuracy]) -> None:
        """Accuracies after a step (0: before training)."""
        when = _when(step)
        for name, accuracy in results.items():
            extra = f"  ({accuracy.ungraded} ungraded)" if accuracy.ungraded else ""
            self.message(f"{when}, {_rounds(name)}: {accuracy}{extra}")

    def accuracies(self, rows: dict[str, Row], found: dict[str, Accuracy]) -> None:
        """The numbers of an evaluation: a column per row of it, a line per number."""
        table = Table(
            title="held-out accuracy, 95 % intervals",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 3, 0, 0),
        )
        table.add_column("")
        for name in found:
            row = rows[name]
            tokens = row.tokens_first + (row.rounds - 1) * row.tokens_continue
            table.add_column(f"{_plural(row.rounds, 'round')}\n≤ {tokens:,} tokens", justify="right")
        for line in _lines(list(found.values())):
            table.add_row(*line)
        plain = PlainConsole(file=self.console.file, width=WIDE, quiet=self.console.quiet)
        (self.console if self._live else plain).print(table)

    def probed(self, step: int, result: ProbeResult) -> None:
        """What a probe after a step found (0: before training)."""
        self.message(f"{_when(step)}, probe: {result}")

    def finished(self, result: Result, report: Path) -> None:
        """The outcome: before and after, what it cost, where it is."""
        self._bar.stop()
        if result.before and result.after:
            table = Table(title="held-out accuracy, 95 % intervals", title_justify="left", title_style="bold")
            for heading in ("", "before", "after"):
                table.add_column(heading, justify="left" if not heading else "right")
            for name in result.before:
                table.add_row(_rounds(name), _interval(result.before[name]), _interval(result.after.get(name)))
            self.console.print(table)
        ledger = result.ledger
        self.message(
            f"spent: {ledger.questions:,} questions ({ledger.distinct_questions:,} distinct), "
            f"{ledger.updates:,} updates, {ledger.generated_tokens:,} generated + {ledger.prefill_tokens:,} prompt "
            f"tokens ({ledger.prefill_saved:,} more saved by sharing), {ledger.trained_tokens:,} trained tokens, "
            f"{ledger.flops:.2g} FLOPs, {duration(ledger.seconds)}{_shares(ledger)}"
        )
        self.message(f"report: {report}")
        if not result.finished:
            self.message(f"stopped after step {result.steps}; go on with the same command and --resume")


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after step {step}"


def _shares(ledger: Ledger) -> str:
    """Where the seconds went, in per cent."""
    if not ledger.seconds:
        return ""
    parts = {
        "sampling": ledger.sampling_seconds,
        "grading": ledger.grading_seconds,
        "training": ledger.training_seconds,
    }
    parts["the rest"] = ledger.seconds - sum(parts.values())
    return f" ({', '.join(f'{name} {percent(part / ledger.seconds, decimals=0)}' for name, part in parts.items())})"


def _rounds(name: str) -> str:
    count, _, matched = name.removeprefix("rounds_").partition("_")
    return _plural(int(count), "round") + (", the tokens of all" if matched else "")


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")


def _lines(found: list[Accuracy]) -> Iterator[list[str]]:
    """What is said of each row, with its heading; the rows of one evaluation have the same numbers."""

    def interval(value: Estimate | None) -> str:
        return "-" if value is None or value.n == 0 else str(value)

    first = found[0]
    alone = "accuracy, greedy" if first.temperature == 0 else "accuracy, one sample"
    yield [
        alone if first.samples == 1 else f"pass@1 (mean of {first.samples})",
        *(str(a).partition(", n =")[0] if a.n else "-" for a in found),
    ]
    for k in first.pass_at:
        yield [f"pass@{k}", *(interval(a.pass_at[k]) for a in found)]
    if first.majority:
        yield [f"majority of {first.samples}", *(interval(a.majority) for a in found)]
    if first.greedy:
        yield ["greedy", *(interval(a.greedy) for a in found)]
    yield ["questions graded", *(f"{a.n:,}" for a in found)]
    yield ["answers ungraded", *(f"{a.ungraded:,}" for a in found)]
    yield ["cut off", *(f"{100 * a.truncated:.1f} %" for a in found)]
    yield ["well formed", *(f"{100 * a.well_formed:.1f} %" for a in found)]
    yield ["tokens an answer", *(f"{a.mean_tokens:,.1f}" for a in found)]


def _interval(found: dict[str, Any] | None) -> str:
    if not found or found["accuracy"] is None:
        return "-"
    return f"{100 * found['accuracy']:.1f} % [{100 * found['low']:.1f}–{100 * found['high']:.1f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
