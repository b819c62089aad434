"""One first-round response and all that becomes of it, for hosts that ask for one response at a time.

Where a host calls a coroutine per response (verl) or per episode (verifiers), a question's m responses are m calls that
know nothing of each other, and the host compares what they return. Each call grows one branch of the tree on a sampler
that asks the host's model; prompts, reading, grading and rewards are those of `motif train`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from motif.config import CreditConfig, Recipe, RolloutConfig
from motif.errors import RecipeError
from motif.grading import Grader
from motif.grading.beside import grade_leaf
from motif.method.credit import assign
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.sampling.base import Sampler
from motif.sampling.grow import Grower, TreeShape


async def grow_branch(question: Question, sampler: Sampler, rounds: Rounds, config: RolloutConfig) -> Tree:
    """A tree of one first-round response with everything below it."""
    shape = TreeShape.of(config)
    tree = Tree(question, 0)
    await Grower(sampler, rounds, replace(shape, branching=[1, *shape.branching[1:]])).grow([tree])
    return tree


async def judge(tree: Tree, grader: Grader, credit: CreditConfig) -> None:
    """Grade the leaves of a tree and give every node its value and its reward."""
    await asyncio.gather(*(asyncio.to_thread(grade_leaf, grader, tree, leaf) for leaf in tree.leaves()))
    assign(tree, credit)


def refuse(host: str, recipe: Recipe) -> None:
    """Refuse what no host can do that sees one response at a time.

    Raises:
        RecipeError: with the setting that asks for it.
    """
    impossible = {
        "sampler.urls": bool(recipe.sampler.urls),
        "sampler.colocate": recipe.sampler.colocate,
        "rollout.continuation_policy": recipe.rollout.continuation_policy == "base",
        "rollout.branching": recipe.rollout.responses < 2,
        "rollout.refill": recipe.rollout.refill > 0,
        "data: texts in pieces": recipe.data.in_pieces,
        "rollout.rounds_vary": bool(recipe.rollout.rounds_vary),
        "credit.group": recipe.credit.group not in ("siblings", "round"),
        "credit.tokens": recipe.credit.tokens != "all",
    }
    for name, asks in impossible.items():
        if asks:
            raise RecipeError(f"{host} cannot do what this recipe asks for ({name}): leave it out, or use motif train")
