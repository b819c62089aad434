"""Which way an update computes is found out by comparing it with plain passes."""

import random

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import motif.training.batch
from motif.config import ModelConfig, Recipe
from motif.errors import ModelError
from motif.models.path import FAST, GENERAL, Gaps, Path
from motif.models.policy import Policy
from motif.models.prefix import ImplicitMask
from motif.sampling.local.batch import LocalSampler
from motif.session import Session
from motif.training.check import choose_update_path
from motif.training.update import update
from support.architectures import ZOO, build, shake_adapter
from support.tiny import SMALL, write_model
from support.updates import Keep, plain_gradient, sample


def tiny(folder) -> Policy:
    return Policy(ModelConfig(name=str(folder), lora_rank=4, device="cpu"))


def test_a_plain_model_shares_prompts_and_is_left_as_it_was(tiny_model):
    policy = tiny(tiny_model)
    before = policy.state()
    assert choose_update_path(policy) == FAST
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state().items())
    assert all(parameter.grad is None for parameter in policy.trainable())


def test_kernels_that_know_no_mask_by_name_are_given_numbers(tiny_model, monkeypatch):
    def unknown(*args, **kwargs):
        raise RuntimeError("no kernel for this mask")

    policy = tiny(tiny_model)
    policy.implicit_masks = True
    assert choose_update_path(policy) == FAST and policy.implicit_masks
    monkeypatch.setattr(ImplicitMask, "_dispatch", staticmethod(unknown))
    assert choose_update_path(policy) == FAST and not policy.implicit_masks


def test_a_small_difference_is_told(tiny_model, monkeypatch):
    policy = tiny(tiny_model)
    plain = policy.token_logprobs
    monkeypatch.setattr(policy, "token_logprobs", lambda *args: tuple(part + 3e-4 for part in plain(*args)))
    path = choose_update_path(policy)
    assert not path.general and path.gap == pytest.approx(3e-4, rel=0.1)
    session = Session(Recipe(), None, policy, None, LocalSampler(policy), None)
    [line] = session.paths.warnings()
    assert line.startswith("log-probabilities of updates differ from a plain pass by up to 0.0003 nats")
    session.sampler.path = Path("windows", Gaps(1e-5, 2e-4), rerouted=0.012)
    lines = session.paths.warnings()
    assert [line.split()[0] for line in lines] == ["sampling", "log-probabilities", "log-probabilities", "rounding"]
    assert "sends 1 % of tokens to other experts" in lines[-1]


def test_a_wrong_gradient_with_right_log_probabilities_is_noticed(tiny_model, monkeypatch):
    policy = tiny(tiny_model)
    given = motif.training.batch.detach_for_children
    monkeypatch.setattr(motif.training.batch, "detach_for_children", lambda *both: given(*both)[:0])
    path = choose_update_path(policy)
    assert path.general and path.reason.startswith("gradients are off")


@pytest.mark.parametrize("seen", [True, False])
def test_a_window_is_checked_however_wide(seen, tiny_model, tmp_path):
    options = SMALL | {"sliding_window": 500, "max_position_embeddings": 1000, "initializer_range": 0.3}
    policy = Policy(write_model(tmp_path, "MistralConfig", options, AutoTokenizer.from_pretrained(tiny_model)))
    policy.local = seen  # whether its layers get masks of their own
    choose_update_path(policy)
    assert policy.update_path.general != seen and policy.text_config.sliding_window == 500


def test_what_sees_the_padding_is_refused(tiny_model, monkeypatch):
    policy = tiny(tiny_model)
    own = policy.decoder.forward

    def sees_all(*args, **kwargs):
        output = own(*args, **kwargs)
        states = output.last_hidden_state
        output.last_hidden_state = states + states.mean(1, keepdim=True)
        return output

    monkeypatch.setattr(policy.decoder, "forward", sees_all)
    with pytest.raises(ModelError, match="cannot be trained: log-probabilities are off"):
        choose_update_path(policy)


@pytest.mark.parametrize("name", ["LFM2", "BLOOM", "GPT-Neo"])
@pytest.mark.parametrize("budget", [20, 500])
def test_gradients_of_the_general_path_are_those_one_by_one(budget, name, tmp_path):
    policy = Policy(build(ZOO[name], tmp_path))
    shake_adapter(policy)
    policy.update_path = GENERAL
    rng, prompt = random.Random(0), list(range(20, 36))
    samples = [sample([*prompt, end], list(range(40, 40 + end)), rng) for end in (3, 3, 7, 9)]
    run = Recipe.model_validate({"train": {"max_grad_norm": 1e9, "microbatch_tokens": budget}})
    plain, optimizer = plain_gradient(policy, samples, run), Keep(policy.trainable(), lr=0.0)
    update(policy, optimizer, samples, run)
    scale = max(gradient.abs().max().item() for gradient in plain)
    for ours, wanted in zip(optimizer.seen, plain, strict=True):
        assert (ours - wanted).abs().max().item() < 1e-5 * scale


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_in_bfloat16_the_fast_path_is_found_right(adapter, tiny_model):
    """The comparison is in float32, also where a part of the pass is computed again in the backward one."""
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, adapter=adapter, dtype="bfloat16", device="cpu"))
    assert policy.half
    assert choose_update_path(policy) == FAST


def test_the_general_path_may_be_asked_for(tiny_model):
    policy = tiny(tiny_model)
    policy.update_path = GENERAL
    rng = random.Random(0)
    samples = [sample(list(range(20, 40)), [40, 41], rng) for _ in range(2)]
    assert update(policy, Keep(policy.trainable(), lr=0.0), samples, Recipe()).computed_tokens == 2 * 21


def test_what_was_not_compared_shares_nothing(tiny_model):
    policy, rng = tiny(tiny_model), random.Random(0)
    samples = [sample(list(range(20, 40)), [40, 41], rng) for _ in range(2)]
    assert update(policy, Keep(policy.trainable(), lr=0.0), samples, Recipe()).computed_tokens == 2 * 21


def test_a_model_whose_logits_are_made_in_an_unknown_way_makes_them_itself(tiny_model, monkeypatch):
    own = LlamaForCausalLM.forward

    def capped(*args, **kwargs):
        output = own(*args, **kwargs)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", capped)
    policy, ids = tiny(tiny_model), torch.arange(20, 30)[None]
    states = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state
    assert policy.head(states).abs().max() < 3
    torch.testing.assert_close(policy.head(states), policy.model(input_ids=ids).logits)
    assert LocalSampler(policy, 4).path == choose_update_path(policy) == FAST
