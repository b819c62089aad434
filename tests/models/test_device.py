"""Devices: names that are not there are refused in one sentence, and precision follows what a device really does.

This machine may have no GPU: what concerns one is shown with doubles of torch's answers.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import ModelConfig, Recipe, load_recipe
from motif.errors import ModelError, RecipeError
from motif.models import device as module
from motif.models.device import give_back_memory, pick_device, to_device, weight_dtype
from motif.planning.devices import TABLE
from motif.planning.memory import is_half
from motif.sampling.local.batch import LocalSampler
from support.updates import lora

UNKNOWN = [
    "",
    "gpu",
    "CUDA",
    "cuda:",
    "cuda:x",
    "cuda:-1",
    "cuda:01",
    "cuda1",
    "xpu",
    "tpu",
    "meta",
    "hpu",
    "cpu:0",
    "mps:0",
]


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs of some compute capability, as torch would tell of it."""

    def machine(count: int, major: int = 9) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or major >= 8
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return machine


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_that_is_no_device_is_refused(name):
    with pytest.raises(RecipeError, match="is not a device: use 'auto', 'cpu', 'cuda'"):
        load_recipe("demo", [f"model.device='{name}'"])
    with pytest.raises(ModelError, match="is not a device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("count", "name", "said"),
    [
        (0, "cuda", "torch finds no CUDA GPU here"),
        (0, "cuda:1", "torch finds no CUDA GPU here"),
        (1, "cuda:1", "this machine has 1 CUDA GPU, counted from cuda:0"),
        (2, "cuda:7", "this machine has 2 CUDA GPUs"),
        (0, "mps", "no GPU of Apple's"),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpus, count, name, said):
    gpus(count)
    with pytest.raises(ModelError, match=f"model.device = '{name}', but .*{said}.*set model.device = 'auto' or 'cpu'"):
        pick_device(name)


def test_devices_that_are_there_are_taken(gpus):
    gpus(2)
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    gpus(0)
    assert str(pick_device("auto")) == "cpu"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "demo", "--dry-run"],
        ["train", "demo", "--out", "OUT"],
        ["eval", "embedded", "--recipe", "demo"],
        ["solve", "1+1", "--recipe", "demo"],
        ["serve", "embedded", "--recipe", "demo"],
        ["vllm-command", "demo", "--set", "model.adapter=lora"],
    ],
)
@pytest.mark.parametrize("name", ["mps", "cuda:7", "gpu"])
def test_every_command_refuses_it_before_any_work(gpus, words, name, tmp_path, monkeypatch):
    gpus(0)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, "--set", f"model.device={name}"])
    assert result.exit_code == 2, result.output
    said = [line for line in result.output.splitlines() if line.startswith("motif: ")]
    assert len(said) == 1 and "model.device" in said[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("major", "dtype"), [(7, torch.float32), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_emulated_bfloat16_is_not_support(gpus, major, dtype):
    gpus(1, major)
    assert weight_dtype(ModelConfig(), torch.device("cuda")) == dtype
    assert weight_dtype(ModelConfig(dtype="float32"), torch.device("cuda")) == torch.float32
    assert weight_dtype(ModelConfig(), torch.device("cpu")) == torch.float32


def test_plans_for_other_devices_know_which_multiply_in_bfloat16():
    assert is_half(Recipe(), TABLE["A10"]) and not is_half(Recipe(), TABLE["T4"])


def test_nothing_in_double_precision_goes_to_mps():
    sent = to_device(np.array([0.25, 0.5]), torch.device("cpu"))
    assert sent.dtype == torch.float64

    class Mps:
        type = "mps"

    tensors = []
    real = torch.from_numpy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "from_numpy", lambda array: tensors.append(array.dtype) or real(array))
        patch.setattr(torch.Tensor, "to", lambda self, device: self)
        to_device(np.array([0.25, 0.5]), Mps())
        to_device(np.array([1, 2]), Mps())
    assert tensors == [np.float32, np.int64]


def test_a_numbered_gpu_is_the_current_one_while_it_samples(tiny_model, monkeypatch):
    entered = []

    @contextmanager
    def entering(device):
        entered.append(str(device))
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device", entering)
        with module.current(torch.device("cuda:1")):
            assert entered == ["cuda:1"]
        with module.current(torch.device("cpu")), module.current(torch.device("cuda")):
            assert entered == ["cuda:1"]
    sampler = LocalSampler(lora(tiny_model))
    monkeypatch.setattr("motif.sampling.local.batch.current", entering)
    with sampler.open():
        assert entered[1:] == ["cpu"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_is_given_back_to_the_system():
    torch.ones(7_500_000)  # blocks of up to this size, freed once, come from the heap from now on
    before = resident()
    blocks = [(torch.ones(1_500_000), torch.ones(20_000)) for _ in range(60)]  # 365 MB, with small ones between
    small = [block[1] for block in blocks]
    del blocks
    give_back_memory()
    assert len(small) == 60 and resident() - before < 60e6


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
