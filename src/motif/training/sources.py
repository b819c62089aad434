"""Where demonstrations come from (`[warmstart]`): what is trained on, and what is left out and why."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from motif import tasks
from motif.config import Recipe
from motif.display import Display
from motif.errors import DataError, RecipeError
from motif.grading import Grader
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.rounds import Rounds
from motif.method.solutions import Cutting
from motif.method.tree import Node, Question, Tree
from motif.models.shape import window_of
from motif.session import Session
from motif.tasks import BadRow, reject
from motif.tasks.rows import read
from motif.tasks.worked import cutting_of, worked
from motif.text import counted
from motif.training.progress import Clock
from motif.training.rollouts import Sampled, grow_and_grade
from motif.training.schedule import draw_questions

ALONE = (
    "Solve the question step by step. Write each step on a line of its own. End with the answer, enclosed as "
    "{answer_open}answer{answer_close}."
)
"""The system prompt under which a model solves questions in one long round."""
NUMBERS = ("numeric", "math")
"""Graders under which the last number of a response without answer marks is read as its answer, whatever the data."""
NUMBER = re.compile(r"-?\d+(\.\d+)?")
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


# -- the model's own -----------------------------------------------------------------------------------------------


def sample_demonstrations(session: Session, iteration: int, display: Display) -> tuple[Demonstrations, Sampled]:
    """What the model itself finds right (STaR, arXiv 2203.14465): all processes' trees, and what sampling them took.

    In the first iteration it solves questions in one long round, and the solutions are cut, unless its prompts show
    examples or texts come in pieces. Then, and later, its answers in rounds are taken as they are, token by token.
    """
    config, train = session.recipe.warmstart, session.task.train
    drawn = draw_questions(train, iteration + 1, min(config.questions, len(train)), session.recipe.train.seed)
    mine, build, clock = session.processes.share(drawn), demonstrator(session), Clock()
    drawing: dict[str, Any] = {"temperature_first": config.temperature, "temperature_continue": config.temperature}
    drawing |= {"top_p_first": 1.0, "top_p_continue": 1.0, "continuation_policy": "current"}
    rounds, shape = session.rounds, session.recipe.rollout.model_copy(update=drawing)
    whole = iteration > 0 or bool(session.recipe.rounds.examples) or session.recipe.data.in_pieces
    if not whole:
        rounds = _alone(session)
        longest = max((len(rounds.prompt(question.text, [], 1)) for question in drawn), default=0)
        tokens = min(config.tokens, build.window - longest)
        if tokens < 1:
            raise RecipeError(
                f"warmstart: the prompt of one long round has up to {longest} tokens, which leaves no room for a "
                f"response in the window of {build.window}: raise rollout.window, or set rounds.examples"
            )
        shape = shape.model_copy(update={"branching": [config.samples], "tokens_first": tokens})
    else:
        shape = shape.model_copy(update={"branching": [config.samples, *[1] * (shape.rounds - 1)]})
    name = f"warmstart-{iteration + 1}"
    sampled = grow_and_grade(session, mine, name, display, clock, rounds, shape)
    trees = session.processes.gather_in_order(sampled.trees)
    found = Demonstrations()
    for tree in trees:
        kept, problem = _kept(tree, build, cutting_of(config), config.keep, whole=whole)
        found.trees += kept
        if not kept:
            found.dropped.append(BadRow(tree.question.id, tree.question.line or 0, problem))
    return found, replace(sampled, trees=trees, seconds=clock.total())


def _alone(session: Session) -> Rounds:
    settings: dict[str, Any] = {"system_prompt": ALONE, "system_prompt_file": "", "final": "", "question": "{question}"}
    settings["examples"] = 0
    if session.task.grader in NUMBERS or all(NUMBER.fullmatch(question.gold) for question in session.task.train):
        settings["fallback"] = "last_number"
    return Rounds(session.recipe.rounds.model_copy(update=settings), session.policy.tokenizer)


def _kept(tree: Tree, build: Demonstrator, cut: Cutting, most: int, whole: bool) -> tuple[list[Tree], str]:
    """At most so many demonstrations from the responses to a question that end right; or why there is none."""
    right = [root for root in tree.roots if _ends_right(root)]
    problem = "no sampled answer is right" if tree.roots else "no response was sampled"
    kept: list[Tree] = []
    for root in right:
        if len(kept) == most:
            break
        if whole:
            if all(node.well_formed for node in root.walk()):
                kept.append(Tree(tree.question, 0, [_taught(root)]))
            else:
                problem = "no right answer is well formed in every round"
            continue
        try:
            kept.append(build.from_solution(tree.question, root.text, cut))
        except UnfitDemonstration as error:
            problem = str(error)
    return kept, problem


def _ends_right(root: Node) -> bool:
    return next(root.leaves()).verdict == "right"


def _taught(node: Node) -> Node:
    """A copy of a sampled response and what follows it, as one that is given."""
    children = [_taught(child) for child in node.children]
    return replace(node, path=(0,) * node.round, logprobs=[], children=children, advantage=1.0)


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
