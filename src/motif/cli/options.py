"""Options and arguments that several commands share."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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


class Command(TyperCommand):
    """A command that says what to do about arguments that are left over."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; fail if some are left over."""
        ctx.allow_extra_args = True
        left = super().parse_args(ctx, args)
        if left and not ctx.resilient_parsing:
            ctx.fail(_remedy(left))
        return left


def _remedy(left: list[str]) -> str:
    if all(re.fullmatch(r"[a-z_]+(\.\w+)*=.*", part, re.DOTALL) for part in left):
        return f"each change needs its own --set: {' '.join(f'--set {shlex.quote(part)}' for part in left)}"
    return f"one argument too many ({' '.join(left)}): put quotes around one that has blanks in it"
