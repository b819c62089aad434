"""A mixture of experts trains with the experts that it was sampled with."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from motif.models.experts import recorded_choices, share_changed
from motif.models.path import FAST, GENERAL
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Minibatch, Sample
from support.tiny import SMALL, write_model

HEADS = SMALL | {"head_dim": 8, "initializer_range": 0.3}
KINDS = {
    "Qwen3MoeConfig": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "MixtralConfig": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "GptOssConfig": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "DeepseekV3Config": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    | {"moe_intermediate_size": 32, "first_k_dense_replace": 0, "q_lora_rank": 8, "kv_lora_rank": 8}
    | {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4},
}


def model(kind: str, tiny_model: str, folder, **settings) -> Policy:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = write_model(folder, kind, HEADS | KINDS[kind], tokenizer)
    return Policy(config.model_copy(update={"adapter": "lora"} | settings))


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_and_update_choose_the_same_experts(kind, tiny_model, tmp_path):
    policy, rng = model(kind, tiny_model, tmp_path), random.Random(0)
    prompt = [rng.randrange(6, 100) for _ in range(30)]
    for path in (FAST, GENERAL):
        policy.update_path, sampler = path, LocalSampler(policy, 8, path)
        with recorded_choices(policy.model) as decoded:
            [done] = complete(sampler, [Request(prompt, [1], max_tokens=20)])
        response = done.token_ids
        with recorded_choices(policy.model) as updated:
            Minibatch(policy, [Sample(prompt, response, [0.0] * len(response), 1.0, 1.0, 1.0)]).logprobs(512)
        layers, known = len(updated), len(prompt) + len(response) - 1
        assert layers == policy.text_config.num_hidden_layers
        by_layer = [torch.cat(decoded[layer::layers]) for layer in range(layers)]
        assert [choices.shape for choices in by_layer] == [(known, 2)] * layers
        assert len({tuple(row) for choices in by_layer for row in choices.tolist()}) > 8  # they do choose
        assert share_changed(by_layer, [choices[:known] for choices in updated]) == 0


def test_bfloat16_says_how_many_tokens_go_to_other_experts(tiny_model, tmp_path):
    policy = model("MixtralConfig", tiny_model, tmp_path, dtype="bfloat16")
    assert 0 < LocalSampler(policy, 8).path.rerouted < 0.2


def test_the_share_counts_tokens_of_all_layers():
    before = [torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 1], [0, 1]])]
    assert share_changed(before, before) == share_changed([], []) == 0
    assert share_changed(before, [before[0], torch.tensor([[0, 1], [0, 2]])]) == 0.25
