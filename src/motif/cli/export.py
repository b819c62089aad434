"""The options of `motif export`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from motif.cli.options import RunArgument, TrustGrader
from motif.cli.streams import loading, need_folder
from motif.config import Trust
from motif.errors import UsageError
from motif.export.choices import check_source, chosen_forms
from motif.runs.read import recipe_of


class MergedDtype(StrEnum):
    """How a merged model is stored."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class GgufType(StrEnum):
    """How a GGUF file stores weights, by the names of llama.cpp's converter."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


def export(
    run: RunArgument,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM", help="adapter, merged or gguf. Repeatable. Default: adapter (if trained) and merged."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Forms go to OUT/FORM. Default: RUN/export.")] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Export the best checkpoint instead of the last weights.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Export the newest checkpoint of a run that has not finished.")
    ] = False,
    dtype: Annotated[
        MergedDtype | None, typer.Option(help="The dtype of the merged model. Default: the base's.")
    ] = None,
    gguf_type: Annotated[GgufType, typer.Option(help="The weight type of the GGUF file.")] = GgufType.f16,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(help="Convert to GGUF with llama.cpp's convert_hf_to_gguf.py from this folder."),
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="The base model's id on the hub, if its files do not say.")
    ] = "",
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload to the hub; several forms go to OWNER/NAME-FORM each."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: create private repositories.")] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Largest accepted logit difference, as a share of the largest logit. Default: by dtype."
        ),
    ] = None,
    trust_grader: TrustGrader = "",
) -> None:
    """Export the trained weights as a PEFT adapter, a merged model or a GGUF file, each with a model card.

    Each is read back with plain transformers and compared with the trained model; exit status 1 if it differs by more
    than the tolerance. docs/export.md.
    """
    if private and not push:
        raise UsageError("--private goes with --push")
    if base and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise UsageError(f"--base takes the OWNER/NAME of the base model on the hub, got {base!r}")
    need_folder(out)
    trust = Trust(trust_grader)
    forms = [form.strip() for value in to or [] for form in value.split(",") if form.strip()]
    chosen_forms(recipe_of(run, trust=trust), forms, dtype and dtype.value)
    check_source(run, best, unfinished)
    with loading():
        from motif.export import run as exporting

    weights = (out, best, unfinished, dtype and dtype.value, gguf_type.value, llama_cpp, base)
    options = exporting.ExportOptions(forms, *weights, push, private, tolerance, trust)
    if not all(parity.holds for parity in exporting.export(run, options).values()):
        raise typer.Exit(1)
