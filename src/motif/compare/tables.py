"""The summary as text: for the terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from motif.compare import words

Record = dict[str, Any]
COSTS = ("questions", "updates", "generated_tokens", "flops", "seconds")


def accuracy_columns(summary: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line per arm: accuracy in every row, the difference to the reference below it."""
    rows, reference = summary["rows"], summary["reference"]
    lines = []
    for name, arm in summary["arms"].items():
        cells = [words.percent_interval(arm["rows"].get(row, {}).get("accuracy")) for row in rows]
        if reference:
            found = arm["rows"].get(summary["row"], {})
            cells.append("reference" if name == reference else words.signed_interval(found.get("difference")))
        lines.append([name, str(arm["runs"]), *cells])
    heads = ["arm", "seeds", *(words.row(row) for row in rows)]
    return heads + ([f"against {reference}, {words.row(summary['row'])} (points)"] if reference else []), lines


def cost_columns(summary: Record) -> tuple[list[str], list[list[str]]]:
    """Headings and a line per arm: what a run spent on training, on average, and what went wrong in it."""
    lines = []
    for name, arm in summary["arms"].items():
        spent = [arm["spent"].get(key) for key in COSTS]
        told = ["–" if value is None else words.amount(value, key) for value, key in zip(spent, COSTS, strict=True)]
        shares = ["–" if arm[key] is None else f"{100 * arm[key]:.0f} %" for key in ("dead_groups", "truncated")]
        lines.append([name, *told, *shares])
    return ["arm", *(words.currency(key) for key in COSTS), "dead groups", "cut off"], lines


def print_summary(summary: Record, console: Console) -> None:
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
        console.print(table)
    for sentence in sentences(summary):
        console.print(sentence, soft_wrap=True, markup=False)


def markdown(summary: Record) -> str:
    """table.md: the same, in Markdown."""
    parts = [f"# {summary['study']}", summary["about"], method(summary)]
    parts += [_table(*accuracy_columns(summary)), "What a run spent on training, on average:"]
    parts += [_table(*cost_columns(summary))]
    for title, key in (("Contrasts", "contrasts"), ("Thresholds", "thresholds")):
        if summary[key]:
            parts += [f"## {title}", "\n".join(f"- {_escaped(one['sentence'])}" for one in summary[key])]
    remarks = [note for one in summary["contrasts"] for note in one["notes"]] + summary["notes"]
    if remarks:
        parts += ["## Notes", "\n".join(f"- {_escaped(note)}" for note in dict.fromkeys(remarks))]
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


def sentences(summary: Record) -> list[str]:
    """Contrasts, thresholds and notes."""
    asked = summary["contrasts"] + summary["thresholds"]
    remarks = [note for one in summary["contrasts"] for note in one["notes"]] + summary["notes"]
    return [one["sentence"] for one in asked] + [f"note: {note}" for note in dict.fromkeys(remarks)]


def _table(heads: list[str], lines: list[list[str]]) -> str:
    aligned = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in (heads, aligned, *lines))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
