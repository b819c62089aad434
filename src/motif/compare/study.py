"""The study file: arms, seeds, and the questions asked of them, checked before anything is spent.

A study is a TOML file. Each arm is a recipe with settings of its own, and each seed of each arm is one run.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from motif.config import Recipe, Section, Trust, flat, load_recipe, nearest, read_toml, shipped_recipes
from motif.config.load import DATA_SUFFIXES
from motif.config.phrases import sentence
from motif.config.trust import TRAINING
from motif.errors import RecipeError, UsageError
from motif.evaluation.rows import eval_rows
from motif.runs.ledger import Ledger
from motif.runs.read import is_finished
from motif.text import expanded

COMPUTED = "computed_tokens"
"""Generated tokens and the prompt tokens run through the model: all that a run has computed to sample."""
CURRENCIES = (*(field.name for field in fields(Ledger)), COMPUTED)
"""What a run spends, against which curves can be plotted: the quantities of its ledger, and all tokens computed."""


class Arm(Section):
    """One way of training."""

    about: str = ""
    recipe: str = ""
    """A shipped name, or a file relative to the study; empty: the study's recipe."""
    row: str = ""
    """The evaluation row in which this arm is used; empty: the study's."""
    measure: Literal["accuracy", "majority"] = "accuracy"
    """What counts of it: the mean over answers, or whether the most frequent of `eval.samples` answers is right."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings that override the recipe's and the study's, as `"section.key" = value`; paths are relative to the
    study."""


class Point(Section):
    """An accuracy of an arm: at the end of its runs, or once they have spent an amount of a currency."""

    arm: str
    at: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """At most one currency, e.g. `{ questions = 120 }`; empty: at the end."""
    row: str = ""
    """The evaluation row; empty: the arm's."""

    @field_validator("at")
    @classmethod
    def _one_currency(cls, at: dict[str, float]) -> dict[str, float]:
        if len(at) > 1:
            raise ValueError("takes one currency")
        for currency in at:
            _known("currency", currency, CURRENCIES)
        return at


class Contrast(Section):
    """The difference a - b, paired by seed."""

    name: str
    a: Point
    b: Point
    margin: Annotated[float, Field(le=0)] | None = None
    """How much lower a may be and still count as not inferior, e.g. -0.01 for one point; None: not tested."""


class ArmTarget(Section):
    """The mean accuracy of an arm at the end of its runs, as a threshold for other arms."""

    arm: str


class Threshold(Section):
    """How much of a currency each arm needs to reach an accuracy; ratios are to the first arm."""

    name: str
    arms: Annotated[list[str], Field(min_length=1)]
    currency: str
    row: str = ""
    target: Annotated[
        Annotated[float, Field(gt=0, le=1), Tag("a number")] | Annotated[ArmTarget, Tag("an arm")],
        Discriminator(lambda given: "an arm" if isinstance(given, Mapping | ArmTarget) else "a number"),
    ]

    @field_validator("currency")
    @classmethod
    def _known_currency(cls, currency: str) -> str:
        _known("currency", currency, CURRENCIES)
        return currency


