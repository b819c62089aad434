"""Accuracy on held-out questions, with the rounds as deployed and an interval beside every number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from motif.config import Recipe
from motif.grading import Grader
from motif.rollout import grow
from motif.rounds import Rounds
from motif.sampling import Sampler
from motif.tree import Node, Question, Tree

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """Fraction right with its 95 % interval, over `n` questions that could be graded.

    `ungraded` answers are in neither numerator nor denominator. `mean_tokens` is what one answer costs, all rounds
    together; `truncated` the fraction of answers with at least one response cut off by the token limit.
    """

    accuracy: float
    low: float
    high: float
    n: int
    ungraded: int
    truncated: float
    mean_tokens: float

    def to_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} % [{100 * self.low:.1f}–{100 * self.high:.1f}], n = {self.n}"


def evaluate(
    questions: Sequence[Question],
    sampler: Sampler,
    rounds: Rounds,
    grader: Grader,
    recipe: Recipe,
    on_answer: Callable[[Tree, Node], None] | None = None,
) -> dict[str, Accuracy]:
    """Accuracy at every number of rounds in `recipe.eval_rounds`, under the keys `rounds_1`, `rounds_3`, ….

    The token limits of each round are the training ones. Answers are greedy, or `eval.samples` samples a question at
    `eval.temperature`. The same questions get the same random numbers at every call, so calls can be compared in pairs.
    """
    results = {}
    for count in recipe.eval_rounds:
        greedy = recipe.eval.temperature == 0
        temperature = recipe.eval.temperature or 1.0
        shape = recipe.rollout.model_copy(
            update={
                "branching": [1 if greedy else recipe.eval.samples] + [1] * (count - 1),
                "temperature_first": temperature,
                "temperature_continue": temperature,
                "top_p_first": 1.0,
                "top_p_continue": 1.0,
                "continuation_policy": "current",
            }
        )
        with grading(grader, on_answer) as on_leaf:
            trees = grow(
                questions, sampler, rounds, shape, seed=recipe.train.seed, step="eval", greedy=greedy, on_leaf=on_leaf
            )
        results[f"rounds_{count}"] = accuracy(trees)
    return results


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


def accuracy(trees: Sequence[Tree]) -> Accuracy:
    """The accuracy of graded trees: the mean over questions of the mean over their leaves.

    One answer per question: Wilson's interval. Several: the normal interval of the per-question means, because answers
    to one question are not independent of each other.
    """
    leaves = [leaf for tree in trees for leaf in tree.leaves()]
    means = []
    for tree in trees:
        outcomes = [leaf.verdict == "right" for leaf in tree.leaves() if leaf.verdict in ("right", "wrong")]
        if outcomes:
            means.append(statistics.fmean(outcomes))
    mean = statistics.fmean(means) if means else math.nan
    single = len(leaves) == len(trees)
    low, high = wilson(mean, len(means)) if single else _normal(means)
    answers = [root for tree in trees for root in tree.roots]
    return Accuracy(
        accuracy=mean,
        low=low,
        high=high,
        n=len(means),
        ungraded=sum(leaf.verdict == "ungraded" for leaf in leaves),
        truncated=statistics.fmean(any(node.truncated for node in answer.walk()) for answer in answers)
        if answers
        else 0.0,
        mean_tokens=statistics.fmean(sum(len(node.token_ids) for node in answer.walk()) for answer in answers)
        if answers
        else 0.0,
    )


def wilson(mean: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a fraction `mean` of `n` (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _normal(means: Sequence[float]) -> tuple[float, float]:
    if len(means) < 2:
        return 0.0, 1.0
    half = Z95 * statistics.stdev(means) / math.sqrt(len(means))
    mean = statistics.fmean(means)
    return max(0.0, mean - half), min(1.0, mean + half)
