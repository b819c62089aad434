"""Memory that a run needs: an estimate from the recipe and the sizes of its model."""

from __future__ import annotations

from motif.config import Recipe
from motif.models.shape import Shape
from motif.planning.devices import Device

GIB = 2**30
LIBRARIES = 0.5 * GIB
"""Bytes of Python and the libraries."""

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


def trainable(recipe: Recipe, shape: Shape) -> float:
    """Number of parameters that are trained: all, or those of an adapter on all linear layers."""
    if recipe.model.adapter == "full":
        return shape.parameters
    linear = shape.layers * (4 * shape.hidden * shape.hidden + 3 * shape.hidden * shape.intermediate)
    rank = recipe.model.lora_rank
    return min(shape.layers * rank * (8 * shape.hidden + 3 * (shape.hidden + shape.intermediate)), linear)


def longest_sequence(recipe: Recipe, prompt: int) -> int:
    """Tokens of the longest prompt and response if all limits are used up; `prompt`: of a first-round prompt."""
    rollout = recipe.rollout
    rounds = max(rollout.rounds, *recipe.eval_rounds)
    note = min(recipe.rounds.note_tokens, rollout.tokens_first) if rounds > 1 else 0
    return prompt + note + max(rollout.tokens_first, rollout.tokens_continue)


def memory(recipe: Recipe, shape: Shape, prompt: int, *, half: bool, cpu: bool, processes: int = 1) -> dict[str, float]:
    """Bytes of a process that samples and trains, by part.

    Args:
        prompt: tokens of a typical first-round prompt.
        half: whether matrix products are in bfloat16.
        cpu: whether the device is a CPU.
        processes: how many train together.
    """
    rollout, train = recipe.rollout, recipe.train
    size = weight_size(recipe, half)
    pieces = processes if train.shard == "weights" else 1
    # In float32 sampling has its own weights: with the adapter merged, or on a CPU laid out for few rows.
    copied = not (recipe.model.four_bit or half) and (recipe.model.adapter == "lora" or cpu)
    copy = size * shape.parameters if copied else 0
    gathered = size * shape.parameters if pieces > 1 else 0  # sharded weights are gathered to sample
    sampled = rollout.questions_per_step * rollout.responses * rollout.trajectories
    tested = recipe.eval.questions * recipe.eval.samples
    rows = min(rollout.max_rows, max(sampled, tested))
    length = longest_sequence(recipe, prompt)
    activation = 2 if half else 4
    per_token = shape.layers * (14 * shape.hidden + 5 * shape.intermediate)
    if train.activation_checkpointing:
        per_token = shape.layers * shape.hidden + 14 * shape.hidden + 5 * shape.intermediate
    # A pass over responses beside the prompts they share, which are kept until all that follows them is done.
    shared = max(prompt, min(train.microbatch_tokens, rollout.questions_per_step * prompt))
    tokens = max(train.microbatch_tokens, length) + shared
    sampling = copy + gathered + rows * (length * shape.cache_per_token * activation + 16.0 * shape.vocabulary)
    in_pass = size * _gathered_in_a_pass(shape) if pieces > 1 else 0
    # In float32: the gradient and two moments, and an adapter's values (others are among the weights).
    moments = 8.0 / (1 if train.shard == "none" else processes)
    values = (4.0 if recipe.model.adapter == "full" else 8.0) / pieces
    return {
        "weights": LIBRARIES + size * shape.parameters / pieces,
        "sampling": 0.0 if recipe.sampler.urls else sampling,
        "update": activation * tokens * per_token + 4 * 4 * 2.0**24 + in_pass,
        "optimiser": (values + moments) * trainable(recipe, shape),
    }


def _gathered_in_a_pass(shape: Shape) -> float:
    """Parameters of a sharded model that are gathered at a time: embeddings and head, a layer and the next one."""
    ends = min(2 * shape.vocabulary * shape.hidden, shape.parameters)
    return ends + 2 * (shape.parameters - ends) / shape.layers
