"""Which weights get an adapter, and that experts and towers survive being saved, read and merged."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from motif.config import ModelConfig
from motif.errors import RecipeError
from motif.export.formats import merge, with_towers, write_model
from motif.export.parity import logits_of, read_back
from motif.models.adapter import adapted_parameter, lora_layers
from motif.models.policy import Policy
from motif.runs.weights import check_round_trip, load_weights, save_weights
from support.tiny import SMALL
from support.tiny import write_model as write_tiny

ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
LINEAR |= {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}
LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8, "v_head_dim": 16}
LATENT |= {"qk_nope_head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}
LATENT |= {"n_group": 1, "topk_group": 1}
CHUNKED = {"intermediate_size_mlp": 64, "num_local_experts": 4, "interleave_moe_layer_step": 1, "head_dim": 16}
EXPERTS = {
    "MixtralConfig": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2MoeConfig": ROUTED | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "GptOssConfig": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},  # transposed, with biases
    "DeepseekV2Config": ROUTED | LATENT,  # a dense layer and a shared expert beside the others
    "Llama4TextConfig": CHUNKED | {"num_experts_per_tok": 1},  # a router that is a kind of linear layer
    "GraniteMoeConfig": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3_5MoeTextConfig": ROUTED | LINEAR | {"num_experts": 4, "shared_expert_intermediate_size": 16},
}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TOWER |= {"image_size": 28, "patch_size": 14}
GRID = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14}
SECTIONS = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
PROJECTED = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
SEEING = {  # with the sizes of their text part and of their tower
    "Gemma3Config": (SMALL | {"head_dim": 8}, TOWER),
    "Qwen3_5Config": (SMALL | LINEAR, GRID),  # read without its tower
    "Qwen2_5_VLConfig": (SMALL | {"rope_parameters": SECTIONS}, GRID),
    "Mistral3Config": (SMALL | {"head_dim": 8, "model_type": "mistral"}, TOWER | {"model_type": "pixtral"}),
    "Llama4Config": (SMALL | CHUNKED, TOWER | PROJECTED),  # a whole writer inside a wrapper
}
PROMPTS = [[1, *range(5, 30)], [1, *range(40, 75)]]


def with_experts(kind, tokenizer_folder, folder, adapter="lora") -> ModelConfig:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = write_tiny(folder, kind, SMALL | EXPERTS[kind], tokenizer)
    return config.model_copy(update={"adapter": adapter})


def seeing(kind, tokenizer_folder, folder, adapter="lora") -> ModelConfig:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    text, tower = SEEING[kind]
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    config = getattr(transformers, kind)(text_config=text | ids | {"pad_token_id": 0}, vision_config=tower)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name=str(folder), lora_rank=4, adapter=adapter)


def moved(config: ModelConfig) -> Policy:
    """A policy whose trained weights are not those it began with."""
    policy = Policy(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return policy


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("kind", EXPERTS)
def test_every_expert_gets_an_adapter_that_plain_peft_reads(kind, tiny_model, tmp_path):
    policy = moved(with_experts(kind, tiny_model, tmp_path / "base"))
    adapted = {id(getattr(layer.get_base_layer(), adapted_parameter(layer))) for layer in lora_layers(policy.wrapped)}
    table = policy.model.get_input_embeddings().weight
    left = {
        name.rpartition("layers.")[2]
        for name, weight in policy.decoder.named_parameters()
        if weight.ndim > 1 and not weight.requires_grad and id(weight) not in adapted and weight is not table
    }
    assert all(any(word in name for word in ("gate.weight", "router", "bias", "conv1d")) for name in left), left
    want = logits_of(policy.wrapped, PROMPTS)
    save_weights(tmp_path, policy)
    again = Policy(policy.config)
    load_weights(tmp_path, again)
    bare = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    plain = PeftModel.from_pretrained(bare, str(tmp_path / "adapter")).eval()
    for one, ours, theirs in zip(want, logits_of(again.wrapped, PROMPTS), logits_of(plain, PROMPTS), strict=True):
        assert torch.equal(one, ours) and torch.allclose(one, theirs, atol=1e-5)
    write_model(merge(policy), policy, tmp_path / "merged", torch.float32)
    assert load_tensors(tmp_path / "merged").keys() == load_tensors(tmp_path / "base").keys()
    model, _ = read_back(tmp_path / "merged", "merged", "", torch.device("cpu"))
    for one, theirs in zip(want, logits_of(model, PROMPTS), strict=True):
        assert torch.allclose(one, theirs, atol=1e-4)


@pytest.mark.parametrize("kind", ["MixtralConfig", "GptOssConfig"])
def test_trained_experts_survive_being_saved(kind, tiny_model, tmp_path):
    policy = moved(with_experts(kind, tiny_model, tmp_path / "base", "full"))
    check_round_trip(tmp_path, policy, policy.state())
    save_weights(tmp_path, policy)
    again = Policy(policy.config)
    load_weights(tmp_path, again)
    want = logits_of(policy.wrapped, PROMPTS)
    for one, ours in zip(want, logits_of(again.wrapped, PROMPTS), strict=True):
        assert torch.equal(one, ours)


@pytest.mark.parametrize(("kind", "adapter"), [*((kind, "lora") for kind in SEEING), ("Mistral3Config", "full")])
def test_a_tower_is_not_trained_and_comes_back_with_the_export(kind, adapter, tiny_model, tmp_path):
    policy = moved(seeing(kind, tiny_model, tmp_path / "base", adapter))
    inside = {
        id(parameter)
        for part in (policy.decoder, policy.model.get_output_embeddings())
        for parameter in part.parameters()
    }
    assert policy.trainable() and all(id(parameter) in inside for parameter in policy.trainable())
    want = logits_of(policy.wrapped, PROMPTS)
    save_weights(tmp_path, policy)
    again = Policy(policy.config)
    load_weights(tmp_path, again)
    write_model(with_towers(merge(policy), policy.config.name), policy, tmp_path / "merged", torch.float32)
    before, after = load_tensors(tmp_path / "base"), load_tensors(tmp_path / "merged")
    assert before.keys() == after.keys()
    seen = [name for name in before if "vision" in name or "visual" in name]
    assert seen and all(torch.equal(before[name], after[name]) for name in seen)
    architectures = [
        json.loads((tmp_path / name / "config.json").read_text())["architectures"] for name in ("base", "merged")
    ]
    assert architectures[0] == architectures[1]
    model, _ = read_back(tmp_path / "merged", "merged", "", torch.device("cpu"))
    for one, ours, theirs in zip(want, logits_of(again.wrapped, PROMPTS), logits_of(model, PROMPTS), strict=True):
        assert torch.equal(one, ours) and torch.allclose(one, theirs, atol=1e-4)


def test_targets_are_chosen_by_name(tiny_model, tmp_path):
    config = with_experts("MixtralConfig", tiny_model, tmp_path)
    policy = Policy(config.model_copy(update={"lora_targets": ["q_proj", "experts.down_proj"]}))
    names = {adapted_parameter(layer) for layer in lora_layers(policy.wrapped)}
    assert names == {"weight", "down_proj"} and len(lora_layers(policy.wrapped)) == 4
    with pytest.raises(RecipeError, match=r"names no layer of this model: it has down_proj, gate_up_proj, k_proj"):
        Policy(config.model_copy(update={"lora_targets": ["query"]}))