class Study(Section):
    """A comparison of arms over seeds."""

    name: str
    about: str = ""
    recipe: str = ""
    """The recipe of all arms: a shipped name, or a file relative to the study."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(default_factory=lambda: [0])
    """Values of `train.seed`. Runs with the same seed draw the same questions in the same order."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings for all arms. `{seed}` in a text, here or in an arm, is the run's seed: `model.name = "warm/{seed}"`
    gives each seed a start of its own that all arms share."""
    row: str = ""
    """The evaluation row of contrasts and thresholds that name none; empty: that of the most rounds that an arm
    trains."""
    reference: str = ""
    """The arm with which the table compares the others; empty: none."""
    keep_trees: bool = True
    """False: when a run has finished, its trees and checkpoints are deleted; weights, metrics and report stay."""
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    contrasts: list[Contrast] = Field(default_factory=list)
    thresholds: list[Threshold] = Field(default_factory=list)

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError("names a folder: use only letters, digits, _ . and -")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for name, arm in self.arms.items():
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"arm {name!r} names a folder: use only letters, digits, _ . and -")
            if not (arm.recipe or self.recipe):
                raise ValueError(f"arm {name!r} has no recipe: give the study or the arm one")
        if repeated := len(self.seeds) - len({*self.seeds}):
            raise ValueError(f"seeds: {repeated} given twice")
        for settings in (self.set, *(arm.set for arm in self.arms.values())):
            if "train.seed" in dict(flat(settings)):
                raise ValueError("train.seed is set by `seeds`, so that arms are paired")
        for arm_name in self._arms_named():
            _known("arm", arm_name, self.arms)
        names = [contrast.name for contrast in self.contrasts] + [threshold.name for threshold in self.thresholds]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two contrasts or thresholds are called {twice.pop()!r}")
        return self

    def _arms_named(self) -> Iterator[str]:
        if self.reference:
            yield self.reference
        for contrast in self.contrasts:
            yield from (contrast.a.arm, contrast.b.arm)
        for threshold in self.thresholds:
            yield from threshold.arms
            if isinstance(threshold.target, ArmTarget):
                yield threshold.target.arm


@dataclass(frozen=True)
class StudyRun:
    """One seed of one arm: its resolved recipe and its folder."""

    arm: str
    seed: int
    recipe: Recipe
    folder: Path

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds this run, finished."""
        return is_finished(self.folder, self.recipe.train.steps)


def load_study(path: str | Path) -> Study:
    """Read a study file, without its recipes.

    Raises:
        RecipeError: no such file, malformed TOML, unknown keys (with the nearest match), or values out of range.
    """
    if Path(path).suffix.lower() in DATA_SUFFIXES:
        raise RecipeError(f"{path} is a file of data, not a study, which has [arms] (docs/compare.md)")
    if str(path) in shipped_recipes() and not Path(path).exists():
        raise RecipeError(f"{path} is a recipe, not a study, which has [arms] (docs/compare.md): motif train {path}")
    if Path(path).is_dir() or not Path(path).exists():  # a pipe is neither
        found = "a folder" if Path(path).is_dir() else "no such file"
        raise RecipeError(
            f"{path}: {found}; give a study, a TOML file with [arms] (docs/compare.md). To see runs side by side: "
            "motif view RUN RUN"
        )
    data = read_toml(Path(path))
    if "arms" not in data and {"model", "data", "rollout", "train"} & set(data):
        raise RecipeError(
            f"{path} is a recipe, not a study, which has [arms] (docs/compare.md): train it with motif train"
        )
    data.setdefault("name", Path(path).stem)
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(dict.fromkeys(_explain(problem) for problem in error.errors()))
        raise RecipeError(f"{path}: {problems}") from None


def seeds_from(text: str) -> list[int]:
    """Seeds as a person writes them: `0-2,7` is [0, 1, 2, 7].

    Raises:
        UsageError: not of this form.
    """
    seeds: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds takes numbers and ranges such as 0-4 or 0,2,7, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def plan_runs(study: Study, folder: Path, out: Path) -> list[StudyRun]:
    """All runs of a study, seed by seed, so that a study that is cut short still compares all arms.

    Args:
        folder: of the study file; relative recipes are relative to it.
        out: the run folders are `out/ARM/seed-S`.

    Raises:
        RecipeError: an arm's recipe cannot be read, or a setting in it is unknown or out of range.
    """
    base = {name: resolve(study, name, folder, study.seeds[0]) for name in study.arms}
    varies = "{seed}" in study.model_dump_json()
    runs = []
    for seed in study.seeds:
        for arm in study.arms:
            recipe = resolve(study, arm, folder, seed) if varies else base[arm]
            train = recipe.train.model_copy(update={"seed": seed})
            named = recipe.model_copy(update={"train": train, "name": f"{study.name}: {arm}, seed {seed}"})
            runs.append(StudyRun(arm, seed, named, out / arm / f"seed-{seed}"))
    return runs


