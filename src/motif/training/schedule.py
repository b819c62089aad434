"""What each step trains on and how fast: the order of the questions, and the learning rate."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from motif.config import DataConfig, Recipe
from motif.method.keys import sampling_key
from motif.method.tree import Question


def draw_questions(questions: Sequence[Question], step: int, count: int, seed: int) -> list[Question]:
    """The questions of a step (counted from 1): the data in an order shuffled anew for each epoch, by seed.

    A question that comes twice in one step, where an epoch ends, gets the id of its second place, so that its two
    trees differ.
    """
    return _draw(questions, (step - 1) * count, step * count, seed)


def _draw(questions: Sequence[Question], first: int, last: int, seed: int) -> list[Question]:
    drawn: list[Question] = []
    for position in range(first, last):
        epoch, index = divmod(position, len(questions))
        question = questions[_order(len(questions), epoch, seed)[index]]
        if any(question.id == other.id for other in drawn):
            question = replace(question, id=f"{question.id}@{position}")
        drawn.append(question)
    return drawn


def _draw_places(questions: Sequence[Question], first: int, last: int, seed: int, tries: int) -> list[list[Question]]:
    """For each place from `first` to before `last`, the question drawn for it, and those that replace it if it is dead.

    Replacements come from an order of their own, shuffled by seed for each pass over the data. None is another
    question of these places, so in small data there may be fewer than `tries` - 1. What a place may get depends on
    nothing that is sampled: neither on other places, nor on earlier steps. So processes need not agree on anything, and
    a step that is made again grows the same trees.
    """
    drawn, count = _draw(questions, first, last, seed), last - first
    wanted = count * (tries - 1)
    seen = {question.text for question in drawn}
    others: list[Question] = []
    position = first * (tries - 1)
    end = position + 2 * len(questions)  # by then every question has come by
    while len(others) < wanted and position < end:
        epoch, index = divmod(position, len(questions))
        question = questions[_order(len(questions), f"refill/{epoch}", seed)[index]]
        if question.text not in seen:
            seen.add(question.text)
            others.append(question)
        position += 1
    return [[question, *others[place::count]] for place, question in enumerate(drawn)]


class Course:
    """What a run draws its questions from: all of them, or with `data.curriculum` lengths that begin short and grow.

    `lengths`: those that join one after the other; none without a curriculum.
    """

    def __init__(self, questions: Sequence[Question], data: DataConfig):
        self.questions = questions
        self.lengths = sorted({question.length for question in questions}) if data.curriculum else []
        self._of = {length: [q for q in questions if q.length == length] for length in self.lengths}

    def places(self, stage: int, step: int, count: int, seed: int, tries: int = 1) -> list[list[Question]]:
        """The questions of a step's places (see `_draw_places`) after `stage` lengths have been passed.

        Every other question of the run is of the longest length in use, and those between are of any shorter one. When
        the last length has been passed, questions come as they lie in the data.
        """
        first, last = (step - 1) * count, step * count
        if stage >= len(self.lengths):
            return _draw_places(self.questions, first, last, seed, tries)
        longest = self._of[self.lengths[stage]]
        shorter = [question for length in self.lengths[:stage] for question in self._of[length]]
        if not shorter:
            return _draw_places(longest, first, last, seed, tries)
        even = iter(_draw_places(longest, (first + 1) // 2, (last + 1) // 2, seed, tries))
        odd = iter(_draw_places(shorter, first // 2, last // 2, seed, tries))
        return [next(odd if position % 2 else even) for position in range(first, last)]


def draw_rounds(question: Question, step: int, recipe: Recipe) -> Question:
    """The question with a number of rounds out of `rollout.rounds_vary`, if there are any and it has none of its own.

    It depends on the seed, the step and the question alone: not on other questions, and not on the process.
    """
    counts = recipe.rollout.rounds_vary
    if not counts or question.rounds is not None:
        return question
    return replace(question, rounds=counts[sampling_key(recipe.train.seed, step, question.id, "rounds") % len(counts)])


@lru_cache(maxsize=4)
def _order(count: int, epoch: int | str, seed: int) -> list[int]:
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


def is_due(step: int, every: int) -> bool:
    """Whether something happens after this step that happens every so many steps; 0: never."""
    return every > 0 and step % every == 0
