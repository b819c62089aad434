"""Decoding steps that are recorded and replayed: a CUDA graph's rules, kept by a stand-in on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from motif.config import ModelConfig
from motif.method.keys import sampling_key
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.graphs import CudaGraphs
from support.sampling import expand
from support.tape import Tape, tape


@pytest.fixture(scope="module")
def policy(tiny_model):
    torch.manual_seed(0)
    return Policy(ModelConfig(name=tiny_model, lora_rank=4))


def grown(policy: Policy, record: Any, rows: int) -> dict[Any, Completion]:
    """Trees of responses of up to 75 tokens: forks part, rows end, children come, the batch is filled again."""
    sampler, done, places = LocalSampler(policy, rows), {}, {}
    sampler.record = record

    def placed(place: tuple[int, ...], request: Request) -> Request:
        places[request] = place
        return request

    def then(completion: Completion) -> list[Request]:
        path = (*places[completion.request], completion.index)
        done[path] = completion
        if len(path) > 2:
            return []
        prompt = [*completion.request.prompt_ids[:5], *completion.token_ids[-4:], 9]
        keys = [sampling_key(path, fork) for fork in range(2)]
        return [placed(path, Request(prompt, keys, max_tokens=15 + 20 * len(path), temperature=0.7))]

    roots = [
        placed((n,), Request(list(range(10, 14 + 9 * n)), [sampling_key(n, fork) for fork in range(3)], max_tokens=20))
        for n in range(2)
    ]
    expand(sampler, roots, then)
    return done


@pytest.mark.parametrize("rows", [3, 16])
def test_recorded_steps_draw_what_plain_ones_draw(policy, rows):
    plain = grown(policy, None, rows)
    before = Tape.replays
    recorded = grown(policy, tape, rows)
    assert Tape.replays > before + 30
    assert recorded.keys() == plain.keys()
    for path, completion in plain.items():
        assert recorded[path].token_ids == completion.token_ids
        assert recorded[path].logprobs == pytest.approx(completion.logprobs, abs=1e-4)


def test_a_model_that_cannot_be_recorded_is_sampled_without(tiny_model, monkeypatch, capsys):
    def fail(run: Callable[[], Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(LocalSampler, "recorder", staticmethod(lambda device: fail))
    sampler = LocalSampler(Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu")))
    assert sampler.record is None
    assert "without CUDA graphs" in capsys.readouterr().err


def test_all_recordings_of_a_sampler_take_memory_from_one_pool(monkeypatch):
    """With doubles of torch's graphs: this machine may have no GPU."""
    pools, handles = [], iter(range(9))

    @contextmanager
    def graph(recording: Any, pool: int) -> Iterator[None]:
        pools.append(pool)
        yield

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    one, other = (LocalSampler.recorder(torch.device("cuda")) for _ in range(2))
    for record in (one, one, other, one):
        assert record is not None
        _, states = record(lambda: torch.ones(2))
        assert torch.equal(states, torch.ones(2))
    assert pools == [0, 0, 1, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_draw_what_plain_steps_draw(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cuda", dtype="float32"))
    plain, recorded = grown(policy, None, 64), grown(policy, CudaGraphs(), 64)
    for path, completion in plain.items():
        assert recorded[path].token_ids == completion.token_ids
        assert recorded[path].logprobs == pytest.approx(completion.logprobs, abs=1e-4)
