"""Accuracy on held-out questions, with the rounds as deployed and an interval beside every number.

What is reported is a *row* per number of rounds, and what is computed is a *chunk* of questions at a time, so that an
evaluation can be kept as it goes (`motif.eval_store`). The estimators are in `motif.estimators`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from motif.config import Recipe, RolloutConfig
from motif.estimators import Estimate, Outcome, estimate, majority, mean_outcome, powers_of_two, question_pass_at_k
from motif.grading import Grader
from motif.grading.rules import IN_PROCESS
from motif.rollout import grow
from motif.rounds import Rounds
from motif.sampling import Sampler
from motif.tree import Node, Question, Tree

CHUNK_BATCHES = 2
"""Answers grown at once, in full decoding batches: what a killed evaluation loses at most."""
OUTCOMES: dict[str | None, Outcome] = {"right": 1.0, "wrong": 0.0}


@dataclass(frozen=True)
class Row:
    """One way of answering that is tested: how many rounds, with how many new tokens in the first and in the others."""

    name: str
    rounds: int
    tokens_first: int
    tokens_continue: int


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn: so many per question at this temperature (0 is greedy)."""

    name: str
    samples: int
    temperature: float


@dataclass(frozen=True)
class Answer:
    """One answer, all its rounds together: what the numbers are made of."""

    verdict: str | None
    text: str | None
    truncated: bool
    well_formed: bool
    tokens: int


Answers = dict[str, list[Answer]]
"""The answers to each question, by its id."""


@dataclass(frozen=True)
class Accuracy:
    """What a row came to over `n` questions that could be graded; the interval is a 95 % one over questions.

    accuracy: pass@1, the mean over questions of the mean over their `samples` answers (avg@n). pass_at: pass@k for
    k = 2, 4, … up to the number of samples. majority: whether the commonest of several answers is right. greedy: of one
    greedy answer beside the samples. `ungraded` answers are in neither numerator nor denominator. `truncated` and
    `well_formed`: fractions of answers with at least one response cut off, and with all responses in form.
    `mean_tokens`: what one answer costs, all rounds together. outcomes: mean outcome by question id (None: ungraded),
    which paired comparisons need.
    """

    accuracy: float
    low: float
    high: float
    n: int
    samples: int
    ungraded: int
    truncated: float
    well_formed: float
    mean_tokens: float
    pass_at: dict[int, Estimate] = field(default_factory=dict)
    majority: Estimate | None = None
    greedy: Estimate | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Its numbers, for JSON; the mean of no question is None. The outcomes are not in it (see `outcomes_dict`)."""
        names = ("accuracy", "low", "high", "n", "samples", "ungraded", "truncated", "well_formed", "mean_tokens")
        found: dict[str, Any] = {name: _finite(getattr(self, name)) for name in names}
        if self.pass_at:
            found["pass_at"] = {str(k): _estimate_dict(value) for k, value in self.pass_at.items()}
        for name, value in (("majority", self.majority), ("greedy", self.greedy)):
            if value is not None:
                found[name] = _estimate_dict(value)
        return found

    def outcomes_dict(self, row: str) -> dict[str, Any]:
        """A line of outcomes.jsonl: the row's name, the ids of the questions, the mean outcome of each."""
        return {"row": row, "questions": list(self.outcomes), "outcomes": list(self.outcomes.values())}

    def __str__(self) -> str:
        return f"{Estimate(self.accuracy, self.low, self.high, self.n)}, n = {self.n}"


class Store(Protocol):
    """Keeps the answers of an evaluation as they come, and gives them back when it is started again."""

    def get(self, row: Row, drawing: Drawing, questions: Sequence[Question]) -> Answers | None:
        """The answers to these questions, if all of them are there."""
        ...

    def put(self, row: Row, drawing: Drawing, trees: Sequence[Tree]) -> None:
        """Keep graded trees."""
        ...


def rows(recipe: Recipe) -> list[Row]:
    """The rows of an evaluation: `rounds_1`, `rounds_3`, … and, with `eval.matched`, `rounds_1_matched`."""
    first, later = recipe.rollout.tokens_first, recipe.rollout.tokens_continue
    found = [Row(f"rounds_{count}", count, first, later) for count in recipe.eval_rounds]
    if recipe.eval.matched:
        found.append(Row("rounds_1_matched", 1, recipe.matched_tokens, later))
    return found


def drawings(recipe: Recipe) -> list[Drawing]:
    """How the answers of each row are drawn: greedily, or so many samples, or samples and a greedy one beside them."""
    if recipe.eval.temperature == 0:
        return [Drawing("greedy", 1, 0.0)]
    sampled = Drawing("sampled", recipe.eval.samples, recipe.eval.temperature)
    return [sampled, Drawing("greedy", 1, 0.0)] if recipe.eval.greedy else [sampled]


def answers_in(recipe: Recipe, questions: int) -> int:
    """How many answers an evaluation on so many questions takes."""
    return questions * len(rows(recipe)) * sum(drawing.samples for drawing in drawings(recipe))


