"""What the pages quote is what the files say: generated parts, intervals of studies, rooms, names of files."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import figures
import house
from support import ROOT, forked
from support.markdown import LINKED

INTERVAL = re.compile(r"(-?\d+(?:\.\d+)?)(?: %)?(?:\*\*)? \[(-?\d+(?:\.\d+)?)(?:, |–)(-?\d+(?:\.\d+)?)\]")


def test_the_generated_parts_are_as_their_files_make_them():
    command = [forked.python(), str(ROOT / "tools" / "pages.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python tools/pages.py writes these again:\n{done.stdout}{done.stderr}"


def estimates(value: Any) -> Iterator[tuple[float, float, float]]:
    """Every (estimate, low, high) in the numbers of a study."""
    if isinstance(value, dict):
        middle = next((value[key] for key in ("mean", "accuracy", "estimate") if key in value), None)
        if middle is not None and None not in (value.get("low"), value.get("high")):
            yield float(middle), float(value["low"]), float(value["high"])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from estimates(one)


OWN_DATA = {("0.74", "0.66", "0.80"), ("0.28", "0.11", "0.44")}
"""Of the run that docs/own-data.md makes, which is not kept."""


def quoted(page: Path) -> set[tuple[str, ...]]:
    """Every estimate with its interval that a page states, as text and without a plus."""
    text = page.read_text(encoding="utf-8").replace("−", "-").replace("+", "")
    return set(INTERVAL.findall(text))


@pytest.mark.parametrize("name", ["README.md", "docs/choose.md"])
def test_every_interval_quoted_is_a_result(name):
    study = ROOT / "studies" / "sample_efficiency"
    results = [json.loads(file.read_text()) for file in study.glob("results/**/*.json")]
    results.append(json.loads((ROOT / "docs" / "performance" / "demo.json").read_text()))
    known = quoted(study / "REPORT.md") | OWN_DATA
    for middle, *limits in estimates(results):
        for scale in (1, 100, -1, -100):
            numbers = [scale * one for one in (middle, *sorted(limits, key=lambda one: scale * one))]
            known |= {tuple(f"{one:.{digits}f}" for one in numbers) for digits in (1, 2)}
    assert quoted(ROOT / name)
    assert not quoted(ROOT / name) - known


PATHS = re.compile(r"(?<![\w/.-])(?:(?:src/)?motif|tests|studies|benchmarks|tools|examples)/[\w./-]+\.\w+\b")


def test_paths_named_on_pages_and_in_sources_exist():
    files = [ROOT / "Makefile", *LINKED, *(ROOT / "src").rglob("*.py"), *(ROOT / "examples").rglob("*.*")]
    named = {(file.name, path) for file in files for path in PATHS.findall(file.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert not {one for one in named if not (ROOT / one[1]).exists() and not (ROOT / "src" / one[1]).exists()}


def test_files_named_in_docstrings_exist():
    files = {file.name for file in (ROOT / "src").rglob("*") if file.is_file()} | {"motif.py"}  # the authors' script
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for named in re.findall(r"(?<![\w/.:-])(\w+\.(?:py|js|css))\b", ast.get_docstring(node) or ""):
                    assert named in files, f"{file.relative_to(ROOT)} names {named}"


def test_counting_rooms(tmp_path):
    """Imports of types and inside functions count, a circle is one link, and a room does not import itself."""
    source = {
        "__init__.py": "",
        "top.py": "def f():\n    from motif.left import one\n",
        "left/__init__.py": "",
        "left/one.py": "import motif.left.two\nfrom motif.right import name\n",
        "left/two.py": "import json\n",
        "right.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from motif.left.one import T\n",
    }
    for name, text in source.items():
        file = tmp_path / "src" / "motif" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    imports = house.module_imports(tmp_path)
    assert imports["motif.top"] == {"motif.left.one"}
    assert imports["motif.left.one"] == {"motif.left.two", "motif.right"}
    assert house.circles(imports) == [{"motif.left.one", "motif.right"}]
    assert house.levels(imports) == 3
    assert house.room_imports(imports) == {"motif": set(), "top": {"left"}, "left": {"right"}, "right": {"left"}}
    counts = house.counts(tmp_path)
    assert counts["Python files"] == 6
    assert counts["of them at the top level"] == counts["rooms"] == 3
    assert counts["imports between rooms"] == counts["pairs of rooms joined by an import"] == 3


def test_every_room_has_a_layer_and_a_purpose():
    rooms = {house.room(name) for name in house.modules(ROOT)} - {"motif"}
    placed = [name for layer in house.layers() for name in layer]
    assert sorted(placed) == sorted(rooms)
    for name in placed:
        assert len(house.purpose(name)) < 110, f"the first sentence of {name} is too long for the tree"


def test_the_figures_are_as_their_data_make_them():
    assert figures.figures() and not figures.stale()
    for name, draw in figures.figures().items():
        assert ElementTree.fromstring(draw()).tag.endswith("svg")
        assert (ROOT / "docs" / "figures" / name).stat().st_size < 20_000, f"{name} is to stay small"
