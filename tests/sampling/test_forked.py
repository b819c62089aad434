"""The general way to decode: transformers' own caches, forked; nothing else differs from the fast one."""

from collections import deque

import pytest
import torch
from transformers import AutoTokenizer

from motif.config import ModelConfig
from motif.models.path import FAST, GENERAL, Path
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.forked import gather
from support.tiny import SMALL, write_model

RECURRENT = SMALL | {"block_ff_dim": 64, "layer_types": ["conv", "full_attention"], "initializer_range": 0.3}


@pytest.fixture(scope="module")
def recurrent(tiny_model, tmp_path_factory) -> Policy:
    folder = tmp_path_factory.mktemp("recurrent")
    return Policy(write_model(folder, "Lfm2Config", RECURRENT, AutoTokenizer.from_pretrained(tiny_model)))


def requests() -> list[Request]:
    prompts = [[7, *range(20, 20 + length)] for length in (3, 9, 9, 14)]
    return [Request(p, [4 * i, 4 * i + 1, 4 * i + 2], max_tokens=5 + 4 * i) for i, p in enumerate(prompts)]


def texts(sampler: LocalSampler, asked: list[Request]) -> dict:
    return {(one.request.keys[one.index]): one.token_ids for one in complete(sampler, asked)}


def test_both_ways_draw_the_same_responses(tiny_model):
    policy = Policy(ModelConfig(name=str(tiny_model), lora_rank=4, device="cpu"))
    fast, general = LocalSampler(policy, 8), LocalSampler(policy, 8, GENERAL)
    assert fast.path == FAST and general.path == GENERAL
    assert texts(fast, requests()) == texts(general, requests())


def test_batched_responses_are_those_sampled_one_by_one(recurrent):
    sampler = LocalSampler(recurrent, 8, GENERAL)
    assert sampler.path.general
    alone: dict = {}
    for request in requests():
        for key in request.keys:
            alone |= texts(sampler, [Request(request.prompt_ids, [key], max_tokens=request.max_tokens)])
    assert texts(sampler, requests()) == alone
    assert sampler.usage.prefill_tokens > 0


def test_log_probabilities_are_the_plain_pass_s(recurrent):
    for one in complete(LocalSampler(recurrent, 5, GENERAL), requests()):
        wanted, _ = recurrent.token_logprobs([one.request.prompt_ids], [one.token_ids], [1.0])
        torch.testing.assert_close(torch.tensor(one.logprobs), wanted.detach(), atol=1e-4, rtol=1e-4)


def test_equal_prompts_are_read_once_and_the_cancelled_leave(recurrent):
    sampler = LocalSampler(recurrent, 8, GENERAL)
    sampler.usage.prefill_tokens = 0
    stays, goes = (Request(list(range(20, 30)), keys, max_tokens=12) for keys in ([1, 2], [3, 4]))
    with sampler.open() as batch:
        batch.ends = batch.ends[:0]
        queue = deque([(stays, range(2)), (goes, range(2))])
        for _ in range(4):
            batch.step(queue, at_once=True)
        assert sampler.usage.prefill_tokens == 10
        batch.cancel(lambda request: request is goes)
        done = [one for _ in range(12) if batch.count for one in batch.step(queue)]
    assert sorted(one.index for one in done) == [0, 1]
    for one in done:
        wanted, _ = recurrent.token_logprobs([stays.prompt_ids], [one.token_ids], [1.0])
        torch.testing.assert_close(torch.tensor(one.logprobs), wanted.detach(), atol=1e-4, rtol=1e-4)


def passes(policy: Policy, sampler: LocalSampler, monkeypatch) -> list[int]:
    """Rows of each decoding pass."""
    rows: list[int] = []
    forward = policy.decoder.forward

    def counting(*args, **options):
        if options["input_ids"].shape[1] == 1:
            rows.append(len(options["input_ids"]))
        return forward(*args, **options)

    monkeypatch.setattr(policy.decoder, "forward", counting)
    texts(sampler, requests())
    monkeypatch.undo()
    return rows


@pytest.mark.parametrize("window", [None, 8])
def test_rows_of_any_length_share_a_pass_where_only_keys_and_values_are_kept(window, tiny_model, tmp_path, monkeypatch):
    options = SMALL | {"sliding_window": window, "initializer_range": 0.3}
    policy = Policy(write_model(tmp_path, "MistralConfig", options, AutoTokenizer.from_pretrained(tiny_model)))
    sampler = LocalSampler(policy, 20, GENERAL)
    together = passes(policy, sampler, monkeypatch)
    found = texts(sampler, requests())
    for one in complete(sampler, requests()):
        wanted, _ = policy.token_logprobs([one.request.prompt_ids], [one.token_ids], [1.0])
        torch.testing.assert_close(torch.tensor(one.logprobs), wanted.detach(), atol=1e-4, rtol=1e-4)
    sampler.padded = False
    assert texts(sampler, requests()) == found
    assert max(together) > 6 and len(together) < len(passes(policy, sampler, monkeypatch)) / 1.5


def test_recurrent_states_never_see_padding(recurrent, monkeypatch):
    assert max(passes(recurrent, LocalSampler(recurrent, 20, GENERAL), monkeypatch)) <= 6  # of two prompts of 10 tokens


def test_a_model_that_does_not_heed_masks_is_decoded_length_by_length(tiny_model, monkeypatch):
    policy = Policy(ModelConfig(name=str(tiny_model), lora_rank=4, device="cpu"))
    forward = type(policy.decoder).forward

    def deaf(self, input_ids, past_key_values=None, use_cache=None, attention_mask=None, position_ids=None):
        return forward(self, input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache)

    monkeypatch.setattr(type(policy.decoder), "forward", deaf)
    sampler = LocalSampler(policy, 8, GENERAL)
    assert sampler.path == GENERAL and not sampler.padded and sampler.path.gaps.largest < 1e-4


def test_caches_of_other_lengths_are_not_joined():
    rows = [{"states": torch.zeros(1, 2), "length": length} for length in (3, 4)]
    with pytest.raises(NotImplementedError, match="cannot be joined"):
        gather(rows, [1, 1], [torch.tensor([0])] * 2)


def test_a_path_says_why_it_is_not_the_fast_one():
    assert str(FAST) == "fast" and str(Path("windows")) == "general (windows)"
