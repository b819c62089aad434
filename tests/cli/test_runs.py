"""`motif resume` and `motif runs`, as a user meets them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from support.runs import fake_run

TINY = [
    *("model.adapter=lora", "model.lora_rank=4", "rollout.questions_per_step=1", "rollout.branching=[4,1,1]"),
    *("train.save_every=1", "rollout.tokens_first=18", "rollout.tokens_continue=16", "rounds.note_tokens=12"),
    *("eval.questions=0", "train.microbatch_tokens=512", "data.arithmetic.smallest=10", "data.arithmetic.largest=16"),
]


def call(*arguments, status=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output + repr(done.exception)
    return " ".join(done.output.split())


def test_resume_needs_only_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train", "demo", "--out", "runs/a", *(part for s in [*TINY, "train.steps=1"] for part in ("--set", s)))
    shutil.copytree("runs/a", "runs/copy")
    for recipe in ("runs/copy", "runs/copy/recipe.toml"):
        assert "`motif resume runs/copy`" in call("train", recipe, status=2)
    text = call("resume", "runs/copy", "--set", "rollout.branching=[4,2,1]", status=2)
    assert "rollout.branching: [4, 1, 1] → [4, 2, 1]" in text and "recipe demo" not in text  # before the plan
    weights = Path("runs/copy/adapter/adapter_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert "--set train.steps=2" in call("resume", "runs/copy")
    assert weights.read_bytes() == whole  # what a damaged file's error promises
    text = call("resume", "runs/copy", "--set", "train.steps=2")
    assert "changed: train.steps: 1 → 2" in text and "step 2/2" in text
    lines = [json.loads(line) for line in call("runs", "--json").replace("} {", "}\n{").splitlines()]
    assert {line["run"]: (line["state"], line["step"], line["steps"]) for line in lines} == {
        "runs/a": ("finished", 1, 1),
        "runs/copy": ("finished", 2, 2),
    }


def test_the_table_names_what_failed_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in call("runs", status=2)
    (tmp_path / "runs").mkdir()
    assert "no run in runs yet" in call("runs")
    fake_run(tmp_path / "runs/good one")
    (fake_run(tmp_path / "runs/bad", steps=3, after=None) / ".writer").write_text('{"failed": "the disk is full."}')
    text = call("runs")
    assert "runs/good one finished 60 of 60" in text and "runs/bad failed 3 of 60" in text
    assert "runs/bad failed: the disk is full. Go on: motif resume runs/bad" in text


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_without_a_run(tmp_path, command):
    assert "no such folder" in call(command, tmp_path / "nowhere", status=2)
