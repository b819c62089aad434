"""Memory that a run needs: an estimate from the recipe and the sizes of its model."""

from __future__ import annotations

from collections.abc import Callable

from motif.config import Recipe
from motif.models.shape import TRANSIENT, Shape
from motif.planning.devices import Device

GIB = 2**30
LIBRARIES = 0.5 * GIB
"""Bytes of Python and the libraries."""

LARGEST_PASS, FILLED = 1 << 16, 0.8
"""Tokens in a pass after which a GPU is busy anyway, and the share of free memory that an estimate may fill."""

ADVICE = {
    "weights": "a smaller model, model.dtype = 'bfloat16' or model.four_bit = true",
    "sampling": "a smaller rollout.max_rows, rollout.tokens_continue or rounds.note_tokens",
    "update": "a smaller train.microbatch_tokens, or train.activation_checkpointing = true",
    "optimiser": "a smaller model.lora_rank, or model.adapter = 'lora'",
}
"""What makes each part of `memory` smaller."""


def is_half(recipe: Recipe, device: Device) -> bool:
    """Whether matrix products are in bfloat16 on a GPU of this kind."""
    return recipe.model.dtype == "bfloat16" or (recipe.model.dtype == "auto" and device.bfloat16)


def weight_size(recipe: Recipe, half: bool) -> float:
    """Bytes of one weight of the base."""
    return 0.6 if recipe.model.four_bit else 2 if half and recipe.model.adapter == "lora" else 4


def trainable(recipe: Recipe, shape: Shape) -> int:
    """Number of parameters that are trained: all that text passes, or those of the adapter."""
    return shape.counts.text if recipe.model.adapter == "full" else recipe.model.lora_rank * shape.adapter


def longest_sequence(recipe: Recipe, prompt: int, tested: bool = True) -> int:
    """Tokens of the longest prompt and response if all limits are used up.

    `prompt`: of a first-round prompt. `tested`: whether there are evaluations, which may have more or longer rounds.
    """
    rollout = recipe.rollout
    rounds = max(rollout.longest, *recipe.eval_rounds) if tested else rollout.longest
    carried = rounds - 1 if recipe.rounds.carry == "all" else min(rounds - 1, 1)
    longest = prompt + carried * min(recipe.rounds.note_tokens, rollout.tokens_first)
    longest += max(rollout.tokens_first, rollout.tokens_continue if rounds > 1 else 0)
    return max(longest, prompt + recipe.matched_tokens) if tested and recipe.eval.matched else longest


def sampling_rows(recipe: Recipe, shape: Shape) -> list[tuple[str, str]]:
    """What a plan says of sampling elsewhere, or in other numbers, as (name, text) pairs."""
    sampler, rows = recipe.sampler, []
    if sampler.urls:
        beside = ", each step's while the one before trains" if sampler.overlap else ""
        count = len(sampler.urls)
        servers = f"on {count} vLLM server{'s' if count > 1 else ''}{beside}: {', '.join(sampler.urls)}"
        rows.append(("sampling", servers))
    if sampler.precision != "float32":
        when = "int8" + (", if a timing at the start finds it faster, else float32" * (sampler.precision == "auto"))
        size = shape.counts.matrices / GIB
        copy = f"their copy of the weights then takes about {size:.2g} GiB instead of {4 * size:.2g}"
        rest = "memory and time below are float32's, in which the start's checks and evaluations sample"
        rows.append(("precision", f"of rollouts: {when}; {copy}; {rest}"))
    return rows


