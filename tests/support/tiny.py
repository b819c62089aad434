"""A tiny random model with a character-level tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from motif.config import ModelConfig
from motif.method.wording import SYSTEM_PROMPT

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SPECIAL_TOKENS = ["<pad>", "<end>", "<unk>", "<user>", "<model>", "<system>"]
ADDED_TOKENS = ["<think>", "</think>", "<note>", "</note>", "\\boxed{"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def char_tokenizer() -> Any:
    """One token per character, besides special and added ones; `<unk>` for characters beyond ASCII."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_TOKENS, *(chr(code) for code in range(32, 127)), "\n", "×"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>", "<system>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(ADDED_TOKENS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_tokenizer(
    template: str | None = CHATML,
    *,
    eos: str = "<|im_end|>",
    pad: str | None = None,
    special: Sequence[str] = ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    added: Sequence[str] = (),
    ends_texts: bool = False,
) -> Any:
    """A byte-level tokenizer with this chat template, these special and these further tokens.

    `ends_texts`: it puts its end token behind every text, as some do.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["What is 5! and 3? Yes. the answer is 42"] * 3, trainer)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in {**dict.fromkeys(special), eos: 0}]
    )
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    if ends_texts:
        ends = [(eos, backend.token_to_id(eos))]
        backend.post_processor = processors.TemplateProcessing(single=f"$A {eos}", special_tokens=ends)
    named = {"eos_token": eos} | ({"pad_token": pad} if pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = template
    return tokenizer


def write_tiny_model(folder: Path) -> str:
    """Write a random two-layer Llama (grouped-query attention) and its tokenizer into `folder`; return its path."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = char_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,  # peaked enough for temperatures and top-p to matter
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_model(folder: Path, kind: str, options: dict[str, Any], tokenizer: Any) -> ModelConfig:
    """Write a random model of any architecture, by its configuration's class, and a tokenizer into `folder`."""
    import transformers

    torch.manual_seed(0)
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    if text := options.get("text_config"):
        options = options | {"text_config": ids | text}
    config = getattr(transformers, kind)(**(ids if not text else {}), **options)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name=str(folder), lora_rank=4, device="cpu")


def byte_pair_tokenizer() -> Any:
    """A byte-level BPE in which quotes, spaces and words merge, as in real models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    words = [*SYSTEM_PROMPT.split(), 'round 1: ""', '"x"', "final 12", "×", "24*15=360", 'the "quoted" word', "é日本"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((" ".join(rng.choices(words, k=30)) for _ in range(200)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", clean_up_tokenization_spaces=False)
