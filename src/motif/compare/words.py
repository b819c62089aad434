"""How the numbers of a study are said: in the terminal, in Markdown and on the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from motif.evaluation.accuracy import row_words as row
from motif.text import duration, percent

__all__ = ["CURRENCY", "FINDING", "amount", "currency", "row"]

Record = dict[str, Any]
CURRENCY = {
    "questions": "questions",
    "distinct_questions": "distinct questions",
    "updates": "updates",
    "generated_tokens": "generated tokens",
    "prefill_tokens": "prompt tokens",
    "prefill_saved": "prompt tokens saved",
    "trained_tokens": "trained tokens",
    "flops": "FLOPs",
    "seconds": "seconds",
}
FINDING = {
    "better": "the first is better.",
    "worse": "the first is worse.",
    "not inferior": "not inferior by the margin of {margin}; better is not shown.",
    "within margin": "the first is worse, but by less than the margin of {margin}.",
    "not shown": "no difference is shown.",
    "one seed": "one seed has no interval.",
    "none": "no seed has both values.",
}


def currency(name: str) -> str:
    """A currency as a reader calls it."""
    return CURRENCY.get(name, name.replace("_", " "))


def amount(value: float, name: str) -> str:
    """An amount of a currency, without its name: `2,000`, `1.4 M`, `3.1e+12`, `2 min 05 s`."""
    if "seconds" in name:
        return duration(value)
    if name == "flops":
        return f"{value:.2e}" if value else "0"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= 10 * size:
            return f"{value / size:,.0f} {letter}"
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def amount_of(value: float, name: str) -> str:
    """An amount with the name of its currency."""
    return amount(value, name) if "seconds" in name else f"{amount(value, name)} {currency(name)}"


def place(arm: str, row_name: str, at: Mapping[str, float]) -> str:
    """`paper at 120 questions, 3 rounds`."""
    told = "".join(f" at {amount_of(value, name)}" for name, value in at.items())
    return f"{arm}{told}, {row(row_name)}"


def percent_interval(found: Record | None) -> str:
    """`61.2 % [58.0–64.1]`."""
    if found is None:
        return "–"
    if found["low"] is None:
        return percent(found["mean"])
    return f"{percent(found['mean'])} [{100 * found['low']:.1f}–{100 * found['high']:.1f}]"


def signed(value: float) -> str:
    """A difference of accuracies in points, with its sign: `+3.2`, `−0.4`."""
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def signed_interval(found: Record | None) -> str:
    """`+3.2 [+1.0, +5.4]`, in points."""
    if found is None:
        return "–"
    if found["low"] is None:
        return signed(found["mean"])
    return f"{signed(found['mean'])} [{signed(found['low'])}, {signed(found['high'])}]"


def points(value: float) -> str:
    """`1 point`, `2.5 points`."""
    text = f"{100 * abs(value):.3g}"
    return f"{text} point{'s' * (text != '1')}"


def contrast_sentence(found: Record) -> str:
    """One contrast in a sentence, with its interval and what it amounts to."""
    a, b, gap = found["a"], found["b"], found["difference"]
    ending = FINDING[found["finding"]].format(margin=points(found["margin"] or 0))
    if found["margin"] is not None and found["finding"] == "not shown":
        ending = f"no difference is shown, and being worse by {points(found['margin'])} or more is not ruled out."
    if gap is None:
        return f"{found['name']}: {a['words']} against {b['words']}: {ending}"
    means = [sum(side["by_seed"][seed] for seed in gap["by_seed"]) / gap["n"] for side in (a, b)]
    seeds = f"{gap['n']} seed{'s' * (gap['n'] != 1)}"
    return (
        f"{found['name']}: {a['words']}, {percent(means[0])}; {b['words']}, {percent(means[1])}; difference "
        f"{signed_interval(gap)} points over {seeds}: {ending}"
    )


def threshold_sentence(found: Record) -> str:
    """One threshold in a sentence or two: what each arm needs, and the ratios."""
    name = found["name"]
    if found["target"] is None:
        return f"{name}: {found['target_arm']} has no result to take the target from."
    of = f", the mean final accuracy of {found['target_arm']}" if found["target_arm"] else ""
    parts = [f"{name} ({percent(found['target'])} at {row(found['row'])}{of})"]
    for arm, need in found["arms"].items():
        parts.append(f"{arm} {need_words(need, found['currency'])}")
    text = f"{parts[0]}: " + "; ".join(parts[1:]) + "."
    for arm, value in found["ratios"].items():
        text += f" {ratio_words(arm, found['first'], value)}"
    return text


def need_words(need: Record, name: str) -> str:
    """What one arm needs: `1,200 [900, 1,500] questions (2 of 10 seeds never reach it …)`."""
    if need["amount"] is None:
        return "has no curve"
    found, late = need["amount"], len(need["not_reached"])
    if late == found["n"]:
        return f"never reaches it in {amount_of(found['mean'], name)}"
    text = ("more than " if late else "") + amount(found["mean"], name)
    if found["low"] is not None:
        text += f" [{amount(max(0.0, found['low']), name)}, {amount(found['high'], name)}]"
    text += "" if "seconds" in name else f" {currency(name)}"
    return text + (f" ({late} of {found['n']} seeds never reach it and count with all they spent)" if late else "")


def ratio_words(arm: str, first: str, found: Record | None) -> str:
    """`recommended needs 0.31 [0.22, 0.43] times as much as paper.`, with what censoring makes of it."""
    if found is None:
        return f"No ratio of {arm} to {first}: one of them is there from the start or has no curve."
    if found["bound"] == "unknown":
        return f"No ratio of {arm} to {first}: some seeds of both never reach it."
    interval, bound = "", {"lower": "at least ", "upper": "at most ", None: ""}[found["bound"]]
    if found["low"] is not None:
        low = "0" if found["bound"] == "upper" else f"{found['low']:.2f}"
        high = "∞" if found["bound"] == "lower" else f"{found['high']:.2f}"
        interval = f" [{low}, {high}]"
    return f"{arm} needs {bound}{found['mean']:.2f}{interval} times as much as {first}."
