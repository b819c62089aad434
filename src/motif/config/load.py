"""Load recipes from shipped names, TOML files and mappings, with `section.key=value` settings on top."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from motif.config.data import TASK_SECTIONS, DataConfig
from motif.config.methods import fill_in, method_of
from motif.config.phrases import by_value, sentence
from motif.config.recipe import Recipe
from motif.config.sections import Section
from motif.config.trust import Trust, check, in_run_folder
from motif.demo import MODELS
from motif.errors import RecipeError
from motif.run_files import RECIPE
from motif.text import brief, decoded, expanded

RECIPES = Path(__file__).parent.parent / "recipes"
FLAT = {
    "arithmetic": ("operation", "digits", "smallest", "largest", "template"),
    "chain": ("shortest", "longest"),
    "circuit": ("inputs", "form", "minterms"),
}
"""Task settings that earlier versions kept in `[data]` itself. They are still read there; new settings are not."""
SWITCHES = [["data", "task"], ["data", "train"], ["data", "test"]]
"""Settings that decide where the questions come from."""
TASK_OF = {key: task for task, keys in FLAT.items() for key in keys}

PATHS = [
    ["data", "train"],
    ["data", "test"],
    ["data", "grader"],
    ["rounds", "system_prompt_file"],
    ["rounds", "examples"],
    ["warmstart", "file"],
    ["warmstart", "cut"],
    ["warmstart", "notes"],
    ["model", "name"],
    ["model"],
]
"""Settings that may name a file or a folder."""
FUNCTIONS = [["data", "grader"], ["warmstart", "cut"], ["warmstart", "notes"]]
"""Of these, those that may name a function, as `module:function` or `file.py:function`."""

DATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Files that are not recipes."""
MAX_BYTES = 1 << 18
"""Size limit of a recipe file."""
MAX_PARTS = 6
"""Parts of a dotted key: the time to parse a table grows with the parts of its name times its keys."""
MAX_PROBLEMS = 20
"""Problems of a recipe listed in one error."""


_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_TWICE = re.compile(r"Cannot declare \((.*)\) twice \((at line \d+)")
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_PARTS},}}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as dotted keys and their values."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(
    source: str | Path | Mapping[str, Any],
    settings: Iterable[str] = (),
    folder: Path | None = None,
    trust: Trust | None = None,
) -> Recipe:
    """Read a shipped recipe name, a TOML file or a mapping, and apply `section.key=value` settings.

    Relative paths in a recipe file (`data.train`, `rounds.system_prompt_file`, …) are resolved against the file's
    folder if they exist there, and against the working directory otherwise. Those in settings are resolved against
    `folder`, by default the working directory. `~` and `$HOME` are expanded. `method = "paper"` fills in the method of
    a shipped recipe where the recipe says nothing; one for own data has that of `recommended` (`config.methods`).

    A recipe in a run folder may be somebody else's: what it runs or contacts has to be known from a training of this
    user, be given in `settings`, or be confirmed by `trust`.

    Raises:
        RecipeError: an unknown name or key (the message names the nearest), malformed TOML, a value out of range, a
            setting that the chosen task does not use, or something that has to be confirmed.
    """
    settings, path = list(settings), None
    if isinstance(source, Mapping):
        data = _anchored(json.loads(json.dumps(source)), [], None)
    else:
        path = find_recipe(str(source))
        data = _anchored(read_toml(path), [], path.parent)
        data.setdefault("name", path.stem)
    _into_sections(data)
    parsed = (_parse(setting) for setting in settings)
    _apply(data, [(place, _anchored(value, place, folder or Path())) for place, value in parsed])
    if (method := method_of(data)) is not None:
        if method not in shipped_recipes():
            hint = nearest(str(method), shipped_recipes())
            raise RecipeError(f"method: no shipped recipe {brief(repr(method))}: {hint}")
        fill_in(data, read_toml(RECIPES / f"{method}.toml"))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(map(_explain, by_value(error.errors())[:MAX_PROBLEMS]))) from None
    if path is not None:
        trust = trust or Trust()
        check(recipe, path, trust if in_run_folder(path) else replace(trust, uses=()), given_keys(settings))
    return recipe


def given_keys(settings: Iterable[str]) -> set[str]:
    """The keys of `section.key=value` settings."""
    return {".".join(_parse(setting)[0]) for setting in settings}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most 256 KiB.

    Raises:
        RecipeError: the file cannot be read, is too large, is not valid TOML, or nests or counts without bounds.
    """
    try:
        with path.open("rb") as file:
            return parse_toml(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse a stranger's TOML of at most 256 KiB in seconds, whatever it holds.

    Raises:
        RecipeError: it is too large, is not valid TOML, or nests or counts without bounds.
    """
    if len(content) > MAX_BYTES:
        raise RecipeError(f"larger than {MAX_BYTES >> 10} KiB, so it is not a recipe")
    try:
        text = decoded(content)
    except ValueError as error:
        raise RecipeError(f"not valid TOML: line {error}") from None
    try:
        if _LONG_KEY.search(text):
            raise RecipeError(f"a key of more than {MAX_PARTS} parts, so it is not a recipe")
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError("nested too deeply") from None
    except RecipeError:
        raise
    except ValueError as error:  # not TOML, or a number of thousands of digits
        if twice := _TWICE.match(str(error)):
            section = ".".join(re.findall(r"'([^']*)'", twice[1]))
            where = f"[{brief(section)}] stands there twice ({twice[2]})"
            raise RecipeError(f"not valid TOML: {where}: keep one, with the lines of both") from None
        raise RecipeError(f"not valid TOML: {brief(str(error))}") from None


