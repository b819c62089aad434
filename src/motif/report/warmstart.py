"""The section of the page about the warm start: how it went, and how undecided it left the model."""

from __future__ import annotations

from motif.evaluation.accuracy import row_words
from motif.report.charts import MOST_POINTS, Chart, row_names
from motif.runs.read import Record, number, section, whole
from motif.text import counted, percent, percent_interval

SHARES = {
    "well_formed": "well-formed responses",
    "undecided": "groups that tell responses apart",
    "right": "trajectories that end right",
}


def warmstart_section(lines: list[Record], summary: Record) -> list[Record]:
    """The section; empty for a run without a warm start. `lines` are those of the metrics, `summary` its part of it."""
    if not lines:
        return []
    looks = [(step, section(line, "look")) for line in lines if "look" in line and (step := _step(line)) is not None]
    charts = [
        _chart(
            "warm-looks",
            "What the model had learnt",
            "share (%)",
            "percent",
            {words: [(step, number(look.get(key))) for step, look in looks] for key, words in SHARES.items()},
            "From a few trees grown now and then. Form should rise; groups tell responses apart by their outcomes only "
            "while the model is still undecided, and they are what reinforcement learning learns from.",
        ),
        _chart(
            "warm-entropy",
            "Entropy",
            "nats per token",
            "number",
            {"entropy": [(step, number(look.get("entropy"))) for step, look in looks]},
            "Of the responses that were sampled for the looks. Near zero, the model is sure of every token.",
        ),
        _chart(
            "warm-loss",
            "Loss",
            "nats per token",
            "number",
            {"loss": [(step, number(line.get("loss"))) for line in lines if (step := _step(line)) is not None]},
            "Mean -log p of the tokens of the demonstrations, before each step on them.",
        ),
    ]
    lead = "Did imitation teach the form, and did it leave the model undecided?"
    return [{"id": "warmstart", "title": "Warm start", "lead": lead, "text": _words(summary), "charts": charts}]


def _step(line: Record) -> int | None:
    return whole(line.get("step"))


def _words(summary: Record) -> list[str]:
    steps, count, dropped = (whole(summary.get(key)) for key in ("steps", "demonstrations", "dropped"))
    if steps is None or count is None:
        return []
    text = f"{counted(steps, 'step')} on {counted(count, 'demonstration')}"
    if dropped:
        text += f" ({counted(dropped, 'row')} left out)"
    reason = str(summary.get("reason") or "")
    texts = [f"{text}. It ended because {reason}." if reason else f"{text}. It has not ended."]
    results = section(summary, "evaluation")
    for name in row_names(results):
        middle, low, high = (number(section(results, name).get(key)) for key in ("accuracy", "low", "high"))
        if middle is not None:
            form = number(section(results, name).get("well_formed"))
            formed = f"; {percent(form)} of the answers well formed" if form is not None else ""
            texts.append(f"Held out, {row_words(name)}: {percent_interval(middle, low, high)}{formed}.")
    return texts


def _chart(
    id: str, title: str, y: str, unit: str, values: dict[str, list[tuple[int, float | int | None]]], caption: str
) -> Chart:
    """Lines over the steps of the warm start, with as many points as there is room for."""
    chart: Chart = {"id": id, "kind": "lines", "own": "warmstart", "title": title, "y": y, "unit": unit}
    chart |= {"caption": caption, "limits": (0.0, 1.0 if unit == "percent" else None)}
    steps = sorted({step for pairs in values.values() for step, value in pairs if value is not None})
    steps = steps[:: max(1, -(-len(steps) // MOST_POINTS))]
    if not steps:
        return chart | {"missing": "Not recorded in this run."}
    known = {name: {step: value for step, value in pairs if value is not None} for name, pairs in values.items()}
    series = [
        {"name": name, "raw": [at.get(step) for step in steps], "smooth": None} for name, at in known.items() if at
    ]
    return chart | {"x": steps, "series": series, "faint": False, "average": None}
