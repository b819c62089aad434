"""Whose recipe it is: what a run folder's recipe makes `motif` run or contact, and whether this user wants that.

A recipe that a user names is trusted. A run folder may be somebody else's: what its recipe runs (a grader), executes
(commands), sends the questions to (servers, with a key) or reads into prompts (a file) has to be known from a training
of this user, or to be confirmed.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from motif.config.recipe import Recipe
from motif.errors import RecipeError
from motif.run_files import ADAPTER, ADAPTER_FILE, CHECKPOINTS, METRICS, RECIPE, SUMMARY, TREES

GRADER = "data.grader"
PROMPT = "rounds.system_prompt_file"
EXAMPLES = "rounds.examples"
SERVERS = ("sampler.urls", "sampler.copy_command", "sampler.remove_command")
ALL = (GRADER, *SERVERS, PROMPT, EXAMPLES)
TEACHER = "warmstart.teacher"
TRAINING = (*ALL, TEACHER, "warmstart.cut", "warmstart.notes")
"""What training follows; no other command follows the settings of a warm start."""

MARKS = (METRICS, TREES, SUMMARY, CHECKPOINTS, ADAPTER, ADAPTER_FILE)
"""What only a run folder, or an export of one, holds."""
PARENTS = 4
"""Folders above a recipe that are searched for a run folder."""
MOST_FILES = 500
"""Files of a grader that are looked at."""


@dataclass(frozen=True)
class Trust:
    """What the user of a run folder confirms.

    grader: the file, `file.py:function` or `module:function` of the run's own grader. uses: the settings that will be
    followed; the others are not looked at.
    """

    grader: str = ""
    uses: Collection[str] = ALL


@dataclass(frozen=True)
class Wish:
    """A setting of a run folder's recipe that has to be known or confirmed."""

    setting: str
    value: str
    does: str
    digest: str


def in_run_folder(recipe: Path) -> bool:
    """Whether a recipe file lies in a run folder, as it is named or where its links lead."""
    for file in {recipe.absolute(), recipe.resolve()}:
        folders = list(file.parents[:PARENTS])
        marked = [folder for folder in folders if any((folder / mark).exists() for mark in MARKS)]
        if folders[0] in marked or any((folder / RECIPE).exists() for folder in marked):
            return True
    return False


def check(recipe: Recipe, source: Path, trust: Trust, given: Collection[str] = ()) -> None:
    """Refuse what a run folder's recipe asks for, unless this user has trained with it or confirms it.

    Args:
        source: the recipe's file.
        given: settings that come from the command line.

    Raises:
        RecipeError: something has to be confirmed, or `trust.grader` is not the recipe's grader; says what to add.
    """
    if not (trust.uses or trust.grader):
        return
    wishes = list(_wishes(recipe, source.parent))
    if trust.grader:
        named = [wish for wish in wishes if wish.setting == GRADER]
        if not (named and _is_named(named[0].value, trust.grader)):
            grader = named[0].value if named else recipe.data.grader or "that of its task"
            raise RecipeError(f"--trust-grader {trust.grader}: the grader of {source} is {grader}")
        _add(named)
    known, given = _known(), {*given, *([GRADER] if trust.grader else [])}
    refused = [wish for wish in wishes if wish.setting in trust.uses and wish.setting not in given]
    if problems := [_explained(wish, source) for wish in refused if wish.digest not in known]:
        raise RecipeError("\n".join(problems))


def remember(recipe: Recipe) -> None:
    """Remember what a recipe that this user trains with runs and contacts, so that its run folder asks nothing."""
    _add(_wishes(recipe))


