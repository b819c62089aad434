"""A zoo of tiny random models: one of every architecture of causal language models that people train today.

Windows are 16 tokens or fewer, so that sequences of four windows are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from motif.config import ModelConfig
from support.tiny import chat_tokenizer

WINDOW = 16
SURE = 2.5
"""Entropy (nats) of a model that still has a choice; of all 281 words alike it is 5.6."""
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
HEADS = SMALL | {"head_dim": 16}
FOUR = SMALL | {"num_hidden_layers": 4}
EVERY_HEAD = SMALL | {"num_key_value_heads": 4}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
DELTA: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_expand": 2}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SLIDING = ["sliding_attention", "full_attention"]
GEMMA4 = HEADS | {
    "num_hidden_layers": 4,
    "layer_types": SLIDING * 2,
    "sliding_window": WINDOW,
    "hidden_size_per_layer_input": 16,
    "global_head_dim": 32,
}
GEMMA3N = HEADS | {
    "num_hidden_layers": 4,
    "intermediate_size": [96] * 4,
    "num_kv_shared_layers": 2,
    "layer_types": SLIDING * 2,
    "sliding_window": WINDOW,
    "hidden_size_per_layer_input": 16,
    "activation_sparsity_pattern": [0.0] * 4,
    "laurel_rank": 8,
}
LLAMA4 = HEADS | {
    "intermediate_size_mlp": 96,
    "num_local_experts": 4,
    "interleave_moe_layer_step": 1,
    "attention_chunk_size": WINDOW,
    "layer_types": ["chunked_attention", "full_attention"],
    "no_rope_layers": [1, 0],
}
WORDS_PER_LAYER = ("vocab_size_per_layer_input",)


@dataclass(frozen=True)
class Architecture:
    """A configuration's class and its options; `everyday`: in daily use; `window`: of a part of its layers."""

    config: str
    options: dict[str, Any] = field(default_factory=dict)
    everyday: bool = False
    window: int | None = None
    nested: bool = False  # the text model is one part of it
    words: Sequence[str] = ()  # further options that follow the vocabulary
    spare: int = 0  # words of the model that its tokenizer does not know


def _daily(config: str, options: dict[str, Any], **others: Any) -> Architecture:
    return Architecture(config, options, everyday=True, **others)


