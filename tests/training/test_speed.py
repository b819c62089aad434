"""What the general path costs is measured where it is taken, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

import motif.sampling.local.batch
from motif.config import ModelConfig
from motif.models.path import FAST, GENERAL, Path
from motif.models.policy import Policy
from motif.sampling.local.batch import LocalSampler
from motif.training.speed import measure_slowdown


@pytest.fixture
def policy(tiny_model) -> Policy:
    policy = Policy(ModelConfig(name=str(tiny_model), lora_rank=4, device="cpu"))
    policy.update_path = FAST
    return policy


def test_fast_paths_are_timed_only_if_asked(policy):
    sampler = LocalSampler(policy, 8)
    measure_slowdown(policy, sampler)
    assert sampler.path.slower is None and policy.update_path.slower is None
    measure_slowdown(policy, sampler, always=True)
    assert sampler.path == FAST and policy.update_path == FAST
    assert sampler.path.slower > 0 and policy.update_path.slower > 0


def test_nothing_is_left_behind(policy):
    sampler, before = LocalSampler(policy, 8), policy.state()
    sampler.path, policy.update_path, gaps = Path("windows"), GENERAL, sampler.path.gaps
    sampler.path = Path("windows", gaps)
    measure_slowdown(policy, sampler)
    assert sampler.path == Path("windows") and sampler.path.gaps == gaps and policy.update_path == GENERAL
    assert sampler.path.slower and policy.update_path.slower
    assert sampler.usage.generated_tokens == 0 and sampler.usage.prefill_tokens == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state().items())
    assert all(parameter.grad is None for parameter in policy.trainable())


def test_a_fast_path_that_cannot_run_has_no_seconds(policy, monkeypatch):
    sampler = LocalSampler(policy, 8)
    sampler.path = Path("no cache of its own")

    def fail(*_):
        raise TypeError("no cache of its own")

    monkeypatch.setattr(motif.sampling.local.batch, "TreeMemory", fail)
    measure_slowdown(policy, sampler)
    assert sampler.path == Path("no cache of its own") and sampler.path.slower is None
