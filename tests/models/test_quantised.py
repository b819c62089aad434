"""Checkpoints in FP8 and MXFP4 are read as plain numbers, trained, and written as plain numbers."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from motif.errors import ModelError
from motif.models.policy import Policy
from motif.models.shape import model_shape
from motif.runs.weights import load_weights, save_weights
from support.architectures import ZOO, build
from support.quantised import to_fp8, to_mxfp4

STORED = {
    "blocks": ("Qwen3", partial(to_fp8, block=(32, 32))),
    "blocks larger than weights": ("Qwen3", partial(to_fp8, block=(128, 128))),
    "one scale a weight": ("Ministral 3", partial(to_fp8, block=None)),
    "experts one by one": ("Qwen3-MoE", partial(to_fp8, block=(32, 32))),
    "latent attention": ("DeepSeek V3", partial(to_fp8, block=(32, 32))),
    "four bits": ("gpt-oss", to_mxfp4),
}


@pytest.mark.parametrize("kind", STORED)
def test_what_is_quantised_becomes_plain_and_stays_so(kind, tmp_path, capfd):
    name, store = STORED[kind]
    config = build(ZOO[name], tmp_path / "base").model_copy(update={"adapter": "full"})
    plain = Policy(config).state()
    store(tmp_path / "base")
    shape = model_shape(config.name)
    assert shape.counts.parameters == sum(weight.numel() for weight in plain.values())
    assert shape.stored == ("mxfp4" if store is to_mxfp4 else "fp8")
    capfd.readouterr()
    policy = Policy(config)
    assert "dequantiz" not in capfd.readouterr().err
    state = policy.state()
    assert state.keys() == plain.keys() and {weight.dtype for weight in state.values()} == {torch.float32}
    moved = [(state[key] - plain[key]).abs().max() / plain[key].abs().max() for key in state]
    assert 0.01 < max(moved) < (0.26 if store is to_mxfp4 else 0.07)  # rounding; four bits end at 6 of 8
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run", policy)
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    assert not any("scale" in key for key in saved)
    assert "quantization_config" not in json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    policy.load_state({key: torch.zeros_like(weight) for key, weight in state.items()})
    load_weights(tmp_path / "run", policy)
    assert all(torch.equal(weight, state[key]) for key, weight in policy.state().items())


def test_blocks_that_are_not_whole_are_refused(tmp_path):
    """transformers would take three blocks of 64 over 160 rows for others, or those of 96 rows for blocks of 48."""
    config = build(ZOO["Qwen3"], tmp_path)
    to_fp8(tmp_path, (64, 64))
    for read in (lambda: model_shape(config.name), lambda: Policy(config)):
        with pytest.raises(ModelError, match=r"blocks of 64 × 64 do not divide .* \(.*96.*\).*name a version"):
            read()


def test_other_ways_are_refused_with_a_way_out(tmp_path):
    config = build(ZOO["Qwen3"], tmp_path)
    file = tmp_path / "config.json"
    for method in ("compressed-tensors", "gptq", "awq", "modelopt"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": method}}))
        with pytest.raises(ModelError, match=f"stored quantised \\({method}\\).*name the model that it was made from"):
            model_shape(config.name)
