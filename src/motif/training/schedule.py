"""What each step trains on and how fast: the order of the questions, and the learning rate."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from motif.config import Recipe
from motif.method.tree import Question


def draw_questions(questions: Sequence[Question], step: int, count: int, seed: int) -> list[Question]:
    """The questions of a step (counted from 1): the data in an order shuffled anew for each epoch, by seed.

    A question that comes twice in one step, where an epoch ends, gets the id of its second place, so that its two
    trees differ.
    """
    drawn: list[Question] = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, len(questions))
        question = questions[_order(len(questions), epoch, seed)[index]]
        if any(question.id == other.id for other in drawn):
            question = replace(question, id=f"{question.id}@{position}")
        drawn.append(question)
    return drawn


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def learning_rate(step: int, recipe: Recipe) -> float:
    """The learning rate of a step (counted from 1): linear warm-up, then constant, linear or cosine to zero."""
    train = recipe.train
    warm = math.ceil(train.warmup * train.steps)
    if step <= warm:
        return train.learning_rate * step / warm
    done = (step - 1 - warm) / max(1, train.steps - warm)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[train.schedule]
    return train.learning_rate * factor
