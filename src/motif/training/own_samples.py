"""The source `self`: the model itself answers, and what ends right is imitated (STaR, arXiv 2203.14465).

Questions are answered a chunk at a time, and a chunk is recorded as a whole, so that every answer is decoded with the
same rows in its batch, whatever was interrupted before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from motif.config import RolloutConfig
from motif.display import Display
from motif.errors import RecipeError
from motif.evaluation.store import weights_digest
from motif.grading.beside import grade_leaf
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.rounds import Rounds
from motif.method.solutions import Cutting
from motif.method.tree import Node, Question, Tree
from motif.runs.provenance import digest, versions
from motif.sampling.base import Usage
from motif.session import Session
from motif.tasks import BadRow
from motif.tasks.worked import cutting_of
from motif.training.progress import Clock
from motif.training.record import AnswerLog
from motif.training.rollouts import Sampled, grow_and_grade
from motif.training.schedule import draw_questions
from motif.training.sources import Demonstrations, demonstrator

ALONE = (
    "Solve the question step by step. Write each step on a line of its own. End with the answer, enclosed as "
    "{answer_open}answer{answer_close}."
)
"""The system prompt under which a model solves questions in one long round."""
NUMBERS = ("numeric", "math")
"""Graders under which the last number of a response without answer marks is read as its answer, whatever the data."""
NUMBER = re.compile(r"-?\d+(\.\d+)?")
ROWS_ON_CPU = 64
"""Responses that a chunk begins with on a CPU, which computes more of them at once hardly any faster."""


FIELDS = ("prompt_ids", "token_ids", "text", "truncated", "note", "answer", "well_formed")
"""What is recorded of a response, besides what follows it, and the rounds that it left out."""


@dataclass
class OwnSamples:
    """What the model's own answers make. sampled: all processes' trees, and what this one's took. complete: nobody
    stopped it."""

    found: Demonstrations = field(default_factory=Demonstrations)
    sampled: Sampled = field(default_factory=lambda: Sampled([], Usage(), 0.0))
    complete: bool = True


def sample_demonstrations(
    session: Session, iteration: int, display: Display, record: Path, stopped: Callable[[], bool] = lambda: False
) -> OwnSamples:
    """Let the model answer; what `record` holds of an earlier attempt is not sampled again.

    In the first iteration it solves questions in one long round, and the solutions are cut, unless its prompts show
    examples, texts come in pieces, or `warmstart.answers` says otherwise. Then, and later, its answers in rounds are
    taken as they are, token by token.

    Args:
        stopped: asked after each chunk, in a run of one process.
    """
    config, train = session.recipe.warmstart, session.task.train
    drawn = draw_questions(train, iteration + 1, min(config.questions, len(train)), session.recipe.train.seed)
    whole = iteration > 0 or bool(session.recipe.rounds.examples) or session.recipe.data.in_pieces
    whole |= config.answers == "rounds"
    build = demonstrator(session)
    rounds, shape = _form(session, drawn, whole, build.window)
    sampling = _Sampling(session, display, iteration, rounds, shape, record)
    mine = session.processes.share(drawn)
    rows = session.recipe.rollout.max_rows
    size = max(1, (min(rows, ROWS_ON_CPU) if session.policy.device.type == "cpu" else rows) // config.samples)
    done = Sampled([], Usage(), 0.0)
    for start in range(0, len(mine), size):
        if session.processes.count == 1 and stopped():
            return OwnSamples(complete=False)
        done = _joined(done, sampling.chunk(mine[start : start + size]))
    trees, found = session.processes.gather_in_order(done.trees), Demonstrations()
    for tree in trees:
        kept, problem = _kept(tree, build, cutting_of(config), config.keep, whole=whole)
        found.trees += kept
        if not kept:
            found.dropped.append(BadRow(tree.question.id, tree.question.line or 0, problem))
    return OwnSamples(found, replace(done, trees=trees))


def _form(session: Session, drawn: Sequence[Question], whole: bool, window: int) -> tuple[Rounds, RolloutConfig]:
    """The rounds in which the model answers, and the shape of their trees."""
    config, rounds = session.recipe.warmstart, session.rounds
    drawing: dict[str, Any] = {"temperature_first": config.temperature, "temperature_continue": config.temperature}
    drawing |= {"top_p_first": 1.0, "top_p_continue": 1.0, "continuation_policy": "current"}
    shape = session.recipe.rollout.model_copy(update=drawing)
    if whole:
        return rounds, shape.model_copy(update={"branching": [config.samples, *[1] * (shape.rounds - 1)]})
    rounds = _alone(session)
    longest = max((len(rounds.prompt(question.text, [], 1)) for question in drawn), default=0)
    tokens = min(config.tokens, window - longest)
    if tokens < 1:
        raise RecipeError(
            f"warmstart: the prompt of one long round has up to {longest} tokens, which leaves no room for a "
            f"response in the window of {window}: raise rollout.window, or set rounds.examples"
        )
    return rounds, shape.model_copy(update={"branching": [config.samples], "tokens_first": tokens})


class _Sampling:
    """Samples chunks of questions, or takes them from the record.

    The record's key is of all that the answers depend on: weights, prompts, limits, seed and versions.
    """

    def __init__(
        self, session: Session, display: Display, iteration: int, rounds: Rounds, shape: RolloutConfig, record: Path
    ):
        self.session, self.display, self.rounds, self.shape = session, display, rounds, shape
        self.name = f"warmstart-{iteration + 1}"
        self._chunks: dict[str, dict[str, Any]] = {}
        self.file: AnswerLog | None = None
        if session.policy.shards is None:
            parts = (weights_digest(session.policy), rounds.config.model_dump_json(), shape.model_dump_json())
            more = (self.name, session.recipe.train.seed, versions(), str(session.policy.device))
            path = record if session.processes.main else record.with_name(f"{session.processes.rank}-{record.name}")
            self.file = AnswerLog(path, digest([repr((parts, more)).encode()]))
            self.file.restore(self._take)

    def _take(self, entry: dict[str, Any]) -> None:
        if len(entry["questions"]) != len(entry["answers"]):
            raise ValueError("its questions and answers differ in number")
        for responses in entry["answers"]:
            for response in responses:
                _node(response, ())  # raises what is wrong with it
        Usage(**entry["usage"])
        self._chunks[_name(entry["questions"])] = entry

    def chunk(self, questions: Sequence[Question]) -> Sampled:
        """The graded trees of these questions, and what they took when they were sampled."""
        asked = [[question.id, question.whole] for question in questions]
        if entry := self._chunks.get(_name(asked)):
            trees = [
                Tree(question, 0, [_node(response, (place,)) for place, response in enumerate(responses)])
                for question, responses in zip(questions, entry["answers"], strict=True)
            ]
            for tree in trees:
                for leaf in tree.leaves():
                    grade_leaf(self.session.grader, tree, leaf)
            return Sampled(trees, Usage(**entry["usage"]), float(entry["seconds"]))
        clock = Clock()
        sampled = grow_and_grade(self.session, questions, self.name, self.display, clock, self.rounds, self.shape)
        sampled = replace(sampled, seconds=clock.total())
        if self.file:
            answers = [[_plain(root) for root in tree.roots] for tree in sampled.trees]
            entry = {"questions": asked, "answers": answers, "usage": vars(sampled.usage), "seconds": sampled.seconds}
            self.file.add([entry])
        return sampled


def _plain(node: Node) -> dict[str, Any]:
    then = {"then": [_plain(child) for child in node.children], "unused": node.unused}
    return {name: getattr(node, name) for name in FIELDS} | then


def _node(record: dict[str, Any], path: tuple[int, ...]) -> Node:
    children = [_node(child, (*path, place)) for place, child in enumerate(record["then"])]
    values: dict[str, Any] = {name: record[name] for name in FIELDS}
    return Node(path, logprobs=[], children=children, unused=tuple(record["unused"]), **values)


def _name(asked: Sequence[Sequence[str]]) -> str:
    return digest(repr(list(question)).encode() for question in asked)


def _joined(one: Sampled, other: Sampled) -> Sampled:
    usage = Usage(*(getattr(one.usage, name) + getattr(other.usage, name) for name in vars(one.usage)))
    return Sampled([*one.trees, *other.trees], usage, one.seconds + other.seconds)


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
