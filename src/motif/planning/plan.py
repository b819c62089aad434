"""The plan of a run: what it will do and roughly need, shown before anything is spent, and refused if it cannot fit.

Counts are exact. Memory is estimated from the model's shape (`motif.planning.memory`). Time is estimated by
`motif.planning.costs`: on this machine from a tenth of a second of matrix products, elsewhere from the devices'
data sheets. Once steps run, the display goes by their times.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from motif.config import Recipe
from motif.distributed import ALONE, Processes
from motif.errors import RecipeError
from motif.models.device import pick_device, weight_dtype
from motif.models.shape import Shape
from motif.planning.colocation import colocation_here, shared_by
from motif.planning.devices import Device, parse_devices
from motif.planning.forecast import Forecast, Layout
from motif.planning.lengths import Lengths, measured
from motif.planning.memory import GIB, is_half, largest_pass, memory, recomputing, sampling_rows, way_out
from motif.planning.workload import Workload, workload_of
from motif.runs.trackers import check
from motif.sampling.local.precision import refuse_elsewhere
from motif.sampling.vllm.launch import Colocation
from motif.tasks import Task
from motif.text import counted, duration, whole_percent

CPU_LAYER, CPU_TOKEN = 0.1, 0.007
"""Overhead on a CPU in milliseconds a layer: of a decoding step for any number of rows, and of a token beside its
matrix products."""
CPU_MFU, CPU_TRAINING_MFU = 0.9, 0.7
"""Shares of the measured rate of matrix products that sampling and updates reach on a CPU (docs/reliability.md)."""
RIGHT = 0.25
"""The chance of a right answer by which the plan estimates how many groups are dead."""
RECOMPUTED = "activations are recomputed, because memory is short without that"
IDLE = 0.8
"""The share of its processors that a process gets on a machine that does nothing else, at least."""


@dataclass(frozen=True)
class Plan:
    """A recipe on this machine. Memory in bytes (of each process), time in seconds.

    processor_share: the share of its processors that this process got while it was timed.
    """

    workload: Workload
    device: str
    dtype: str
    memory: dict[str, float]
    available: float
    step_seconds: float
    eval_seconds: float
    warm_seconds: float
    memory_of: Callable[[Recipe], dict[str, float]]
    forecast: Forecast
    processes: int = 1
    processor_share: float = 1.0
    colocation: Colocation | None = None
    update_decided: str = ""
    """What `auto` has come to in updates, in words."""

    @property
    def run_seconds(self) -> float:
        """Seconds of the whole run, if every response used up its tokens."""
        steps, evaluations = self.workload.recipe.train.steps, self.workload.evaluated
        return self.warm_seconds + steps * self.step_seconds + evaluations * self.eval_seconds

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass of the update."""
        return self.workload.recipe.train.pass_tokens

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        servers = self.workload.recipe.sampler.urls
        total, each = sum(self.memory.values()), " for each process" if self.processes > 1 else ""
        room = f"{self.available / GIB:.1f} GiB free{each}"
        counted = "sampling on the servers not included" if servers else "if every response used up its tokens"
        counted += " and no trajectory ended early" if self.workload.recipe.rounds.may_finish and not servers else ""
        if self.processor_share < IDLE:
            counted += f", on an idle machine (now a process gets {whole_percent(self.processor_share)} of a core)"
        warm = f", of which the warm start {duration(self.warm_seconds)}" if self.warm_seconds else ""
        return [
            *self.workload.rows(f"{self.device}, {self.dtype}"),
            *([("processes", self._processes())] if self.processes > 1 else []),
            *sampling_rows(self.workload.recipe, self.workload.shape),
            *([("update", self.update_decided)] if self.update_decided else []),
            *([("sampling", f"on {self.colocation}; it starts in a minute or more")] if self.colocation else []),
            ("memory", f"about {total / GIB:.1f} GiB of {room}: {_parts(self.memory)}"),
            ("time", f"very roughly {duration(self.run_seconds)}{warm}, {counted}"),
        ]

    def _processes(self) -> str:
        recipe, one = self.workload.recipe, self.workload.recipe.rollout_of_one(self.processes)
        questions, most = recipe.rollout.questions_per_step, one.questions_per_step
        model = "a piece of the" if recipe.train.shard == "weights" else "the whole"
        trees = f"the trees of up to {most} of {counted(questions, 'question')}"
        if recipe.divides_trees(self.processes):
            trees = f"up to {one.responses} of the {recipe.rollout.responses} responses to a question"
        text, idle = f"{self.processes}, each with {model} model and {trees}", self.processes - recipe.parts
        return text + (f"; {idle} of them have nothing to sample: raise rollout.questions_per_step" if idle > 0 else "")

    def refuse_if_too_big(self) -> None:
        """Stop before anything is loaded if the estimate exceeds the free memory.

        Raises:
            RecipeError: it does; the message names the largest part, and settings with which the same plan fits.
        """
        total = sum(self.memory.values())
        if total <= self.available:
            return
        held_out = len(self.workload.task.test)
        largest, advice = way_out(self.workload.recipe, held_out, self.memory_of, self.available)
        raise RecipeError(
            f"this needs about {total / GIB:.1f} GiB, and {self.available / GIB:.1f} GiB are free on {self.device}. "
            f"The largest part is {largest} ({self.memory[largest] / GIB:.1f} GiB): {advice}"
        )


