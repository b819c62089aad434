"""Accuracy on held-out questions, with the rounds as deployed and an interval beside every number.

An evaluation reports a *row* per number of rounds. It answers a *chunk* of questions at a time, so that its answers can
be kept as they come (`motif.evaluation.store`). `motif.evaluation.accuracy` computes the numbers from the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from motif.config import Recipe, RolloutConfig
from motif.distributed import ALONE, Processes
from motif.evaluation.accuracy import Accuracy, Answers, answers_of, summarise
from motif.evaluation.rows import DecodingMode, EvalRow, decoding_modes, eval_rows
from motif.evaluation.second import Judged, second_opinion
from motif.grading import Grader
from motif.grading.beside import grading_beside
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.sampling.base import Sampler
from motif.sampling.grow import grow
from motif.tasks.twins import twins

if TYPE_CHECKING:
    from motif.evaluation.store import EvalFolder

CHUNK_BATCHES = 2
"""Answers per chunk, in full decoding batches; a killed evaluation loses at most one chunk."""


def evaluate(
    questions: Sequence[Question],
    sampler: Sampler,
    rounds: Rounds,
    grader: Grader,
    recipe: Recipe,
    on_answer: Callable[[], None] | None = None,
    store: EvalFolder | None = None,
    processes: Processes = ALONE,
) -> dict[str, Accuracy]:
    """Accuracy of every row of the recipe (see `eval_rows`), by its name.

    The token limits of each round are the training ones. Answers are greedy, or `eval.samples` samples a question at
    `eval.temperature`. The same questions get the same random numbers at every call, so calls can be compared in pairs.

    Args:
        on_answer: called once per answer.
        store: keeps new answers, and returns those of an earlier start.
        processes: each answers its share of the questions, and all get the results of all.
    """
    advance = on_answer or (lambda: None)
    changed = twins(recipe.data, questions) if recipe.eval.twin else []
    second = Grader(recipe.eval.second_grader, recipe.data.grader_seconds) if recipe.eval.second_grader else None

    def grown(chunk: Sequence[Question], row: EvalRow, mode: DecodingMode) -> list[Tree]:
        shape, greedy = _shape(recipe, row, mode), mode.temperature == 0
        seed = recipe.train.seed
        with grading_beside(grader, lambda tree, leaf: advance()) as on_leaf:
            return grow(chunk, sampler, rounds, shape, seed=seed, step="eval", greedy=greedy, on_leaf=on_leaf)

    def answers(row: EvalRow, mode: DecodingMode) -> Answers:
        by_question: Answers = {}
        mine = processes.share(changed if row.twin else questions)
        for chunk in _chunks(mine, mode.samples, recipe.rollout):
            kept = store.get(row, mode, chunk) if store else None
            if kept is not None:
                for _ in range(len(chunk) * mode.samples):
                    advance()
            else:
                trees = grown(chunk, row, mode)
                kept = dict(answers_of(tree.to_dict()) for tree in trees)
                if store:
                    store.put(row, mode, trees)
            by_question |= kept
        return dict(processes.gather_in_order([(question.id, by_question[question.id]) for question in mine]))

    results = {}
    with second or nullcontext():
        for row in eval_rows(recipe):
            asked = changed if row.twin else questions
            pieces = {question.id: len(question.pieces) for question in asked if question.pieces}
            first, *greedy = (answers(row, mode) for mode in decoding_modes(recipe))
            drawn = (recipe.eval.temperature, _equality(grader), greedy[0] if greedy else None)
            results[row.name] = summarise(first, *drawn, pieces)
            if second:
                opinion = second_opinion(second, _judged(asked, first))
                results[row.name] = replace(results[row.name], second=opinion)
    return results


def _judged(questions: Sequence[Question], answers: Answers) -> list[Judged]:
    """The answers that there are, with their first verdicts."""
    return [
        Judged(question.id, question.gold, answer.text, answer.verdict)
        for question in questions
        for answer in answers[question.id]
        if answer.text is not None
    ]


def _chunks(questions: Sequence[Question], samples: int, shape: RolloutConfig) -> Iterator[Sequence[Question]]:
    # Always the same chunks: which responses share a batch decides the last bits of their logits.
    size = max(1, CHUNK_BATCHES * shape.max_rows // samples)
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def _shape(recipe: Recipe, row: EvalRow, mode: DecodingMode) -> RolloutConfig:
    temperature = mode.temperature or 1.0
    return recipe.rollout.model_copy(
        update={
            "branching": [mode.samples] + [1] * (row.rounds - 1),
            "tokens_first": row.tokens_first,
            "tokens_continue": row.tokens_continue,
            "temperature_first": temperature,
            "temperature_continue": temperature,
            "top_p_first": 1.0,
            "top_p_continue": 1.0,
            "continuation_policy": "current",
        }
    )


def _equality(grader: Grader) -> Callable[[str, str], bool] | None:
    """Whether two answers are the same to the grader, where that many verdicts cost next to nothing."""
    if not grader.rule.in_process:
        return None
    return lambda first, other: grader.grade(first, other).verdict == "right"
