"""The page of a study: one self-contained HTML file in the style of the run report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motif.compare.analysis import accuracy_interval
from motif.compare.results import Record
from motif.compare.words import COSTS, cost_columns, currency_words, method
from motif.evaluation.accuracy import row_words
from motif.report.page import assemble, asset
from motif.runs.disk import write_atomically

HERE = Path(__file__).parent / "assets"
SHARED = ("dom.js", "numbers.js", "tip.js")  # of the run's page
OWN = ("plot.js", "curves.js", "forest.js", "page.js")


def write_page(path: Path, summary: Record, lines: Sequence[Record]) -> None:
    """Write the page from the summary and the raw results it was made from."""
    scripts = [*(asset(name) for name in SHARED), *(asset(name, HERE) for name in OWN)]
    reading = " ".join(one["sentence"] for one in summary["contrasts"] + summary["thresholds"]) or method(summary)
    styles = [asset("page.css", HERE)]
    title = f"{summary['study']} – motif study"
    page = assemble(title, reading, page_data(summary, lines), scripts, styles, skip_to="curves")
    write_atomically(path, page.text.encode("utf-8", errors="replace"))


def page_data(summary: Record, lines: Sequence[Record]) -> Record:
    """The data of the page: the summary, the curves, and the words for both."""
    curves = {arm: arm_curves([line for line in lines[1:] if line["arm"] == arm]) for arm in summary["arms"]}
    spent = {key for curve in curves.values() for key, table in curve["spent"].items() if any(map(any, table))}
    currencies = [key for key in COSTS if key in spent] + sorted(spent - {*COSTS})
    return {
        "summary": summary,
        "method": method(summary),
        "curves": curves,
        "currencies": [{"key": key, "name": currency_words(key), "unit": unit(key)} for key in currencies],
        "rows": [{"key": row, "name": row_words(row)} for row in summary["rows"]],
        "costs": dict(zip(("heads", "lines"), cost_columns(summary), strict=True)),
        "settings": {
            name: [f"{key} = {value}" for key, value in arm["settings"].items()]
            for name, arm in summary["arms"].items()
        },
    }


def arm_curves(runs: Sequence[Record]) -> Record:
    """An arm's evaluations: steps, what each seed had spent by then, and each row's accuracy by seed and on average.

    Tables have a row per seed and a column per step. Only steps at which every seed was evaluated are shown.
    """
    by_step = [_places(run["curve"]) for run in runs]
    places = sorted(set.intersection(*(set(points) for points in by_step))) if by_step else []
    table = [[points[place] for place in places] for points in by_step]
    keys = {key for points in table for point in points for key in point["spent"]}
    rows = list(dict.fromkeys(row for points in table for point in points for row in point["rows"]))
    return {
        "seeds": [run["seed"] for run in runs],
        "steps": [step for step, _ in places],
        "spent": {key: [[point["spent"].get(key, 0) for point in points] for points in table] for key in sorted(keys)},
        "rows": {row: _row([[_accuracy(point, row) for point in points] for points in table]) for row in rows},
    }


def _places(curve: Sequence[Record]) -> dict[tuple[int, int], Record]:
    """The points of a curve by step, and by their order at it: one after a warm start is the second of step 0."""
    placed: dict[tuple[int, int], Record] = {}
    for point in curve:
        placed[point["step"], sum(step == point["step"] for step, _ in placed)] = point
    return placed


def unit(currency: str) -> str:
    """The unit in which the page prints amounts of a currency; see FORMAT in numbers.js."""
    if "seconds" in currency:
        return "seconds"
    if currency == "flops":
        return "flops"
    return "tokens" if currency.endswith(("_tokens", "_saved")) else "count"


def _row(by_seed: list[list[float | None]]) -> Record:
    means: list[Record | None] = []
    for column in zip(*by_seed, strict=True):
        values = [value for value in column if value is not None]
        means.append(accuracy_interval(values) if values else None)
    return {"by_seed": by_seed, "means": means}


def _accuracy(point: Record, row: str) -> float | None:
    value: Any = point["rows"].get(row, {}).get("accuracy")
    return None if value is None else float(value)
