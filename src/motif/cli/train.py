"""The options of `motif train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from motif.cli.options import AllowChanges, Settings, TrustGrader
from motif.cli.streams import loading, need_folder
from motif.config import Recipe, Trust, load_recipe, shipped_recipes
from motif.config.trust import TRAINING
from motif.errors import UsageError
from motif.planning.devices import parse_devices
from motif.runs.folder import folder_for, refuse_used_folder
from motif.runs.read import check_run_folder

Devices = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICES",
        help="With --dry-run: plan for these devices instead of this machine, "
        "e.g. 8xH100, or '4x memory=24 tflops=71 bandwidth=0.94' (docs/scaling.md).",
    ),
]


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (listed above) or a TOML file.")],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/<recipe>.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume the run in this folder, or begin it; motif resume needs only the folder."
        ),
    ] = False,
    allow_changes: AllowChanges = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and check data and memory, without training.")
    ] = False,
    look: Annotated[
        bool,
        typer.Option("--try", help="Grow the trees of two questions, report what they show, and write nothing."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --try: print JSON.")] = False,
    on: Devices = None,
    lengths: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="With --on: use the response lengths measured in this run folder."),
    ] = None,
    trust_grader: TrustGrader = "",
) -> None:
    """Fine-tune a model with a recipe.

    Writes a run folder with metrics, trees, checkpoints, the trained weights and a report.
    Ctrl-C finishes the current step, saves, and says how to resume (motif resume).
    """
    check_devices(on, lengths, dry_run)
    if allow_changes and not resume:
        raise UsageError("--allow-changes goes with --resume")
    if as_json and not look:
        raise UsageError("--json goes with --try")
    if look and (out or resume or dry_run):
        raise UsageError("--try writes nothing and resumes nothing: leave --out, --resume and --dry-run out")
    resolved = load_recipe(recipe, settings or [], trust=Trust(trust_grader, TRAINING))
    if look:
        show_trial(resolved, as_json)
        return
    if dry_run:
        show_plan(resolved, on, lengths)
        return
    folder = out or folder_for(recipe, resolved.name)
    need_folder(folder)
    refuse_used_folder(folder, resume)
    with loading():
        from motif.training.loop import train as run_training

    result = run_training(resolved, folder, resume=resume, allow_changes=allow_changes)
    if not result.finished:
        raise typer.Exit(1 if result.stopped_dead else 130)


MOST_ROWS = 10
"""Rows that a plan lists as left out of a warm start."""


def show_trial(recipe: Recipe, as_json: bool) -> None:
    """Print what the trees of two questions show; interrupted, what there is of them."""
    with loading():
        from motif.display import Display
        from motif.training.trial import told, try_out

    display = Display(quiet=as_json)
    display.message(f"trying {recipe.name}: two questions' trees, and nothing is written")
    trial = try_out(recipe, display)
    if as_json:
        typer.echo(json.dumps(trial.to_dict(), ensure_ascii=False))
    else:
        display.message("\n" + "\n\n".join(told(trial)))
    if not trial.complete:
        raise typer.Exit(130)


def check_devices(on: str | None, lengths: Path | None, dry_run: bool) -> None:
    """Refuse what `--on` and `--lengths` cannot plan with, before anything heavy is imported.

    Raises:
        UsageError: an option in the wrong place, or an unknown device.
        RunFolderError: `lengths` is no run folder.
    """
    if on is not None and not dry_run:
        raise UsageError("--on plans for other devices: it goes with --dry-run")
    if lengths is not None and on is None:
        raise UsageError("--lengths goes with --on: on this machine, the time left is estimated from measured steps")
    if on is not None:
        parse_devices(on)
    if lengths is not None:
        check_run_folder(lengths)


def show_plan(recipe: Recipe, devices: str | None, lengths: Path | None) -> None:
    """Print the plan of a recipe for other devices, or for this machine, whose memory it must fit."""
    with loading():
        from motif.display import Display
        from motif.distributed import as_launched, launched_process
        from motif.planning.plan import make_device_plan, make_plan

    if devices is not None:
        Display().plan(make_device_plan(recipe, devices, lengths).rows())
        return
    recipe = as_launched(recipe)
    if launched_process().main:
        from motif.training.warmstart import read_ahead

        display = Display()
        plan, task = make_plan(recipe, launched_process())
        display.plan(plan.rows())
        plan.refuse_if_too_big()
        if given := read_ahead(recipe, task):
            display.message(f"warm start on {given.words()}")
            for row in given.dropped[:MOST_ROWS]:
                display.message(f"  left out: {row}")


train.__doc__ = f"{train.__doc__}\n\n    Shipped recipes: {', '.join(shipped_recipes())}"
