"""What users see, and every bit that runs compute, is as frozen by `make.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golden import make
from support import forked

HERE = Path(__file__).parent


def frozen(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    make.python = forked.python()
    yield
    make.python = sys.executable


@pytest.fixture(scope="module")
def interface(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make.interface(tmp_path_factory.mktemp("interface"))


@pytest.mark.parametrize("command", ["motif", *make.COMMANDS])
def test_the_help_of_every_command(command: str, interface: dict[str, Any]) -> None:
    assert interface["help"][command] == frozen(make.INTERFACE)["help"][command]


def test_the_public_names(interface: dict[str, Any]) -> None:
    assert interface["all"] == frozen(make.INTERFACE)["all"]


@pytest.mark.parametrize("recipe", make.RECIPES)
def test_what_recipes_come_to(recipe: str, interface: dict[str, Any]) -> None:
    before, now = frozen(make.INTERFACE)["recipes"][recipe], interface["recipes"][recipe]
    assert {key: before[key] for key in now} == now
    assert not {key for key in before if key not in now and not key.startswith("data.")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make.motif(*make.DEMO, "--out", "plain", folder=folder)
    return folder


def test_the_files_and_keys_of_a_run(runs: Path) -> None:
    assert make.folder_keys(runs / "plain") == frozen(make.NUMBERS)["folder"]


@pytest.mark.slow
def test_every_bit_that_runs_compute(runs: Path) -> None:
    before = frozen(make.NUMBERS)
    if (here := make.machine()) != before["machine"]:
        pytest.skip(f"frozen on another machine: {before['machine']}, and this is {here}")
    assert make.numbers(runs) == before["runs"]
