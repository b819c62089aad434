"""The evaluation of any model on any task, with its answers kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from motif.errors import ModelError, RecipeError
from motif.evaluation.accuracy import Accuracy
from motif.evaluation.evaluate import evaluate
from motif.evaluation.rows import EvalRow, answers_in, eval_rows
from motif.evaluation.screens import overlap, twin_sentence
from motif.evaluation.store import EvalFolder, fingerprint, settings_of
from motif.evaluation.target import Target
from motif.runs.disk import write_json
from motif.runs.read import is_run, not_a_run
from motif.session import Session, open_session
from motif.text import counted


class EvalDisplay(AbstractContextManager[Any], Protocol):
    """Where an evaluation reports (see `motif.display.Display`)."""

    def message(self, text: str) -> None:
        """Print a line."""

    def evaluating(self, answers: int) -> AbstractContextManager[Callable[[], None]]:
        """A context whose value is called once per answer."""

    def accuracies(self, rows: Mapping[str, EvalRow], accuracies: Mapping[str, Accuracy]) -> None:
        """Print the results."""


def evaluate_model(target: Target, display: EvalDisplay, out: Path | None = None) -> dict[str, Accuracy]:
    """Test a model, and keep every answer in `out` (default: a folder of its own for each fingerprint).

    Started again with the same settings, it resumes where it stopped, and ends with the same numbers.

    Raises:
        MotifError: the model, the data or the folder cannot be used.
    """
    session = _open(target)
    try:
        questions = session.task.test[: session.recipe.eval.questions]
        if not questions:
            raise RecipeError("no held-out questions: set data.test or data.held_out, and eval.questions")
        settings = settings_of(session, questions)
        path = out or target.home / fingerprint(settings)
        with EvalFolder(path, settings, target.name) as folder:
            accuracies = _evaluate(session, folder, display)
            folder.finish(accuracies)
            shared = overlap(session.task.train, questions)
            main = accuracies[max(eval_rows(session.recipe), key=lambda row: (not row.twin, row.rounds)).name]
            write_json(path / "overlap.json", shared.to_dict(main.outcomes))
    finally:
        session.close()
    display.accuracies({row.name: row for row in eval_rows(session.recipe)}, accuracies)
    for sentence in (shared.sentence(main.outcomes), twin_sentence(accuracies)):
        if sentence:
            display.message(sentence)
    display.message(f"answers: {path}")
    return accuracies


def _open(target: Target) -> Session:
    try:
        return open_session(target.recipe, run=target.weights)
    except ModelError as error:
        if is_run(Path(target.name)):
            raise
        raise ModelError(f"{not_a_run(target.name)}, and {error}") from error


def _evaluate(session: Session, folder: EvalFolder, display: EvalDisplay) -> dict[str, Accuracy]:
    recipe = session.recipe
    questions = session.task.test[: recipe.eval.questions]
    if folder.answers:
        display.message(f"resuming with the {counted(folder.answers, 'answer')} in {folder.path}")
    try:
        with display, display.evaluating(answers_in(recipe, len(questions))) as on_answer:
            return evaluate(questions, session.sampler, session.rounds, session.grader, recipe, on_answer, store=folder)
    except KeyboardInterrupt:
        display.message(f"\nstopped; the answers so far are kept in {folder.path}: the same command resumes from them")
        raise
