"""Trackers: the lines of metrics.jsonl sent to trackio, wandb or TensorBoard as well, under the same names.

A tracker must never cost a run anything. It is refused before the start where it cannot be imported or opened, but once
the run goes, what it fails to take is kept, tried again with the next line, and counted; training goes on.

trackers.json in the run folder keeps the run's id at the trackers and, for each, the last line that it has taken. A
resumed run goes on in the same tracker run from there: no line twice, and those that were missed are caught up on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from motif.config import Recipe
from motif.errors import RecipeError
from motif.runs.folder import RunFolder, versions, write_atomically

MODULES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


class Sink(NamedTuple):
    """An open tracker: `log` takes numbers by name and their step, `close` whether the run failed."""

    log: Callable[[dict[str, float], int], Any]
    close: Callable[[bool], Any]


def check(names: Sequence[str]) -> None:
    """Import the trackers.

    Raises:
        RecipeError: one cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(MODULES[name])
        except Exception as error:  # packages of this size break in many ways
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecipeError(
                f"track: {name} cannot be imported ({told}): pip install 'motif-rl[track]', or leave it out of track"
            ) from None


@contextlib.contextmanager
def tracking(recipe: Recipe, run: RunFolder, say: Callable[[str], Any]) -> Iterator[None]:
    """For a while, what goes to metrics.jsonl goes to the recipe's trackers too (from the process that writes).

    Raises:
        RecipeError: a tracker cannot be opened.
    """
    if not (recipe.track and run.writes):
        yield
        return
    trackers = Trackers(recipe, run.path, say)
    run.follow, failed = trackers.log, True
    try:
        yield
        failed = False
    finally:
        run.follow = None
        trackers.close(failed)


class Trackers:
    """The recipe's trackers, opened; lines of metrics.jsonl that they have not seen are sent at once."""

    def __init__(self, recipe: Recipe, folder: Path, say: Callable[[str], Any]):
        self.file, self.say = folder / "trackers.json", say
        self.state: dict[str, Any] = {"id": uuid.uuid4().hex[:8], "taken": {}}
        if self.file.is_file():
            self.state = json.loads(self.file.read_text(encoding="utf-8"))
        self.sinks: dict[str, Sink] = {}
        self.waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in recipe.track}
        self.warned: set[str] = set()
        check(recipe.track)
        for name in recipe.track:
            try:
                self.sinks[name] = OPEN[name](recipe, folder, self.state["id"], name in self.state["taken"])
            except Exception as error:
                self.close(failed=True)
                raise RecipeError(f"track: {name} could not be opened: {error}. {ADVICE[name]}") from error
            self.state["taken"].setdefault(name, [-1, 0])
        write_atomically(self.file, json.dumps(self.state) + "\n")
        for line in _lines(folder / "metrics.jsonl"):
            self.log(line)

    def log(self, line: dict[str, Any]) -> None:
        """Send one line of metrics.jsonl, and first whatever could not be sent before."""
        for name, sink in self.sinks.items():
            waiting, before = self.waiting[name], self.state["taken"][name]
            waiting.append(line)
            try:
                while waiting:
                    if _place(waiting[0]) > self.state["taken"][name]:
                        sink.log(numbers(waiting[0]), waiting[0]["step"])
                        self.state["taken"][name] = _place(waiting[0])
                    waiting.pop(0)
            except Exception as error:  # whatever it is, it is no reason to lose a run
                if name not in self.warned:
                    self.say(f"tracker {name} failed ({type(error).__name__}: {error}); training goes on")
                self.warned.add(name)
            if self.state["taken"][name] != before:
                with contextlib.suppress(OSError):
                    write_atomically(self.file, json.dumps(self.state) + "\n")

    def close(self, failed: bool) -> None:
        """Let the trackers finish, and say what they have not taken."""
        for name, sink in self.sinks.items():
            try:
                sink.close(failed)
            except Exception as error:
                self.say(f"tracker {name} could not be closed ({type(error).__name__}: {error})")
            if lost := len(self.waiting[name]):
                self.say(f"tracker {name} has not taken {lost} lines of metrics.jsonl; --resume sends them again")


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by name; names of what lies within others are joined by `/`."""
    found: dict[str, float] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                walk(below, f"{name}/{key}" if name else str(key))
        elif isinstance(value, list):
            walk(dict(enumerate(value)), name)
        elif isinstance(value, int | float):
            found[name] = value

    walk({key: value for key, value in line.items() if key != "step"}, "")
    return found


def _place(line: dict[str, Any]) -> list[int]:
    """Where a line stands in metrics.jsonl: by step, and within a step its metrics, its evaluation, its probe."""
    return [line["step"], 1 if "eval" in line else 2 if "probe" in line else 0]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):  # the last may be half written
            yield json.loads(text)


# -- the three ---------------------------------------------------------------------------------------------------------


def _trackio(recipe: Recipe, folder: Path, identity: str, known: bool) -> Sink:
    import trackio

    # It knows runs by name only, and another folder may have this one's.
    run = trackio.init(
        project=recipe.track_project,
        name=f"{folder.resolve().name}-{identity}",
        config=_config(recipe),
        resume="allow" if known else "never",
        embed=False,
    )
    return Sink(lambda values, step: run.log(values, step=step), lambda failed: trackio.finish())


def _wandb(recipe: Recipe, folder: Path, identity: str, known: bool) -> Sink:
    import wandb

    given = os.environ  # what is passed here goes before wandb's own variables, so those that are set are left out
    own = {
        "project": ("WANDB_PROJECT", recipe.track_project),
        "name": ("WANDB_NAME", folder.resolve().name),
        "id": ("WANDB_RUN_ID", identity),
        "dir": ("WANDB_DIR", str(folder)),
    }
    options: dict[str, Any] = {key: value for key, (variable, value) in own.items() if not given.get(variable)}
    if "WANDB_CONSOLE" not in given:  # progress bars make no log
        options["settings"] = wandb.Settings(console="off")
    run = wandb.init(config=_config(recipe), resume="allow" if known else None, **options)
    run.define_metric("*", step_metric="step")  # its own counter cannot be set back to where a run is resumed
    return Sink(
        lambda values, step: run.log(values | {"step": step}), lambda failed: run.finish(exit_code=1 if failed else 0)
    )


def _tensorboard(recipe: Recipe, folder: Path, identity: str, known: bool) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    if not known:
        writer.add_text("recipe", f"```toml\n{recipe.to_toml()}```")

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Sink(log, lambda failed: writer.close())


OPEN: dict[str, Callable[[Recipe, Path, str, bool], Sink]] = {
    "trackio": _trackio,
    "wandb": _wandb,
    "tensorboard": _tensorboard,
}
ADVICE = {
    "trackio": "Its settings are TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL; or leave it out of track",
    "wandb": "Log in with wandb login, set WANDB_MODE=offline, or leave it out of track",
    "tensorboard": "It writes to tensorboard/ in the run folder; or leave it out of track",
}


def _config(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json") | {"versions": versions()}
