"""Stopping and resuming a run: signals, what runs out, and which checkpoint is the last good one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from motif.config import Recipe, Trust, flat
from motif.display import Display
from motif.distributed import ALONE, Processes
from motif.errors import MotifError, NonFiniteError, OutOfResources, PeerFailed, RunFolderError, SamplerError, ran_out
from motif.grading.given import refuse_lost_reward
from motif.run_files import BEST
from motif.runs import checkpoint
from motif.runs.folder import RunFolder
from motif.runs.provenance import Data, environment, versions
from motif.runs.read import has_begun, is_run, recipe_of, resume_command
from motif.runs.settings import binding_settings, changed, described
from motif.runs.weights import damaged_weights
from motif.session import Session
from motif.text import counted

DECIDED_LATER = "loss.importance_cap"
"""A setting that is decided by where the run computes."""


def restore(
    session: Session,
    run: RunFolder,
    optimizer: torch.optim.Optimizer,
    data: Data,
    allow_changes: bool,
    display: Display,
) -> checkpoint.Restored | None:
    """Restore the newest good checkpoint and truncate the record to it; None if there has never been one."""

    def lost(extra: dict[str, Any]) -> str | None:
        damaged = run.damaged(extra["record"])
        return f"{' and '.join(damaged)} lost lines that were written before it" if damaged else None

    restored = checkpoint.load_latest(
        run.path,
        session.policy,
        optimizer,
        session.recipe,
        problem=lost,
        changes=lambda extra: data.changes(extra["data"]),
        allow_changes=allow_changes,
    )
    session.processes.assert_same(
        restored.step if restored else -1,
        f"{run.path} must be on a disk that all machines share; its newest checkpoint is of step",
    )
    run.truncate_to(restored.extra["record"] if restored else None)
    if restored is None:
        return None
    for file, damage in damaged_weights(run.path / BEST):
        display.message(f"warning: {file} is damaged ({damage}); the next evaluation that is better replaces it")
    for passed in restored.passed_over:
        display.message(f"warning: {passed}")
    for change in restored.changes:
        display.message(f"changed: {change}")
    for change in described(changed(restored.extra["environment"], session_environment(session))):
        display.message(f"changed: {change} (the last digits of what follows may differ)")
    display.message(f"resuming after step {restored.step}")
    return restored


def session_environment(session: Session) -> dict[str, Any]:
    """Versions and machine, for a checkpoint."""
    return versions() | environment(session.policy.device)


@contextmanager
def explain_resume(run: Path) -> Iterator[None]:
    """Add to an error from outside, and to a second Ctrl-C, what is kept and how to resume the run."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped without saving. {_how_to_resume(run)}") from stop
    except MotifError as error:
        if not isinstance(error, SamplerError | NonFiniteError | OutOfResources):
            raise
        raise type(error)(f"{error}. {_how_to_resume(run)}") from error
    except Exception as error:
        reason = ran_out(error)
        if reason is None:
            raise
        raise OutOfResources(f"{reason}. {_how_to_resume(run)}") from error


def _how_to_resume(run: Path) -> str:
    saved = checkpoint.all_checkpoints(run)
    kept = f"The last checkpoint in {run} is {saved[-1].name}" if saved else f"Nothing has been saved in {run} yet"
    return f"{kept}: go on with `{resume_command(run)}`" if is_run(run) else f"{kept}: run the same command again"


def as_decided(recipe: Recipe, run: Path, trust: Trust) -> Recipe:
    """The recipe with what `auto` leaves to a run's start as the run in this folder has decided it, if it has begun."""
    if recipe.undecided and has_begun(run):
        with suppress(MotifError):  # its recipe is damaged: what a checkpoint says is compared later
            return recipe.as_begun(recipe_of(run, trust=trust))
    return recipe


def tell_changes(run: Path, recipe: Recipe, allow_changes: bool, display: Display) -> None:
    """Say which settings of a run's recipe are changed, and refuse those that it is tied to, before any work.

    In a folder without a run nothing is changed.

    Raises:
        RunFolderError: a setting has changed that the run is tied to, and `allow_changes` is off; or the run has made
            more steps than it is to have.
        RecipeError: its reward was given in Python, and has not been given again.
    """
    if not has_begun(run):
        return display.message(f"{run} holds no run yet: this is its beginning")
    refuse_lost_reward(recipe.data.grader, run)
    saved = checkpoint.all_checkpoints(run)
    if saved and (made := checkpoint.step_of(saved[-1])) > recipe.train.steps:
        raise RunFolderError(
            f"{run} has made {counted(made, 'step')}, more than train.steps = {recipe.train.steps}: raise that, or "
            "start afresh with another --out"
        )
    try:
        before = recipe_of(run, trust=Trust(uses=()))
    except MotifError:  # no recipe, or a damaged one: what a checkpoint says is compared later
        return
    bound = changed(binding_settings(before), binding_settings(recipe))
    bound.pop(DECIDED_LATER, None)
    if bound and not allow_changes and checkpoint.all_checkpoints(run):
        raise checkpoint.other_run(run, described(bound))
    free = changed(dict(flat(before.model_dump(mode="json"))), dict(flat(recipe.model_dump(mode="json"))))
    for change in described({key: pair for key, pair in free.items() if key not in {*bound, DECIDED_LATER}}):
        display.message(f"changed: {change}")


@contextmanager
def interruptions(processes: Processes = ALONE) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets, so that the step in progress can end; the second aborts.

    With several processes the third does: they have the terminal's Ctrl-C already when their launcher passes it on. It
    sends SIGTERM also to end those whose peer has failed.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    more = 1 if processes.count == 1 else 2

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal more
        if failure := processes.failure():
            raise PeerFailed(failure)
        if event.is_set():
            more -= 1
            if more == 0:
                raise KeyboardInterrupt
            return
        event.set()
        if processes.main:
            print("\nfinishing this step or evaluation, then saving (Ctrl-C again: stop now, without it)", flush=True)

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
