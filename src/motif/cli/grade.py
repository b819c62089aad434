"""The options of `motif grade`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from motif.cli.streams import need_file, need_output
from motif.text import harmless

LINES = 'A line is a JSON object with "gold" and "prediction"'


class Fallback(StrEnum):
    """What to grade in a prediction without a box."""

    text = "text"
    last_number = "last_number"
    none = "none"


def grade(
    file: Annotated[Path, typer.Argument(help="JSON lines with `gold` and `prediction`; - reads standard input.")],
    grader: Annotated[
        str, typer.Option(help="exact, numeric, math, code, circuit, module:function or file.py:function.")
    ] = "math",
    out: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    fallback: Annotated[
        Fallback, typer.Option(help="The answer in a prediction without a box: all of it, its last number, or none.")
    ] = Fallback.text,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time limit of one verdict, in seconds.")] = 5.0,
    workers: Annotated[int, typer.Option(min=1, help="Number of grading processes.")] = 2,
) -> None:
    """Grade a file of answers: each line comes back with its verdict (right, wrong, ungraded), reason and seconds.

    A line that cannot be read comes back ungraded, with its number; the other lines are graded. Exit status 1 if no
    line could be graded.
    """
    from motif.display import counting
    from motif.grading.jsonl import grade_file

    if out is None:
        need_output("give --out")
    source = None if str(file) == "-" else file
    need_file(out, "--out", source)
    with counting(f"graded by {grader}") as advance:
        graded = grade_file(source, out, grader, fallback.value, seconds, workers, advance)
    print(", ".join(f"{count} {verdict}" for verdict, count in graded.counts.items()), file=sys.stderr)
    if not graded.any:
        why = f"; the first line: {graded.reason}" if graded.reason else ": there is no line"
        print(harmless(f"motif: nothing could be graded{why}. {LINES}"), file=sys.stderr)
        raise typer.Exit(1)
