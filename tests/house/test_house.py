"""The measures of the house: few files at its top, short functions, files that can be read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import house
from support import ROOT

PACKAGE = ROOT / "src" / "motif"
TOP_FILES, FUNCTION_LINES, SOURCE_LINES, TEST_LINES = 10, 60, 450, 600


def sources(folder: str) -> list[Path]:
    """The Python files below a folder of the repository."""
    return sorted((ROOT / folder).rglob("*.py"))


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file, each with the lines from its `def` to its end."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not house.circles(house.module_imports(ROOT))


def test_few_files_lie_at_the_top_of_the_package() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= TOP_FILES


def test_every_folder_of_tests_is_a_wing_or_known() -> None:
    wings = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    others = {"campaigns", "cases", "corpus", "docs", "engines", "golden", "hosts", "house", "support"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= wings | others
    assert not list((ROOT / "tests").glob("test_*.py"))


@pytest.mark.parametrize("folder", ["src", "tests", "tools", "benchmarks", "examples"])
def test_no_function_is_long(folder: str) -> None:
    long = [
        f"{file.relative_to(ROOT)}:{name} has {lines} lines"
        for file in sources(folder)
        for name, lines in functions(file)
        if lines > FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize(("folder", "most"), [("src", SOURCE_LINES), ("tests", TEST_LINES)])
def test_no_file_is_long(folder: str, most: int) -> None:
    counts = {file.relative_to(ROOT): len(file.read_text(encoding="utf-8").splitlines()) for file in sources(folder)}
    assert not {str(file): count for file, count in counts.items() if count > most}
