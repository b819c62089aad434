"""What can be exported from a run, by its recipe and the names of its files: told before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from motif.config import Recipe
from motif.errors import RunFolderError, UsageError
from motif.run_files import BEST
from motif.runs.read import is_finished, read_summary, resume_command, section
from motif.runs.trained import all_checkpoints

FORM_TITLES = {"adapter": "LoRA adapter (PEFT)", "merged": "Whole model (safetensors)", "gguf": "Whole model (GGUF)"}
FORMS = tuple(FORM_TITLES)


def chosen_forms(recipe: Recipe, given: Sequence[str], dtype: str | None) -> list[str]:
    """The forms to write: those given or, if none is, the adapter if one was trained and the merged model.

    Raises:
        UsageError: there is no such form, or it or the dtype does not apply.
    """
    lora = recipe.model.adapter == "lora"
    forms = list(dict.fromkeys(given)) or (["adapter"] if lora else []) + ["merged"]
    for form in forms:
        if form not in FORMS:
            raise UsageError(f"--to takes {', '.join(FORMS)}; got {form!r}")
    if "adapter" in forms and not lora:
        raise UsageError("this run trained all weights, so there is no adapter: use --to merged")
    if dtype is not None and "merged" not in forms:
        raise UsageError("--dtype applies to the merged model: add --to merged (for a GGUF file: --gguf-type)")
    return forms


def check_source(run: Path, best: bool, unfinished: bool) -> None:
    """Refuse weights that the run does not hold.

    Raises:
        UsageError: both the best weights and an unfinished run are asked for.
        RunFolderError: the run has not finished, or holds no checkpoint or no best weights.
    """
    if best and unfinished:
        raise UsageError("--best and --unfinished are two sets of weights: choose one")
    if unfinished and not all_checkpoints(run):
        raise RunFolderError(f"{run} holds no checkpoint yet")
    if not unfinished and not is_finished(run):
        raise RunFolderError(
            f"{run} has not finished: resume it with `{resume_command(run)}`, or export its newest checkpoint with "
            "--unfinished"
        )
    if best and not (section(read_summary(run), "best") and (run / BEST).is_dir()):
        raise RunFolderError(f"{run} holds no best weights: only evaluations choose them (eval.questions, eval.every)")
