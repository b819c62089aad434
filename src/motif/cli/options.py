"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/demo.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Change one setting of the recipe, e.g. train.steps=20. Repeatable."),
]
AllowChanges = Annotated[
    bool,
    typer.Option(
        "--allow-changes",
        help="When resuming: continue even if recipe or data have changed or the record has lost lines; prints which.",
    ),
]
TrustGrader = Annotated[
    str,
    typer.Option(metavar="FILE", help="Confirm the custom grader that a run folder's recipe names: it is a program."),
]

Pieces = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Read messages of more than this many tokens in pieces, one per round; the last paragraph, line or "
        "sentence is the question. 0: never. Default: as the recipe says.",
    ),
]
