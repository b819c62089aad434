"""The two scripts of docs/from-trl.md run, with a model of this package in the place of one that is downloaded."""

from __future__ import annotations

import json
import os
import re

import pytest

from motif.demo import MODELS
from support import ROOT
from support.markdown import blocks

NAME = "Qwen/Qwen2.5-0.5B-Instruct"


def script(name: str, *changes: tuple[str, str]) -> str:
    """A script of the page with a few things replaced, each of which has to be there."""
    [block] = [block for block in blocks(ROOT / "docs" / "from-trl.md") if block.file == name]
    text = block.text
    for old, new in changes:
        assert re.search(old, text), f"{name}: {old}"
        text = re.sub(old, new, text)
    return text


@pytest.fixture(autouse=True)
def _beside_the_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "products.py").write_text(script("products.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "products", raising=False)


def test_the_script_with_motif(tmp_path):
    small = '"train.learning_rate": 1e-5, "rollout.questions_per_step": 1, "eval.questions": 4, "train.threads": 1'
    text = script(
        "with_motif.py",
        ('"recommended"', '"demo"'),  # the wording that the embedded model knows
        (NAME, "embedded"),
        ("steps=100", "steps=1"),
        ("\\[4, 2, 1\\]", "[2, 1, 1]"),
        (": 512", ": 24"),
        ('"train.learning_rate": 1e-5', small),
    )
    exec(compile(text, "with_motif.py", "exec"), {})
    metrics, trees = (
        [json.loads(line) for line in (tmp_path / "runs" / "products" / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "trees.jsonl")
    )
    [line] = [line for line in metrics if "outcome/mean" in line]
    assert line["step"] == 1 and 0 <= line["outcome/mean"] <= 1
    leaves = [leaf for tree in trees for root in tree["responses"] for leaf in root["children"][0]["children"]]
    assert {leaf["verdict"] for leaf in leaves} <= {"right", "partial", "wrong"}


@pytest.mark.slow
def test_the_script_with_trl(tmp_path):
    pytest.importorskip("trl")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    small = 'learning_rate=1e-5, use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=2'
    text = script(
        "with_trl.py",
        (NAME, str(MODELS["embedded"])),
        ("max_steps=100", "max_steps=1"),
        ("num_generations=8", "num_generations=2"),
        ("max_completion_length=512", "max_completion_length=8"),
        ("learning_rate=1e-5", small),
    )
    exec(compile(text, "with_trl.py", "exec"), {})
    assert (tmp_path / "runs" / "trl" / "model.safetensors").is_file()
