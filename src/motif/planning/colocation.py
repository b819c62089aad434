"""How a vLLM server and the trainer share one device (`sampler.colocate`).

They take turns. A server that sleeps during updates moves its weights to the CPU's memory and back.
"""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch

from motif.config import Recipe
from motif.distributed import Processes
from motif.errors import RecipeError
from motif.models.shape import window_of
from motif.planning.costs import Costs
from motif.planning.memory import GIB, sampled_at_once
from motif.sampling.vllm.launch import Colocation, find_program

OUT, BACK = 2e9, 10e9
"""Bytes per second in which a server's weights go to the CPU's memory and come back: 22 GiB took 10.6 and 2.2 s on an
A100 (github.com/vllm-project/vllm/pull/48337)."""
PAGE, PAGE_ON_CPU = 16, 128
"""Tokens whose keys and values a server stores together."""
USED = 0.95
"""The share of the free memory that is given away: what a program holds is never all in use."""


def share_device(
    recipe: Recipe,
    trainer: Mapping[str, float],
    server: Mapping[str, float],
    least: float,
    free: float,
    device: float,
    can_sleep: bool = True,
) -> Colocation:
    """The server's share of a device, and whether it sleeps during updates.

    It gets what it can use, up to what the trainer leaves: beside an update, or, if that is too little for all rows at
    once, beside the weights and the optimiser alone.

    Args:
        trainer: bytes of the trainer by part (`memory`). server: of the server, its `cache` for all rows at once among
            them, and `reserved` for what it keeps asleep: its context and recorded graphs. least: of keys and values
            that fill the window, for which a server must have room to start. free, device: of the device.

    Raises:
        RecipeError: there is no room for a single sequence.
    """
    held = trainer["weights"] + trainer["optimiser"]
    fixed = sum(size for name, size in server.items() if name != "cache")
    asleep = USED * free - held
    beside = asleep - trainer["update"]
    wanted = fixed + max(least, server["cache"])
    may = can_sleep and recipe.sampler.sleep != "never" and not recipe.sampler.overlap
    sleeps = may and (recipe.sampler.sleep == "always" or beside < wanted)
    room = asleep if sleeps else beside
    let = ", let the server sleep (sampler.sleep, sampler.overlap)" if can_sleep and not sleeps else ""
    let += f", or shorten the window (rollout.window), which takes {least / GIB:.1f} GiB of that"
    _refuse(fixed + least, room, free, "" if sleeps else " during updates", let)
    if sleeps:
        _refuse(server["reserved"], beside, free, " during updates, although it sleeps", "")
    taken = min(room, wanted)
    return Colocation(taken / device, taken - fixed, sleeps, left=free - (server["reserved"] if sleeps else taken))


def _refuse(needed: float, room: float, free: float, when: str, let: str) -> None:
    if room < needed:
        raise RecipeError(
            f"a vLLM server does not fit beside the trainer: it needs {needed / GIB:.1f} GiB, and "
            f"{max(0.0, room) / GIB:.1f} of {free / GIB:.1f} free ones are left{when}: sample in this process "
            f"(sampler.colocate = false){let}"
        )


def shared_by(
    costs: Costs,
    free: float,
    device: float,
    trainer: Mapping[str, float] | None = None,
    can_sleep: bool = True,
) -> Colocation:
    """How a server and the trainer share a device, by what they are estimated to take.

    Args:
        free, device: bytes of the device. trainer: bytes of the trainer by part, where they are known better.

    Raises:
        RecipeError: they do not fit.
    """
    recipe, shape, size = costs.recipe, costs.shape, 2 if costs.half else 4
    page = float(shape.cache(PAGE if can_sleep else PAGE_ON_CPU, size))  # each row has a part of one, and one is empty
    least = shape.cache(window_of(recipe, shape.max_length), size) + 2 * page
    rows = sampled_at_once(recipe, costs.held_out)
    server = costs.server_memory() | {"cache": costs.row_bytes * rows + page * (rows + 1)}
    return share_device(recipe, trainer or costs.trainer_memory(), server, least, free, device, can_sleep)


def colocation_here(
    costs: Costs, trainer: Mapping[str, float], free: float, device: torch.device, processes: Processes
) -> Colocation | None:
    """How the server of `sampler.colocate` shares this machine's device; None without it.

    Raises:
        RecipeError: several processes train, no server can run on this device, or there is no room.
        UsageError: vLLM is not there.
    """
    recipe = costs.recipe
    if not recipe.sampler.colocate or sum(trainer.values()) > free:  # which the plan refuses by itself
        return None
    if processes.count > 1:
        raise RecipeError("sampler.colocate is for one training process: start servers by hand (sampler.urls)")
    if device.type != "cuda" and recipe.model.device != "cpu":
        raise RecipeError(
            f"sampler.colocate needs an NVIDIA or AMD GPU, and this run's device is {device}: set sampler.colocate = "
            "false, or model.device = 'cpu' where vLLM's build for CPUs is installed"
        )
    if device.type != "cuda" and recipe.sampler.sleep == "always":
        raise RecipeError("sampler.sleep = 'always': vLLM sleeps on GPUs only; leave it out")
    find_program()
    shared = shared_by(costs, free, _all_memory(device), trainer, can_sleep=device.type == "cuda")
    weights, main = costs.server_memory()["weights"], float(psutil.virtual_memory().available)
    if shared.sleeps and weights > main:
        raise RecipeError(
            f"the vLLM server would have to sleep during updates, and its {weights / GIB:.1f} GiB of weights do not "
            f"fit into the {main / GIB:.1f} GiB of main memory that are free: sample in this process "
            "(sampler.colocate = false)"
        )
    return shared


def _all_memory(device: torch.device) -> float:
    """Bytes of a device, free or not."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    return float(psutil.virtual_memory().total)
