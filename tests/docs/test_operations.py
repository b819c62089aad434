"""What a GPU would launch, counted on this machine: no number may grow without being committed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import operations

COMMITTED = json.loads((ROOT / "docs/performance/operations.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def counted() -> operations.Counts:
    return operations.count(2)


@pytest.mark.parametrize("part", COMMITTED["two_layers"])
def test_no_more_is_launched_than_is_committed(part: str, counted: operations.Counts) -> None:
    ceilings = COMMITTED["two_layers"][part]
    assert counted[part].keys() == ceilings.keys()
    assert {name: number for name, number in counted[part].items() if number > ceilings[name]} == {}


def test_a_step_is_a_thousand_launches_and_with_kernels_four_hundred() -> None:
    assert COMMITTED["counts"]["decoding"]["operations"] <= 1000
    assert COMMITTED["counts"]["decoding_kernels"]["operations"] <= 400


def test_each_layer_adds_the_same() -> None:
    two: Any = {"update": {"passes": 2, "operations": 100, "synchronisations": 3}}
    three: Any = {"update": {"passes": 2, "operations": 140, "synchronisations": 3}}
    found = operations.in_all_layers(two, three)["update"]
    assert found == {"passes": 2, "operations": 1460, "synchronisations": 3, "per_pass": 730}
