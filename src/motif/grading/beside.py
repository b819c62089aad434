"""Grading the leaves of trees beside the sampling of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from motif.grading.grader import Grader
from motif.grading.own import Answered
from motif.method.tree import Node, Tree

OnLeaf = Callable[[Tree, Node], None]


def grade_leaf(grader: Grader, tree: Tree, leaf: Node) -> None:
    """Write the verdict on a leaf's answer, its reason and what it is worth on the leaf."""
    _grade(grader, Answered.of(tree, leaf), leaf)


def _grade(grader: Grader, answered: Answered, leaf: Node) -> None:
    grade = grader.judge(answered)
    leaf.verdict, leaf.reason, leaf.score, leaf.parts = grade.verdict, grade.reason, grade.score, grade.parts


@contextmanager
def grading_beside(grader: Grader, then: OnLeaf | None = None) -> Iterator[OnLeaf]:
    """A function that has leaves graded in other threads; when the block ends, all of them have their verdicts.

    A function that was given in Python and does not wait is called in this thread, when the block ends.

    Args:
        then: called with every leaf, without waiting for its verdict.

    Raises:
        DataError: the grader cannot be loaded.
    """
    beside = not grader.rule.here or grader.rule.at_once > 0
    pool = ThreadPoolExecutor(grader.rule.at_once or grader.workers)
    later: list[tuple[Answered, Node]] = []
    verdicts: list[Future[None]] = []

    def on_leaf(tree: Tree, leaf: Node) -> None:
        answered = Answered.of(tree, leaf)  # here, because the tree goes on growing while others grade
        if beside:
            verdicts.append(pool.submit(_grade, grader, answered, leaf))
        else:
            later.append((answered, leaf))
        if then:
            then(tree, leaf)

    try:
        yield on_leaf
        for verdict in verdicts:
            verdict.result()
        for answered, leaf in later:
            _grade(grader, answered, leaf)
    finally:
        pool.shutdown(cancel_futures=True)