def _exists(path: Path) -> bool:
    """Whether a path exists; an impossible one, too long or with a null character, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def find_recipe(source: str) -> Path:
    """The file of a shipped name, a TOML file or a run folder.

    Raises:
        RecipeError: there is none; the message names the nearest.
    """
    path = Path(expanded(source))
    if _exists(path) and path.is_file():
        if path.suffix.lower() in DATA_SUFFIXES:
            raise RecipeError(f"{source} is a file of data, not a recipe: motif init {source} writes a recipe for it")
        return path
    if _exists(path / RECIPE) and (path / RECIPE).is_file():
        return path / RECIPE
    shipped = RECIPES / f"{source}.toml"
    if re.fullmatch(r"[\w.-]{1,100}", source) and shipped.is_file():
        return shipped
    if _exists(path):
        raise RecipeError(f"{source} is a folder without a {RECIPE}: name a recipe, or a run folder")
    close = difflib.get_close_matches(source[:100], shipped_recipes(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    names = ", ".join(shipped_recipes())
    raise RecipeError(f"no recipe {brief(repr(source))}: neither a file nor one of {names}.{hint}")


def _into_sections(data: dict[str, Any]) -> None:
    """Move the task settings that earlier versions kept in `[data]` itself into the sections of their tasks.

    Resolved recipes of those versions hold these settings for every task. Defaults are therefore dropped: they change
    nothing for the chosen task, and nobody chose them for another.
    """
    source = data.get("data")
    if not isinstance(source, dict):
        return
    flat_settings = {key: source.pop(key) for key in TASK_OF if key in source}
    for key, value in flat_settings.items():
        task = TASK_OF[key]
        if value != DataConfig.model_fields[task].default.model_dump(mode="json")[key]:
            section = source.setdefault(task, {})
            if not isinstance(section, dict) or key in section:
                raise RecipeError(f"data.{key} is also set in [data.{task}]: remove the former")
            section[key] = value


def _parse(setting: str) -> tuple[list[str], Any]:
    """Split a `section.key=value` setting into its keys and its value."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set takes section.key=value, got {brief(repr(setting))}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    except (RecursionError, ValueError):
        raise RecipeError(f"--set {brief(setting)}: nested too deeply, or a number of thousands of digits") from None
    match key.strip().split("."):
        case ["model"]:
            return ["model", "name"], value
        case ["data", last] if last in TASK_OF:
            return ["data", TASK_OF[last], last], value
        case place:
            return place, value


def _apply(data: dict[str, Any], settings: Sequence[tuple[list[str], Any]]) -> None:
    """Apply settings, first those that decide where the questions come from.

    A section goes with its task: if these settings replace the task, or its questions by rows of a source, the recipe's
    section of the task is dropped.
    """
    active = _active_section(data)
    switches = [setting for setting in settings if setting[0] in SWITCHES]
    for place, value in switches:
        _set(data, place, value)
    if active is not None and _active_section(data) != active:
        data["data"].pop(active, None)
    for place, value in settings:
        if place not in SWITCHES:
            _set(data, place, value)


def _active_section(data: Mapping[str, Any]) -> str | None:
    """The task whose section makes the questions, read from settings that are not validated yet."""
    source = data.get("data")
    if not isinstance(source, dict) or source.get("train") or source.get("test"):
        return None
    task = source.get("task")
    return task if task in TASK_SECTIONS else None


def _set(data: dict[str, Any], place: list[str], value: Any) -> None:
    *sections, last = place
    for section in sections:
        below = data.setdefault(section, {})
        if not isinstance(below, dict):
            if section != "model":
                raise RecipeError(f"{brief('.'.join(place))}: {section} is a value, not a section")
            below = data[section] = {"name": below}
        data = below
    data[last] = value


def _explain(problem: Any) -> str:
    if problem["type"] != "extra_forbidden":
        return sentence(problem)
    *place, last = problem["loc"]
    return f"unknown key {brief('.'.join(map(str, problem['loc'])))}: {nearest(str(last), _keys_below(place))}"


def _keys_below(place: Iterable[str | int]) -> list[str]:
    """The keys of a section, and those of its sub-sections as `section.key`; of the recipe only its sections."""
    section: Any = Recipe
    for part in place:
        field = section.model_fields.get(part)
        section = field.annotation if field else Recipe
    keys = list(section.model_fields)
    for name in keys if section is not Recipe else ():
        if isinstance(default := section.model_fields[name].default, Section):
            keys = keys + [f"{name}.{key}" for key in type(default).model_fields]
    return keys


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a name that is not among `names`: the nearest of them (by its last dotted part), or else all."""
    dotted = {candidate.rpartition(".")[2]: candidate for candidate in names}
    close = difflib.get_close_matches(name, list(dotted), n=1, cutoff=0.5)
    return f"did you mean {dotted[close[0]]!r}?" if close else f"known are {', '.join(dotted.values())}"


def _anchored(value: Any, place: list[str], folder: Path | None) -> Any:
    """Settings at a place of the recipe, not validated yet, with their paths expanded and made absolute.

    A relative path stays as it is if there is no such file in `folder`: it may be the name of something else.
    """
    if isinstance(value, Mapping):
        return {key: _anchored(below, [*place, key], folder) for key, below in value.items()}
    if not isinstance(value, str) or place not in PATHS or (place[0] == "model" and value in MODELS):
        return value
    text = expanded(value)
    if not text or folder is None:
        return text
    if place not in FUNCTIONS:
        return str((folder / text).resolve()) if _exists(folder / text) else text
    file, colon, function = text.rpartition(":")
    if file == "python":  # a function that was given in Python
        return text
    for name in (f"{file}.py", file) if colon else ():  # a module beside the recipe works like a file's path
        if name.endswith(".py") and _exists(folder / name):
            file = str((folder / name).resolve())
    return f"{file}{colon}{function}"
