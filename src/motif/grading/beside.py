"""Grading the leaves of trees beside the sampling of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from motif.grading.grader import Grader
from motif.method.tree import Node, Tree

OnLeaf = Callable[[Tree, Node], None]


def grade_leaf(grader: Grader, tree: Tree, leaf: Node) -> None:
    """Write the verdict on a leaf's answer, and its reason, on the leaf."""
    grade = grader.grade(tree.question.gold, leaf.answer)
    leaf.verdict, leaf.reason = grade.verdict, grade.reason


@contextmanager
def grading_beside(grader: Grader, then: OnLeaf | None = None) -> Iterator[OnLeaf]:
    """A function that has leaves graded in other threads; when the block ends, all of them have their verdicts.

    Args:
        then: called with every leaf, without waiting for its verdict.

    Raises:
        DataError: the grader cannot be loaded.
    """
    pool = ThreadPoolExecutor(grader.workers)
    verdicts: list[Future[None]] = []

    def on_leaf(tree: Tree, leaf: Node) -> None:
        verdicts.append(pool.submit(grade_leaf, grader, tree, leaf))
        if then:
            then(tree, leaf)

    try:
        yield on_leaf
        for verdict in verdicts:
            verdict.result()
    finally:
        pool.shutdown(cancel_futures=True)
