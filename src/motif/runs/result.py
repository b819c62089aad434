"""What training returns."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.errors import UsageError
from motif.runs.ledger import Ledger
from motif.runs.notebook import curve
from motif.runs.read import read_metrics
from motif.text import counted, percent_interval

CURVES = {
    "outcome/mean": "outcome",
    "reward": "reward",
    "format/rate_1": "well formed",
    "completions/mean_length": "tokens a response",
}
"""Metrics that a notebook shows, and what they are called there."""


@dataclass(frozen=True, repr=False)
class Result:
    """What a run came to. `before` and `after` map `rounds_1`, `rounds_3`, … to accuracy, low, high and n.

    In a notebook it shows these and the curves of the run.
    """

    run: Path
    steps: int
    finished: bool
    before: dict[str, Any]
    after: dict[str, Any]
    ledger: Ledger
    standstill: str = ""
    """Why the last steps made no update, if three or more in a row made none, or none at all was made."""
    paths: str = ""
    """How sampler and updates computed, in words."""
    stopped_dead: bool = False
    """Whether the run stopped because of it (`train.stop_when_dead`)."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of each step, in order (docs/design.md lists them)."""
        return read_metrics(self.run).steps

    def to_pandas(self) -> Any:
        """The metrics as a data frame of pandas, a row a step; evaluations are columns `eval/rounds_3/accuracy`, ….

        The row of step 0 is the evaluation before training. After a warm start there is a second one, whose `stage` is
        `warmstart`.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError("to_pandas needs pandas: pip install pandas") from None
        metrics = read_metrics(self.run)
        rows: dict[tuple[int, str], dict[str, Any]] = {(record["step"], ""): dict(record) for record in metrics.steps}
        for made in metrics.evaluations():
            row = rows.setdefault((made.step, made.stage), {"step": made.step})
            row |= {"stage": made.stage} if made.stage else {}
            row |= {
                f"eval/{name}/{key}": numbers.get(key)
                for name, numbers in made.results.items()
                if isinstance(numbers, dict)
                for key in ("accuracy", "low", "high", "n")
            }
        return pandas.DataFrame([rows[step] for step in sorted(rows)]).set_index("step") if rows else pandas.DataFrame()

    def __repr__(self) -> str:
        rows = [f"{name} {_share(self.before[name])} → {_share(self.after.get(name))}" for name in self.before]
        return f"Result({', '.join([f'{self.run}: {self._state()}', *rows])})"

    def _state(self) -> str:
        return f"{'finished' if self.finished else 'stopped'} after {counted(self.steps, 'step')}"

    def _repr_html_(self) -> str:
        """The result as a notebook shows it."""
        cells = "".join(
            f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{_interval(self.before[name])}</td>"
            f"<td>{_interval(self.after.get(name))}</td></tr>"
            for name in self.before
        )
        table = f"<table><tr><th>accuracy</th><th>before</th><th>after</th></tr>{cells}</table>" if cells else ""
        steps = self.metrics
        curves = "".join(
            curve(words, [(record["step"], record.get(key)) for record in steps]) for key, words in CURVES.items()
        )
        why = f"<p>{html.escape(self.standstill)}</p>" if self.standstill else ""
        return f"<p><b>{html.escape(str(self.run))}</b>: {self._state()}</p>{why}{table}{curves}"


def _share(numbers: dict[str, Any] | None) -> str:
    value = (numbers or {}).get("accuracy")
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(numbers: dict[str, Any] | None) -> str:
    if not numbers or numbers.get("accuracy") is None:
        return "-"
    return percent_interval(numbers["accuracy"], numbers["low"], numbers["high"])
