"""`motif.runs` is the only package that uses the names of a run folder's files, and `run_files.py` lists them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import motif
from motif import run_files as files

SOURCE = Path(motif.__file__).parent
NAMES = {value for name, value in vars(files).items() if name.isupper()}
OTHER_FOLDERS = {
    ("cli/init.py", files.RECIPE),  # no run has it yet
    ("compare/run.py", files.SUMMARY),  # of a study
    ("demo/__init__.py", files.MODEL),  # shipped with the package
    ("evaluation/store.py", files.OUTCOMES),  # of an evaluation
    ("evaluation/store.py", files.STUDY_LOCK),
}
"""The same names in folders that are not run folders."""


def named(module: ast.Module) -> Iterator[str]:
    """The names in a module's strings (without docstrings) that cannot be ordinary words, and those joined to paths."""
    docstrings = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and id(node) not in docstrings and "." in str(node.value):
            yield str(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield str(node.right.value)


def test_no_other_package_names_a_file_of_a_run_folder():
    places = {file: str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py")}
    modules = {place: ast.parse(file.read_text(encoding="utf-8")) for file, place in places.items()}
    found = {(place, name) for place, module in modules.items() for name in named(module) if name in NAMES}
    assert {(place, name) for place, name in found if not place.startswith(("runs/", "run_files.py"))} == OTHER_FOLDERS