def _wishes(recipe: Recipe, folder: Path | None = None) -> Iterator[Wish]:
    place, colon, _ = recipe.data.grader.rpartition(":")
    if colon and place != "python":  # that one has to be given again by whoever runs it
        does = "which is a program that grading runs"
        yield Wish(
            GRADER, recipe.data.grader, does, _digest(GRADER, recipe.data.grader.rpartition(":")[2], *_files(place))
        )
    sampler = recipe.sampler
    if sampler.urls:
        servers = ", ".join(sampler.urls)
        does = f"which get the questions, and the key in {sampler.api_key_variable}"
        yield Wish(SERVERS[0], servers, does, _digest(SERVERS[0], sampler.api_key_variable, *sorted(sampler.urls)))
        for setting, command in zip(SERVERS[1:], (sampler.copy_command, sampler.remove_command), strict=True):
            if command:
                yield Wish(setting, command, "which is a command that sampling runs", _digest(setting, command))
    warm = recipe.warmstart
    if warm.teacher:
        does = f"which gets the questions, and the key in {warm.teacher_key_variable}"
        yield Wish(TEACHER, warm.teacher, does, _digest(TEACHER, warm.teacher_key_variable, warm.teacher))
    for setting, name in (("warmstart.cut", warm.cut), ("warmstart.notes", warm.notes)):
        place, colon, function = name.rpartition(":")
        if colon:
            digest = _digest(setting, function, *_files(place))
            yield Wish(setting, name, "which is a program that the warm start runs", digest)
    for setting, file in ((PROMPT, recipe.rounds.system_prompt_file), (EXAMPLES, recipe.rounds.examples)):
        outside = isinstance(file, str) and file and not (folder and _is_inside(file, folder))
        if isinstance(file, str) and outside:
            yield Wish(setting, file, "which is a file outside the folder", _digest(setting, str(Path(file).resolve())))


def _is_inside(file: str, folder: Path) -> bool:
    return Path(file).resolve().is_relative_to(folder.resolve())


def _explained(wish: Wish, source: Path) -> str:
    text = f"{source} may be somebody else's, and names {wish.setting} = {wish.value!r}, {wish.does}: "
    if wish.setting == GRADER:
        return f"{text}read it, then add --trust-grader {wish.value.rpartition(':')[0]}"
    return f"{text}if you want that, repeat it with --set {wish.setting}=…"


def _is_named(grader: str, name: str) -> bool:
    place = grader.rpartition(":")[0]
    return name in (grader, place) or Path(name).resolve() == Path(place).resolve()


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest())
    return total.hexdigest()


def _files(place: str) -> list[str | bytes]:
    """What a grader consists of: its file and, by name and content, whatever beside it that it imports by name."""
    if not place.endswith(".py"):
        specs = _specs(place, None)
        if not specs or not specs[-1].origin or not Path(specs[-1].origin).is_file():
            return [place]
        files = [Path(spec.origin) for spec in specs if spec.origin]
        if any("site-packages" in file.parts or file.is_relative_to(sys.base_prefix) for file in files):
            return [place, *(file.read_bytes() for file in files)]
        place, files = str(files[-1]), files[:-1]
    else:
        files = []
    root = Path(place).resolve().parent
    waiting, parts, seen = [*files, Path(place).resolve()], list[str | bytes](), set[Path]()
    while waiting and len(seen) < MOST_FILES:
        file = waiting.pop().resolve()
        if file in seen:
            continue
        seen.add(file)
        try:
            content = file.read_bytes()
        except OSError:
            continue
        parts.append(_digest(os.path.relpath(file, root) if len(seen) > 1 else "", content))
        waiting += _imported(content, file, root) if file.suffix == ".py" else []
    return sorted(parts, key=str)


def _imported(content: bytes, file: Path, root: Path) -> Iterator[Path]:
    """The files that a program imports from its own folder, or from the folder of the grader."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)}
    for name in names - {""}:
        for folder in {root, *file.parents[:3]}:
            yield from (Path(spec.origin) for spec in _specs(name, [str(folder)]) if spec.origin)


def _specs(name: str, path: Sequence[str] | None) -> list[ModuleSpec]:
    """What would be imported for a dotted name, as far as it is found, without importing anything."""
    specs: list[ModuleSpec] = []
    where: Sequence[str] | None = [*sys.path, str(Path.cwd())] if path is None else path
    for part in name.split("."):
        spec = PathFinder.find_spec(part, where)
        if spec is None:
            break
        specs.append(spec)
        if spec.submodule_search_locations is None:
            break
        where = list(spec.submodule_search_locations)
    return specs


def _store() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "motif" / "trusted"


def _known() -> set[str]:
    with suppress(OSError, RuntimeError, UnicodeDecodeError):
        file = _store()
        if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
            return set()
        return {line.split(" ", 1)[0] for line in file.read_text(encoding="utf-8").splitlines()}
    return set()


def _add(wishes: Iterator[Wish] | list[Wish]) -> None:
    known = _known()
    new = "".join(f"{wish.digest} {wish.setting} {wish.value!r}\n" for wish in wishes if wish.digest not in known)
    if new:
        with suppress(OSError, RuntimeError):  # without the file, the next command asks
            _store().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _store().open("a", encoding="utf-8") as file:
                file.write(new)
