"""The charts of the report as plain data: titles, units, captions and numbers. `figure.js` and `plot.js` draw them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from motif.evaluation.accuracy import ROW, row_words
from motif.runs.read import Evaluation, Record, number, section

Value = float | int | None
Chart = dict[str, Any]

MOST_POINTS = 600  # a chart has no pixels for more
MOST_BARS = 40
AXES = ("generated_tokens", "seconds", "flops")  # amounts of the ledger that charts can be plotted against
PARTS = {"sample": "sampling", "grade": "grading, as far as it made sampling wait", "update": "training"}


def moving_average(values: Sequence[Value], window: int) -> list[Value]:
    """The centred mean of each window, over the values that it has; None where it has none."""
    half = window // 2
    return [_mean(values[max(0, place - half) : place + half + 1]) for place in range(len(values))]


def stretches(steps: Sequence[Record]) -> list[range]:
    """The places of the steps behind each point of a line chart: one step a point, unless there are too many."""
    width = max(1, -(-len(steps) // MOST_POINTS))
    return [range(start, min(start + width, len(steps))) for start in range(0, len(steps), width)]


def axes(steps: Sequence[Record]) -> Record:
    """The x axes of line charts, at the end of each stretch: the step, and what training had spent by then."""
    lasts = [steps[places[-1]] for places in stretches(steps)]
    spent = {key: [number(record.get(f"ledger/{key}")) for record in lasts] for key in AXES}
    return {"step": [record["step"] for record in lasts]} | {
        key: values for key, values in spent.items() if values and None not in values
    }


def lines(
    steps: list[Record],
    keys: dict[str, str],
    *,
    limits: tuple[float | None, float | None] = (0.0, None),
    faint: bool = True,
    share: int | None = 10,
    **words: str,
) -> Chart:
    """A line per metric over training: the raw values faintly, and a moving average over 1/`share` of the run.

    Args:
        keys: the name of each metric, and the words for it.
        limits: of the y axis; None: that of the values. By default it begins at zero.
        share: None leaves out the average.
        words: passed on to the page: `id`, `title`, `y` (the axis), `unit` (how values are printed) and `caption`.

    Values stand at the places of `axes`.
    """
    chart: Chart = {"kind": "lines", "limits": limits} | words
    columns = {key: [number(record.get(key)) for record in steps] for key in keys}
    columns = {key: values for key, values in columns.items() if any(value is not None for value in values)}
    if not columns:
        return chart | {"missing": _absent(steps, keys)}
    parts = stretches(steps)
    width = len(parts[0])
    window = max(3, len(parts) // share | 1) if share and len(parts) >= 10 else 1
    series = []
    for key, values in columns.items():
        # A running total is read at the end of a stretch, where the axis is; other metrics are averaged over it.
        take = _last if share is None else _mean
        raw = [take([values[place] for place in places]) for places in parts] if width > 1 else values
        smooth = moving_average(raw, window) if window > 1 else None
        series.append({"name": keys[key], "raw": raw, "smooth": _rounded(smooth) if smooth else None})
    if width > 1 and share:
        chart["caption"] += f" Each point is the mean of {width} steps."
    return chart | {
        "series": series,
        "faint": faint or window == 1,
        "average": window * width if window > 1 else None,
    }


def by_round(steps: list[Record], prefix: str) -> dict[str, str]:
    """The metrics `prefix1`, `prefix2`, … that occur, in the order of the rounds."""
    keys = {key for record in steps for key in record if key.startswith(prefix)}
    rounds = {int(key.removeprefix(prefix)) for key in keys if re.fullmatch(r"[0-9]+", key.removeprefix(prefix))}
    return {f"{prefix}{number}": f"round {number}" for number in sorted(rounds)} or {f"{prefix}1": "round 1"}


def rate_bars(steps: list[Record]) -> Chart:
    """How many of a response's trajectories end right: shares of all first-round responses, in bins of steps."""
    chart: Chart = {
        "id": "rates",
        "kind": "bars",
        "title": "Outcome rates",
        "y": "share of responses (%)",
        "unit": "percent",
        "caption": "How many of a first-round response's trajectories ended right. "
        "Good training moves the mass to the full colour; intermediate rates are what distinguishes responses.",
    }
    rows = [(record["step"], _counts(record.get("outcome/rate_counts"))) for record in steps]
    lengths = Counter(len(counts) for _, counts in rows if counts)
    if not lengths:
        return chart | {"missing": _absent(steps, {"outcome/rate_counts": ""})}
    width = lengths.most_common(1)[0][0]
    rows = [(step, counts) for step, counts in rows if len(counts) == width]
    size = -(-len(rows) // MOST_BARS)
    names, groups = rate_levels(width - 1)
    bars = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        totals = [sum(counts[index] for _, counts in part for index in group) for group in groups]
        bars.append({"first": part[0][0], "last": part[-1][0], "counts": totals})
    if size > 1:
        chart["caption"] += f" Each column is the sum of up to {size} steps."
    return chart | {"levels": names, "bars": bars}


def rate_levels(trajectories: int) -> tuple[list[str], list[list[int]]]:
    """Names of the levels 0 … k of k, and the counts that each sums; more than nine levels are joined into six."""
    k = trajectories
    if k <= 8:
        return [f"{right} of {k}" for right in range(k + 1)], [[right] for right in range(k + 1)]
    edges = (0, 0.25, 0.5, 0.75)
    inner: list[list[int]] = [[] for _ in edges]
    for right in range(1, k):
        inner[max(place for place, edge in enumerate(edges) if right / k > edge)].append(right)
    names = ["none", "up to 25 %", "up to 50 %", "up to 75 %", "below 100 %", "all"]
    return names, [[0], *inner, [k]]


def eval_points(made: Sequence[Evaluation]) -> Chart:
    """Accuracy on held-out questions, with intervals, over training.

    After a warm start, the accuracies before it stand by themselves: two of one line would be at step 0.
    """
    warmed = any(evaluation.stage for evaluation in made)
    parts = {"": [one for one in made if one.step or one.stage or not warmed]}
    if whole := [one for one in parts[""] if one.on_few() != one]:
        parts = {", the first questions": [one.on_few() for one in parts[""]], "": whole}
    if warmed:
        parts[", before the warm start"] = [one for one in made if not one.step and not one.stage]
    zero = "after the warm start, beside that before it" if warmed else "before training"
    chart: Chart = {
        "id": "evals",
        "kind": "points",
        "title": "Held-out accuracy",
        "y": "accuracy (%)",
        "unit": "percent",
        "caption": f"Evaluations with 95 % intervals; step 0 is {zero}. "
        + "During training only the first questions are asked (eval.questions_during). " * bool(whole)
        + "Where the intervals do not overlap, there is a difference.",
    }
    series = []
    names = row_names(*(evaluation.results for evaluation in made))
    ordered = sorted(names, key=lambda name: (name.endswith("_matched"), -names.index(name)))
    for words, row in ((words, row) for words in parts for row in ordered):
        points = [
            {"step": one.step, "value": number(result.get("accuracy"))}
            | {key: number(result.get(key)) for key in ("low", "high", "n")}
            | ({"title": "step 0"} if warmed and not one.step else {})
            for one in parts[words]
            if number((result := section(one.results, row)).get("accuracy")) is not None
        ]
        if points:
            series.append({"name": row_words(row) + words, "points": points})
    return chart | ({"series": series} if series else {"missing": "No evaluation has been recorded."})


def row_names(*results: Record) -> list[str]:
    """The rows of any of the evaluations, by number of rounds; the one with matched tokens last.

    Those of texts in pieces have no number of rounds, and come first.
    """
    known = dict.fromkeys(key for result in results for key in result if ROW.fullmatch(key) or row_words(key) != key)

    def order(key: str) -> tuple[bool, int]:
        match = ROW.fullmatch(key)
        return (bool(match[2]), int(match[1])) if match else (key != "pieces", 0)

    return sorted(known, key=order)


def step_time(steps: list[Record]) -> Record:
    """Seconds of sampling, grading, training and the rest, summed over the run."""
    totals = {key: sum(_seconds(record, key) for record in steps) for key in (*PARTS, "total")}
    rest = totals.pop("total") - sum(totals.values())
    parts = {PARTS[key]: seconds for key, seconds in totals.items()} | {"the rest": max(0.0, rest)}
    shown = [{"name": name, "value": number(seconds)} for name, seconds in parts.items()]
    return {"steps": len(steps), "parts": shown if any(parts.values()) else []}


def with_dead_share(steps: list[Record]) -> list[Record]:
    """The records with `dead_share` = dead groups / groups; TRL's fraction of zero deviations stands in for it."""
    extended = []
    for record in steps:
        dead, groups = number(record.get("dead_groups")), number(record.get("groups"))
        share = dead / groups if dead is not None and groups else number(record.get("frac_reward_zero_std"))
        extended.append(record | {"dead_share": share})
    return extended


def _seconds(record: Record, key: str) -> float:
    return max(0.0, number(record.get(f"time/{key}")) or 0.0)


def _counts(value: Any) -> list[float]:
    counts = [number(count) for count in value] if isinstance(value, list) else []
    good = [count for count in counts if count is not None and count >= 0]
    return good if len(good) == len(counts) else []


def _mean(values: Sequence[Value]) -> Value:
    numbers = [value for value in values if value is not None]
    return number(sum(numbers) / len(numbers)) if numbers else None


def _last(values: Sequence[Value]) -> Value:
    return values[-1]


def _rounded(values: Sequence[Value]) -> list[Value]:
    return [None if value is None else float(f"{value:.4g}") for value in values]


def _absent(steps: list[Record], keys: dict[str, str]) -> str:
    if not steps:
        return "No training step has been recorded yet."
    return f"Not recorded in this run: metrics.jsonl has no {' or '.join(keys)}."
