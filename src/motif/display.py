"""The terminal while a run goes: a live line, or plain lines where the output is not a terminal."""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from motif.evaluation.accuracy import row_words
from motif.runs.notebook import NotebookBar, in_notebook
from motif.runs.read import resume_command
from motif.text import counted, duration, harmless, percent, percent_interval, signed, signed_interval, whole_percent

if TYPE_CHECKING:
    from motif.evaluation.accuracy import Accuracy
    from motif.evaluation.probe import ProbeResult
    from motif.evaluation.rows import EvalRow
    from motif.evaluation.second import SecondOpinion
    from motif.runs.ledger import Ledger
    from motif.runs.result import Result
    from motif.statistics.calibration import Calibration
    from motif.statistics.estimators import Proportion

PLAIN_EVERY = 10.0
"""Seconds between progress lines when the output is not a terminal."""
WIDE = 400
"""The width of a table, in characters, when the output is not a terminal: no number is broken over lines."""

NARROW = 80
"""Columns that a row of the table of steps fits into, unless its numbers are very long."""
HEADING_EVERY = 25
"""Rows of that table between two headings."""
TREND = 6
"""Steps that a row's trend goes back over."""
BLOCKS = "▁▂▃▄▅▆▇█"

Counter = AbstractContextManager[Callable[..., None]]
"""A context whose value is called once for each thing that is counted."""


