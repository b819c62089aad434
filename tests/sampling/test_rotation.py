"""Rotated states: the same logits as without, for the models that have the form, and none for those that have not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from motif.models.int8 import Precision, rotated
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local import packing
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.int8_layers import Int8Layer
from motif.sampling.local.packing import Quantiser, sampling_weights
from support.architectures import HEADS, SMALL, ZOO, Architecture, build, shake_adapter

FORMS = {
    "Llama": ZOO["Llama"],
    "tied embeddings": Architecture("LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "biases everywhere": Architecture("LlamaConfig", SMALL | {"attention_bias": True, "mlp_bias": True}),
    "odd heads": Architecture("LlamaConfig", SMALL | {"head_dim": 6}),  # in which few values could be rotated together
    "Qwen2": ZOO["Qwen2"],  # biases of q, k and v
    "Qwen3": ZOO["Qwen3"],  # norms of queries and keys
    "Mistral, window": ZOO["Mistral, window"],
}
OTHERS = {
    "norms after": ZOO["OLMo 2"],
    "scaled embeddings": ZOO["Gemma"],
    "scaled branches": ZOO["Granite 3"],
    "layer norm": ZOO["Cohere"],
    "experts": Architecture("MixtralConfig", HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "one joint product": ZOO["Phi 3 and 4"],
}


class Unrounded:
    """`Int8Linear` with weights and inputs that are rotated in the same places, but not rounded."""

    def __init__(self, weight, bias=None, turned=0):
        self.weight, self.bias, self.turned = torch.cat([rotated(part, turned) for part in weight]), bias, turned

    def __call__(self, rows):
        return F.linear(rows if self.turned else rotated(rows), self.weight, self.bias)

    def taken(self, rows):
        return rows if self.turned else rotated(rows), rows.new_ones(len(rows), 1)

    def outputs(self, rows, steps):
        found = F.linear(rows, self.weight) * steps
        return found if self.bias is None else found + self.bias


def policy_of(one: Architecture, folder, monkeypatch) -> Policy:
    """With an adapter, biases and scales of norms that all do something, and layers that are large enough."""
    monkeypatch.setattr(packing, "LARGE", 1)
    policy = Policy(build(one, folder))
    shake_adapter(policy)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.add_(0.3 * torch.randn(parameter.shape))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return policy


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.head(policy.decoder(input_ids=torch.arange(5, 40)[None], use_cache=False).last_hidden_state)


@pytest.mark.parametrize("name", [*FORMS, *OTHERS])
@pytest.mark.parametrize("weights", ["current", "base"])
def test_before_rounding_logits_are_those_of_the_model(name, weights, tmp_path, monkeypatch):
    policy = policy_of((FORMS | OTHERS)[name], tmp_path, monkeypatch)
    monkeypatch.setattr(packing, "Int8Linear", Unrounded)
    if weights == "current":
        wanted = logits(policy)
    else:
        with policy.adapter_disabled():
            wanted = logits(policy)
    quantiser = Quantiser(policy)
    for _ in range(2):  # what is made once is used again
        with sampling_weights(policy, weights, quantiser):
            found = logits(policy)
        assert (quantiser.rotation is not None) == (name in FORMS)
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [*FORMS, *OTHERS])
def test_before_rounding_what_is_decoded_is_what_the_trainer_computes(name, tmp_path, monkeypatch):
    policy = policy_of((FORMS | OTHERS)[name], tmp_path, monkeypatch)
    monkeypatch.setattr(packing, "Int8Linear", Unrounded)
    sampler = LocalSampler(policy, 8, precision=Precision("int8", True))
    assert not sampler.path.general and sampler.precision.gaps.largest < 1e-3
    with sampler.open():
        joined = [isinstance(layer.forward, Int8Layer) for layer in policy.decoder.layers]
    assert all(joined) if name in FORMS else not any(joined)


@pytest.mark.parametrize("name", FORMS)
def test_only_the_inputs_of_down_are_rotated_anew(name, tmp_path, monkeypatch):
    policy = policy_of(FORMS[name], tmp_path, monkeypatch)
    quantiser = Quantiser(policy)
    with sampling_weights(policy, "current", quantiser):
        pass
    assert quantiser.rotation is not None
    names = {module: name.removesuffix(".base_layer") for name, module in policy.model.named_modules()}
    turning = {names[one].split(".")[-1] for one, turn in quantiser.rotation.turns.items() if not turn.turned}
    assert turning == ({"down_proj", "o_proj"} if name == "odd heads" else {"down_proj"})
    assert len(quantiser.rotation.turns) == 7 * len(policy.decoder.layers) + 1


def test_a_layer_in_float32_among_them_keeps_states_as_they_are(tmp_path, monkeypatch):
    policy = policy_of(FORMS["Llama"], tmp_path, monkeypatch)
    head = policy.model.get_output_embeddings()
    quantiser = Quantiser(policy, frozenset({(head.out_features, head.in_features)}))
    wanted = logits(policy)
    with sampling_weights(policy, "current", quantiser):
        found = logits(policy)
    assert quantiser.rotation is None
    assert (found - wanted).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3"])
def test_a_sampler_with_rotated_states_is_near_the_trainer_and_repeats_itself(name, tmp_path, monkeypatch):
    policy = policy_of(FORMS[name], tmp_path, monkeypatch)
    before = logits(policy)
    sampler = LocalSampler(policy, 8, precision=Precision("int8", True))
    assert sampler.quantiser.rotation is not None and 0 < sampler.precision.gaps.mean < 0.15

    def drawn(*requests: Request) -> dict:
        done = complete(sampler, list(requests))
        return {(one.request.prompt_ids[-1], one.index): (one.token_ids, one.logprobs) for one in done}

    one, other = Request(list(range(20, 50)), [1, 2, 3], 12), Request(list(range(30, 44)), [4], 8)
    both = drawn(one, other)
    assert both == drawn(one, other) and torch.equal(before, logits(policy))
    alone = drawn(one) | drawn(other)
    ours = torch.tensor([value for key in sorted(both) for value in both[key][1][:1]])
    theirs = torch.tensor([value for key in sorted(alone) for value in alone[key][1][:1]])
    assert (ours - theirs).abs().max() < 0.1
