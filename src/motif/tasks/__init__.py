"""Tasks: questions to train on, questions to test on, and the grader of their answers.

A task is a module with a `TASK`: a `TableTask` reads its questions from the rows of a source, a `ProceduralTask` makes
them. `load` checks every row and gold answer before a run spends anything, and reports all bad rows at once.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

from motif.config import TASKS, DataConfig
from motif.errors import DataError, RecipeError
from motif.grading import Grader
from motif.method.tree import Question
from motif.tasks import sides
from motif.tasks.procedural import ProceduralTask
from motif.tasks.rows import BadRow, BadRows, reject
from motif.tasks.table import TableTask
from motif.tasks.wording import Wording

__all__ = ["TASKS", "BadRow", "BadRows", "Task", "grader_of", "load", "reject", "solutions", "wording"]


@dataclass(frozen=True)
class Task:
    """The loaded questions of both sides in the order of their source, the grader's name, and the skipped rows."""

    name: str
    train: list[Question]
    test: list[Question]
    grader: str
    skipped: list[BadRow]


def grader_of(task: str) -> str:
    """The name of a task's own grader."""
    found: TableTask | ProceduralTask = importlib.import_module(f"motif.tasks.{task}").TASK
    return found.grader


def wording(data: DataConfig) -> Wording | None:
    """How the questions of a task that makes its own are worded; None for any other task."""
    task = importlib.import_module(f"motif.tasks.{data.task}").TASK
    own = isinstance(task, ProceduralTask) and not (data.train or data.test)
    return Wording(task, data) if own else None


def solutions(data: DataConfig, column: str = "") -> tuple[str, dict[int, str]]:
    """The name of the source to train on, and the worked solution of each of its rows that has one, by its line.

    Raises:
        RecipeError: the task makes its own questions, without solutions.
        DataError: see `TableTask.solutions`.
    """
    task = importlib.import_module(f"motif.tasks.{data.task}").TASK
    if isinstance(task, TableTask):
        return task.solutions(data, column)
    if task.worked is None:
        raise RecipeError(f"task {data.task!r} has no worked solutions: use warmstart.source = 'self' or 'file'")
    return f"{data.task} train", task.worked(data)


def load(data: DataConfig, seed: int = 0) -> Task:
    """Read and check the questions of a recipe. A side without a source is empty.

    The test questions are `data.test`, or else `data.held_out` train questions, or else the task's own test set.
    The seed chooses which `data.limit` train questions are used, and nothing else.

    Raises:
        RecipeError: no source of questions, an unusable grader, or nothing left to train on beside `data.held_out`.
        BadRows: rows that cannot be used, unless `data.skip_bad`.
        DataError: a source that cannot be read, or none of whose rows can be used.
    """
    task: TableTask | ProceduralTask = importlib.import_module(f"motif.tasks.{data.task}").TASK
    train, test = task.sides(data)
    grader_name = data.grader or task.grader
    train = sides.without_repeats(train)
    try:
        with Grader(grader_name, data.grader_seconds, workers=min(4, os.cpu_count() or 1)) as grader:
            train, test = sides.gradable(train, grader), sides.gradable(test, grader)
    except DataError as error:
        raise RecipeError(f"data.grader: {error}") from None
    train = sides.without_leaks(train, test)
    bad = sorted(train.bad, key=lambda row: row.line) + sorted(test.bad, key=lambda row: row.line)
    reject(bad, data.skip_bad)
    for side in (train, test):
        if side.source and not side.questions:
            raise DataError(f"{side.source}: no row can be used; the first: {side.bad[0]}")
    if data.held_out and not data.test:
        train, test = sides.split_off(train, data.held_out)
    return Task(data.task, sides.draw(train.questions, data.limit, seed), test.questions, grader_name, bad)
