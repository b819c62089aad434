"""Reading recipes: shipped names, TOML files, mappings and `section.key=value` settings."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from motif.config.recipe import Recipe
from motif.errors import RecipeError

RECIPES = Path(__file__).parent.parent / "recipes"

LARGEST = 1 << 20
"""Bytes of a recipe file."""
MOST_DOTS = 500
"""Dots in one line of it: the time to read a dotted key goes with the square of its parts."""
MOST_PROBLEMS = 20
"""Of a recipe, said at once."""
SHOWN = 300
"""Characters of a value, or of another's message, in a message."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as dotted keys and values, however they were nested."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(source: str | Path | Mapping[str, Any], settings: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe name, a TOML file or a mapping, and apply `section.key=value` settings.

    Relative paths inside a recipe file (`data.train`, `rounds.system_prompt_file`, …) are taken from the file's folder
    when they exist there, else from the working directory.

    Raises:
        RecipeError: unknown name or key (with the nearest match), malformed TOML, or a value out of range.
    """
    if isinstance(source, Mapping):
        data, folder = json.loads(json.dumps(source)), None
    else:
        path = _find(str(source))
        data = read_toml(path)
        data.setdefault("name", path.stem)
        folder = path.parent
    for setting in settings:
        _apply(data, setting)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(problem) for problem in error.errors()[:MOST_PROBLEMS])) from None
    return recipe if folder is None else _anchor_paths(recipe, folder)


def recipe_of(run: Path, settings: Iterable[str] = ()) -> Recipe:
    """The resolved recipe in a run folder, with changes.

    Raises:
        RecipeError: the folder holds no recipe.
    """
    file = run / "recipe.toml"
    if not file.is_file():
        raise RecipeError(f"{run} is no run folder (it holds no recipe.toml)")
    return load_recipe(file, settings)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of at most a mebibyte.

    Raises:
        RecipeError: it cannot be read, is too large, or is no TOML, or none of sensible depth and numbers.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise RecipeError(f"{path}: larger than {LARGEST >> 20} MiB, so it is no recipe")
        text = content.decode("utf-8")
        if max((line.count(".") for line in text.split("\n")), default=0) > MOST_DOTS:
            raise RecipeError(f"{path}: a line with more than {MOST_DOTS} dots, so it is no recipe")
        return tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise RecipeError(f"{path}: nested too deeply") from None
    except RecipeError:
        raise
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise RecipeError(f"{path}: not valid TOML: {_brief(str(error))}") from None


def _brief(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def is_there(path: Path) -> bool:
    """Whether a path exists; one that no file can have, too long or with a null character, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _find(source: str) -> Path:
    path = Path(source)
    if is_there(path) and path.is_file():
        return path
    shipped = RECIPES / f"{source}.toml"
    if re.fullmatch(r"[\w.-]{1,100}", source) and shipped.is_file():
        return shipped
    close = difflib.get_close_matches(source[:100], shipped_recipes(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    known = ", ".join(shipped_recipes())
    raise RecipeError(f"no recipe {_brief(repr(source))}: neither a file nor one of {known}.{hint}")


def _apply(data: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set takes section.key=value, got {_brief(repr(setting))}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    except (RecursionError, ValueError):
        raise RecipeError(f"--set {_brief(setting)}: nested too deeply, or a number of thousands of digits") from None
    *sections, last = key.strip().split(".")
    if not sections and last == "model":
        sections, last = ["model"], "name"
    for section in sections:
        below = data.setdefault(section, {})
        if not isinstance(below, dict):
            if section != "model":
                raise RecipeError(f"{_brief(key.strip())}: {section} is a value, not a section")
            below = data[section] = {"name": below}
        data = below
    data[last] = value


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in problem["loc"][:-1]:
            field = section.model_fields.get(part)
            section = field.annotation if field else Recipe
        return f"unknown key {_brief(where)}: {nearest(str(problem['loc'][-1]), section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{_brief(where)}: {message} (got {_brief(repr(problem['input']))})" if where else message


def nearest(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is not among `names`: the nearest of them, or all."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"


def _anchor_paths(recipe: Recipe, folder: Path) -> Recipe:
    def anchored(text: str) -> str:
        return str((folder / text).resolve()) if text and is_there(folder / text) else text

    place, colon, function = recipe.data.grader.rpartition(":")
    for own in (f"{place}.py", place) if colon else ():  # a module beside the recipe is as good as a file's path
        if own.endswith(".py") and is_there(folder / own):
            place = str((folder / own).resolve())
    update = {k: anchored(getattr(recipe.data, k)) for k in ("train", "test")}
    data = recipe.data.model_copy(update=update | {"grader": f"{place}{colon}{function}"})
    rounds = recipe.rounds.model_copy(update={"system_prompt_file": anchored(recipe.rounds.system_prompt_file)})
    model = recipe.model.model_copy(update={"name": anchored(recipe.model.name)})
    return recipe.model_copy(update={"data": data, "rounds": rounds, "model": model})
