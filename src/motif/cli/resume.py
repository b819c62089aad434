"""The options of `motif resume`."""

from __future__ import annotations

import shlex

import typer

from motif.cli.options import AllowChanges, RunArgument, Settings, TrustGrader
from motif.cli.streams import loading
from motif.config import Trust
from motif.config.trust import TRAINING
from motif.errors import RunFolderError
from motif.grading.given import refuse_lost_reward
from motif.run_files import WRITER_LOCK
from motif.runs.disk import is_locked
from motif.runs.read import check_run_folder, recipe_of


def resume(
    run: RunArgument,
    settings: Settings = None,
    allow_changes: AllowChanges = False,
    trust_grader: TrustGrader = "",
) -> None:
    """Resume a run where it stopped; its recipe and settings are in its folder.

    Settings that a run is not tied to may be changed, such as the number of steps; changes are printed.
    """
    trust = Trust(trust_grader, TRAINING)
    check_run_folder(run)
    if is_locked(run / WRITER_LOCK):
        raise RunFolderError(f"another process is training {run}: watch it with `motif view {shlex.quote(str(run))}`")
    refuse_lost_reward(recipe_of(run, settings or [], trust).data.grader, run)
    with loading():
        from motif.training.loop import resume as resume_training

    result = resume_training(run, settings or [], allow_changes=allow_changes, trust=trust)
    if not result.finished:
        raise typer.Exit(1 if result.stopped_dead else 130)
