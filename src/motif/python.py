"""What `import motif` offers: train, evaluate and solve with data, models and functions held in memory.

Everything that is given becomes a setting of a recipe, and is kept in the run folder as far as a file can hold it. So
such a run is resumed, viewed, evaluated and exported like any other; only a reward function has to be given again.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from motif.config import DataConfig, Recipe, Trust, flat, load_recipe
from motif.config.load import DATA_SUFFIXES, given_keys
from motif.config.trust import PROMPT, TRAINING
from motif.display import Display
from motif.errors import RecipeError
from motif.evaluation.accuracy import Accuracy
from motif.evaluation.any_model import evaluate_model
from motif.evaluation.evaluate import evaluate as evaluate_questions
from motif.evaluation.rows import EvalOverrides
from motif.evaluation.target import Target, find_target
from motif.grading import Grader
from motif.grading.given import give
from motif.method.tree import Node
from motif.models.given import keep_model
from motif.run_files import EVALUATIONS
from motif.runs.folder import folder_for, refuse_used_folder
from motif.runs.read import is_run, recipe_of
from motif.runs.result import Result
from motif.session import Session, open_session
from motif.session import solve as solve_in_session
from motif.tasks import Task, grader_of, load
from motif.tasks.given import KEYS, MOST_ROWS, keep_rows
from motif.text import expanded
from motif.training.events import Callback
from motif.training.loop import train as train_recipe

READING = ("question_column", "answer_column", "answer_pattern", "pieces_column", "piece_tokens", "held_out", "limit")
KEPT = (*READING, "grader", "grader_seconds", "skip_bad")
"""Settings of `[data]` that a recipe for rows keeps when other rows are given."""
HELD_OUT, HELD_OUT_SHARE = 200, 10
"""Without an `eval_dataset`, one in ten of the rows is held out, and no more than so many."""

Settings = Iterable[str] | Mapping[str, Any]


def train(
    recipe: Recipe | str | Path | Mapping[str, Any] = "recommended",
    out: str | Path | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    reward: Any = None,
    reward_weights: Mapping[str, float] | Sequence[float] | None = None,
    steps: int | None = None,
    callbacks: Sequence[Callback] | Callback = (),
    resume: bool = False,
    allow_changes: bool = False,
    settings: Settings = (),
    display: Display | None = None,
) -> Result:
    """Fine-tune a model and write the run folder.

    Args:
        recipe: a `Recipe`, or what `load_recipe` takes: a shipped name, a TOML file, a mapping.
        out: the run folder; default `runs/<recipe name>`.
        model: instead of the recipe's: a hub id, a folder, a section `[model]` as a dict, or a model of transformers,
            which is saved in the run folder. tokenizer: of a model that is given as an object.
        train_dataset, eval_dataset: instead of the recipe's data: a list of dicts, a data frame, a data set of Hugging
            Face or another iterable of dicts, which is kept in the run folder; or what `data.train` takes. Without
            `eval_dataset`, a tenth of the rows (at most 200) is held out.
        reward: what an answer is worth, from 0 to 1: a function, an object that can be called, or several of these
            (`motif.grading.own` says what they may ask for and return); or the name of a grader.
        reward_weights: of the parts of a reward, by name or in order (default: all the same).
        steps: training steps, instead of the recipe's.
        callbacks: functions that get every event (`motif.training.events`); one may raise `StopTraining`.
        resume: resume from the newest good checkpoint in `out` (from the start, if there is none).
        allow_changes: resume although recipe, data or reward have changed, or the record has lost lines.
        settings: changes to the recipe: `section.key=value`, or a mapping.
        display: where progress goes; default: the terminal, or the notebook.

    Raises:
        RecipeError, ModelError, DataError, RunFolderError: the recipe, the model, the data, the reward or the folder
            cannot be used; nothing has been spent yet. For errors of a running training see `motif.training.loop`.
        Exception: what a callback has raised, once the run has been saved.
    """
    _refuse_wrong_kinds(recipe, out, resume, allow_changes, display)
    changes, callbacks = _settings(settings), _callbacks(callbacks)
    if all(one is None for one in (model, tokenizer, train_dataset, eval_dataset, reward, steps)):
        resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes, trust=Trust(uses=TRAINING))
        folder = Path(expanded(str(out))) if out else folder_for(recipe, resolved.name)
    else:
        source = _recipe(recipe)
        folder = Path(expanded(str(out))) if out else folder_for(recipe, source.name)
        refuse_used_folder(folder, resume)
        content = tomllib.loads(source.to_toml())
        content["model"] = _model(content["model"], model, tokenizer, folder)
        content["data"] = _data(content["data"], train_dataset, eval_dataset, folder / "data", changes)
        content["data"] |= {"grader": grader} if (grader := _grader(reward, reward_weights)) else {}
        content["train"] |= {} if steps is None else {"steps": steps}
        resolved = load_recipe(content, changes)
    return train_recipe(
        resolved, folder, resume=resume, allow_changes=allow_changes, display=display, callbacks=callbacks
    )


def evaluate(
    model: Any,
    dataset: Any = None,
    *,
    reward: Any = None,
    reward_weights: Mapping[str, float] | Sequence[float] | None = None,
    recipe: Recipe | str | Path | None = None,
    tokenizer: Any = None,
    rounds: Sequence[int] | None = None,
    samples: int | None = None,
    questions: int | None = None,
    out: str | Path | None = None,
    settings: Settings = (),
    display: Display | None = None,
) -> dict[str, Accuracy]:
    """The held-out accuracy of a run or of any model, with intervals; every answer is kept on the disk.

    Args:
        model: a run folder or a `Result`, a session, a name of a model, or a model of transformers (with `tokenizer`).
        dataset: the questions, as `eval_dataset` of `train`; default: those of the run or the recipe.
        reward, reward_weights: as of `train`; a run that was trained with a function needs it again.
        recipe: for a model: what gives scaffold, limits and, without `dataset`, questions.
        rounds, samples, questions: numbers of rounds, answers a question, and questions, where they differ from it.
        out: the folder of the answers; default: in the run, or `runs/eval-MODEL`.
        settings: changes to the recipe: `section.key=value`, or a mapping.

    Returns:
        The accuracy of each row, by its name (`rounds_1`, `rounds_3`, …).

    Raises:
        MotifError: the model, the data or the folder cannot be used.
    """
    changes = _settings(settings)
    grader = _grader(reward, reward_weights)
    if isinstance(model, Session):
        return _evaluate_session(model, dataset, grader, questions)
    name = str(model.run if isinstance(model, Result) else model)
    home = Path(name) / EVALUATIONS if is_run(Path(name)) else Path("runs") / f"eval-{type(model).__name__}"
    if not isinstance(model, (str, Path, Result)):
        name, recipe = keep_model(model, tokenizer, home), recipe or "recommended"
    run = Path(name) if is_run(Path(name)) else None
    source = recipe_of(run, trust=Trust(uses=())) if run else _recipe(recipe or "recommended")
    if grader:
        changes.insert(0, f"data.grader={json.dumps(grader)}")
    if dataset is not None:
        changes[:0] = _test_settings(dataset, home / "data", source)
    overrides = EvalOverrides(list(rounds) if rounds else None, samples, None, None, questions)
    if run:
        target = find_target(name, overrides=overrides, settings=changes)
    else:
        content = source.model_dump(mode="json")
        content["model"]["name"] = name
        target = Target(name, load_recipe(content, overrides.settings(source, changes)), None, home)
    return evaluate_model(target, display or Display(), Path(out) if out else None)


def solve(question: str, session: Any, **options: Any) -> Node:
    """Answer a question in rounds and return the first response, with those of the later rounds below it.

    The `answer` of the last one is the answer; None: the model gave none.

    Args:
        session: an open session, which is best for many questions, or a run folder or a `Result`.
        options: `rounds`, `greedy`, `seed` and `on_round`, see `motif.session.solve`.

    Raises:
        RunFolderError: the folder holds no run, or no trained weights.
    """
    if isinstance(session, Session):
        return solve_in_session(question, session, **options)
    run = Path(session.run if isinstance(session, Result) else expanded(str(session)))
    nothing = Task("solve", [], [], "exact", [])  # no data is read, and nothing is graded
    opened = open_session(recipe_of(run, trust=Trust(uses=(PROMPT,))), nothing, run)
    try:
        return solve_in_session(question, opened, **options)
    finally:
        opened.close()


# -- what is given, as settings ----------------------------------------------------------------------------------------


def _refuse_wrong_kinds(recipe: Any, out: Any, resume: Any, allow_changes: Any, display: Any) -> None:
    """Refuse arguments in each other's places before anything is made of them.

    Raises:
        RecipeError: one is of another kind than its name says.
    """
    places = "data goes to train_dataset=…, a reward to reward=…, a model to model=…"
    for name, value, kinds, wanted in (
        ("recipe", recipe, (Recipe, str, Path, Mapping), f"a shipped name, a TOML file or a dict ({places})"),
        ("out", out, (str, Path, type(None)), f"the name of a folder ({places})"),
        ("resume", resume, (bool,), "True or False, and the run to go on with is `out`"),
        ("allow_changes", allow_changes, (bool,), "True or False"),
        ("display", display, (Display, type(None)), "a Display"),
    ):
        if not isinstance(value, kinds):
            raise RecipeError(f"{name}: must be {wanted}, and is of the type {type(value).__name__}")
    if out is not None and Path(out).suffix.lower() in (*DATA_SUFFIXES, ".py", ".toml"):
        raise RecipeError(f"out: {out} is the name of a file, and a run needs a folder ({places})")


def _recipe(recipe: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe, trust=Trust(uses=TRAINING))


def _settings(settings: Settings) -> list[str]:
    """`section.key=value` settings, also of a mapping with dotted or nested keys."""
    if isinstance(settings, Mapping):
        try:
            return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flat(settings)]
        except TypeError as error:
            raise RecipeError(f"settings: numbers, texts and lists are settings: {error}") from None
    listed = [settings] if isinstance(settings, str) else list(settings) if isinstance(settings, Iterable) else [None]
    if not all(isinstance(one, str) for one in listed):
        raise RecipeError('settings: give a dict, e.g. {"train.steps": 20}, or texts, e.g. ["train.steps=20"]')
    return listed


def _callbacks(callbacks: Sequence[Callback] | Callback) -> list[Callback]:
    """The callbacks, of which one may be given alone."""
    listed = [callbacks] if callable(callbacks) else list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for one in listed:
        if not callable(one):
            raise RecipeError(f"callbacks: a callback is a function of an event, not {type(one).__name__}")
    return listed


def _model(section: dict[str, Any], model: Any, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """The recipe's `[model]` with what is given."""
    if tokenizer is not None and (model is None or isinstance(model, (str, Path, Mapping))):
        raise RecipeError("tokenizer: a model that is given by name brings its own: give the model as an object, too")
    if model is None:
        return section
    if isinstance(model, Mapping):
        return section | dict(model)
    name = str(model) if isinstance(model, (str, Path)) else keep_model(model, tokenizer, folder)
    return section | {"name": name}


