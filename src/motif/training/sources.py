"""Where demonstrations come from (`[warmstart]`): what is trained on, and what is left out and why."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from motif import tasks
from motif.config import Recipe
from motif.errors import DataError
from motif.grading import Grader
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.tree import Node, Question, Tree
from motif.models.shape import window_of
from motif.session import Session
from motif.tasks import BadRow, reject
from motif.tasks.rows import read
from motif.tasks.worked import cutting_of, worked
from motif.text import counted

MOST_LISTED = 3


@dataclass
class Demonstrations:
    """The demonstrations of a source, and the rows that are left out, with the reasons."""

    trees: list[Tree] = field(default_factory=list)
    dropped: list[BadRow] = field(default_factory=list)

    def words(self) -> str:
        """How many there are, and what was left out and why."""
        text = counted(len(self.trees), "demonstration")
        if not self.dropped:
            return text
        kinds = [re.sub(r"\d+", "N", row.problem) for row in self.dropped]
        reasons = Counter(kinds).most_common(MOST_LISTED)
        shown = (f"{count:,} like {self.dropped[kinds.index(kind)]}" for kind, count in reasons)
        return f"{text}; {len(self.dropped):,} left out: " + "; ".join(shown)

    def refuse_none(self, advice: str = "") -> None:
        """Refuse to train on nothing.

        Raises:
            DataError: all were left out; the message names the first rows and why, and ends with the advice.
        """
        if not self.trees:
            lines = [str(row) for row in self.dropped[:10]]
            end = f": {advice}" if advice else ""
            raise DataError("\n".join([*lines, f"warmstart: no demonstration can be used{end}"]))


def demonstrator(session: Session) -> Demonstrator:
    """What builds demonstrations for a session."""
    window = window_of(session.recipe, session.policy.max_length)
    return Demonstrator(session.rounds, session.recipe.rollout, window)


def read_demonstrations(recipe: Recipe, task: tasks.Task, build: Demonstrator, grader: Grader) -> Demonstrations:
    """The demonstrations of `solutions` or `file`, checked one by one.

    Raises:
        DataError: the source cannot be read, or nothing in it can be used.
        BadRows: lines of a file that cannot be used, unless `data.skip_bad`.
    """
    if recipe.warmstart.source == "solutions":
        found = _graded(_of_solutions(recipe, task, build), grader, recipe.data.train or task.name, known=True)
    else:
        found = _graded(_of_file(recipe, task, build), grader, recipe.warmstart.file, known=False)
        reject(found.dropped, recipe.data.skip_bad)
    found.refuse_none()
    return found


def _of_solutions(recipe: Recipe, task: tasks.Task, build: Demonstrator) -> Iterator[Tree | BadRow]:
    source, texts = tasks.solutions(recipe.data, recipe.warmstart.solution_column)
    cutting = cutting_of(recipe.warmstart)
    for question in task.train:
        line = question.line or 0
        if line not in texts:
            yield BadRow(source, line, "there is no worked solution")
            continue
        try:
            yield build.from_solution(question, texts[line], cutting)
        except UnfitDemonstration as error:
            yield BadRow(source, line, str(error))


def _of_file(recipe: Recipe, task: tasks.Task, build: Demonstrator) -> Iterator[Tree | BadRow]:
    table = read(recipe.warmstart.file)
    yield from table.bad
    tested = {" ".join(question.whole.split()) for question in task.test}
    for row in table.rows:
        try:
            question, responses = worked(row.columns, row.line, build.rounds.config)
            if " ".join(question.whole.split()) in tested:
                raise UnfitDemonstration("its question is also a test question")
            yield build.from_responses(question, responses)
        except UnfitDemonstration as error:
            yield BadRow(table.source, row.line, str(error))


def _graded(found: Iterator[Tree | BadRow], grader: Grader, source: str, known: bool) -> Demonstrations:
    """Keep the demonstrations that end right. known: the gold answers have been graded when they were loaded."""
    items = list(found)
    trees = [item for item in items if isinstance(item, Tree)]
    pairs = [(tree.question, _last(tree).answer) for tree in trees]
    if known:
        pairs = [(question, answer) for question, answer in pairs if question.gold != answer]
    grades = iter(grader.grade_answers(pairs))
    kept = Demonstrations()
    for item in items:
        if isinstance(item, BadRow):
            kept.dropped.append(item)
            continue
        if known and item.question.gold == _last(item).answer:
            kept.trees.append(item)
            continue
        grade = next(grades)
        if grade.verdict == "right":
            kept.trees.append(item)
        else:
            why = f"{grade.verdict}: {grade.reason}" if grade.reason else grade.verdict
            problem = f"its answer {(_last(item).answer or '')[:60]!r} is {why}"
            kept.dropped.append(BadRow(source, item.question.line or 0, problem))
    return kept


def _last(tree: Tree) -> Node:
    return next(tree.leaves())


def to_plain(trees: Sequence[Tree]) -> list[Any]:
    """Demonstrations as plain data, for a checkpoint."""
    return [
        [tree.question.id, [[node.prompt_ids, node.token_ids, node.text] for node in tree.walk()]] for tree in trees
    ]


def from_plain(plain: Sequence[Any]) -> list[Tree]:
    """The inverse of `to_plain`, as far as training needs it."""
    trees: list[Tree] = []
    for name, responses in plain:
        nodes = [
            Node((0,) * number, prompt, ids, [], text, truncated=False, well_formed=True, advantage=1.0)
            for number, (prompt, ids, text) in enumerate(responses, start=1)
        ]
        for parent, child in itertools.pairwise(nodes):
            parent.children = [child]
        trees.append(Tree(Question(name, "", ""), 0, nodes[:1]))
    return trees
