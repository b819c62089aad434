"""Architectures that differ in what motif relies on: masks, positions, heads, caches, scalings after the head."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from motif.config import ModelConfig, Recipe
from motif.errors import ModelError, RecipeError
from motif.models.policy import Policy
from motif.models.shape import model_shape
from motif.runs.weights import load_weights, save_weights
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.update import update
from support.architectures import ZOO
from support.architectures import build as build_one
from support.parity import measure
from support.tiny import SMALL, write_model
from support.updates import Keep, sample

SLIDING = {"head_dim": 8, "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32}
LONGROPE |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SEES = {
    "text_config": SMALL | SLIDING | {"initializer_range": 0.3},
    "vision_config": VISION | {"image_size": 28, "patch_size": 14},
    "mm_tokens_per_image": 4,
}
KINDS = {
    "Qwen2Config": SMALL,
    "Gemma2Config": SMALL | {"head_dim": 8, "sliding_window": 32},  # soft-capped attention and logits, eager kernels
    "Gemma3TextConfig": SMALL | {"head_dim": 8, "sliding_window": 32},
    "MistralConfig": SMALL | {"sliding_window": 32},
    "GraniteConfig": SMALL | {"logits_scaling": 2.0},
    "CohereConfig": SMALL,  # scaled logits, layer norm
    "MixtralConfig": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2},  # adapters of fused experts
    "Phi3Config": SMALL | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 32},
    "Gemma3Config": SEES,  # what text needs is one part of it
    "GPT2Config": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},  # learned positions
}


def build(kind: str, options: dict, tokenizer_folder, folder) -> ModelConfig:
    return write_model(folder, kind, options, AutoTokenizer.from_pretrained(tokenizer_folder))


SOME = {  # every way of computing that motif knows, with an adapter or with all weights
    "Qwen2": "full",
    "Granite 3": "lora",
    "Cohere": "full",
    "Phi 3 and 4": "lora",
    "GPT-2": "lora",
    "GPT-NeoX": "lora",
    "Gemma 2": "lora",
    "Gemma 3": "full",
    "Gemma 3 that sees": "lora",
    "Mistral, window": "lora",
    "Mixtral": "full",
    "Qwen3-MoE": "full",
    "Qwen3.5": "full",
    "LFM2": "lora",
    "gpt-oss": "full",
    "Mamba 2": "full",
    "MPT": "full",  # biases by distance, which padding between contexts would change
}


@pytest.mark.parametrize("name", SOME)
def test_sampler_and_update_are_the_plain_forward_pass_of(name, tmp_path):
    """Log-probabilities and gradients, of prompts that share a beginning and fork in the middle."""
    gaps = measure(build_one(ZOO[name], tmp_path).model_copy(update={"adapter": SOME[name]}))
    assert gaps.fine, gaps


def test_rotary_factors_that_change_with_the_length_bound_the_context(tiny_model, tmp_path):
    """Beyond the switch of longrope all positions turn, also those whose keys are kept."""
    policy = Policy(build("Phi3Config", KINDS["Phi3Config"], tiny_model, tmp_path))
    assert policy.max_length == 32 == model_shape(policy.config.name).max_length
    sampler = LocalSampler(policy)
    for length in (20, 40):  # on either side of the switch, before the response and after it
        with pytest.raises(RecipeError, match=f"a prompt of {length} tokens and 16 new ones do not fit the model's 32"):
            complete(sampler, [Request([5] * length, [1], max_tokens=16)])


def test_of_a_model_that_sees_only_text_is_adapted(tiny_model, tmp_path):
    policy = Policy(build("Gemma3Config", KINDS["Gemma3Config"], tiny_model, tmp_path))
    assert policy.max_length == 64 == model_shape(policy.config.name).max_length
    assert len(policy.trainable()) == 2 * 2 * 7 and not any("vision" in name for name in policy.state())


@pytest.mark.parametrize("lora", [True, False])
def test_recomputed_activations_give_the_same_gradient(lora, tiny_model):
    policy = Policy(ModelConfig(name=str(tiny_model), lora_rank=4, adapter="lora" if lora else "full"))
    gradients = []
    for active in (False, True):
        policy.wrapped.zero_grad()
        with policy.activation_checkpointing(active):
            logprobs, _ = policy.token_logprobs([[5, 6, 7]], [[8, 9, 10]], [1.0])
            logprobs.sum().backward()
        gradients.append([p.grad.clone() for p in policy.trainable() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
    assert not any(getattr(module, "training", False) for module in policy.model.modules())


# -- tokenizers and models that lack what others have ------------------------------------------------------------------


def llama(folder, tokenizer, **options):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = SMALL | {"vocab_size": len(tokenizer), "bos_token_id": None, "pad_token_id": None} | options
    LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name=str(folder), lora_rank=4)


def sampled(policy) -> list:
    done: list = []
    requests = [Request(list(range(20, 20 + length)), [1, 2], max_tokens=6) for length in (3, 9)]
    done += complete(LocalSampler(policy, max_rows=4), requests)
    return done


def test_a_tokenizer_without_a_pad_token_works(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = None
    policy = Policy(llama(tmp_path, tokenizer, eos_token_id=tokenizer.eos_token_id))
    assert policy.tokenizer.pad_token is None and len(sampled(policy)) == 4
    rng = random.Random(0)
    batch = [sample(list(range(20, 24)), list(range(40, 40 + end)), rng) for end in (3, 7)]
    assert update(policy, Keep(policy.trainable(), lr=0.0), batch, Recipe()).updates == 1


def test_a_tokenizer_without_an_end_token_is_refused_unless_the_model_names_one(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    end = tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert Policy(llama(tmp_path / "template", tokenizer, eos_token_id=None)).end_ids == [end]  # the template writes it
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Policy(llama(tmp_path / "neither", tokenizer, eos_token_id=None))
    policy = Policy(llama(tmp_path / "model", tokenizer, eos_token_id=end))
    assert policy.end_ids == [end] and len(sampled(policy)) == 4


def test_dropout_is_off_in_both_passes(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    policy = Policy(llama(tmp_path, tokenizer, eos_token_id=1, attention_dropout=0.5))
    logprobs = [policy.token_logprobs([[5, 6, 7]], [[8, 9, 10]], [1.0])[0] for _ in range(2)]
    assert torch.equal(*logprobs)
    for completion in sampled(policy):
        ours, _ = policy.token_logprobs([completion.request.prompt_ids], [completion.token_ids], [1.0])
        torch.testing.assert_close(torch.tensor(completion.logprobs), ours.detach(), atol=1e-4, rtol=1e-4)


def test_tied_weights_stay_tied_through_training_and_saving(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = llama(tmp_path / "base", tokenizer, eos_token_id=1, tie_word_embeddings=True)
    policy = Policy(config.model_copy(update={"adapter": "full"}))
    names = [name for name, _ in policy.wrapped.named_parameters()]
    assert "lm_head.weight" not in names  # one parameter, counted and stepped once
    before = policy.state()
    rng = random.Random(0)
    batch = [sample(list(range(20, 24)), list(range(40, 40 + end)), rng) for end in (3, 7)]
    full = Recipe.model_validate({"model": {"adapter": "full"}})
    assert update(policy, torch.optim.SGD(policy.trainable(), lr=0.1), batch, full).updates == 1
    table = policy.model.get_input_embeddings().weight
    assert policy.model.get_output_embeddings().weight.data_ptr() == table.data_ptr()
    assert not torch.equal(before["model.embed_tokens.weight"], table)
    save_weights(tmp_path / "run", policy)
    again = Policy(config.model_copy(update={"adapter": "full"}))
    load_weights(tmp_path / "run", again)
    for (name, one), other in zip(policy.state().items(), again.state().values(), strict=True):
        assert torch.equal(one, other), name
    assert again.model.get_output_embeddings().weight.data_ptr() == again.model.get_input_embeddings().weight.data_ptr()
