"""The run or model that a name stands for, and how it is to be tested. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.config import Recipe, Trust, load_recipe
from motif.config.load import given_keys
from motif.config.trust import check
from motif.errors import UsageError
from motif.evaluation.rows import EvalOverrides
from motif.run_files import BEST, EVALUATIONS, RECIPE
from motif.runs.read import is_run, not_a_run, recipe_of
from motif.runs.trained import check_trained, is_own_base
from motif.text import expanded


@dataclass(frozen=True)
class Target:
    """The model of a recipe, and where its trained weights lie (None: there are none)."""

    name: str
    recipe: Recipe
    weights: Path | None
    home: Path  # where its evaluations are kept

    def check_weights(self) -> None:
        """Refuse a run that does not hold the weights, before anything is loaded.

        Raises:
            RunFolderError: so it is.
        """
        if self.weights is not None:
            run = Path(self.name)
            check_trained(run, self.recipe.model, best=self.weights != run)


def find_target(
    model: str,
    *,
    recipe: str | None = None,
    task: str | None = None,
    base: bool = False,
    best: bool = False,
    overrides: EvalOverrides | None = None,
    settings: Iterable[str] = (),
    trust: Trust | None = None,
) -> Target:
    """Find out what `model` is and how it is to be tested. The model itself is not looked up yet.

    Args:
        model: a run folder, which brings its own recipe, or whatever `model.name` in a recipe may be.
        recipe: for a model: the name or file of the recipe that gives scaffold, data and limits.
        task: test on this task instead of the recipe's; all settings of its data are then the task's own.
        base, best: of a run, the model before training, or the best checkpoint.
        overrides: rounds, samples and so on, where they differ from the recipe's.
        settings: `section.key=value` changes to the recipe; `overrides` come after them.
        trust: what is confirmed of the recipe in a run folder (default: nothing).

    Raises:
        UsageError: options that do not apply to a run folder, or to a model, or neither recipe nor task.
        RecipeError: the recipe or a setting cannot be used, or has to be confirmed.
    """
    model = expanded(model)
    folder = Path(model)
    changes = list(settings)
    overrides = overrides or EvalOverrides()
    if is_run(folder):
        source = _recipe_of_run(model, recipe, base, best)
        changed = load_recipe(_on_task(source, task), overrides.settings(source, changes))
        check(changed, folder / RECIPE, trust or Trust(), given_keys(changes))
        return Target(model, changed, _weights(folder, base, best), folder / EVALUATIONS)
    if base or best:
        raise UsageError(f"{not_a_run(model)}, so --base and --best do not apply")
    if not (recipe or task):
        raise UsageError(
            f"{not_a_run(model)}. To test it as a model, say on what: --task NAME, or --recipe NAME_OR_FILE"
        )
    source = load_recipe(recipe, trust=trust) if recipe else Recipe()
    data = _on_task(source, task)
    data["model"]["name"] = model
    changed = load_recipe(data, overrides.settings(source, changes))
    return Target(model, changed, None, Path("runs") / f"eval-{_file_name(model)}")


def _recipe_of_run(model: str, recipe: str | None, base: bool, best: bool) -> Recipe:
    if recipe:
        raise UsageError(f"{model} is a run folder and brings its own recipe: leave out --recipe, or use --set")
    if base and best:
        raise UsageError("--base and --best are two models: choose one")
    source = recipe_of(Path(model), trust=Trust(uses=()))  # checked with what is changed in it
    if (base or best) and is_own_base(source.model.name, Path(model)):
        raise UsageError(f"{model} is an export of the trained model alone, so --base and --best do not apply")
    return source


def _on_task(recipe: Recipe, task: str | None) -> dict[str, Any]:
    data: dict[str, Any] = recipe.model_dump(mode="json")
    data["sampler"].pop("precision", None)  # that of rollouts; a test in 8 bits has to be asked for
    if task and task != recipe.data.task:
        data["data"] = {"task": task}
    return data


def _weights(run: Path, base: bool, best: bool) -> Path | None:
    return None if base else run / BEST if best else run


def _file_name(model: str) -> str:
    name = Path(model).name if Path(model).exists() else model
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
