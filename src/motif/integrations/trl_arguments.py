"""What a recipe comes to for TRL's GRPOTrainer: its arguments, what a row of its batch is, and what it cannot do."""

from __future__ import annotations

import math
from typing import Any

from motif.config import Recipe
from motif.distributed import launched_process
from motif.errors import RecipeError


def arguments_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe comes to as arguments of `GRPOConfig`: one question is one micro-batch.

    Raises:
        RecipeError: the recipe asks for something that GRPOTrainer cannot do.
    """
    rollout, loss, optimiser = recipe.rollout, recipe.loss, recipe.train
    refuse(recipe)
    processes = launched_process().count
    questions, rest = divmod(rollout.questions_per_step, processes)
    if rest:
        raise RecipeError(f"rollout.questions_per_step = {rollout.questions_per_step} is not a multiple of {processes}")
    group = rows_per_question(recipe)
    warm = "constant_with_warmup" if optimiser.warmup else "constant"
    return {
        "num_generations": group,
        "per_device_train_batch_size": group,
        "gradient_accumulation_steps": questions,
        "max_completion_length": max(rollout.tokens_first, rollout.tokens_continue if whole_tree(recipe) else 0),
        "temperature": rollout.temperature_first,
        "top_p": rollout.top_p_first,
        "loss_type": loss.kind,
        "epsilon": loss.clip_low,
        "epsilon_high": loss.clip_high,
        "beta": loss.kl_beta,
        "num_iterations": loss.inner_epochs,
        "scale_rewards": "group" if recipe.credit.divide_by_std and not compared_here(recipe) else "none",
        "max_steps": optimiser.steps * loss.inner_epochs,  # TRL counts optimiser steps
        "learning_rate": optimiser.learning_rate,
        "adam_beta1": optimiser.betas[0],
        "adam_beta2": optimiser.betas[1],
        "weight_decay": optimiser.weight_decay,
        "warmup_steps": math.ceil(optimiser.warmup * optimiser.steps) * loss.inner_epochs,
        "lr_scheduler_type": warm if optimiser.schedule == "constant" else optimiser.schedule,
        "max_grad_norm": optimiser.max_grad_norm,
        "seed": optimiser.seed,
        "gradient_checkpointing": optimiser.recomputes,
        "disable_dropout": True,
        "save_steps": optimiser.save_every * loss.inner_epochs,
        "save_total_limit": optimiser.keep_checkpoints,
        "logging_steps": 1,
        "report_to": [],
    }


def whole_tree(recipe: Recipe) -> bool:
    """Whether the rows of a question are all nodes of its tree, not its first-round responses only."""
    return recipe.credit.train_rounds == "all" and recipe.rollout.rounds > 1


def compared_here(recipe: Recipe) -> bool:
    """Whether rows are compared by `motif.method.credit`, because TRL's comparison is another."""
    return whole_tree(recipe) or recipe.credit.baseline != "mean" or recipe.credit.group not in ("siblings", "round")


def rows_per_question(recipe: Recipe) -> int:
    """TRL's `num_generations`."""
    return recipe.rollout.generations if whole_tree(recipe) else recipe.rollout.responses


def refuse(recipe: Recipe) -> None:
    """Refuse what GRPOTrainer cannot do.

    Raises:
        RecipeError: with the setting that asks for it.
    """
    rollout, loss = recipe.rollout, recipe.loss
    impossible = {
        "sampler.urls": bool(recipe.sampler.urls),
        "sampler.colocate": recipe.sampler.colocate,
        "sampler.precision": recipe.sampler.precision != "float32",  # nothing there corrects for it
        "loss.minibatches": loss.minibatches > 1,
        "loss.importance_cap": loss.importance_cap > 0,
        "different temperatures": whole_tree(recipe) and rollout.temperature_first != rollout.temperature_continue,
        "rollout.branching": rows_per_question(recipe) < 2,
        "rollout.refill": rollout.refill > 0,
        "rollout.rounds_vary": bool(rollout.rounds_vary),
        "credit.tokens": recipe.credit.tokens != "all",
        "credit.group = 'chain'": recipe.credit.group == "chain",  # rows that are not trained at all
        "rounds.may_finish with credit.train_rounds = 'all'": whole_tree(recipe) and recipe.rounds.may_finish,
    }
    for name, asked in impossible.items():
        if asked:
            raise RecipeError(
                f"GRPOTrainer cannot do what this recipe asks for ({name}): leave it out, or use motif train"
            )
