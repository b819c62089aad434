"""The options of `motif runs`, and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from motif.display import PlainConsole
from motif.errors import UsageError
from motif.runs.read import resume_command, what_there_is
from motif.runs.state import RunState, find_runs, state_of


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with runs, at any depth.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each run.")] = False,
) -> None:
    """List runs, latest first: whether they are training, their step, last accuracy and age."""
    if not folder.is_dir():
        raise UsageError(f"{what_there_is(folder)}; start one with motif train, e.g. motif train demo")
    states = sorted(map(state_of, find_runs(folder)), key=lambda state: -(state.updated or 0.0))
    if as_json:
        for state in states:
            print(json.dumps(state.to_dict(), ensure_ascii=False))
        return
    if not states:
        print(f"no run in {folder} yet; start one with motif train, e.g. motif train demo")
        return
    show(states)


def show(states: Sequence[RunState]) -> None:
    """Print a table of runs, and below it why some of them failed."""
    console = PlainConsole()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("run", "state", "step", "accuracy", "changed"):
        table.add_column(heading, justify="right" if heading == "step" else "left")
    for state in states:
        table.add_row(str(state.path), state.state, *state.cells())
    console.print_table(table)
    for state in states:
        if state.state == "failed":
            reason = state.reason.rstrip(".")
            console.print(f"{state.path} failed: {reason}. Go on: {resume_command(state.path)}", soft_wrap=True)
