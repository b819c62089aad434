"""What the trees show of all questions together: rewards and advantages as histograms, and each question's rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from motif.report.charts import Chart
from motif.report.trees import Forest
from motif.runs.read import Record

BINS = 20
MOST_QUESTIONS = 60
"""Questions whose rates are shown."""
FEWEST_STEPS = 4
"""Steps from which on the first and the last tenth are told apart."""


def histograms(forest: Forest) -> list[Chart]:
    """Rewards and advantages of first-round responses, early and late in the run."""
    words = {
        "reward": "Rewards of first-round responses. Training should move the mass to the right; two separate hills "
        "are responses that can be told apart.",
        "advantage": "Advantages of first-round responses. The mass at 0 is of dead groups, which teach nothing; long "
        "tails are single responses with much weight.",
    }
    steps = sorted({head["step"] for head in forest.heads})
    tenth = max(1, len(steps) // 10)
    early, late = set(steps[:tenth]), set(steps[-tenth:])
    charts = []
    for place, (name, caption) in enumerate(words.items()):
        parts = [
            (_range("early", early), _values(forest, early, place)),
            (_range("late", late), _values(forest, late, place)),
        ]
        if len(steps) < FEWEST_STEPS:
            parts = [("all steps", _values(forest, set(steps), place))]
        chart: Chart = {"id": f"histogram-{name}", "kind": "lines", "own": name, "title": f"{name.title()}s"}
        chart |= {"y": "share of responses (%)", "unit": "percent", "limits": (0.0, None), "caption": caption}
        charts.append(chart | _shares(parts))
    return [chart for chart in charts if "missing" not in chart]


def _values(forest: Forest, steps: set[int], place: int) -> list[float]:
    pairs = zip(forest.heads, forest.credit, strict=True)
    return [value for head, credit in pairs if head["step"] in steps for value in credit[place]]


def _range(name: str, steps: set[int]) -> str:
    return (
        f"{name} (steps {min(steps):,} to {max(steps):,})"
        if len(steps) > 1
        else f"{name} (step {min(steps, default=0):,})"
    )


def _shares(parts: Sequence[tuple[str, list[float]]]) -> Record:
    """Shares in bins of one width, at the middles of the bins; `missing` where there is nothing to show."""
    every = list(chain.from_iterable(values for _, values in parts))
    if not every:
        return {"missing": "Not recorded in this run."}
    low, high = min(every), max(every)
    width = (high - low) / BINS or 1.0
    series = []
    for name, values in parts:
        counts = [0] * (BINS + 2)  # with an empty bin at both ends, so that a curve comes down
        for value in values:
            counts[1 + min(BINS - 1, int((value - low) / width))] += 1
        shares = [count / len(values) if values else None for count in counts]
        series.append({"name": name, "raw": shares, "smooth": None})
    middles = [float(f"{low + (place - 0.5) * width:.4g}") for place in range(BINS + 2)]
    return {"x": middles, "series": series, "faint": False, "average": None}


def curriculum(forest: Forest) -> list[Chart]:
    """The share of right trajectories of each question over the steps, for questions that came back."""
    seen: dict[tuple[str, str], dict[int, float]] = {}
    for head in forest.heads:
        if graded := head["right"] + head["wrong"]:
            seen.setdefault((head["id"], head["text"]), {})[head["step"]] = head["right"] / graded
    again = {key: rates for key, rates in seen.items() if len(rates) > 1}
    if not again:
        return []
    # Those that came back most often say most.
    often = sorted(again, key=lambda key: -len(again[key]))[:MOST_QUESTIONS]
    rows = sorted(often, key=lambda key: -sum(again[key].values()) / len(again[key]))
    left = len(again) - len(rows)
    return [
        {
            "id": "questions",
            "kind": "cells",
            "title": "Each question over time",
            "y": "question",
            "unit": "percent",
            "caption": "The share of right trajectories each time a question was grown: the fuller the colour, the "
            "more. Easy questions are at the top." + (f" {left:,} more came back, less often." if left else ""),
            "rows": [{"name": text[:80] or id, "cells": sorted(again[id, text].items())} for id, text in rows],
        }
    ]