ZOO: dict[str, Architecture] = {
    # dense
    "Qwen2": _daily("Qwen2Config", SMALL),
    "Qwen3": _daily("Qwen3Config", HEADS),
    "Llama": _daily("LlamaConfig", SMALL),
    "Mistral": _daily("MistralConfig", SMALL | {"sliding_window": None}),
    "Ministral 3": _daily("Ministral3Config", HEADS),
    "Phi": _daily("PhiConfig", SMALL),
    "Phi 3 and 4": _daily("Phi3Config", SMALL),
    "Gemma": Architecture("GemmaConfig", HEADS),
    "OLMo": Architecture("OlmoConfig", SMALL),
    "OLMo 2": _daily("Olmo2Config", SMALL),
    "Granite 3": _daily("GraniteConfig", SMALL | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "SmolLM3": _daily("SmolLM3Config", SMALL | {"no_rope_layers": [1, 0]}),
    "Cohere": Architecture("CohereConfig", SMALL),
    "StableLM": Architecture("StableLmConfig", SMALL | {"use_qkv_bias": True}),
    "GLM 4": Architecture("Glm4Config", HEADS),
    "ERNIE 4.5": Architecture("Ernie4_5Config", HEADS),
    "Seed-OSS": Architecture("SeedOssConfig", HEADS),
    "Apertus": Architecture("ApertusConfig", SMALL),
    "Hunyuan": Architecture("HunYuanDenseV1Config", HEADS),
    "Nemotron": Architecture("NemotronConfig", SMALL),
    "Arcee": Architecture("ArceeConfig", SMALL),
    "Helium": Architecture("HeliumConfig", HEADS),
    "BitNet": Architecture("BitNetConfig", SMALL),
    "NanoChat": Architecture("NanoChatConfig", SMALL),
    "Starcoder 2": Architecture("Starcoder2Config", SMALL),
    "DiffLlama": Architecture("DiffLlamaConfig", SMALL),
    "Jais 2": Architecture("Jais2Config", SMALL),
    "Doge": Architecture("DogeConfig", SMALL),
    # older ones
    "GPT-2": Architecture("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}),
    "GPT-J": Architecture(
        "GPTJConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "rotary_dim": 8}
    ),
    "CodeGen": Architecture(
        "CodeGenConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "rotary_dim": 8}
    ),
    "GPT-BigCode": Architecture("GPTBigCodeConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}),
    "GPT-NeoX": Architecture("GPTNeoXConfig", {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    "GPT-Neo": Architecture(
        "GPTNeoConfig",
        {
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 1024,
        },
        window=WINDOW,
    ),
    "OPT": Architecture(
        "OPTConfig",
        {"ffn_dim": 96, "word_embed_proj_dim": 64}
        | {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "intermediate_size")},
    ),
    "BLOOM": Architecture("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "Falcon": Architecture("FalconConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "MPT": Architecture("MptConfig", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 1024}),
    # windows, chunks, sinks, shared keys and values
    "Gemma 2": _daily("Gemma2Config", HEADS | {"sliding_window": WINDOW}, window=WINDOW),
    "Gemma 3": _daily("Gemma3TextConfig", HEADS | {"sliding_window": WINDOW, "layer_types": SLIDING}, window=WINDOW),
    "Gemma 3n": _daily("Gemma3nTextConfig", GEMMA3N, window=WINDOW, words=WORDS_PER_LAYER),
    "Gemma 4": _daily("Gemma4TextConfig", GEMMA4, window=WINDOW, words=WORDS_PER_LAYER),
    "Mistral, window": _daily("MistralConfig", SMALL | {"sliding_window": 13}, window=13),
    "Ministral": _daily("MinistralConfig", HEADS | {"sliding_window": WINDOW, "layer_types": SLIDING}, window=WINDOW),
    "OLMo 3": _daily("Olmo3Config", SMALL | {"sliding_window": WINDOW, "layer_types": SLIDING}, window=WINDOW),
    "gpt-oss": _daily("GptOssConfig", HEADS | LOCAL_EXPERTS | {"sliding_window": WINDOW}, window=WINDOW),
    "Llama 4": _daily("Llama4TextConfig", LLAMA4, window=WINDOW),
    "Command R7B": Architecture("Cohere2Config", SMALL | {"sliding_window": 12, "layer_types": SLIDING}, window=12),
    "EXAONE 4": Architecture("Exaone4Config", HEADS | {"sliding_window": 15, "layer_types": SLIDING}, window=15),
    "VaultGemma": Architecture(
        "VaultGemmaConfig", HEADS | {"sliding_window": WINDOW, "layer_types": SLIDING}, window=WINDOW
    ),
    "CWM": Architecture(
        "CwmConfig",
        HEADS | {"sliding_window": WINDOW, "layer_types": SLIDING, "bos_token_id": 1, "eos_token_id": 2},
        window=WINDOW,
    ),
    # latent attention
    "DeepSeek V2": _daily(
        "DeepseekV2Config", EVERY_HEAD | LATENT | ROUTED | {"q_lora_rank": None, "first_k_dense_replace": 1}
    ),
    "DeepSeek V3": _daily(
        "DeepseekV3Config", EVERY_HEAD | LATENT | ROUTED | {"n_group": 2, "first_k_dense_replace": 1}
    ),
    "MiniCPM 3": Architecture("MiniCPM3Config", EVERY_HEAD | LATENT),
    "Youtu": Architecture("YoutuConfig", EVERY_HEAD | LATENT),
    "GLM 4.7 Flash": Architecture("Glm4MoeLiteConfig", EVERY_HEAD | LATENT | ROUTED),
    # experts
    "Qwen3-MoE": _daily("Qwen3MoeConfig", HEADS | EXPERTS),
    "Qwen2-MoE": Architecture("Qwen2MoeConfig", SMALL | EXPERTS | {"shared_expert_intermediate_size": 32}),
    "Mixtral": _daily("MixtralConfig", SMALL | LOCAL_EXPERTS),
    "OLMoE": Architecture("OlmoeConfig", SMALL | {"num_experts": 4, "num_experts_per_tok": 2}),
    "FlexOlmo": Architecture("FlexOlmoConfig", SMALL | {"num_experts": 4, "num_experts_per_tok": 2}),
    "GraniteMoe": _daily("GraniteMoeConfig", SMALL | LOCAL_EXPERTS),
    "GLM 4 MoE": Architecture("Glm4MoeConfig", HEADS | ROUTED | {"first_k_dense_replace": 1}),
    "MiniMax M2": Architecture("MiniMaxM2Config", HEADS | LOCAL_EXPERTS),
    "Hunyuan MoE": Architecture("HunYuanMoEV1Config", HEADS | {"num_experts": 4, "moe_topk": 2}),
    "dots1": Architecture("Dots1Config", EVERY_HEAD | ROUTED | {"first_k_dense_replace": 1, "head_dim": 16}),
    "ERNIE 4.5 MoE": Architecture(
        "Ernie4_5_MoeConfig",
        SMALL | {"moe_intermediate_size": 32, "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1},
    ),
    "Phi 3.5 MoE": Architecture("PhimoeConfig", SMALL | LOCAL_EXPERTS),
    "JetMoE": Architecture("JetMoeConfig", SMALL | LOCAL_EXPERTS | {"kv_channels": 16}),
    "Solar Open": Architecture("SolarOpenConfig", HEADS | ROUTED),
    # recurrent layers
    "Qwen3.5": _daily("Qwen3_5TextConfig", HEADS | DELTA),
    "Qwen3.5-MoE": _daily("Qwen3_5MoeTextConfig", HEADS | DELTA | EXPERTS | {"shared_expert_intermediate_size": 32}),
    "Qwen3-Next": _daily("Qwen3NextConfig", HEADS | DELTA | EXPERTS | {"shared_expert_intermediate_size": 32}),
    "Granite 4": _daily(
        "GraniteMoeHybridConfig",
        SMALL | LOCAL_EXPERTS | MAMBA | {"shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]},
    ),
    "LFM2": _daily("Lfm2Config", SMALL | {"block_ff_dim": 96, "layer_types": ["conv", "full_attention"]}),
    "LFM2-MoE": _daily(
        "Lfm2MoeConfig", SMALL | EXPERTS | {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]}
    ),
    "Falcon-H1": Architecture(
        "FalconH1Config", SMALL | MAMBA | {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_n_groups": 1}
    ),
    "Nemotron-H": Architecture(
        "NemotronHConfig",
        HEADS
        | {
            "hybrid_override_pattern": "M*",
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 1,
        },
    ),
    "Bamba": Architecture("BambaConfig", SMALL | MAMBA | {"attn_layer_indices": [1]}),
    "Jamba": Architecture(
        "JambaConfig",
        SMALL
        | {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
        | {"mamba_d_state": 16, "use_mamba_kernels": False},
    ),
    "Zamba 2": Architecture(
        "Zamba2Config",
        EVERY_HEAD
        | {"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 16, "n_mamba_heads": 8, "adapter_rank": 8},
    ),
    "RecurrentGemma": Architecture(
        "RecurrentGemmaConfig",
        SMALL
        | {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"], "lru_width": 64}
        | {"attention_window_size": WINDOW},
        window=WINDOW,
    ),
    "OLMo Hybrid": Architecture("OlmoHybridConfig", SMALL | DELTA),
    "Kimi Linear": Architecture(
        "KimiLinearConfig",
        EVERY_HEAD
        | LATENT
        | ROUTED
        | {"q_lora_rank": None, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]}
        | {"linear_head_dim": 16, "linear_num_heads": 4},
    ),
    "MiniMax": Architecture(
        "MiniMaxConfig",
        HEADS | LOCAL_EXPERTS | {"layer_types": ["linear_attention", "full_attention"], "block_size": 8},
    ),
    "Mamba": Architecture("MambaConfig", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16}),
    "Mamba 2": Architecture(
        "Mamba2Config",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 16,
            "n_groups": 1,
            "chunk_size": 32,
        },
    ),
    "Falcon-Mamba": Architecture("FalconMambaConfig", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16}),
    "xLSTM": Architecture("xLSTMConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_heads": 4, "chunk_size": 16}),
    "RWKV 4": Architecture("RwkvConfig", {"hidden_size": 64, "num_hidden_layers": 2, "context_length": 1024}),
    # text as one part of a model that also sees
    "Gemma 3 that sees": _daily(
        "Gemma3Config",
        {
            "text_config": HEADS | {"sliding_window": WINDOW, "layer_types": SLIDING},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
        },
        window=WINDOW,
        nested=True,
    ),
    "Gemma 4 that sees": _daily(
        "Gemma4Config", {"text_config": GEMMA4}, window=WINDOW, nested=True, words=WORDS_PER_LAYER
    ),
    "Qwen3.5 that sees": _daily("Qwen3_5Config", {"text_config": HEADS | DELTA}, nested=True),
    "Llama 4 that sees": _daily(
        "Llama4Config",
        {
            "text_config": LLAMA4,
            "vision_config": VISION | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        },
        window=WINDOW,
        nested=True,
    ),
}


def build(one: Architecture, folder: Path, tokenizer: Any | None = None, seed: int = 0) -> ModelConfig:
    """Write a random model of an architecture and a tokenizer into `folder`."""
    import transformers

    tokenizer = tokenizer or chat_tokenizer(pad="<|endoftext|>")
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    sizes = dict.fromkeys(("vocab_size", *one.words), len(tokenizer) + one.spare)
    options = one.options
    text: dict[str, Any] = ids | sizes | (options["text_config"] if one.nested else options)
    config = getattr(transformers, one.config)(**(options | {"text_config": text} if one.nested else text))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    shake(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name=str(folder), lora_rank=4, lora_alpha=8, device="cpu")


@torch.no_grad()
def shake(model: Any) -> None:
    """Weights large enough for every part to be missed, and a head that is neither sure nor blind."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.3 if "embed" in name else 0.12)
        elif name.endswith((".bias", "sinks")):
            parameter.normal_(0, 0.1)
    head = model.get_output_embeddings().weight
    ids = torch.randint(0, head.shape[0], (1, 24))
    head.normal_(0, 0.4)
    for _ in range(12):
        logprobs = model.eval()(input_ids=ids, use_cache=False).logits.log_softmax(-1)
        if -(logprobs.exp() * logprobs).sum(-1).mean() > SURE:
            break
        head.mul_(0.6)


@torch.no_grad()
def shake_adapter(policy: Any, seed: int = 1) -> None:
    """Let an adapter that was just made do something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trainable():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
