"""The numbers that one looks at while a run trains."""

from __future__ import annotations

from collections.abc import Sequence

from motif.runs.read import Evaluation, Record, main_row, number, section
from motif.text import duration, fixed, percent, whole_percent

GIB = 2**30
MEMORY = {"memory/device": "on the device", "memory/resident": "main memory"}
RECENT = 10
"""Steps that speeds are taken over."""


def numbers_now(
    steps: list[Record], made: Sequence[Evaluation], rounds: int | None, planned: int | None
) -> list[dict[str, str]]:
    """Name, value and change of the numbers at the top of the page.

    Args:
        made: the evaluations, in order.
        planned: the steps of a run in progress.
    """
    shown: list[tuple[str, str, str]] = []
    if steps and planned:
        seconds = [value for record in steps[-RECENT:] if (value := number(record.get("time/total"))) is not None]
        left = planned - steps[-1]["step"]
        if seconds and left > 0:
            each = sum(seconds) / len(seconds)
            shown.append(("Time left", f"≈ {duration(each * left)}", f"{duration(each)} a step"))
    if accuracies := _accuracies(made, rounds):
        shown.append(("Held out", *_change([percent(accuracy) for accuracy in accuracies])))
    for name, key in (("Reward", "reward"), ("Right", "outcome/mean")):
        if values := [value for record in steps if (value := number(record.get(key))) is not None]:
            written = fixed if key == "reward" else whole_percent
            shown.append((name, *_change([written(value) for value in _ends(values)])))
    if speed := tokens_per_second(steps[-RECENT - 1 :]):
        shown.append(("Speed", f"{speed:,.0f} tokens/s", ""))
    held = [value for record in steps[-RECENT:] for key in MEMORY if (value := number(record.get(key))) is not None]
    if held:
        shown.append(("Memory", f"{max(held) / GIB:.2g} GiB", "at most"))
    return [{"name": name, "value": value, "change": change} for name, value, change in shown]


def tokens_per_second(steps: list[Record]) -> float | None:
    """Generated tokens per second of wall clock, over these steps but the first."""
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    tokens, seconds = (
        (number(last.get(key)) or 0) - (len(steps) > 1) * (number(first.get(key)) or 0)
        for key in ("ledger/generated_tokens", "ledger/seconds")
    )
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def _accuracies(made: Sequence[Evaluation], rounds: int | None) -> list[float]:
    name = main_row(sorted({key for evaluation in made for key in evaluation.results}), rounds)
    if made and any(one.on_few() != one for one in made) and made[-1].on_few() == made[-1]:
        made = [one.on_few() for one in made]  # the newest is on few questions: the others on the same
    elif made:
        made = [one for one in made if one.on_few() != one] or made
    results = (section(evaluation.results, name) for evaluation in made) if name else ()
    return [value for result in results if (value := number(result.get("accuracy"))) is not None]


def _ends(values: list[float | int]) -> list[float]:
    """The first and the last value, each a mean over up to a fifth of them, so that one step says little."""
    size = max(1, min(RECENT, len(values) // 5))
    return [sum(part) / len(part) for part in (values[:size], values[-size:])] if len(values) > 1 else list(values)


def _change(values: list[str]) -> tuple[str, str]:
    """The last value, and from where it came."""
    return values[-1], f"from {values[0]}" if len(values) > 1 else ""
