"""A study in words: contrasts and thresholds as sentences, the summary as tables, for terminal, Markdown and page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from motif.display import PlainConsole
from motif.evaluation.accuracy import row_words
from motif.text import NONE, amount, counted, percent, percent_interval, points, signed_interval, whole_percent

Record = dict[str, Any]
COSTS = ("questions", "updates", "generated_tokens", "flops", "seconds")
CURRENCIES = {
    "questions": "questions",
    "distinct_questions": "distinct questions",
    "updates": "updates",
    "generated_tokens": "generated tokens",
    "prefill_tokens": "prompt tokens",
    "prefill_saved": "prompt tokens saved",
    "trained_tokens": "trained tokens",
    "computed_tokens": "tokens computed",
    "flops": "FLOPs",
    "seconds": "seconds",
}
FINDINGS = {
    "better": "the first is better.",
    "worse": "the first is worse.",
    "not inferior": "not inferior by the margin of {margin}; better is not shown.",
    "within margin": "the first is worse, but by less than the margin of {margin}.",
    "not shown": "no difference is shown.",
    "one seed": "one seed has no interval.",
    "none": "no seed has both values.",
}


# -- sentences ---------------------------------------------------------------------------------------------------------


def currency_words(currency: str) -> str:
    """A currency as a reader calls it."""
    return CURRENCIES.get(currency, currency.replace("_", " "))


def amount_words(value: float, currency: str) -> str:
    """An amount with the name of its currency."""
    text = amount(value, currency)
    return text if "seconds" in currency else f"{text} {currency_words(currency)}"


def point_words(arm: str, row: str, at: Mapping[str, float]) -> str:
    """A point of a study: `paper at 120 questions, 3 rounds`."""
    amounts = "".join(f" at {amount_words(value, currency)}" for currency, value in at.items())
    return f"{arm}{amounts}, {row_words(row)}"


def contrast_sentence(contrast: Record) -> str:
    """A contrast in a sentence, with its interval and finding."""
    a, b, difference = contrast["a"], contrast["b"], contrast["difference"]
    margin = points(contrast["margin"] or 0)
    finding = FINDINGS[contrast["finding"]].format(margin=margin)
    if contrast["margin"] is not None and contrast["finding"] == "not shown":
        finding = f"no difference is shown, and being worse by {margin} or more is not ruled out."
    if difference is None:
        return f"{contrast['name']}: {a['words']} against {b['words']}: {finding}"
    means = [sum(side["by_seed"][seed] for seed in difference["by_seed"]) / difference["n"] for side in (a, b)]
    return (
        f"{contrast['name']}: {a['words']}, {percent(means[0])}; {b['words']}, {percent(means[1])}; difference "
        f"{difference_words(difference)} points over {counted(difference['n'], 'seed')}: {finding}"
    )


def threshold_sentence(threshold: Record) -> str:
    """A threshold in a sentence or two: what each arm needs, and the ratios."""
    name = threshold["name"]
    if threshold["target"] is None:
        return f"{name}: {threshold['target_arm']} has no result to take the target from."
    source = f", the mean final accuracy of {threshold['target_arm']}" if threshold["target_arm"] else ""
    needs = [f"{arm} {need_words(need, threshold['currency'])}" for arm, need in threshold["arms"].items()]
    text = f"{name} ({percent(threshold['target'])} at {row_words(threshold['row'])}{source}): {'; '.join(needs)}."
    ratios = [ratio_sentence(arm, threshold["first"], ratio) for arm, ratio in threshold["ratios"].items()]
    return " ".join([text, *ratios])


def need_words(need: Record, currency: str) -> str:
    """What one arm needs: `1,200 [900, 1,500] questions (2 of 10 seeds never reach it …)`."""
    if need["amount"] is None:
        return "has no curve"
    mean, late = need["amount"], len(need["not_reached"])
    if late == mean["n"]:
        return f"never reaches it in {amount_words(mean['mean'], currency)}"
    text = ("more than " if late else "") + amount(mean["mean"], currency)
    if mean["low"] is not None:
        text += f" [{amount(max(0.0, mean['low']), currency)}, {amount(mean['high'], currency)}]"
    text += "" if "seconds" in currency else f" {currency_words(currency)}"
    return text + (f" ({late} of {mean['n']} seeds never reach it and count with all they spent)" if late else "")


def ratio_sentence(arm: str, first: str, ratio: Record | None) -> str:
    """`recommended needs 0.31 [0.22, 0.43] times as much as paper.`, or the bound that unreached targets leave."""
    if ratio is None:
        return f"No ratio of {arm} to {first}: one of them reaches it from the start or has no curve."
    if ratio["bound"] == "unknown":
        return f"No ratio of {arm} to {first}: some seeds of both never reach it."
    interval, bound = "", {"lower": "at least ", "upper": "at most ", None: ""}[ratio["bound"]]
    if ratio["low"] is not None:
        low = "0" if ratio["bound"] == "upper" else f"{ratio['low']:.2f}"
        high = "∞" if ratio["bound"] == "lower" else f"{ratio['high']:.2f}"
        interval = f" [{low}, {high}]"
    return f"{arm} needs {bound}{ratio['mean']:.2f}{interval} times as much as {first}."


def accuracy_words(interval: Record | None) -> str:
    """`61.2 % [58.0–64.1]`."""
    return NONE if interval is None else percent_interval(interval["mean"], interval["low"], interval["high"])


def difference_words(interval: Record | None) -> str:
    """`+3.2 [+1.0, +5.4]`, in points."""
    return NONE if interval is None else signed_interval(interval["mean"], interval["low"], interval["high"])


# -- the summary as text -----------------------------------------------------------------------------------------------


def accuracy_columns(summary: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line per arm: accuracy in every row, then the difference to the reference."""
    rows, reference = summary["rows"], summary["reference"]
    lines = []
    for name, arm in summary["arms"].items():
        cells = [accuracy_words(arm["rows"].get(row, {}).get("accuracy")) for row in rows]
        if reference:
            words = difference_words(arm["rows"].get(arm["row"], {}).get("difference"))
            if arm["row"] != summary["row"] and words != NONE:
                words += f" at {row_words(arm['row'])}"
            cells.append("reference" if name == reference else words)
        lines.append([name, str(arm["runs"]), *cells])
    heads = ["arm", "seeds", *(row_words(row) for row in rows)]
    return heads + ([f"against {reference}, {row_words(summary['row'])} (points)"] if reference else []), lines


