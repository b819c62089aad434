"""Inputs that the fuzzing campaign kept, and those that once failed, through its checks (tests/campaigns)."""

import json
import shutil

import inputs
import pytest
import targets

from support import ROOT

RECORDS = [json.loads(line) for line in (ROOT / "tests" / "corpus" / "inputs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_kept_inputs_keep_the_promises(name, tmp_path, monkeypatch):
    if name == "sandboxed" and not shutil.which("bwrap"):
        pytest.skip("needs bubblewrap")
    monkeypatch.setattr(targets, "SCRATCH", tmp_path)
    own = [record["input"] for record in RECORDS if record["target"] == name]
    assert own, "no input is kept"
    for one in own:
        assert isinstance(targets.TARGETS[name].check(one), str)
    targets.worker.cache_clear()


def test_every_target_has_inputs():
    assert inputs.INPUTS.keys() == targets.TARGETS.keys()


def test_a_broken_promise_is_noticed(monkeypatch):
    monkeypatch.setattr(targets, "harmless", lambda text: text)
    with pytest.raises(targets.Broken, match="no control characters"):
        targets.TARGETS["terminal"].check("\x1b[2J")
    monkeypatch.setattr(targets, "load_recipe", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        targets.TARGETS["recipe"].check("")
