"""Which trained weights lie in a run folder, by the names of its files: told before anything heavy is imported."""

from __future__ import annotations

import re
from pathlib import Path

from motif.config import ModelConfig
from motif.errors import RunFolderError
from motif.run_files import ADAPTER, ADAPTER_FILE, BEST, CHECKPOINTS, MODEL, SUMMARY, WRITER_LOCK
from motif.runs.disk import is_locked
from motif.runs.read import read_summary, resume_command, whole

CHECKPOINT = re.compile(r"step-(\d{6,})")
CHECKPOINT_FILE = "state.pt"


def has_weights(run: Path) -> bool:
    """Whether a folder holds trained weights, besides those in checkpoints."""
    return any((run / name).exists() for name in (ADAPTER, MODEL))


def weights_folder(run: Path, config: ModelConfig) -> Path:
    """Where a run of such a model keeps its weights."""
    return run / (ADAPTER if config.adapter == "lora" else MODEL)


def all_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    folder = run / CHECKPOINTS
    named = [path for path in folder.iterdir() if CHECKPOINT.fullmatch(path.name)] if folder.is_dir() else []
    return sorted((path for path in named if (path / CHECKPOINT_FILE).is_file()), key=step_of)


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was written, by its name."""
    return int(folder.name.removeprefix("step-"))


def is_own_base(name: str, folder: Path) -> bool:
    """Whether `folder` itself is the model `name` (or holds its GGUF file): an export of the whole model, which needs
    no weights added."""
    path = Path(name)
    return path.exists() and (path.parent if path.suffix == ".gguf" else path).resolve() == folder.resolve()


def steps_of(run: Path) -> int:
    """How many steps the weights in a run folder have been trained for.

    Raises:
        RunFolderError: the run has not ended, so it holds no weights but those in checkpoints.
    """
    steps = whole(read_summary(run).get("steps"))
    if steps is None:
        raise RunFolderError(_not_ended(run))
    return steps


def check_trained(run: Path, config: ModelConfig, best: bool = False) -> None:
    """Refuse a run without the weights that are asked for: the best, or the last ones, which before the run's end are
    those of its newest checkpoint.

    Raises:
        RunFolderError: there are none; the message says why and what to do.
    """
    folder = run / BEST if best else run
    weights = weights_folder(folder, config)
    if config.adapter == "lora":
        present = ((weights if weights.exists() else folder) / ADAPTER_FILE).is_file()
    else:
        present = any(weights.glob("*.safetensors")) or (not weights.exists() and is_own_base(config.name, folder))
    if present or not (best or weights.exists() or not all_checkpoints(run)):
        return
    if best:
        raise RunFolderError(f"{run} holds no best weights: only evaluations choose them (eval.questions, eval.every)")
    if whole(read_summary(run).get("steps")) is None:
        raise RunFolderError(_not_ended(run))
    raise RunFolderError(
        f"{run} holds no trained "
        + (f"adapter ({ADAPTER}/{ADAPTER_FILE})" if config.adapter == "lora" else f"model ({MODEL}/*.safetensors)")
    )


def _not_ended(run: Path) -> str:
    if is_locked(run / WRITER_LOCK):
        return f"{run} is still training: wait for its end, or its first checkpoint (train.save_every)"
    return f"{run} has not ended (it holds no {SUMMARY}): resume it with `{resume_command(run)}`"