def resolve(study: Study, arm: str | None, folder: Path, seed: int | None = None) -> Recipe:
    """The recipe of an arm: its recipe file, then the study's settings, then its own. None: what all arms share.

    seed: takes the place of `{seed}` in settings; None: it stays.

    Runs share the cores of the machine, so `train.threads` is 1 unless it is set.
    """
    chosen = study.arms[arm] if arm is not None else Arm()
    source = chosen.recipe or study.recipe
    file = folder / expanded(source)
    settings = [f"{key}={json.dumps(value)}" for part in (study.set, chosen.set) for key, value in flat(part)]
    if seed is not None:
        settings = [setting.replace("{seed}", str(seed)) for setting in settings]
    try:
        recipe = load_recipe(file if file.is_file() else source, settings, folder, Trust(uses=TRAINING))
    except RecipeError as error:
        raise RecipeError(f"arm {arm!r}: {error}" if arm is not None else str(error)) from None
    about = chosen.about or recipe.about
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"threads": recipe.train.threads or 1}), "about": about}
    )


def rows_of(recipe: Recipe) -> list[str]:
    """The names of the evaluation rows that a recipe's runs report."""
    return [row.name for row in eval_rows(recipe)]


def check_rows(study: Study, recipes: Mapping[str, Recipe]) -> None:
    """Refuse rows that an arm does not report.

    Raises:
        RecipeError: names the row, the arm and what it reports.
    """
    row = main_row(study, recipes)
    of = {arm: one.row or row for arm, one in study.arms.items()}
    needed = [(point.arm, point.row or of[point.arm]) for one in study.contrasts for point in (one.a, one.b)]
    needed += [(arm, threshold.row or of[arm]) for threshold in study.thresholds for arm in threshold.arms]
    needed += [(name, of[name]) for name, arm in study.arms.items() if arm.row or study.row]
    for arm, recipe in recipes.items():
        if study.arms[arm].measure == "majority" and recipe.eval.samples < 2:
            raise RecipeError(f"arm {arm!r} takes a vote of one answer: set eval.samples, e.g. 5, and eval.temperature")
    for arm, name in needed:
        rows = rows_of(recipes[arm])
        if name not in rows:
            raise RecipeError(
                f"arm {arm!r} has no evaluation row {name!r}, only {', '.join(rows) or 'none'}: set eval.rounds"
            )


def main_row(study: Study, recipes: Mapping[str, Recipe]) -> str:
    """The default row: the study's, else that of the most rounds that an arm trains."""
    return study.row or max(recipes.values(), key=lambda recipe: recipe.rollout.rounds).main_row


def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise ValueError(f"no {what} {name!r}: {nearest(name, names)}")


def _explain(problem: Any) -> str:
    place = [part for part in problem["loc"] if part not in ("a number", "an arm")]
    if problem["type"] == "extra_forbidden":
        key = ".".join(map(str, place))
        section = _section_at(problem["loc"][:-1])
        return f"unknown key {key}: {nearest(str(problem['loc'][-1]), section.model_fields)}"
    return sentence(problem | {"loc": place})


def _section_at(place: Iterable[str | int]) -> type[BaseModel]:
    """The section that a place in the file belongs to."""
    kind: Any = Study
    for part in place:
        if typing.get_origin(kind) in (dict, list):
            kind = typing.get_args(kind)[-1]
        elif _is_section(kind) and part in kind.model_fields:
            kind = kind.model_fields[str(part)].annotation
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            members = [getattr(member, "__origin__", member) for member in typing.get_args(kind)]  # without Annotated
            kind = next((member for member in members if _is_section(member)), kind)
    return kind if _is_section(kind) else Study


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
