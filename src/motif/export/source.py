"""The source of an export: a run's weights after some step, their accuracy, and the recipe without private settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.config import Recipe, SamplerConfig, Trust
from motif.export.choices import check_source
from motif.method.rounds import Rounds
from motif.models.policy import Policy
from motif.run_files import BEST
from motif.runs.checkpoint import newest_weights
from motif.runs.read import read_metrics, read_summary, recipe_of, section
from motif.runs.weights import load_weights
from motif.text import counted, read_text


@dataclass(frozen=True)
class ExportSource:
    """Weights of a run.

    chosen: how the step was chosen, which a reader of `after` must know; "" for the last weights of a finished run.
    before, after: accuracies by row (`rounds_3`), empty where nothing was measured.
    """

    run: Path
    recipe: Recipe
    step: int
    chosen: str
    summary: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    load: Callable[[Policy], None]


def open_source(run: Path, best: bool = False, unfinished: bool = False, trust: Trust | None = None) -> ExportSource:
    """Open the last weights of a finished run, its best ones, or those of an unfinished run's newest checkpoint.

    Raises:
        UsageError: both the best weights and an unfinished run are asked for.
        RunFolderError: `run` is not a run folder, has not finished, or does not hold these weights.
        RecipeError: its recipe names what has to be confirmed by `trust`.
    """
    recipe = recipe_of(run, trust=trust)
    check_source(run, best, unfinished)
    summary, evals = read_summary(run), read_metrics(run).evals

    def source(step: int, chosen: str, load: Callable[[Policy], None]) -> ExportSource:
        return ExportSource(
            run, recipe, step, chosen, summary, evals.get(0, {}), evals.get(step, {}) if step else {}, load
        )

    if unfinished:
        newest, weights = newest_weights(run)
        chosen = f"the newest checkpoint of a run that has not finished its {counted(recipe.train.steps, 'step')}"
        return source(newest, chosen, lambda policy: policy.load_state(weights))
    if not best:
        return source(int(summary["steps"]), "", lambda policy: load_weights(run, policy))
    best_eval = section(summary, "best")
    chosen = (
        f"chosen as the best of the evaluations on these same questions during {counted(summary['steps'], 'step')}, "
    )
    chosen += "which biases the accuracy upwards"
    return source(int(best_eval["step"]), chosen, lambda policy: load_weights(run / BEST, policy))


def for_others(recipe: Recipe, model: str) -> Recipe:
    """The recipe as others may see it: the base is called `model`, the system prompt's text replaces its file, paths
    are cut to their last part, and servers and trackers are left out."""
    data = recipe.data
    grader, colon, function = data.grader.rpartition(":")
    update = {
        "data": data.model_copy(
            update={
                "train": public_name(data.train),
                "test": public_name(data.test),
                "grader": (Path(grader).name if grader.endswith(".py") else grader) + colon + function,
            }
        ),
        "model": recipe.model.model_copy(update={"name": model, "device": "auto"}),
        "sampler": SamplerConfig(),
        "track": [],
        "track_project": Recipe().track_project,
    }
    if recipe.rounds.system_prompt_file:
        text = read_text(recipe.rounds.system_prompt_file).strip()
        update["rounds"] = recipe.rounds.model_copy(update={"system_prompt": text, "system_prompt_file": ""})
    return recipe.model_copy(update=update)


def public_name(name: str) -> str:
    """A hub id as it is, or the last part of a path."""
    path = Path(name)
    local = path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    return path.name if name and local else name


def parity_prompts(source: ExportSource, questions: list[str], rounds: Rounds) -> list[list[int]]:
    """Prompts (token ids) of the first and the last round of each question, with the question itself as the note."""
    count = source.recipe.rollout.rounds
    prompts = []
    for question in questions:
        prompts.append(rounds.prompt(question, [], count))
        if count > 1:
            prompts.append(rounds.prompt(question, [rounds.clean(question)] * (count - 1), count))
    return prompts
