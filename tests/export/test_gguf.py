"""GGUF files: what transformers' own reader and llama.cpp make of them is the model that was written."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from motif.errors import ModelError, UsageError
from motif.export.base_model import BaseModelInfo, describe
from motif.export.formats import convert, find_converter
from motif.export.gguf import SPLITS, needs_files, obstacle, write_gguf
from motif.export.parity import TOLERANCE, read_back
from motif.models.hub import tokenizer_of
from support.tiny import chat_tokenizer, write_model

pytest.importorskip("gguf")
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}
TEXT = "What is the 42nd thing?\n  an 1234 answer é"
PYTHON = os.environ.get("MOTIF_LLAMA_CPP_PYTHON", "")
"""A Python with llama-cpp-python, or with xllamacpp, whose wheels hold llama.cpp built."""


def byte_level(*splits: Any) -> Any:
    from tokenizers import pre_tokenizers

    tokenizer = chat_tokenizer()
    if splits:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits))
    return tokenizer


def splitting(name: str) -> Any:
    """A byte-level tokenizer that splits texts in the way that llama.cpp calls this."""
    from tokenizers import Regex, pre_tokenizers

    [pattern] = [pattern for pattern, known in SPLITS.items() if known == name]
    return byte_level(
        pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    )


def digits_apart() -> Any:
    from tokenizers import pre_tokenizers

    return byte_level(pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False))


def sentencepiece(whole: bool = True) -> Any:
    """A tokenizer as Gemma has it. whole: two pieces that make a third are always merged, as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import generate_merges

    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["th", "an", "▁th", "▁an", "▁the", "42", *map(chr, range(33, 127)), "▁", "\n"]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(words))}
    merges = generate_merges(vocab, {word: -number for word, number in vocab.items()})
    backend = Tokenizer(
        models.BPE(vocab, merges if whole else merges[:-1], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    return tokenizer


GEMMA = SMALL | {
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 16,
}
SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
MODELS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "llama": ("LlamaConfig", SMALL, digits_apart),
    "tied llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}, lambda: splitting("llama-bpe")),
    "mistral": ("MistralConfig", SMALL | {"sliding_window": None}, byte_level),
    "qwen2": ("Qwen2Config", SMALL, lambda: splitting("qwen2")),
    "qwen3": ("Qwen3Config", SMALL | {"head_dim": 128}, lambda: splitting("qwen2")),
    "gemma3": ("Gemma3TextConfig", GEMMA, sentencepiece),
}
BASE = BaseModelInfo("base", "owner/base", "mit", "")


def made(name: str, folder: Path) -> tuple[Any, Any]:
    """A model whose norms and biases matter, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    kind, options, tokenizer = MODELS[name]
    tokenizer = tokenizer()
    write_model(folder, kind, options, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key or key.endswith("bias"):
                parameter.add_(torch.rand_like(parameter) * 0.3)
    return model, tokenizer


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_what_was_written(name, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = made(name, tmp_path)
    ids = tokenizer(TEXT)["input_ids"]
    own = logits(model, ids)
    for kind in ("f32", "q8_0") if name == "llama" else ("f16",):
        file = tmp_path / "apart" / f"it-{kind}.gguf"
        file.parent.mkdir(exist_ok=True)
        write_gguf(model, tokenizer, [tokenizer.eos_token_id], file, kind, BASE)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        if needs_files(tokenizer):
            assert name == "llama"
            tokenizer.save_pretrained(file.parent)
        theirs = AutoTokenizer.from_pretrained(file.parent, **tokenizer_of(file))
        assert theirs(TEXT)["input_ids"] == ids
        assert theirs.chat_template == tokenizer.chat_template
        assert (logits(read, ids) - own).abs().max() <= 2 * TOLERANCE[kind] * own.abs().max().clamp(min=1)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_what_is_compared_is_in_float32(kind, tmp_path):
    model, tokenizer = made("qwen2", tmp_path)
    (tmp_path / "apart").mkdir()
    write_gguf(model, tokenizer, [tokenizer.eos_token_id], tmp_path / "apart" / "it.gguf", kind, BASE)
    read, _ = read_back(tmp_path / "apart", "gguf", "", torch.device("cpu"))
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    ids = tokenizer(TEXT)["input_ids"]
    assert (logits(read, ids) - logits(model, ids)).abs().max() <= 2 * TOLERANCE[kind] * logits(model, ids).abs().max()


def test_the_file_says_what_it_is(tmp_path):
    from gguf import GGUFReader

    model, tokenizer = made("qwen2", tmp_path)
    write_gguf(model, tokenizer, [5, tokenizer.eos_token_id], tmp_path / "it.gguf", "f16", BASE)
    facts = {name: field.contents() for name, field in GGUFReader(tmp_path / "it.gguf").fields.items()}
    assert (facts["general.architecture"], facts["general.license"]) == ("qwen2", "mit")
    assert facts["general.base_model.0.repo_url"] == "https://huggingface.co/owner/base"
    assert facts["tokenizer.ggml.pre"] == "qwen2"
    assert facts["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert str(tmp_path) not in str(facts)


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path):
    from transformers import AutoConfig

    plain = chat_tokenizer()
    for kind, options, why in [
        (
            "LlamaConfig",
            {"rope_parameters": SCALED},
            "scaled (linear)",
        ),
        ("LlamaConfig", {"attention_bias": True}, "biases"),
        ("MistralConfig", {"sliding_window": 8}, "window"),
        ("OlmoConfig", {}, "olmo"),
        ("Gemma3TextConfig", GEMMA | {"query_pre_attn_scalar": 64}, "scaled as in Gemma 3"),
        ("Gemma3TextConfig", GEMMA | {"layer_types": ["full_attention"] * 6}, "windows are not those"),
    ]:
        folder = tmp_path / kind
        write_model(folder, kind, SMALL | options, plain)
        assert why in obstacle(AutoConfig.from_pretrained(folder), plain), kind


def test_tokenizers_that_llama_cpp_does_not_have_are_refused(tmp_path, tiny_tokenizer):
    from tokenizers import Regex, pre_tokenizers
    from transformers import LlamaConfig

    config = LlamaConfig(**SMALL)
    assert obstacle(config, sentencepiece()) == obstacle(config, digits_apart()) == ""
    assert "WordLevel" in obstacle(config, tiny_tokenizer)
    vowels = pre_tokenizers.Split(Regex("[aeiou]"), "isolated")
    odd = byte_level(vowels, pre_tokenizers.ByteLevel(False, use_regex=False))
    assert "has no name" in obstacle(config, odd)
    assert "merges" in obstacle(config, sentencepiece(whole=False))


@pytest.mark.skipif(not PYTHON, reason="MOTIF_LLAMA_CPP_PYTHON names no Python with llama.cpp")
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_goes_on_as_the_model_does(name, tmp_path):
    model, tokenizer = made(name, tmp_path)
    ids = tokenizer(TEXT)["input_ids"]
    write_gguf(model, tokenizer, [tokenizer.eos_token_id], tmp_path / "it.gguf", "f32", BASE)
    greedy = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, pad_token_id=0)[0, len(ids) :]
    ask = Path(__file__).with_name("ask_llama_cpp.py")
    done = subprocess.run([PYTHON, ask, tmp_path / "it.gguf", TEXT, "24"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs["prompt"] == ids
    assert theirs["response"][: len(greedy)] == [token for token in greedy.tolist() if token != tokenizer.eos_token_id]


# -- llama.cpp's converter, where it is wanted or needed ---------------------------------------------------------------


def test_the_converter_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_converter(None) is None
    with pytest.raises(UsageError, match=r"holds no convert_hf_to_gguf\.py"):
        find_converter(tmp_path)
    script = tmp_path / "bin" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    assert find_converter(None) == find_converter(tmp_path / "bin") == find_converter(script) == script
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "bin"))
    assert find_converter(None) == script


def test_a_converter_that_fails_is_quoted(tmp_path):
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        "import sys\nassert sys.argv[3:6] == [sys.argv[3], '--outtype', 'q8_0']\nsys.exit('not supported')"
    )
    with pytest.raises(ModelError, match=r"could not convert this model \(exit status 1\): not supported"):
        convert(tmp_path, tmp_path / "x.gguf", "q8_0", script)


# -- the base of a GGUF file -------------------------------------------------------------------------------------------


def test_a_gguf_base_says_where_it_is_on_the_hub(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "Small-1B-Instruct.Q8_0.gguf", "llama")
    writer.add_string("general.organization", "SomeLab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_license("mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    base = describe(str(tmp_path / "Small-1B-Instruct.Q8_0.gguf"))
    assert (base.hub, base.licence, base.exact) == ("SomeLab/Small-1B-Instruct", "mit", False)
    assert "rounded to Q8_0" in base.obtain
    assert describe(str(tmp_path / "Small-1B-Instruct.Q8_0.gguf"), "other/name").public == "other/name"