@dataclass(frozen=True)
class DevicePlan:
    """A recipe on devices elsewhere."""

    workload: Workload
    forecast: Forecast

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs.

        Raises:
            RecipeError: it does not fit these devices; the message says how many are needed.
        """
        forecast, best = self.forecast, self.forecast.best
        seconds = forecast.run_seconds(best, self.workload.evaluated)
        tested = self.workload.evaluated * best.evaluation
        steps = self.workload.recipe.train.steps
        return [
            *self.workload.rows(f"{forecast.count} × {forecast.device}"),
            ("lengths", f"{forecast.lengths}{self._early()}"),
            ("tokens", f"{forecast.tokens:,.0f} generated a step, {steps * forecast.tokens:,.0f} in all steps"),
            *(("memory", text) for text in self._memory()),
            *([("update", RECOMPUTED)] if self._recomputes else []),
            *((self._name(layout), self._layout(layout)) for layout in forecast.layouts),
            ("balance", self._balance(best)),
            (
                "time",
                f"{duration(seconds)} for the whole run, of which evaluation {duration(tested)}{_warm(best)}",
            ),
            ("price", self._price(best, seconds / 3600)),
            (
                "beware",
                "estimated from data-sheet numbers, not measured: expect a factor of 2 either way. The formulas and "
                "what they leave out are at the top of motif/planning/costs.py",
            ),
        ]

    @property
    def _recomputes(self) -> bool:
        """Whether `auto` has decided to recompute activations."""
        asked = self.workload.recipe.train.activation_checkpointing
        return asked == "auto" and self.forecast.recipe.train.recomputes

    def _early(self) -> str:
        if not self.workload.recipe.rounds.may_finish:
            return ""
        reach = self.forecast.lengths.reach
        if not reach:
            return "; no trajectory ends early (also an upper bound)"
        return f"; {whole_percent(reach[-1])} of the trajectories reach the last round"

    def _price(self, best: Layout, hours: float) -> str:
        count = self.forecast.count
        if count == 1:
            return f"{hours:,.1f} GPU-hours"
        less = f"; without the idle ones {hours * best.devices:,.1f}" if best.devices < count else ""
        return f"{hours * count:,.1f} GPU-hours, counting all {count} devices from beginning to end{less}"

    def _name(self, layout: Layout) -> str:
        return "fastest" if layout == self.forecast.best else "or"

    def _layout(self, layout: Layout) -> str:
        idle = self.forecast.count - layout.devices
        weight_sync = f", sync weights {_seconds(layout.weight_sync)}" if layout.kind != "local" else ""
        return (
            f"{layout}: {_seconds(layout.seconds)} a step (sample {_seconds(layout.sampling)}, grade "
            f"{_seconds(layout.grading)}{weight_sync}, train {_seconds(layout.training)})"
            + (f"; {idle} of {self.forecast.count} devices would be idle" if idle else "")
        )

    def _balance(self, best: Layout) -> str:
        busy, training = best.sampling / best.seconds, best.training / best.seconds
        if best.kind in ("local", "colocated"):
            return f"a device spends {100 * busy:.0f} % of a step sampling and {100 * training:.0f} % training"
        forecast = self.forecast
        sampling = best.samplers * (forecast.devices_per_server or 1)
        return (
            f"sampling {sampling} of {forecast.count} devices, busy {100 * busy:.0f} % of a step; training "
            f"{best.devices - sampling}, busy {100 * training:.0f} %"
        )

    def _memory(self) -> list[str]:
        forecast = self.forecast
        room = f"of {forecast.device.bytes / GIB:.1f} GiB that can be used"
        rows = []
        count = forecast.min_processes or forecast.count
        one = forecast.local_memory(count)
        beside = f", one of {count}" if self.workload.recipe.train.shard != "none" and count > 1 else ""
        fits = "" if forecast.min_processes and count <= forecast.count else ": does not fit"
        rows.append(f"a process that samples and trains{beside}: {_sum(one)} {room}{fits}: {_parts(one)}")
        per_server, per_trainer = forecast.devices_per_server, forecast.devices_per_trainer
        if self.workload.recipe.model.adapter == "lora" and per_server and per_trainer:
            server, at_once = forecast.server_memory(per_server), forecast.server_rows(per_server)
            trainer = forecast.trainer_memory(per_trainer)
            rows.append(f"a server{_on(per_server)}: {_sum(server)}, {at_once} rows at once: {_parts(server)}")
            rows.append(f"a training process{_on(per_trainer)}: {_sum(trainer)}: {_parts(trainer)}")
        if any(layout.kind == "colocated" for layout in forecast.layouts):
            shared = shared_by(forecast, forecast.device.bytes, forecast.device.bytes)
            rows.append(f"beside the training process, with sampler.colocate: {shared}")
        return rows


def make_plan(recipe: Recipe, processes: Processes = ALONE) -> tuple[Plan, Task]:
    """Plan a run on this machine from the model's configuration and the data, without loading any weights.

    Args:
        processes: among which the questions of a step and of an evaluation are divided.

    Returns:
        The plan, and the task with its questions.

    Raises:
        ModelError, DataError, RecipeError: see `workload_of`; a tracker cannot be used.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    device = pick_device(recipe.model.device)
    check(recipe.track)
    workload = workload_of(recipe)
    dtype, cpu = weight_dtype(recipe.model, device), device.type == "cpu"
    half = dtype != torch.float32
    refuse_elsewhere(recipe, device, half)

    def memory_of(recipe: Recipe) -> dict[str, float]:
        counts = workload.shape, workload.prompt_tokens, len(workload.task.test)
        return memory(_of_one(recipe, processes.count), *counts, half=half, cpu=cpu, processes=processes.count)

    def forecast_of(recipe: Recipe) -> Forecast:
        return replace(workload, recipe=_of_one(recipe, processes.count)).forecast(machine, 1, Lengths(), half)

    machine, processor_share = _this_machine(device, workload.shape)
    available = available_memory(device) / (processes.local_count if cpu else 1)
    workload = replace(workload, recipe=recomputing(workload.recipe, available, memory_of))
    recipe, asked = recipe.as_begun(workload.recipe), recipe
    shared = colocation_here(forecast_of(recipe), memory_of(recipe), available, device, processes)
    if recipe.train.microbatch_tokens == "auto":
        left = shared.left if shared else available
        tokens = recipe.train.pass_tokens if cpu else largest_pass(workload.recipe, left, memory_of)
        workload = replace(workload, recipe=workload.recipe.with_microbatch(tokens))
        recipe = recipe.with_microbatch(tokens)
    forecast = forecast_of(recipe)
    guessed = replace(forecast, right=RIGHT, shared=workload.shared_tokens)
    layout = guessed.colocated(shared) if shared else guessed.local(1)
    elsewhere = bool(recipe.sampler.urls)
    plan = Plan(
        workload=workload,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        memory=memory_of(recipe),
        available=available,
        step_seconds=layout.training if elsewhere else layout.seconds,
        eval_seconds=0.0 if elsewhere else layout.evaluation / processes.count,
        warm_seconds=layout.warm[1] + (0.0 if elsewhere else layout.warm[0]),
        memory_of=memory_of,
        forecast=replace(forecast, shared=workload.shared_tokens),
        processes=processes.count,
        processor_share=processor_share,
        colocation=shared,
        update_decided=_update(asked, recipe, cpu),
    )
    return plan, workload.task


