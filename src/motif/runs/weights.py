"""The trained weights of a run: `adapter/` in PEFT format or, where all weights are trained, `model/`.

Beside them lie the tokenizer and the files' checksums. `best/` holds the same of the run's best evaluation.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from motif.errors import ModelError, MotifError, RunFolderError
from motif.models.policy import Policy
from motif.run_files import ADAPTER, ADAPTER_FILE, MODEL
from motif.runs.disk import SUMS, check_sums, damaged_files, sync, sync_all, write_sums
from motif.runs.trained import is_own_base, weights_folder


def save_weights(run: Path, policy: Policy, state: dict[str, Tensor] | None = None) -> Path:
    """Write the weights of a policy with its tokenizer, replacing those that are there, and return their folder.

    Args:
        state: what `policy.state()` returned; with sharded weights one process cannot ask for it alone.
    """
    target = weights_folder(run, policy.config)
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    policy.save_pretrained(staging, policy.state() if state is None else state)
    policy.tokenizer.save_pretrained(staging)
    write_sums(staging)
    sync_all(staging)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync(run)
    return target


def load_weights(run: Path, policy: Policy) -> None:
    """Load the weights of a finished run, or of an export of it, into a policy.

    An export of the whole model is its own base: the policy has its weights already.

    Raises:
        RunFolderError: the folder holds no weights of this kind, or they are damaged.
        ModelError: they belong to another model.
    """
    folder = weights_folder(run, policy.config)
    if not folder.exists() and is_own_base(policy.config.name, run):
        return
    if policy.config.adapter == "lora":
        file = (folder if folder.exists() else run) / ADAPTER_FILE
        if not file.is_file():
            raise RunFolderError(f"{run} holds no trained adapter ({ADAPTER}/{ADAPTER_FILE})")
        policy.load_adapter(read_tensors(file), str(file))
        return
    policy.load_state(_read_model(folder, policy))


def check_round_trip(run: Path, policy: Policy, state: dict[str, Tensor]) -> None:
    """Write a whole model into a run folder and read it back, before work is spent on weights that nobody could read.

    Args:
        state: what `policy.state()` returned.

    Raises:
        ModelError: what is read is not what was written.
    """
    with tempfile.TemporaryDirectory(dir=run, prefix=".check-") as folder:
        read = _read_model(save_weights(Path(folder), policy, state), policy)
    for name, tensor in state.items():
        if not torch.equal(tensor, read[name]):
            raise ModelError(
                f"model type {policy.model.config.model_type!r} cannot be trained with model.adapter = 'full': {name} "
                "is not the same after saving and loading. Set model.adapter = 'lora'"
            )


def _read_model(folder: Path, policy: Policy) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise RunFolderError(f"{folder.parent} holds no trained model ({MODEL}/*.safetensors)")
    with _readable(folder):
        check_sums(folder)
        return policy.read_model(folder)


def damaged_weights(folder: Path) -> list[tuple[Path, str]]:
    """The files beside weights anywhere in a folder that are not what was written, and what is wrong with each."""
    return [damaged for sums in sorted(folder.rglob(SUMS)) for damaged in damaged_files(sums.parent)]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunFolderError: it cannot be read, is cut off, has a header that lies, or a file beside it has another
            checksum.
    """
    from safetensors.torch import load_file

    with _readable(file):
        check_sums(file.parent)
        return load_file(file)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what is raised over a malformed file, or a folder of them, into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except MotifError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise RunFolderError(
            f"{file} is damaged or not a safetensors file ({error}): resuming the run (motif resume) "
            "writes its last weights again from its checkpoint"
        ) from None
