"""Twins of held-out questions: the same questions with other numbers and names, whose answers can be computed again.

* Tasks that tell the same plot in variants (stories, ledgers) tell the next one.
* Rows whose solutions have calculator annotations (`<<48/2=24>>`, GSM8K) get other numbers: those of the question
  that the annotations use, each once. The annotations are computed again, and the last is the new answer. A row is
  left out where they do not tell what follows from what: a number of the question that is also a result or that no
  annotation uses, an annotation that does not add up, an answer that is not the last result.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import operator
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from motif.config import DataConfig
from motif.errors import DataError, RecipeError
from motif.method.solutions import ANNOTATION
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import SPLITS
from motif.tasks.stories import NAMES
from motif.tasks.table import TableTask

TRIES = 50
"""Sets of numbers that are tried for a question."""
YEARS = (1900, 2100)
"""Numbers between these may be years, and stay."""
NUMBER = re.compile(r"(?<![\w.,:/])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:/%]|[.,]\d)")
NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
Values = Mapping[Fraction, Fraction]
"""What numbers have become."""


class _NoTwin(Exception):
    """The annotations do not tell what follows from what."""


def twins(data: DataConfig, questions: Sequence[Question]) -> list[Question]:
    """The twins of those questions that have one, with the ids of their originals.

    Raises:
        RecipeError: none of these questions has a twin.
    """
    task: TableTask | ProceduralTask = importlib.import_module(f"motif.tasks.{data.task}").TASK
    if isinstance(task, ProceduralTask):
        made = _variants(data, task, questions)
    else:
        solutions = _solutions(data, task)
        both = ((question, solutions.get(question.line or 0, "")) for question in questions)
        made = [twin for question, solution in both if (twin := recomputed(question, solution))]
    if not made:
        raise RecipeError(
            f"eval.twin: no held-out question of task {data.task!r} has a twin: that needs variants (stories, ledger), "
            "or solutions with calculator annotations such as <<48/2=24>>"
        )
    return made


def _variants(data: DataConfig, task: ProceduralTask, questions: Sequence[Question]) -> list[Question]:
    settings: Any = getattr(data, data.task, None)
    if not hasattr(settings, "variant"):
        return []
    other = data.model_copy(update={data.task: settings.model_copy(update={"variant": settings.variant + 1})})
    told = {question.id: question for split in SPLITS for question in task.questions(other, split)}
    return [told[question.id] for question in questions if question.id in told]


def _solutions(data: DataConfig, task: TableTask) -> dict[int, str]:
    """The worked solutions of the held-out rows, by line."""
    if data.test:
        data = data.model_copy(update={"train": data.test, "train_split": data.test_split})
    elif not data.held_out:
        data, task = data.model_copy(update={"train": ""}), replace(task, train=task.test)
    for column in dict.fromkeys((task.worked, data.answer_column, *task.answers)):
        with contextlib.suppress(DataError):
            _, solutions = task.solutions(data, column)
            if any(ANNOTATION.search(text) for text in solutions.values()):
                return solutions
    return {}


def recomputed(question: Question, solution: str) -> Question | None:
    """The question with other numbers and names, and the answer that its annotated solution then has; None: no twin."""
    rng = random.Random(f"twin {question.id}")
    try:
        steps = list(_steps(solution))
        changed = _changeable(question, steps)
        for _ in range(TRIES):
            values = {value: _other(value, rng) for value in changed}
            answer = _answer(steps, values)
            if answer is not None:
                return replace(question, text=_renamed(_renumbered(question.text, values), rng), gold=_written(answer))
    except (_NoTwin, SyntaxError, ValueError, ZeroDivisionError):
        pass
    return None


def _steps(solution: str) -> Iterator[tuple[ast.expr, Fraction]]:
    """The calculations of a solution, and what each gives."""
    for annotation in ANNOTATION.findall(solution):
        calculation, equals, result = re.sub(r"[\s$,]", "", annotation).partition("=")
        if not equals or not re.fullmatch(r"[\d.+\-*/()]+", calculation):
            raise _NoTwin
        tree, given = ast.parse(calculation, mode="eval").body, Fraction(result)
        if _computed(tree, {}) != given:
            raise _NoTwin
        yield tree, given


def _operands(tree: ast.expr) -> Iterator[Fraction]:
    return (Fraction(str(node.value)) for node in ast.walk(tree) if isinstance(node, ast.Constant))


def _computed(tree: ast.expr, values: Values) -> Fraction:
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATIONS:
        found: Fraction = OPERATIONS[type(tree.op)](_computed(tree.left, values), _computed(tree.right, values))
        return found
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float):
        number = Fraction(str(tree.value))
        return values.get(number, number)
    raise _NoTwin


def _changeable(question: Question, steps: Sequence[tuple[ast.expr, Fraction]]) -> list[Fraction]:
    """The numbers of the question that the solution uses, and that stand in the question once."""
    if not steps or question.pieces or Fraction(question.gold.replace(",", "")) != steps[-1][1]:
        raise _NoTwin
    asked = Counter(_read(match) for match in NUMBER.findall(question.text))
    results = [result for _, result in steps]
    used = {operand for tree, _ in steps for operand in _operands(tree)}
    if used & asked.keys() & set(results) or len(set(results)) < len(results):
        raise _NoTwin
    told = [value for value in asked if value > 1 and not _is_year(value)]
    found = [value for value in told if asked[value] == 1]
    # A number that no annotation uses is used in a step without one; twice in a step, it is two different numbers.
    if not found or not used.issuperset(told) or any(max(Counter(_operands(tree)).values()) > 1 for tree, _ in steps):
        raise _NoTwin
    return found


def _answer(steps: Sequence[tuple[ast.expr, Fraction]], values: Values) -> Fraction | None:
    """What the solution gives with these numbers; None if a result is not of the kind that it was."""
    known = dict(values)
    for tree, before in steps:
        result = _computed(tree, known)
        digits = 1 if before.denominator == 1 else 100
        if result <= 0 or (result * digits).denominator != 1:
            return None
        known[before] = result
    return known[steps[-1][1]] if known[steps[-1][1]] != steps[-1][1] else None


def _other(value: Fraction, rng: random.Random) -> Fraction:
    """Another number of about this size, with as many decimal places."""
    scale = value.denominator
    whole = int(value * scale)
    return Fraction(rng.choice([new for new in range(max(2, whole // 2), 2 * whole + 1) if new != whole]), scale)


def _is_year(value: Fraction) -> bool:
    return YEARS[0] <= value <= YEARS[1]


def _read(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _written(number: Fraction, commas: bool = False) -> str:
    text = f"{float(number):.10f}".rstrip("0").rstrip(".") if number.denominator != 1 else str(number.numerator)
    return f"{number.numerator:,}" if commas and number.denominator == 1 else text


def _renumbered(text: str, values: Values) -> str:
    def new(match: re.Match[str]) -> str:
        value = _read(match[0])
        return _written(values[value], commas="," in match[0]) if value in values else match[0]

    return NUMBER.sub(new, text)


def _renamed(text: str, rng: random.Random) -> str:
    names = list(dict.fromkeys(NAME.findall(text)))
    others = rng.sample([name for name in NAMES if name not in names], len(names))
    return NAME.sub(lambda match: dict(zip(names, others, strict=True))[match[0]], text)