def _update(asked: Recipe, decided: Recipe, cpu: bool) -> str:
    """What a plan says of updates, of which `auto` may have decided something."""
    passes = "" if cpu else f"passes of {decided.train.pass_tokens:,} tokens"
    chosen = asked.train.activation_checkpointing == "auto" and decided.train.recomputes
    return ", ".join(filter(None, (passes, RECOMPUTED * chosen)))


def _of_one(recipe: Recipe, processes: int) -> Recipe:
    """What one of so many processes does of a recipe."""
    stage = ("demonstrations_per_step", "look_questions", "questions")
    shares = {key: -(-getattr(recipe.warmstart, key) // processes) for key in stage}
    recipe = recipe.model_copy(update={"rollout": recipe.rollout_of_one(processes)})
    return recipe.with_settings("warmstart", **shares)


def make_device_plan(recipe: Recipe, on: str, lengths: str | Path | None = None) -> DevicePlan:
    """Plan a run on other devices; `model.device` has no effect.

    Args:
        on: the devices, e.g. `8xH100` (see `motif.planning.devices`).
        lengths: a run folder whose measured response lengths are used.

    Raises:
        UsageError: the devices are unknown.
        RunFolderError: `lengths` holds no trees.
        RecipeError: the recipe does not fit the devices.
        ModelError, DataError: see `workload_of`.
    """
    count, device = parse_devices(on)
    response_lengths = measured(lengths) if lengths else Lengths()
    workload = workload_of(recipe)
    # Layouts say where it is sampled.
    anywhere = recipe.with_settings("sampler", urls=[], colocate=False)

    def planned(active: bool) -> DevicePlan:
        one = replace(workload, recipe=anywhere.with_recomputing(active))
        plan = DevicePlan(workload, one.forecast(device, count, response_lengths, is_half(recipe, device)))
        plan.forecast.layouts  # noqa: B018  refuses what does not fit
        return plan

    try:
        return planned(recipe.train.recomputes)
    except RecipeError:
        if recipe.train.activation_checkpointing == "auto":
            with suppress(RecipeError):  # then the first refusal tells
                return planned(True)
        raise


def available_memory(device: torch.device) -> float:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def _this_machine(device: torch.device, shape: Shape) -> tuple[Device, float]:
    """This machine's device, by its rate of matrix products of the model's size, which memory access already slows.

    Also the share of its processors that this process got meanwhile.
    """
    rate, share = _matmul_rate(device, shape.hidden, shape.intermediate)
    here = Device("this machine", 1.0, rate / 1e12, float("inf"))
    if device.type != "cpu":
        return here, 1.0
    own = replace(here, overhead=CPU_LAYER, token_overhead=CPU_TOKEN)
    return replace(own, mfu=CPU_MFU, training_mfu=CPU_TRAINING_MFU), share


@functools.cache
def _matmul_rate(device: torch.device, hidden: int, intermediate: int) -> tuple[float, float]:
    """FLOP per second of matrix products of the model's size, and the share of a core that this process got, in 0.1 s.

    The quickest product counts: on a busy machine the others were interrupted. A GPU is not shared like this, and is
    not to be waited for after each of them.
    """
    a = torch.ones(64, hidden, device=device)
    b = torch.ones(hidden, intermediate, device=device)
    together = 1 if device.type == "cpu" else 100
    torch.mm(a, b).sum().item()
    quickest, start, busy = float("inf"), time.perf_counter(), time.thread_time()
    while (began := time.perf_counter()) - start < 0.1 or quickest == float("inf"):
        for _ in range(together):
            c = torch.mm(a, b)
        if device.type != "cpu":
            c.sum().item()  # waits for the device
        quickest = min(quickest, time.perf_counter() - began)
    share = (time.thread_time() - busy) / (time.perf_counter() - start)
    return 2.0 * a.shape[0] * hidden * intermediate * together / quickest, share


def _warm(best: Layout) -> str:
    return f", warm start {duration(sum(best.warm))}" if sum(best.warm) else ""


def _on(devices: int) -> str:
    return "" if devices == 1 else f", one of the {devices} devices that share it"


def _sum(parts: dict[str, float]) -> str:
    return f"about {sum(parts.values()) / GIB:.1f} GiB"


def _parts(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.2g} s"