def evaluate(
    questions: Sequence[Question],
    sampler: Sampler,
    rounds: Rounds,
    grader: Grader,
    recipe: Recipe,
    on_answer: Callable[[], None] | None = None,
    store: Store | None = None,
) -> dict[str, Accuracy]:
    """Accuracy of every row of the recipe (see `rows`), by its name.

    The token limits of each round are the training ones. Answers are greedy, or `eval.samples` samples a question at
    `eval.temperature`. The same questions get the same random numbers at every call, so calls can be compared in pairs.

    Args:
        on_answer: called once per answer.
        store: keeps answers, and has those that need not be drawn again.
    """
    results = {}
    for row in rows(recipe):
        found = []
        for drawing in drawings(recipe):
            answers: Answers = {}
            for chunk in _chunks(questions, drawing.samples, recipe.rollout):
                kept = store.get(row, drawing, chunk) if store else None
                if kept is None:
                    trees = _answer(chunk, row, drawing, sampler, rounds, grader, recipe, on_answer)
                    kept = dict(answers_of(tree.to_dict()) for tree in trees)
                    if store:
                        store.put(row, drawing, trees)
                elif on_answer:
                    for _ in range(len(chunk) * drawing.samples):
                        on_answer()
                answers |= kept
            found.append(answers)
        results[row.name] = summarise(found[0], _equality(grader), greedy=found[1] if len(found) > 1 else None)
    return results


def _chunks(questions: Sequence[Question], samples: int, shape: RolloutConfig) -> Iterator[Sequence[Question]]:
    # The same chunks whenever they are asked for: which responses share a batch decides the last bits of their logits.
    size = max(1, CHUNK_BATCHES * shape.max_rows // samples)
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def _answer(
    questions: Sequence[Question],
    row: Row,
    drawing: Drawing,
    sampler: Sampler,
    rounds: Rounds,
    grader: Grader,
    recipe: Recipe,
    on_answer: Callable[[], None] | None,
) -> list[Tree]:
    greedy = drawing.temperature == 0
    temperature = drawing.temperature or 1.0
    shape = recipe.rollout.model_copy(
        update={
            "branching": [drawing.samples] + [1] * (row.rounds - 1),
            "tokens_first": row.tokens_first,
            "tokens_continue": row.tokens_continue,
            "temperature_first": temperature,
            "temperature_continue": temperature,
            "top_p_first": 1.0,
            "top_p_continue": 1.0,
            "continuation_policy": "current",
        }
    )
    then = (lambda tree, leaf: on_answer()) if on_answer else None
    with grading(grader, then) as on_leaf:
        return grow(
            questions, sampler, rounds, shape, seed=recipe.train.seed, step="eval", greedy=greedy, on_leaf=on_leaf
        )


@contextmanager
def grading(grader: Grader, then: Callable[[Tree, Node], None] | None = None) -> Iterator[Callable[[Tree, Node], None]]:
    """A function that has leaves graded while others are being sampled; when the block ends, all of them are.

    Args:
        then: called with every leaf too, at once.
    """

    def judge(tree: Tree, leaf: Node) -> None:
        grade = grader.grade(tree.question.gold, leaf.answer)
        leaf.verdict, leaf.reason = grade.verdict, grade.reason

    pool = ThreadPoolExecutor(grader.workers)
    waiting: list[Future[None]] = []

    def on_leaf(tree: Tree, leaf: Node) -> None:
        waiting.append(pool.submit(judge, tree, leaf))
        if then:
            then(tree, leaf)

    try:
        yield on_leaf
        for future in waiting:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def answers_of(tree: dict[str, Any]) -> tuple[str, list[Answer]]:
    """A question's id and its answers, from the record of its tree (`Tree.to_dict`).

    Raises:
        KeyError, TypeError, ValueError: not the record of a tree that branches in its first round only.
    """
    return tree["question"]["id"], [_answer_of(response) for response in tree["responses"]]


def _answer_of(response: dict[str, Any]) -> Answer:
    chain = [response]
    while chain[-1].get("children"):
        [child] = chain[-1]["children"]
        chain.append(child)
    return Answer(
        verdict=chain[-1].get("verdict"),
        text=chain[-1]["answer"],
        truncated=any(node["truncated"] for node in chain),
        well_formed=all(node["well_formed"] for node in chain),
        tokens=sum(node["tokens"] for node in chain),
    )


def summarise(
    answers: Answers, equal: Callable[[str, str], bool] | None = None, greedy: Answers | None = None
) -> Accuracy:
    """The numbers of a row from its answers; `equal` says which answers vote together (see `estimators.majority`)."""
    outcomes = {name: _outcomes(given) for name, given in answers.items()}
    means = {name: mean_outcome(values) for name, values in outcomes.items()}
    everything = [answer for given in answers.values() for answer in given]
    graded = sum(value is not None for values in outcomes.values() for value in values)
    samples = max((len(given) for given in answers.values()), default=0)
    several = samples > 1
    accuracy = estimate(list(means.values()), graded)
    votes = [majority([a.text for a in answers[name]], values, equal) for name, values in outcomes.items() if several]
    return Accuracy(
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        n=accuracy.n,
        samples=samples,
        ungraded=sum(answer.verdict == "ungraded" for answer in everything),
        truncated=_mean([answer.truncated for answer in everything]),
        well_formed=_mean([answer.well_formed for answer in everything]),
        mean_tokens=_mean([answer.tokens for answer in everything]),
        pass_at={
            k: estimate([question_pass_at_k(values, k) for values in outcomes.values()], graded)
            for k in powers_of_two(samples)[1:]
        },
        majority=estimate(votes) if several else None,
        greedy=estimate([mean_outcome(_outcomes(given)) for given in greedy.values()]) if greedy else None,
        outcomes=means,
    )


def _outcomes(answers: Sequence[Answer]) -> list[Outcome]:
    return [OUTCOMES.get(answer.verdict) for answer in answers]


def _equality(grader: Grader) -> Callable[[str, str], bool] | None:
    """Which answers are the same to the grader, where asking it that often costs next to nothing."""
    if grader.name not in IN_PROCESS:
        return None
    return lambda first, other: grader.grade(first, other).verdict == "right"


def _estimate_dict(value: Estimate) -> dict[str, float | int | None]:
    return {"value": _finite(value.value), "low": value.low, "high": value.high, "n": value.n}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON knows no NaN


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