def _data(
    section: dict[str, Any], train_dataset: Any, eval_dataset: Any, folder: Path, changes: Sequence[str]
) -> dict[str, Any]:
    """The recipe's `[data]` with the rows that are given; what `changes` set is left to them."""
    if train_dataset is None and eval_dataset is None:
        return section
    own_rows = section["task"] == "file"
    data = {"task": "file"} | {key: section[key] for key in KEPT if own_rows and key in section}
    if train_dataset is None:
        data = section
    set_here = given_keys(changes)
    known = {key: value for key, value in data.items() if key in KEYS and value != DataConfig.model_fields[key].default}
    known |= {key: "set" for key in KEYS if f"data.{key}" in set_here}
    for side, rows in (("train", train_dataset), ("test", eval_dataset)):
        if isinstance(rows, (str, Path)):
            data[side] = str(rows)
        elif rows is not None:
            kept = keep_rows(rows, f"{'eval' if side == 'test' else side}_dataset", folder, known)
            data |= {side: str(kept.path)} | kept.reading
            known |= kept.reading
            if side == "train" and eval_dataset is None and not data.get("held_out"):
                data["held_out"] = min(HELD_OUT, kept.count // HELD_OUT_SHARE)
    if eval_dataset is not None:
        data["held_out"] = 0
    return data


def _grader(reward: Any, weights: Mapping[str, float] | Sequence[float] | None) -> str:
    """The name of the grader that a reward becomes; empty: there is none."""
    if weights is not None and (reward is None or isinstance(reward, str)):
        raise RecipeError("reward_weights are of the parts of reward=…, which has to be functions")
    return reward if isinstance(reward, str) else "" if reward is None else give(reward, weights)


def _test_settings(dataset: Any, folder: Path, recipe: Recipe) -> list[str]:
    """The settings with which a recipe is tested on a data set."""
    own = recipe.data.grader or grader_of(recipe.data.task)
    data: dict[str, Any] = {"task": "file", "train": "", "held_out": 0, "limit": 0, "grader": own}
    reading: dict[str, Any] = {key: DataConfig.model_fields[key].default for key in (*KEYS, "subset", "train_split")}
    count = MOST_ROWS
    if isinstance(dataset, (str, Path)):
        reading["test"] = str(dataset)
    else:
        kept = keep_rows(dataset, "dataset", folder)
        reading |= kept.reading | {"test": str(kept.path)}
        count = kept.count
    values = {f"data.{key}": value for key, value in (data | reading).items()} | {"eval.questions": count}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _evaluate_session(session: Session, dataset: Any, grader: str, count: int | None) -> dict[str, Accuracy]:
    """The accuracy of an open session, with nothing kept on the disk."""
    recipe = session.recipe
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        test, judge = session.task.test, session.grader
        if dataset is not None:
            content = recipe.model_dump(mode="json")
            test = load(load_recipe(content, _test_settings(dataset, Path(folder), recipe)).data).test
        if grader:
            judge = held.enter_context(Grader(grader, recipe.data.grader_seconds, workers=2))
        session.sync_weights(0)
        questions = test[: count or recipe.eval.questions]
        return evaluate_questions(questions, session.sampler, session.rounds, judge, recipe)
