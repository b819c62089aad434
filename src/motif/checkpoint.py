"""Everything needed to go on exactly where a run stopped.

A checkpoint is one folder, `checkpoints/step-000020/`, written under another name and renamed when complete, so a
half-written one is never picked up. There is no generator state in it: all randomness is computed from (seed, step,
question, node, token).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from motif.config import Recipe, RecipeError
from motif.policy import Policy
from motif.processes import ALONE, Processes
from motif.sharding import load_optimizer_state, optimizer_state

NAME = re.compile(r"step-(\d{6,})")


def save(
    run: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    extra: dict[str, Any],
    keep: int,
    processes: Processes = ALONE,
) -> Path:
    """Write the checkpoint after `step` steps and delete all but the newest `keep`.

    Args:
        extra: whatever else the loop needs back (plain Python data and tensors).
        processes: which all call this; the main one writes what they gather.
    """
    if not policy.shards:
        processes.agree(checksum(policy), "the weights have drifted apart: their checksums are")
    processes.collect(optimizer)
    weights = policy.state(processes.main)
    moments = optimizer_state(optimizer) if processes.main or policy.shards else {}
    folder = run / "checkpoints"
    target, partial = folder / f"step-{step:06d}", folder / f".step-{step:06d}.partial"
    if not processes.main:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    state = {
        "step": step,
        "weights": weights,
        "optimizer": moments,
        "fingerprint": fingerprint(recipe),
        "extra": extra,
    }
    with (partial / "state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in all_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def checksum(policy: Policy) -> int:
    """A sum over the bits of all trained numbers, the same for equal weights in whatever order they are added."""
    sums = [parameter.detach().view(torch.int32).sum(dtype=torch.int64) for parameter in policy.trainable()]
    return int(torch.stack(sums).sum())


def all_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_latest(
    run: Path, policy: Policy, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> tuple[int, dict[str, Any]] | None:
    """Restore the newest checkpoint into policy and optimiser; returns its step and extra data, or None without one.

    Raises:
        RecipeError: the checkpoint is of another recipe.
    """
    checkpoints = all_checkpoints(run)
    if not checkpoints:
        return None
    # weights_only: a checkpoint is data, and unpickling must not run code.
    state = torch.load(checkpoints[-1] / "state.pt", map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint(recipe):
        raise RecipeError(
            f"{run} was made with another recipe; to go on use the settings in {run / 'recipe.toml'}, "
            "to start afresh choose another --out"
        )
    policy.load_state(state["weights"])
    load_optimizer_state(optimizer, state["optimizer"])
    return int(state["step"]), state["extra"]


def load_weights(run: Path, policy: Policy) -> int | None:
    """Put a run's trained weights into a policy: the final ones, or, before its end, the newest checkpoint's.

    Returns:
        The checkpoint's step; None: the weights are final.

    Raises:
        RecipeError: the run holds neither, or they belong to another model.
    """
    final = run / ("adapter" if policy.config.adapter == "lora" else "model")
    checkpoints = all_checkpoints(run)
    if final.is_dir() or not checkpoints:
        policy.load(run)
        return None
    state = torch.load(checkpoints[-1] / "state.pt", map_location="cpu", weights_only=True)
    policy.load_state(state["weights"])
    return int(state["step"])


def fingerprint(recipe: Recipe) -> str:
    """A hash of all settings that change what is trained; more steps, rarer checkpoints or a probe are no other run.

    A schedule that depends on the number of steps does tie the run to that number.
    """
    data = recipe.model_dump(mode="json")
    free = {"save_every", "keep_checkpoints", "shard"}
    if recipe.train.schedule == "constant" and recipe.train.warmup == 0:
        free.add("steps")
    data["train"] = {key: value for key, value in data["train"].items() if key not in free}
    for aside in ("about", "name", "probe", "track", "track_project"):
        data.pop(aside)
    # Which servers, and how they are reached, may change on the way; whether there are any changes the random draws.
    sampler = data.pop("sampler")
    if sampler["urls"]:
        data["sampler"] = {"servers": True, "overlap": sampler["overlap"]}
    return hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()
