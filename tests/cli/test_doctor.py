"""`motif doctor --model`: what a model is, how it thinks, what it needs and which paths it takes, or why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import motif.training.examine
from motif.cli.app import app
from support.architectures import ZOO, build
from support.templates import REASONING, tokenizer_of


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["doctor", "--set", "model.device=cpu", *map(str, arguments)])


def examined(model: object, *more: str) -> dict:
    result = doctor("--model", model, "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid")
    build(ZOO["Qwen3.5"], folder, tokenizer_of(REASONING["qwen3.5"][0]))
    return folder


def test_a_thinking_hybrid_is_told_from_layers_to_paths(hybrid):
    found = examined(hybrid)
    assert found["architecture"] == "Qwen3_5ForCausalLM" and found["refused"] is None and found["recurrent"]
    assert found["layers"] == {"linear attention": 1, "full attention": 1} and found["context"] == 1024
    assert (found["heads"], found["key_value_heads"], found["vocabulary"]) == (4, 2, 298)
    template = found["template"]
    assert template["marks"] == ["<think>", "</think>"] and template["opening"] == "<think>\n"
    assert [(one["name"], one["value"]) for one in template["off"]] == [("enable_thinking", False)]
    assert set(found["memory"]) == {"lora", "full"} and found["memory"]["lora"]["weights"] > 0
    assert found["end_tokens"] == ["<|im_end|>", "<|endoftext|>"]
    for way in found["paths"].values():
        assert way["path"] == "fast" and 0 < way["mean_gap"] < way["largest_gap"] < 1e-4 and way["times_slower"] > 0


def test_the_same_in_words(hybrid):
    result = doctor("--model", hybrid, "--set", "model.adapter=full")
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    for part in (
        "Qwen3_5ForCausalLM (qwen3_5_text)",
        "2 layers (1 linear attention, 1 full attention), 4 heads on 2 of keys and values",
        "between '<think>' and '</think>' (rounds.think = 'model'); the template writes '<think>\\n' itself",
        "rounds.template_variables = {enable_thinking = false}",
        "enable_thinking = false: a response begins with",
        "all weights, 109,176 of 109,176 parameters",
        "measured here and now, on a few tokens",
        "works: motif train recommended --set model.name=",
    ):
        assert part in words, part


def test_a_general_path_is_told_with_its_reason(tmp_path):
    build(ZOO["Falcon"], tmp_path)
    found = examined(tmp_path)
    sampler = found["paths"]["sampler"]
    assert sampler["path"] == "general" and sampler["reason"] and sampler["largest_gap"] < 1e-4
    assert sampler["times_slower"] is None  # the fast one cannot run
    assert found["notes"][0].startswith("sampling takes the general")


def test_a_base_model_without_a_template_works(tmp_path):
    build(ZOO["Qwen2"], tmp_path, tokenizer_of(None))
    assert examined(tmp_path)["template"] is None


def test_what_is_known_of_a_refused_model_is_told_before_its_refusal(tmp_path):
    build(ZOO["MiniMax"], tmp_path)
    result = doctor("--model", tmp_path, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 2 and found["architecture"] == "MiniMaxForCausalLM" and "paths" not in found
    assert "cannot be sampled here" in found["refused"] and found["refused"] in result.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "is an encoder"),
        ({"model_type": "whisper"}, "an encoder with a decoder"),
        ({"model_type": "clip"}, "name a model that writes text"),
        ({"model_type": "nobody", "auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ({}, "names no model_type"),
    ],
)
def test_what_writes_no_text_is_refused_in_a_sentence(config, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = doctor("--model", tmp_path)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1 and not result.stdout


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    build(replace(ZOO["Qwen2"], spare=1000), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": 1100}))
    result = doctor("--model", tmp_path)
    assert result.exit_code == 2 and "do not belong together" in result.stderr


def test_weights_that_do_not_fit_are_not_loaded(hybrid, monkeypatch):
    monkeypatch.setattr(motif.training.examine, "available_memory", lambda device: 1e6)
    monkeypatch.setattr(motif.training.examine, "Policy", None)
    result = doctor("--model", hybrid)
    assert result.exit_code == 2 and "need about 0.5 GiB, and 0.0 are free on cpu" in result.stderr
    assert "Qwen3_5ForCausalLM" in result.stdout  # what is known is still told


@pytest.mark.parametrize("arguments", [["--json"], ["--recipe", "demo"], ["--set", "train.steps=1"]])
def test_options_of_a_model_need_one(arguments):
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 2 and "go with --model" in result.output
