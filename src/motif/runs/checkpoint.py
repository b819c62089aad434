"""Everything needed to resume a run exactly where it stopped.

A checkpoint is one file, `checkpoints/step-000020/state.pt`, written under another name and renamed when it is on the
disk, so a half-written one is never loaded. Later damage is noticed by checksums, and the previous checkpoint is used.
It holds no generator state: all randomness is computed from (seed, step, question, node, token).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motif.config import Recipe
from motif.distributed import ALONE, Processes
from motif.errors import RunFolderError
from motif.models.policy import Policy
from motif.models.sharding import load_optimizer_state, optimizer_state
from motif.run_files import CHECKPOINTS
from motif.runs.disk import replacing, sync
from motif.runs.read import resume_command
from motif.runs.settings import binding_settings, changed, described
from motif.runs.trained import CHECKPOINT, CHECKPOINT_FILE, all_checkpoints, step_of, weights_folder
from motif.runs.weights import load_weights

Extra = dict[str, Any]


@dataclass(frozen=True)
class Restored:
    """What was restored, and what the user should know: checkpoints that were passed over, and what has changed."""

    step: int
    extra: Extra
    passed_over: list[str]
    changes: list[str]


def save(
    run: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    extra: Extra,
    keep: int,
    processes: Processes = ALONE,
) -> Path:
    """Write the checkpoint after `step` steps and delete all others but the `keep - 1` before it.

    Args:
        extra: whatever else the loop needs back (plain Python data and tensors).
        processes: all of them call this; the main one writes what they gather.
    """
    if not policy.shards:
        processes.assert_same(checksum(policy), "the weights have drifted apart: their checksums are")
    processes.consolidate(optimizer)
    weights = policy.state(processes.main)
    moments = optimizer_state(optimizer) if processes.main or policy.shards else {}
    target = run / CHECKPOINTS / f"step-{step:06d}"
    if not processes.main:
        return target
    target.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "weights": weights,
        "optimizer": moments,
        "settings": binding_settings(recipe),
        "extra": extra,
    }
    with replacing(target / CHECKPOINT_FILE) as file:
        torch.save(state, file)
    for folder in (target.parent, run):
        sync(folder)
    prune(run, step, keep)
    return target


def prune(run: Path, step: int, keep: int) -> None:
    """Delete all checkpoints but that of `step` and the `keep - 1` before it."""
    kept = [path for path in all_checkpoints(run) if step_of(path) <= step][-keep:]
    for other in (run / CHECKPOINTS).iterdir():
        if CHECKPOINT.fullmatch(other.name) and other not in kept:
            shutil.rmtree(other)


def checksum(policy: Policy) -> int:
    """A sum over the bits of all trained numbers, the same for equal weights in whatever order they are added."""
    sums = [parameter.detach().view(torch.int32).sum(dtype=torch.int64) for parameter in policy.trainable()]
    return int(torch.stack(sums).sum())


def load_latest(
    run: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    problem: Callable[[Extra], str | None] = lambda extra: None,
    changes: Callable[[Extra], list[str]] = lambda extra: [],
    allow_changes: bool = False,
) -> Restored | None:
    """Restore the newest good checkpoint into policy and optimiser; None if there has never been one.

    Args:
        problem: the reason why a checkpoint with such extra data cannot be resumed, or None.
        changes: what else than the settings has changed.
        allow_changes: resume although something has changed, and from the newest intact checkpoint even if it has a
            problem.

    Raises:
        RunFolderError: something has changed, or there are checkpoints and none is good.
    """
    passed_over: list[str] = []
    intact = False
    for folder in reversed(all_checkpoints(run)):
        try:
            state = _read(folder / CHECKPOINT_FILE)
        except ValueError as error:
            passed_over.append(f"{folder.name} is damaged ({error})")
            continue
        intact = True
        if (reason := problem(state["extra"])) and not allow_changes:
            passed_over.append(f"{folder.name} cannot be resumed, because {reason}")
            continue
        differences = described(changed(state["settings"], binding_settings(recipe))) + changes(state["extra"])
        if differences and not allow_changes:
            raise other_run(run, differences)
        policy.load_state(state["weights"])
        load_optimizer_state(optimizer, state["optimizer"])
        return Restored(int(state["step"]), state["extra"], passed_over + ([reason] if reason else []), differences)
    if passed_over:
        raise RunFolderError(
            f"{run} cannot be resumed: {'; '.join(passed_over)}. Start afresh with another --out"
            + (", or add --allow-changes to resume it without what is missing" if intact else "")
        )
    return None


def other_run(run: Path, differences: list[str]) -> RunFolderError:
    """The error of a run that is to be resumed with what it was not made with."""
    return RunFolderError(
        f"{run} was made with another recipe or other data ({'; '.join(differences)}). Go on with its own settings by "
        f"`{resume_command(run)}`, add --allow-changes to resume it with these, or start afresh with another --out"
    )


def load_newest_weights(run: Path, policy: Policy) -> int | None:
    """Load a run's trained weights into a policy: the final ones or, before its end, the newest checkpoint's.

    Returns:
        The checkpoint's step; None: the weights are final.

    Raises:
        RunFolderError: the run holds neither, or they are damaged.
        ModelError: they belong to another model.
    """
    if weights_folder(run, policy.config).is_dir() or not all_checkpoints(run):
        load_weights(run, policy)
        return None
    step, weights = newest_weights(run)
    policy.load_state(weights)
    return step


def newest_weights(run: Path) -> tuple[int, dict[str, Tensor]]:
    """The step of the newest checkpoint, and its weights for `Policy.load_state`.

    Raises:
        RunFolderError: there is no checkpoint, or it is damaged.
    """
    checkpoints = all_checkpoints(run)
    if not checkpoints:
        raise RunFolderError(f"{run} holds no checkpoint")
    try:
        state = _read(checkpoints[-1] / CHECKPOINT_FILE)
    except ValueError as error:
        raise RunFolderError(
            f"{checkpoints[-1]} is damaged ({error}): repair the run with `{resume_command(run)}`"
        ) from error
    return int(state["step"]), state["weights"]


def _read(file: Path) -> dict[str, Any]:
    """A checkpoint's state.

    Raises:
        ValueError: it is damaged.
        RunFolderError: it is of an older version.
    """
    try:
        with zipfile.ZipFile(file) as archive:  # whose checksums torch.load does not look at
            if part := archive.testzip():
                raise ValueError(f"wrong checksum of {part}")
        # weights_only: a checkpoint is data, and unpickling must not run code.
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zipfile and torch make of bytes that are not a checkpoint
        raise ValueError(str(error).partition("\n")[0][:300] or type(error).__name__) from error
    if "settings" not in state:
        raise RunFolderError(
            f"{file} is of an older version: finish the run with that version, or start afresh with another --out"
        )
    return state
