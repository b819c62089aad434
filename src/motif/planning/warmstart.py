"""What a warm start takes: updates, looks, and the samples of the source `self`; a teacher's time is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

from motif.config import LossConfig, Recipe, WarmstartConfig
from motif.planning.copies import Replica
from motif.planning.costs import Costs
from motif.planning.lengths import Lengths
from motif.text import counted

Replicas = tuple[Replica, int]
"""A copy of the model, and how many of them there are."""


def iterations(config: WarmstartConfig) -> int:
    """How often demonstrations are made and learnt from."""
    return config.iterations if config.source == "self" else 1


def looks(config: WarmstartConfig) -> int:
    """How often a few trees are grown, if the stage makes all its steps."""
    return 1 + iterations(config) * math.ceil(config.steps / config.look_every)


def seconds(costs: Costs, sampling: Replicas, training: Replicas) -> tuple[float, float]:
    """Seconds of sampling and of updates, if all steps are made and every response uses up its tokens."""
    recipe, config, rollout = costs.recipe, costs.recipe.warmstart, costs.recipe.rollout
    if not config.source:
        return 0.0, 0.0
    limits, later = (rollout.tokens_first, rollout.tokens_continue), [1] * (rollout.rounds - 1)
    imitating = replace(costs, recipe=_imitating(recipe), right=None)
    replica, trainers = training
    demonstrations = math.ceil(config.demonstrations_per_step / trainers)
    step = imitating.update_time(imitating.levels([1, *later], demonstrations, limits), replica, trainers)
    grown = costs.levels([rollout.responses, *later], config.look_questions, limits)
    sampled = looks(config) * costs.sampling_time(grown, *sampling)
    if config.source == "self":
        questions = min(config.questions, costs.train or config.questions)
        for iteration in range(config.iterations):
            whole = iteration or config.answers == "rounds" or recipe.rounds.examples or recipe.data.in_pieces
            shape = [config.samples, *later] if whole else [config.samples]
            alone = costs if whole else replace(costs, lengths=Lengths())
            room = limits if whole else (config.tokens, config.tokens)
            sampled += costs.sampling_time(alone.levels(shape, questions, room), *sampling)
    return sampled, iterations(config) * config.steps * step


def _imitating(recipe: Recipe) -> Recipe:
    """The recipe of an update on demonstrations: all rounds are trained, and no group is dead."""
    recipe = recipe.with_settings("credit", train_rounds="all").with_settings("rollout", refill=0)
    return recipe.model_copy(update={"loss": LossConfig(kind="dapo")})


def in_words(recipe: Recipe, train: int) -> str:
    """What the stage does, for the plan."""
    config, rollout = recipe.warmstart, recipe.rollout
    questions = min(config.questions, train)
    asked = f"{counted(questions, 'question')} × {counted(config.samples, 'sample')}"
    sources = {
        "solutions": "worked solutions",
        "self": f"the model's own answers to {asked}",
        "teacher": f"a teacher's answers to {asked}, whose time is not included",
        "file": config.file,
    }
    often = f", {config.iterations} times" if iterations(config) > 1 else ""
    return (
        f"on {sources[config.source]}{often}; at most {counted(config.steps, 'step')} of "
        f"{counted(config.demonstrations_per_step, 'demonstration')} and {counted(looks(config), 'look')} at "
        f"{counted(config.look_questions, 'question')} × {counted(rollout.responses, 'response')}"
    )