def budget_columns(summary: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line per arm: its difference to the reference once both have spent the same of a currency."""
    compared = {arm: found for arm, found in summary["budgets"].items() if found}
    currencies = list(dict.fromkeys(currency for found in compared.values() for currency in found))
    lines = [
        [arm, *(_budget(found[currency], currency) if currency in found else NONE for currency in currencies)]
        for arm, found in compared.items()
    ]
    return ["arm", *(f"at equal {currency_words(currency)}" for currency in currencies)], lines


def _budget(found: Record, currency: str) -> str:
    return f"{difference_words(found['difference'])} at {amount(found['amount'], currency)}"


def cost_columns(summary: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line per arm: what a run spent on training, on average, and what went wrong in it."""
    lines = []
    for name, arm in summary["arms"].items():
        spent = [arm["spent"].get(key) for key in COSTS]
        costs = [NONE if value is None else amount(value, key) for value, key in zip(spent, COSTS, strict=True)]
        shares = [whole_percent(arm[key]) for key in ("dead_groups", "truncated")]
        lines.append([name, *costs, *shares])
    return ["arm", *(currency_words(key) for key in COSTS), "dead groups", "cut off"], lines


def print_summary(summary: Record, console: PlainConsole) -> None:
    """The tables, and a line for every contrast, threshold and note."""
    for title, (heads, lines) in (
        ("accuracy at the end, mean over seeds, 95 % intervals", accuracy_columns(summary)),
        ("spent on training, mean of a run", cost_columns(summary)),
    ):
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for place, head in enumerate(heads):
            table.add_column(head, justify="right" if place else "left")
        for line in lines:
            table.add_row(*line)
        console.print_table(table)
    for one in summary["contrasts"] + summary["thresholds"]:
        console.print(one["sentence"], soft_wrap=True)
    for remark in remarks(summary):
        console.print(f"note: {remark}", soft_wrap=True)


def markdown(summary: Record) -> str:
    """The content of table.md."""
    parts = [f"# {summary['study']}", summary["about"], method(summary)]
    parts += [_table(*accuracy_columns(summary)), "What a run spent on training, on average:"]
    parts += [_table(*cost_columns(summary))]
    if (matched := budget_columns(summary))[1]:
        parts += [
            f"Against {summary['reference']} once both have spent the same, the most that all runs of both have spent, "
            "in points:",
            _table(*matched),
        ]
    for title, key in (("Contrasts", "contrasts"), ("Thresholds", "thresholds")):
        if summary[key]:
            parts += [f"## {title}", "\n".join(f"- {_escaped(one['sentence'])}" for one in summary[key])]
    if notes := remarks(summary):
        parts += ["## Notes", "\n".join(f"- {_escaped(note)}" for note in notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def method(summary: Record) -> str:
    """What the numbers are, in two sentences."""
    used = {arm["accuracy"]["method"] for a in summary["arms"].values() for arm in a["rows"].values()} - {"none"}
    how = f" ({', '.join(sorted(used))})" if used else ""
    return (
        f"Held-out accuracy at the end of training: mean over seeds with its 95 % interval{how}. "
        "Differences are paired by seed: runs of one seed draw the same training questions in the same order, and all "
        "runs are tested on the same questions."
    )


def remarks(summary: Record) -> list[str]:
    """The notes on contrasts and on the study, each once."""
    notes = [note for contrast in summary["contrasts"] for note in contrast["notes"]]
    return list(dict.fromkeys(notes + summary["notes"]))


def _table(heads: list[str], lines: list[list[str]]) -> str:
    aligned = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in (heads, aligned, *lines))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
