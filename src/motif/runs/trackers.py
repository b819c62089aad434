"""Trackers: the lines of the metrics sent to trackio, wandb or TensorBoard too, under the same names.

A tracker never stops a run that has begun. The metrics file is the queue: trackers.json keeps how much of it each
tracker has taken, and what one fails to take is sent with the next line or when the run is resumed. Every line arrives
at least once; a resumed run sends those again that it computes again.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from motif.config import Recipe
from motif.errors import RecipeError, ServiceError
from motif.run_files import METRICS, TRACKERS
from motif.runs.disk import write_json
from motif.runs.folder import RunFolder
from motif.runs.provenance import versions
from motif.runs.read import parse, read_json, section
from motif.text import counted


class Sink(NamedTuple):
    """An open tracker: `log` takes numbers by name and their step; `close` takes whether the run failed."""

    log: Callable[[dict[str, float], int], object]
    close: Callable[[bool], object]


class Kind(NamedTuple):
    """A tracker that a recipe may name. `open` takes recipe, run folder, id, and whether the tracker knows the id."""

    module: str
    open: Callable[[Recipe, Path, str, bool], Sink]
    advice: str


def check(names: Sequence[str]) -> None:
    """Import the trackers.

    Raises:
        RecipeError: one cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(KINDS[name].module)
        except Exception as error:  # packages of this size break in many ways
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecipeError(
                f"track: {name} cannot be imported ({reason}): pip install 'motif-rl[track]', or leave it out of track"
            ) from None


@contextlib.contextmanager
def tracking(recipe: Recipe, run: RunFolder, say: Callable[[str], object]) -> Iterator[None]:
    """Send what is appended to the metrics to the recipe's trackers, from the process that writes.

    Raises:
        RecipeError: a tracker cannot be imported.
        ServiceError: a tracker cannot be opened.
    """
    if not (recipe.track and run.writes):
        yield
        return
    trackers = Trackers(recipe, run.path, say)
    run.on_metrics, failed = trackers.send, True
    try:
        yield
        failed = False
    finally:
        run.on_metrics = None
        trackers.close(failed)


class Trackers:
    """The recipe's trackers, opened."""

    def __init__(self, recipe: Recipe, run: Path, say: Callable[[str], object]):
        check(recipe.track)
        self.metrics, self.file, self.say = run / METRICS, run / TRACKERS, say
        state = read_json(self.file)
        self.id, self.sent = state.get("id") or uuid.uuid4().hex[:8], section(state, "sent")
        self.sinks: dict[str, Sink] = {}
        self.warned: set[str] = set()
        for name in recipe.track:
            try:
                self.sinks[name] = KINDS[name].open(recipe, run, self.id, name in self.sent)
            except Exception as error:
                self.close(failed=True)
                advice = f"{KINDS[name].advice}; or leave it out of track"
                raise ServiceError(f"track: {name} could not be opened: {error}. {advice}") from error
            self.sent.setdefault(name, 0)
        self.send(self.metrics.stat().st_size if self.metrics.is_file() else 0)

    def send(self, start: int) -> None:
        """Send the lines that a tracker has not taken; those from the offset `start` on are new."""
        for name, sink in self.sinks.items():
            self.sent[name] = min(self.sent[name], start)  # a resumed run has truncated the file
            with self._survived(name):
                for line in self._waiting(name):
                    record = parse(line)
                    if record and (values := dict(numbers(record))):  # a diagnosis has none
                        sink.log(values, record["step"])
                    self.sent[name] += len(line)
        with contextlib.suppress(OSError):
            write_json(self.file, {"id": self.id, "sent": self.sent})

    def close(self, failed: bool) -> None:
        """Let the trackers finish, and report what they have not taken."""
        for name, sink in self.sinks.items():
            with self._survived(name):
                sink.close(failed)
            if lost := len(self._waiting(name)):
                self.say(
                    f"warning: tracker {name} has not taken {counted(lost, 'line')} of metrics; "
                    "resuming the run sends them again"
                )

    @contextlib.contextmanager
    def _survived(self, name: str) -> Iterator[None]:
        """Report the first failure of a tracker and continue: whatever it is, it is not a reason to lose a run."""
        try:
            yield
        except Exception as error:
            if name not in self.warned:
                self.say(f"warning: tracker {name} failed ({type(error).__name__}: {error}); training continues")
            self.warned.add(name)

    def _waiting(self, name: str) -> list[bytes]:
        if not self.metrics.is_file():
            return []
        with self.metrics.open("rb") as file:
            file.seek(self.sent[name])
            return file.readlines()


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics by name; names of what lies within others are joined by `/`."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "step":
                yield from numbers(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, value


def _trackio(recipe: Recipe, run: Path, identity: str, known: bool) -> Sink:
    import trackio

    name = f"{run.resolve().name}-{identity}"  # it knows runs by name only, and another folder may have this one's
    opened = trackio.init(
        recipe.track_project, name=name, config=_config(recipe), resume="allow" if known else "never", embed=False
    )
    return Sink(lambda values, step: opened.log(values, step=step), lambda failed: trackio.finish())


def _wandb(recipe: Recipe, run: Path, identity: str, known: bool) -> Sink:
    import wandb

    given = {
        "project": ("WANDB_PROJECT", recipe.track_project),
        "name": ("WANDB_NAME", run.resolve().name),
        "id": ("WANDB_RUN_ID", identity),
        "dir": ("WANDB_DIR", str(run)),
        "settings": ("WANDB_CONSOLE", wandb.Settings(console="off")),  # progress bars are not a log
    }  # options override wandb's own variables, so those that the user has set are left out
    options: dict[str, Any] = {key: value for key, (variable, value) in given.items() if not os.environ.get(variable)}
    opened = wandb.init(config=_config(recipe), resume="allow" if known else None, **options)
    opened.define_metric("*", step_metric="step")  # its own counter cannot be set back to where a run is resumed
    return Sink(
        lambda values, step: opened.log(values | {"step": step}),
        lambda failed: opened.finish(exit_code=1 if failed else 0),
    )


def _tensorboard(recipe: Recipe, run: Path, identity: str, known: bool) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))
    if not known:
        writer.add_text("recipe", f"```toml\n{recipe.to_toml()}```")

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Sink(log, lambda failed: writer.close())


def _config(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json") | {"versions": versions()}


KINDS = {
    "trackio": Kind("trackio", _trackio, "Its settings are TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL"),
    "wandb": Kind("wandb", _wandb, "Log in with wandb login, or set WANDB_MODE=offline"),
    "tensorboard": Kind("torch.utils.tensorboard", _tensorboard, "It writes to tensorboard/ in the run folder"),
}
