"""The train and test sides of a task: which questions are allowed in them, and which are used."""

from __future__ import annotations

from dataclasses import dataclass, field

from motif.errors import RecipeError
from motif.grading import Grader
from motif.method.tree import Question
from motif.tasks.rows import BadRow
from motif.tasks.splits import hashed
from motif.text import counted


@dataclass(frozen=True)
class Side:
    """The questions of a train or test set, the name of their source, and the rows that cannot be used."""

    source: str = ""
    questions: list[Question] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


def without_repeats(side: Side) -> Side:
    """Drop questions whose text has occurred before."""
    first: dict[str, Question] = {}
    kept: list[Question] = []
    bad = list(side.bad)
    for question in side.questions:
        text = _same(question.whole)
        if text in first:
            before = first[text]
            other = ", with another answer" if question.gold != before.gold else ""
            bad.append(BadRow(side.source, question.line or 0, f"duplicate of line {before.line}{other}"))
        else:
            first[text] = question
            kept.append(question)
    return Side(side.source, kept, bad)


def without_leaks(train: Side, test: Side) -> Side:
    """Drop train questions that are also test questions."""
    tested = {_same(question.whole): question.line for question in test.questions}
    kept = [question for question in train.questions if _same(question.whole) not in tested]
    leaked = [question for question in train.questions if _same(question.whole) in tested]
    problem = "also a test question ({} line {})"
    bad = [
        BadRow(train.source, question.line or 0, problem.format(test.source, tested[_same(question.whole)]))
        for question in leaked
    ]
    return Side(train.source, kept, train.bad + bad)


def gradable(side: Side, grader: Grader) -> Side:
    """Drop questions whose gold answer fails the grader's check of gold answers.

    A function of the user's own that asks for more than the two answers is tried on the first question instead.

    Raises:
        DataError: such a function fails there.
    """
    if grader.rule.own:
        if side.questions:
            grader.try_out(side.questions[0])
        if not grader.asks_pairs:  # whether its own texts are worth anything to it is nobody else's business
            return side
    grades = grader.check([question.gold for question in side.questions])
    kept: list[Question] = []
    bad = list(side.bad)
    for question, grade in zip(side.questions, grades, strict=True):
        if grade.verdict == "right":
            kept.append(question)
        else:
            reason = grade.reason or "it is wrong against itself"
            problem = f"gold answer {question.gold[:60]!r} fails the {grader.name} grader: {reason}"
            bad.append(BadRow(side.source, question.line or 0, problem))
    return Side(side.source, kept, bad)


def split_off(side: Side, count: int) -> tuple[Side, Side]:
    """Split into (train, held out) by a hash of the question, so that the order of rows does not matter.

    Raises:
        RecipeError: nothing would be left to train on.
    """
    if count >= len(side.questions):
        raise RecipeError(
            f"data.held_out = {count} leaves nothing of the {counted(len(side.questions), 'row')} of {side.source}"
        )
    held = {id(question) for question in sorted(side.questions, key=lambda q: _rank("held out", q))[:count]}
    train = [question for question in side.questions if id(question) not in held]
    test = [question for question in side.questions if id(question) in held]
    return Side(side.source, train, side.bad), Side(side.source, test, [])


def draw(questions: list[Question], count: int, seed: int) -> list[Question]:
    """Choose `count` questions at random by the seed and keep their order; all if `count` is 0."""
    if not 0 < count < len(questions):
        return questions
    chosen = {id(question) for question in sorted(questions, key=lambda q: _rank(f"limit {seed}", q))[:count]}
    return [question for question in questions if id(question) in chosen]


def _same(text: str) -> str:
    return " ".join(text.split())


def _rank(purpose: str, question: Question) -> int:
    return hashed(f"{purpose}\n{_same(question.whole)}")