def sampled_at_once(recipe: Recipe, held_out: int, processes: int = 1) -> int:
    """Responses that a process samples together, in a step, an evaluation or a probe, if there is room for all.

    `recipe`: its `questions_per_step` are those of the process; the questions of evaluations and probes are divided.
    """
    rollout, probe = recipe.rollout, recipe.probe
    step = rollout.questions_per_step * rollout.responses * rollout.trajectories
    tested = -(-min(recipe.eval.questions, held_out) // processes) * recipe.eval.samples
    probed = -(-probe.questions // processes) * rollout.responses * max(rollout.trajectories, probe.continuations)
    return min(rollout.max_rows, max(step, tested, probed))


def memory(
    recipe: Recipe, shape: Shape, prompt: int, held_out: int, *, half: bool, cpu: bool, processes: int = 1
) -> dict[str, float]:
    """Bytes of a process that samples and trains, by part.

    Args:
        prompt: tokens of a typical first-round prompt.
        held_out: questions that are held out; more than these are not tested on.
        half: whether matrix products are in bfloat16.
        cpu: whether the device is a CPU.
        processes: how many train together.
    """
    rollout, train = recipe.rollout, recipe.train
    size = weight_size(recipe, half)
    pieces = processes if train.shard == "weights" else 1
    held = size * (shape.parameters - (0 if cpu else shape.counts.towers))  # towers stay in the CPU's memory
    # In float32 sampling has its own weights: with the adapter merged, or on a CPU laid out for few rows.
    copied = not (recipe.model.four_bit or half) and (recipe.model.adapter == "lora" or cpu)
    copy = held if copied else 0
    if half and recipe.model.adapter == "full" and not cpu and pieces == 1:
        copy = held * 2 / size  # those in bfloat16
    gathered = held if pieces > 1 else 0  # sharded weights are gathered to sample
    rows = sampled_at_once(recipe, held_out, processes)
    length = longest_sequence(recipe, prompt, tested=min(held_out, recipe.eval.questions) > 0)
    activation = 2 if half else 4
    per_token = TRANSIENT * (shape.activations + shape.pairs * length)
    adapted = shape.counts.experts if recipe.model.adapter == "lora" else 0  # of experts, that is all in one tensor
    if train.recomputes:
        mask = min(1.0, shape.pairs)  # that of all layers is kept
        per_token = shape.layers * shape.hidden + TRANSIENT * (
            shape.activations / shape.layers + max(mask, shape.pairs / shape.layers) * length
        )
        adapted //= shape.layers
    # A pass over responses beside the prompts they share, which are kept until all that follows them is done.
    shared = max(prompt, min(train.pass_tokens, rollout.questions_per_step * prompt))
    tokens = max(train.pass_tokens, length) + shared
    logits = 2.0**24 if cpu else min(2.0**26, shape.vocabulary * max(train.pass_tokens, length))
    # The fast path keeps all tokens, also in layers with a window.
    row = shape.cache(length, activation, windows=False) + 16.0 * shape.vocabulary
    sampling = copy + gathered + rows * row
    in_pass = size * _gathered_in_a_pass(shape) if pieces > 1 else 0
    # In float32: the gradient and two moments, and an adapter's values (others are among the weights).
    moments = 8.0 / (1 if train.shard == "none" else processes)
    values = (4.0 if recipe.model.adapter == "full" else 8.0) / pieces
    return {
        "weights": LIBRARIES + held / pieces,
        "sampling": 0.0 if recipe.sampler.on_servers else sampling,
        "update": activation * (tokens * per_token + adapted) + 4 * 4 * logits + in_pass,
        "optimiser": (values + moments) * trainable(recipe, shape),
    }


def _gathered_in_a_pass(shape: Shape) -> float:
    """Parameters of a sharded model that are gathered at a time: embeddings and head, a layer and the next one."""
    ends = min(2 * shape.vocabulary * shape.hidden, shape.parameters)
    return ends + 2 * (shape.parameters - ends) / shape.layers


def recomputing(recipe: Recipe, available: float, memory_of: Callable[[Recipe], dict[str, float]]) -> Recipe:
    """The recipe with `train.activation_checkpointing = "auto"` decided, for so many bytes that are free.

    Activations are recomputed if all fits with that only; what never fits is left to a refusal.
    """
    if recipe.train.activation_checkpointing != "auto":
        return recipe
    fits = [sum(memory_of(recipe.with_recomputing(active)).values()) <= available for active in (False, True)]
    return recipe.with_recomputing(fits == [False, True])


def largest_pass(recipe: Recipe, available: float, memory_of: Callable[[Recipe], dict[str, float]]) -> int:
    """What `train.microbatch_tokens = "auto"` becomes on a GPU with so many bytes free: a power of two that fits.

    Nothing is gained by more than `LARGEST_PASS`; if not even the least fits, the plan is refused anyway.
    """
    tokens = recipe.train.pass_tokens
    while tokens < LARGEST_PASS and sum(memory_of(recipe.with_microbatch(2 * tokens)).values()) <= FILLED * available:
        tokens *= 2
    return tokens


Settings = dict[str, int | bool]
"""Values by the names of settings, such as `rollout.max_rows`."""


def smaller(recipe: Recipe, rows: int, largest: str, fits: Callable[[Recipe], bool]) -> Settings | None:
    """The largest powers of two that make a recipe fit, for as few settings as possible; None: none do.

    Args:
        rows: responses that are sampled together.
        largest: the largest part of the memory, whose setting is tried first.
        fits: whether a recipe does.
    """
    tried = {"rollout.max_rows": rows, "train.microbatch_tokens": recipe.train.pass_tokens}
    if recipe.sampler.on_servers:
        del tried["rollout.max_rows"]
    singly = sorted(tried, key=lambda name: name.startswith("train") != (largest == "update"))
    ways = [*([name] for name in singly), list(tried)]
    for extra in ({}, {"train.activation_checkpointing": True}):  # which costs time
        for names in ways:
            for shift in range(1, 30):
                changes = {name: max(1, _power_above(tried[name]) >> shift) for name in names} | extra
                if fits(_changed(recipe, changes)):
                    return changes
    return None


def _power_above(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _changed(recipe: Recipe, changes: Settings) -> Recipe:
    for name, value in changes.items():
        section, _, key = name.partition(".")
        recipe = recipe.with_settings(section, **{key: value})
    return recipe


def way_out(
    recipe: Recipe, held_out: int, memory_of: Callable[[Recipe], dict[str, float]], room: float
) -> tuple[str, str]:
    """The largest part of a recipe that needs more than `room` bytes, and what to do about it.

    That is to set values that fit, or else what makes this part smaller.
    """
    parts = memory_of(recipe)
    largest = max(parts, key=lambda name: parts[name])
    rows = sampled_at_once(recipe, held_out)
    changes = smaller(recipe, rows, largest, lambda changed: sum(memory_of(changed).values()) <= room)
    if changes is None:
        return largest, f"use {ADVICE[largest]}"
    values = " and ".join(f"{name} = {str(value).lower()}" for name, value in changes.items())
    return largest, f"set {values}, with which it fits"
