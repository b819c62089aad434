"""`motif eval`: any model, on any task, at any number of rounds, and its answers kept as they come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.config import Recipe, load_recipe
from motif.display import Display
from motif.errors import RecipeError
from motif.evaluation.accuracy import Accuracy
from motif.evaluation.evaluate import answers_in, evaluate, rows
from motif.evaluation.store import EvalFolder, fingerprint, settings_of
from motif.models.policy import is_own_base
from motif.runs.weights import BEST
from motif.session import Session, open_session


@dataclass(frozen=True)
class Target:
    """What is to be tested: a recipe whose model it is, and where trained weights lie (None: there are none)."""

    name: str
    recipe: Recipe
    weights: Path | None
    home: Path  # where evaluations of it are kept


@dataclass(frozen=True)
class Drawn:
    """How an evaluation is to differ from the recipe's own; None and False: not at all."""

    rounds: list[int] | None = None
    samples: int | None = None
    temperature: float | None = None
    greedy: bool | None = None
    questions: int | None = None
    matched: bool = False

    def settings(self, recipe: Recipe, settings: list[str]) -> list[str]:
        """`settings` with these after them. One sample is greedy; several are drawn at the recipe's temperature, or 1,
        with a greedy one beside them, unless something else is said."""
        temperature, greedy = self.temperature, self.greedy
        said = any(setting.partition("=")[0].strip() == "eval.temperature" for setting in settings)
        if self.samples is not None and temperature is None and not said:
            temperature = 0.0 if self.samples == 1 else recipe.eval.temperature or 1.0
        if greedy is None and self.samples is not None:
            greedy = self.samples > 1
        chosen = {
            "rounds": self.rounds,
            "samples": self.samples,
            "temperature": temperature,
            "greedy": greedy,
            "questions": self.questions,
            "matched": self.matched or None,
        }
        return settings + [f"eval.{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]


def target(
    model: str,
    *,
    recipe: str | None = None,
    task: str | None = None,
    base: bool = False,
    best: bool = False,
    drawn: Drawn | None = None,
    settings: Iterable[str] = (),
) -> Target:
    """Find out what `model` is and how it is to be tested.

    Args:
        model: a run folder, which brings its own recipe, or whatever `model.name` in a recipe may be.
        recipe: for a model: the name or file of the recipe that gives scaffold, data and limits.
        task: test on this task instead of the recipe's; all settings of its data are then the task's own.
        base, best: of a run, the model before training, or the best checkpoint.
        drawn: how many rounds, samples and so on, where the recipe's own are not wanted.
        settings: `section.key=value` changes to the recipe; what `drawn` says comes after them.

    Raises:
        RecipeError: neither a run folder nor a model, or what was asked for does not apply to it.
    """
    folder = Path(model)
    is_run = (folder / "recipe.toml").is_file()
    if is_run:
        if recipe:
            raise RecipeError(f"{model} is a run folder and brings its own recipe: leave out --recipe, or use --set")
        if base and best:
            raise RecipeError("--base and --best are two models: choose one")
        found = load_recipe(folder / "recipe.toml")
        if (base or best) and is_own_base(found.model.name, folder):
            raise RecipeError(f"{model} is an export of the trained model alone, so --base and --best say nothing")
    else:
        if base or best:
            raise RecipeError(f"{model} is no run folder (it holds no recipe.toml), so --base and --best say nothing")
        if not (recipe or task):
            raise RecipeError(
                f"{model} is no run folder (it holds no recipe.toml). To test it as a model, say on what: "
                "--task NAME, or --recipe NAME_OR_FILE"
            )
        found = load_recipe(recipe) if recipe else Recipe()
    data: dict[str, Any] = found.model_dump(mode="json")
    if task and task != found.data.task:
        data["data"] = {"task": task}
    if not is_run:
        data["model"]["name"] = model
    changed = load_recipe(data, (drawn or Drawn()).settings(found, list(settings)))
    if not is_run:
        return Target(model, changed, None, Path("runs") / f"eval-{_file_name(model)}")
    return Target(model, changed, None if base else folder / BEST if best else folder, folder / "eval")


def evaluate_model(what: Target, out: Path | None = None, display: Display | None = None) -> dict[str, Accuracy]:
    """Test it, and keep every answer in `out` (default: a folder of its own for each fingerprint).

    Started again with the same settings, it goes on where it stood, and ends with the same numbers.

    Raises:
        RecipeError, BadRows: the model, the data or the folder cannot be used.
    """
    display = display or Display()
    session = _open(what)
    try:
        questions = session.task.test[: session.recipe.eval.questions]
        if not questions:
            raise RecipeError("no held-out questions: set data.test or data.held_out, and eval.questions")
        settings = settings_of(session, questions)
        path = out or what.home / fingerprint(settings)
        with EvalFolder(path, settings, what.name) as folder:
            found = _evaluate(session, folder, display)
            folder.finish(found)
    finally:
        session.close()
    display.accuracies({row.name: row for row in rows(session.recipe)}, found)
    display.message(f"answers: {path}")
    return found


def _open(what: Target) -> Session:
    try:
        return open_session(what.recipe, run=what.weights)
    except RecipeError as error:
        is_run = (Path(what.name) / "recipe.toml").is_file()
        if not is_run and str(error).startswith("model "):
            raise RecipeError(f"{what.name} is no run folder (it holds no recipe.toml), and {error}") from error
        raise


def _evaluate(session: Session, folder: EvalFolder, display: Display) -> dict[str, Accuracy]:
    recipe = session.recipe
    questions = session.task.test[: recipe.eval.questions]
    if folder.answers:
        display.message(f"going on with the {folder.answers:,} answers in {folder.path}")
    try:
        with display, display.evaluating(answers_in(recipe, len(questions))) as on_answer:
            return evaluate(questions, session.sampler, session.rounds, session.grader, recipe, on_answer, store=folder)
    except KeyboardInterrupt:
        display.message(
            f"\nstopped; what is answered is kept in {folder.path}, and the same command goes on from there"
        )
        raise


def _file_name(model: str) -> str:
    name = Path(model).name if Path(model).exists() else model
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