class PlainConsole(Console):
    """The one console of motif. Text is printed as it is: `[x]` is no markup, and no escape sequence gets through."""

    def __init__(self, **options: Any):
        super().__init__(**({"highlight": False, "markup": False, "emoji": False} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """A string made harmless; rich renders all strings here, those in tables too."""
        return super().render_str(harmless(text), **options)

    def print_table(self, table: Table) -> None:
        """Print a table: in a terminal no word is cut, else lines are as long as they are and end without blanks."""
        for column in table.columns:
            column.overflow = "fold"
        if self.is_terminal:
            self.print(table)
            return
        text = io.StringIO()
        PlainConsole(width=WIDE, file=text).print(table)
        self.print("\n".join(line.rstrip() for line in text.getvalue().splitlines()), soft_wrap=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """A counter on standard error, if that is a terminal; call the value to count one more."""
    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.completed} {task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda: bar.advance(task)


class StepTable:
    """The rows of a run's training steps, aligned under a heading that comes back now and then."""

    HEADS = ("step", "reward", "change", "trend", "right", "formed", "dead", "cut", "time", "left")

    def __init__(self) -> None:
        self._rewards: list[float | None] = []

    def lines(self, metrics: Mapping[str, Any], steps: int, left: str) -> list[str]:
        """The next row, under a heading where one is due. `left`: the time left in words."""
        number, reward = metrics["step"], metrics["reward"]
        self._rewards.append(reward)
        known = [value for value in self._rewards if value is not None]
        change = f"{reward - known[0]:+.2f}".replace("-", "−") if reward is not None and len(known) > 1 else ""
        cells = {
            "step": f"step {number:>{len(str(steps))}}/{steps}",
            "reward": _number(reward),
            "change": change,
            "trend": sparkline(self._rewards)[-TREND:].ljust(TREND),
            "right": whole_percent(metrics["outcome/mean"]),
            "formed": whole_percent(metrics["format/rate_1"]),
            "dead": f"{metrics['dead_groups']}/{metrics['groups']}",
            "cut": whole_percent(metrics["completions/clipped_ratio"]),
            "time": seconds_briefly(metrics["time/total"]),
            "left": left,
        }
        least = {"trend": TREND, "right": 5, "dead": 5, "cut": 5, "time": 6, "left": 9}
        widths = {head: max(len(head), least.get(head, 0), len(cells[head])) for head in self.HEADS}
        gap = "  " if sum(widths.values()) + 2 * len(widths) - 2 <= NARROW else " "
        rows = [dict(zip(self.HEADS, self.HEADS, strict=True))] * (len(self._rewards) % HEADING_EVERY == 1)
        rows.append(cells)
        return [gap.join(row[head].rjust(widths[head]) for head in self.HEADS).rstrip() for row in rows]


def sparkline(values: Sequence[float | None]) -> str:
    """A block for each number, as high as it is between the lowest and the highest; a blank where there is none."""
    known = [value for value in values if value is not None]
    low, size = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    heights = (None if value is None else (value - low) / size if size else 0.5 for value in values)
    return "".join(" " if height is None else BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)


def seconds_briefly(seconds: float) -> str:
    """`7.7 s`, `1:05 min`, `2:05 h`: at most eight characters."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    size, unit = (60, "min") if seconds < 3600 else (3600, "h")
    return f"{int(seconds // size)}:{int(seconds % size * 60 / size):02d} {unit}"


class Display:
    """Progress of one run on a console. `Display(quiet=True)` prints nothing."""

    def __init__(self, console: PlainConsole | None = None, quiet: bool = False):
        self.console = console or PlainConsole(quiet=quiet)
        notebook = console is None and not quiet and in_notebook()
        self._live = (self.console.is_terminal or notebook) and not quiet
        self._bar: Any = (
            NotebookBar()
            if notebook
            else Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
                disable=not self._live,
            )
        )
        self._what = ""
        self._first_step: tuple[int, float] | None = None
        self._steps = StepTable()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """Print text; in a terminal its lines are broken between words, except those that can be pasted."""
        for line in text.splitlines() or [""]:
            paste = not self.console.is_terminal or line.startswith("  ") or "--" in line or "motif " in line
            self.console.print(line, soft_wrap=paste)

    def messages(self, *texts: str) -> None:
        """Print those of the texts that are not empty."""
        for text in filter(None, texts):
            self.message(text)

    def plan(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print a plan, given as (name, text) pairs, before anything is spent."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in rows:
            table.add_row(Text(name, style="bold"), value)
        self.console.print_table(table)

    @contextmanager
    def _counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """Count `total` things; call the value, with any arguments, to count one more."""
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

    def sampling(self, trajectories: int) -> Counter:
        """Count trajectories as they end."""
        return self._counting(f"sampling {self._what}".strip() + ": trajectories", trajectories)

    def evaluating(self, answers: int) -> Counter:
        """Count the answers of an evaluation as they end."""
        return self._counting("evaluating", answers)

    def probing(self, answers: int) -> Counter:
        """Count the answers of a probe as they end."""
        return self._counting("probing", answers)

    def step(self, metrics: dict[str, Any], steps: int) -> None:
        """Print the row of a training step, with the time left for the rest of `steps`."""
        number = metrics["step"]
        now = time.monotonic()
        if self._first_step is None:
            # The time left is estimated from the steps of this process alone.
            self._first_step = (number - 1, now - metrics["time/total"])
        step_before, started = self._first_step
        left = (now - started) / (number - step_before) * (steps - number)
        for line in self._steps.lines(metrics, steps, duration(left) if number < steps else ""):
            self.message(line)
        parts = []
        if "refill/tried" in metrics:
            kept, short = metrics["refill/kept"], metrics["refill/short"]
            parts.append(f"{counted(metrics['refill/tried'], 'question')} tried, {kept} of {kept + short} kept")
        if metrics.get("replay/notes"):
            parts.append(f"{counted(metrics['replay/notes'], 'note')} replayed")
        if metrics.get("rounds/early"):
            parts.append(f"{metrics['rounds/mean']:.1f} rounds, {whole_percent(metrics['rounds/early'])} early")
        if metrics["outcome/ungraded"]:
            parts.append(f"ungraded {metrics['outcome/ungraded']} ({metrics['outcome/ungraded_reason']})")
        if metrics.get("update/skipped"):
            causes = ", ".join(metrics["update/causes"][:3])
            parts.append(f"update skipped: its gradient was not finite ({causes})")
        self._what = f"step {number + 1}/{steps}" if number < steps else ""
        for part in parts:
            self.message(f"  {part}")

    def evaluated(self, step: int, results: Mapping[str, Accuracy], when: str = "") -> None:
        """Print the accuracies after a step (0: before training), or at another time."""
        when = when or _when(step)
        for name, accuracy in results.items():
            extra = f"  ({accuracy.ungraded} ungraded)" if accuracy.ungraded else ""
            self.message(f"{when}, {row_words(name)}: {accuracy}{extra}")
            if len(accuracy.by_pieces) > 1:
                shares = (f"{percent(value.value)} of {count}" for count, value in accuracy.by_pieces.items())
                self.message(f"  by number of pieces: {', '.join(shares)}")

    def accuracies(self, rows: Mapping[str, EvalRow], accuracies: Mapping[str, Accuracy]) -> None:
        """Print the numbers of an evaluation: a column per row of the evaluation, a line per number."""
        table = Table(
            title="held-out accuracy, 95 % intervals",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 3, 0, 0),
        )
        table.add_column("")
        for name in accuracies:
            row = rows[name]
            tokens = row.tokens_first + (row.rounds - 1) * row.tokens_continue
            heading = f"{counted(row.rounds, 'round')}\n≤ {tokens:,} tokens"
            table.add_column(row_words(name) if accuracies[name].by_pieces else heading, justify="right")
        for line in _lines(list(accuracies.values())):
            table.add_row(*line)
        self.console.print_table(table)

    def probed(self, step: int, result: ProbeResult) -> None:
        """Print the result of a probe after a step (0: before training)."""
        self.message(f"{_when(step)}, probe: {result}")

    def finished(self, result: Result, report: Path) -> None:
        """Print the outcome of a run: accuracy before and after, what it cost, and where the report is."""
        self._bar.stop()
        if result.before and result.after:
            table = Table(
                title="held-out accuracy, 95 % intervals", box=None, padding=(0, 3, 0, 0), title_justify="left"
            )
            for heading in ("", "before", "after", "change in points"):
                table.add_column(heading, justify="left" if not heading else "right")
            for name, before in result.before.items():
                after = result.after.get(name)
                table.add_row(row_words(name), _interval(before), _interval(after), _difference(before, after))
            self.console.print_table(table)
        ledger = result.ledger
        self.message(
            f"spent: {counted(ledger.questions, 'question')} ({ledger.distinct_questions:,} distinct), "
            f"{counted(ledger.updates, 'update')}, {ledger.flops:.2g} FLOPs, {duration(ledger.seconds)}"
            f"{_shares(ledger)}\n"
            f"tokens: {ledger.generated_tokens:,} generated, {ledger.prefill_tokens:,} of prompts "
            f"({ledger.prefill_saved:,} more saved by sharing), {ledger.trained_tokens:,} trained"
        )
        self.message(f"paths: {result.paths}")
        self.message(f"report: {report}")
        if not result.finished:
            self.message(f"stopped after step {result.steps}; to go on: {resume_command(report.parent)}")
        else:
            run = shlex.quote(str(report.parent))
            self.message(f"next: motif view {run}\n      motif solve --run {run}\n      motif eval {run}")


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after step {step}"


def _shares(ledger: Ledger) -> str:
    """Where the seconds went, in percent."""
    if not ledger.seconds:
        return ""
    parts = {
        "sampling": ledger.sampling_seconds,
        "grading": ledger.grading_seconds,
        "training": ledger.training_seconds,
    }
    parts["the rest"] = ledger.seconds - sum(parts.values())
    return f" ({', '.join(f'{name} {whole_percent(part / ledger.seconds)}' for name, part in parts.items())})"


def _lines(accuracies: Sequence[Accuracy]) -> Iterator[list[str]]:
    """A heading and a cell per row of an evaluation, line by line; all rows have the same numbers."""

    def interval(value: Proportion | None) -> str:
        return "-" if value is None or value.n == 0 else str(value)

    first = accuracies[0]
    alone = "accuracy, greedy" if first.temperature == 0 else "accuracy, one sample"
    yield [
        alone if first.samples == 1 else f"pass@1 (mean of {first.samples})",
        *(str(a).partition(", n =")[0] if a.n else "-" for a in accuracies),
    ]
    for k in first.pass_at:
        yield [f"pass@{k}", *(interval(a.pass_at[k]) for a in accuracies)]
    if first.majority:
        yield [f"majority of {first.samples}", *(interval(a.majority) for a in accuracies)]
    if first.calibration:
        yield ["… where over half agree", *(_over_half(a.calibration) for a in accuracies)]
        yield ["agreement − accuracy", *(_overconfidence(a.calibration) for a in accuracies)]
    if first.greedy:
        yield ["greedy", *(interval(a.greedy) for a in accuracies)]
    for count in first.by_pieces:
        values = [a.by_pieces[count] for a in accuracies]
        yield [f"of {counted(count, 'piece')}", *(f"{interval(value)}, n = {value.n:,}" for value in values)]
    if first.second:
        yield [f"{first.second.grader} disagrees on", *(_disagreements(a.second) for a in accuracies)]
    yield ["questions graded", *(f"{a.n:,}" for a in accuracies)]
    yield ["answers ungraded", *(f"{a.ungraded:,}" for a in accuracies)]
    yield ["cut off", *(percent(a.truncated) for a in accuracies)]
    yield ["well formed", *(percent(a.well_formed) for a in accuracies)]
    yield ["tokens an answer", *(f"{a.mean_tokens:,.1f}" for a in accuracies)]
    if any(a.mean_rounds is not None for a in accuracies):
        yield ["rounds an answer", *("-" if a.mean_rounds is None else f"{a.mean_rounds:.1f}" for a in accuracies)]


def _over_half(found: Calibration | None) -> str:
    """How often the majority is right where over half of the answers agree, and of how many questions that is."""
    if found is None or not found.over_half.accuracy.n:
        return "-"
    return f"{found.over_half.accuracy} of {whole_percent(found.over_half.coverage)}"


def _overconfidence(found: Calibration | None) -> str:
    gap = found.overconfidence if found else None
    return signed_interval(gap.mean, gap.low, gap.high) if gap else "-"


def _disagreements(found: SecondOpinion | None) -> str:
    return f"{len(found.disagreements):,} of {found.compared:,}" if found else "-"


def _interval(numbers: dict[str, Any] | None) -> str:
    if not numbers or numbers["accuracy"] is None:
        return "-"
    return percent_interval(numbers["accuracy"], numbers["low"], numbers["high"])


def _difference(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    known = after and None not in (before["accuracy"], after["accuracy"])
    return signed(after["accuracy"] - before["accuracy"]) if after and known else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
