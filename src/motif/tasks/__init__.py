"""Tasks: questions to train on, questions to test on, and the grader that goes with them.

`load` checks every row and every gold answer before anything is spent on them, and reports all bad rows at once.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, replace

from motif.config import DataConfig
from motif.errors import DataError, RecipeError
from motif.grading import Grader
from motif.method.tree import Question
from motif.tasks import table
from motif.tasks.rows import BadRow, BadRows, reject
from motif.tasks.table import Side

__all__ = ["TASKS", "BadRow", "BadRows", "Task", "load", "reject"]

TASKS = ("arithmetic", "chain", "circuit", "code", "gsm8k", "svamp", "math", "math500", "aime24", "file")


@dataclass(frozen=True)
class Task:
    """Questions of both sides in the order of their source, the grader's name, and the rows left out."""

    name: str
    train: list[Question]
    test: list[Question]
    grader: str
    skipped: list[BadRow]


def load(data: DataConfig, seed: int = 0) -> Task:
    """Read and check the questions of a recipe. Either side may be empty if nothing gives it.

    The test questions are `data.test`, or else `data.held_out` train questions, or else the task's own test set.
    The seed chooses which `data.limit` train questions are used, and nothing else.

    Raises:
        BadRows: rows that cannot be used, unless `data.skip_bad`.
        RecipeError: unknown task, a source that cannot be read, settings that do not fit, or no usable row at all.
    """
    if data.task not in TASKS:
        raise RecipeError(f"no task {data.task!r}: known are {', '.join(TASKS)}")
    train, test, own_grader = MADE[data.task](data) if data.task in MADE else _table(data)
    grader_name = data.grader or own_grader
    train = table.without_repeats(train)
    try:
        with Grader(grader_name, data.grader_seconds, workers=min(4, os.cpu_count() or 1)) as grader:
            train, test = table.gradable(train, grader), table.gradable(test, grader)
    except DataError as error:
        raise RecipeError(f"data.grader: {error}") from None
    train = table.without_leaks(train, test)
    bad = sorted(train.bad, key=lambda row: row.line) + sorted(test.bad, key=lambda row: row.line)
    reject(bad, data.skip_bad)
    for side in (train, test):
        if side.source and not side.questions:
            raise RecipeError(f"{side.source}: not one row can be used; the first: {side.bad[0]}")
    if data.held_out and not data.test:
        train, test = table.split_off(train, data.held_out)
    return Task(data.task, table.draw(train.questions, data.limit, seed), test.questions, grader_name, bad)


def _table(data: DataConfig) -> tuple[Side, Side, str]:
    task = importlib.import_module(f"motif.tasks.{data.task}").TASK
    if data.held_out and not data.test:
        task = replace(task, test=None)
    train, test = table.read_side(task, data, "train"), table.read_side(task, data, "test")
    if train is None and test is None:
        raise RecipeError(f"task {data.task!r} needs data.train: a file or a data set id")
    if train is None and data.held_out:
        raise RecipeError(f"data.held_out = {data.held_out} is split off data.train, which is empty")
    return train or Side("", [], []), test or Side("", [], []), task.grader


def _arithmetic(data: DataConfig) -> tuple[Side, Side, str]:
    from motif.tasks import arithmetic

    given = [key for key in ("train", "test", "subset", "answer_pattern") if getattr(data, key)]
    if given:
        raise RecipeError(f"data.{given[0]} does not apply to task 'arithmetic', which makes its own questions")
    name = f"{data.operation} {data.digits} digits"
    numbers = range(data.smallest, data.largest + 1) if data.largest else None
    train, test = (
        Side(f"{name} {side}", arithmetic.questions(data.operation, data.digits, side, data.template, numbers), [])
        for side in ("train", "test")
    )
    return train, test if not data.held_out else Side("", [], []), "numeric"


def _chain(data: DataConfig) -> tuple[Side, Side, str]:
    from motif.tasks import chain

    given = [key for key in ("train", "test", "subset", "answer_pattern") if getattr(data, key)]
    if given:
        raise RecipeError(f"data.{given[0]} does not apply to task 'chain', which makes its own questions")
    try:
        train, test = (chain.questions(data.shortest, data.longest, side) for side in ("train", "test"))
    except ValueError as error:
        raise RecipeError(f"data.shortest, data.longest: {error}") from None
    return Side("chain train", train, []), Side("chain test", [] if data.held_out else test, []), "numeric"


def _circuit(data: DataConfig) -> tuple[Side, Side, str]:
    from motif.tasks import circuit

    if data.train or data.test:
        return _table(data)
    try:
        train, test = (circuit.questions(data.inputs, side, data.form, data.minterms) for side in ("train", "test"))
    except ValueError as error:
        raise RecipeError(f"data: {error}") from None
    return Side("circuit train", train, []), Side("circuit test", [] if data.held_out else test, []), "circuit"


def _code(data: DataConfig) -> tuple[Side, Side, str]:
    from motif.tasks import code

    if data.train or data.test:
        return _table(data)
    train, test = code.questions("train"), code.questions("test")
    return Side("code train", train, []), Side("code test", [] if data.held_out else test, []), "code"


MADE = {"arithmetic": _arithmetic, "chain": _chain, "circuit": _circuit, "code": _code}
