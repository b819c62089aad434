"""GGUF files, written here for the architectures in daily use, with the package `gguf` that llama.cpp publishes.

A GGUF file holds three things: the sizes of the model, its tokenizer, and its weights under llama.cpp's names, which
are in the package's own table. What llama.cpp computes otherwise than transformers is stored as it expects it:

* Llama's rotary positions turn neighbouring numbers of a head, where transformers turns its halves: the rows of the q
  and k projections are reordered.
* Gemma multiplies by 1 + weight in its norms: the 1 is added to the weights.

Whatever llama.cpp takes for granted, and the file cannot say, is checked first (`obstacle`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from motif.errors import ModelError
from motif.export.base_model import UNKNOWN, BaseModelInfo, require_gguf

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""By transformers' model types: llama.cpp's names of the architectures that are written here."""
GEMMA_PERIOD, GEMMA_LOCAL_THETA = 6, 10_000.0
"""What llama.cpp assumes of Gemma 3: every sixth layer is full, and the base of the rotary positions in the others."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
}
"""llama.cpp's names for the ways in which byte-level tokenizers split a text before they merge."""


def obstacle(config: Any, tokenizer: Any) -> str:
    """Why this model cannot be written here, as the end of a sentence about it; "" if it can.

    Args:
        config: the model's own, in transformers' form. tokenizer: a fast one.
    """
    text = config.get_text_config()
    kind = text.model_type
    if kind not in ARCHITECTURES:
        return f"its architecture ({kind}) is none of {', '.join(ARCHITECTURES)}"
    if scaled := [rope["rope_type"] for rope in _ropes(text) if rope.get("rope_type", "default") != "default"]:
        return f"its positions are scaled ({scaled[0]})"
    if getattr(text, "mlp_bias", False) or (kind != "qwen2" and getattr(text, "attention_bias", False)):
        return "its layers have biases that are not usual for its architecture"
    layers = list(getattr(text, "layer_types", None) or [])
    if kind == "gemma3_text":
        period = [_gemma_layer(number) for number in range(text.num_hidden_layers)]
        if layers != period or text.rope_parameters["sliding_attention"]["rope_theta"] != GEMMA_LOCAL_THETA:
            return "its windows are not those of Gemma 3"
        if text.query_pre_attn_scalar != text.head_dim or text.final_logit_softcapping or text.attn_logit_softcapping:
            return "its attention is not scaled as in Gemma 3"
    elif any("sliding" in layer for layer in layers) or (kind == "mistral" and text.sliding_window):
        return "its attention has a window"
    try:
        _vocabulary(tokenizer)
    except ModelError as error:
        return str(error)
    return ""


def needs_files(tokenizer: Any) -> bool:
    """Whether transformers, other than llama.cpp, would read another tokenizer from the file: one that does not take
    digits apart. The tokenizer's own files beside it help."""
    return _vocabulary(tokenizer)[1] == "smollm"


def write_gguf(model: Any, tokenizer: Any, ends: list[int], file: Path, kind: str, base: BaseModelInfo) -> None:
    """Write a plain model (adapter merged, float32) and its tokenizer to one file.

    Args:
        ends: the token ids that end a response. kind: f32, f16, bf16 or q8_0, of matrices; vectors stay in float32.

    Raises:
        ModelError: the extra `gguf` is missing, or the model cannot be written (`obstacle`).
    """
    require_gguf()
    import gguf

    if why := obstacle(model.config, tokenizer):
        raise ModelError(f"this model cannot be written as GGUF here: {why}")
    config = model.config.get_text_config()
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(file, architecture)
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[file_types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_description(writer, file.stem, base)
    _write_sizes(writer, config)
    _write_tokenizer(writer, tokenizer, ends, model.get_input_embeddings().weight.shape[0])
    for name, weight in _tensors(model, architecture):
        stored = _stored_as(weight, kind)
        writer.add_tensor(name, gguf.quants.quantize(weight, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The settings of the rotary positions: one for all layers, or one for each kind of layer."""
    ropes = config.rope_parameters
    return [ropes] if "rope_theta" in ropes else [rope for rope in ropes.values() if isinstance(rope, dict)]


def _gemma_layer(number: int) -> str:
    return "sliding_attention" if (number + 1) % GEMMA_PERIOD else "full_attention"


def _write_description(writer: Any, name: str, base: BaseModelInfo) -> None:
    writer.add_type("model")
    writer.add_name(name)
    if base.licence != UNKNOWN:
        writer.add_license(base.licence)
    if base.hub:
        organization, _, model = base.hub.rpartition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, model)
        writer.add_base_model_organization(0, organization)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{base.hub}")


def _write_sizes(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    ropes = config.rope_parameters
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(ropes.get("full_attention", ropes)["rope_theta"])
    writer.add_rope_dimension_count(width)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)


def _write_tokenizer(writer: Any, tokenizer: Any, ends: list[int], rows: int) -> None:
    import gguf

    kind, split, merges, prefixed = _vocabulary(tokenizer)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pieces: dict[int, str] = {number: piece for piece, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for number in range(rows):
        piece = added[number].content if number in added else pieces.get(number, f"[PAD{number}]")
        if number in added:
            name = "CONTROL" if added[number].special else "USER_DEFINED"
        elif number not in pieces:
            name = "UNUSED"
        elif piece == backend.get("unk_token"):
            name = "UNKNOWN"
        else:
            name = "BYTE" if kind == "llama" and piece.startswith("<0x") and len(piece) == 6 else "NORMAL"
        tokens.append(piece)
        types.append(gguf.TokenType[name])
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if kind == "gpt2":
        writer.add_token_merges([" ".join(pair) for pair in merges])
    else:  # a piece is as good as the first merge that makes it is early
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(merges):
            ranks.setdefault("".join(pair), rank)
        writer.add_token_scores([-float(ranks.get(piece, len(merges))) for piece in tokens])
        writer.add_add_space_prefix(prefixed)
    _write_special_tokens(writer, tokenizer, ends)


def _write_special_tokens(writer: Any, tokenizer: Any, ends: list[int]) -> None:
    begins, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = tokenizer("a")["input_ids"]
    if begins is not None:
        writer.add_bos_token_id(begins)
    writer.add_eos_token_id(end if end in ends else ends[0])
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(begins is not None and ids[:1] == [begins])
    writer.add_add_eos_token(end is not None and len(ids) > 1 and ids[-1] == end)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _vocabulary(tokenizer: Any) -> tuple[str, str, list[list[str]], bool]:
    """How llama.cpp calls this kind of tokenizer and its split, its merges, and whether a space is put before a text.

    Raises:
        ModelError: llama.cpp has no such tokenizer, or this module does not know its name there.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model, before, spelling = backend["model"], _parts(backend["pre_tokenizer"]), _parts(backend["normalizer"])
    if model["type"] != "BPE":
        raise ModelError(f"llama.cpp has no tokenizer like its own (of type {model['type']})")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    levels = [part for part in before if part["type"] == "ByteLevel"]
    kinds = [part["type"] for part in before]
    if levels:
        found = [part["pattern"].get("Regex") for part in before if part["type"] == "Split"]
        split = {"ByteLevel": "gpt-2", "Digits ByteLevel": "smollm"}.get(" ".join(kinds), "")
        if kinds == ["Split", "ByteLevel"]:
            split = SPLITS.get(found[0], "")
        plain = levels[0]["use_regex"] is (not found) and not levels[0]["add_prefix_space"]
        if split and plain and {part["type"] for part in spelling} <= {"NFC"}:
            return "gpt2", split, merges, False
    elif model["byte_fallback"] and {part["type"] for part in spelling} <= {"Prepend", "Replace"}:
        prefixed = any(part["type"] == "Prepend" for part in spelling)
        prefixed = prefixed or any(part.get("prepend_scheme", "never") != "never" for part in before)
        if _merges_all(set(model["vocab"]) - {one["content"] for one in backend["added_tokens"]}, merges):
            return "llama", "default", merges, prefixed
        raise ModelError("its tokenizer merges other pieces than SentencePiece would")
    raise ModelError("how its tokenizer splits a text has no name in llama.cpp that is known here")


def _merges_all(pieces: set[str], merges: list[list[str]]) -> bool:
    """Whether any two pieces that make a third are merged: llama.cpp, like SentencePiece, knows the pieces only."""
    pairs = {(left, right) for left, right in merges}
    return all(
        (piece[:at], piece[at:]) in pairs
        for piece in pieces
        for at in range(1, len(piece))
        if piece[:at] in pieces and piece[at:] in pieces
    )


def _parts(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The parts of a step of a tokenizer, which may be a sequence of them, or nothing."""
    if step is None:
        return []
    inner = step.get("pretokenizers", step.get("normalizers"))
    return [step] if inner is None else [part for one in inner for part in _parts(one)]


def _tensors(model: Any, architecture: str) -> Iterator[tuple[str, np.ndarray]]:
    """The weights, each with its name and its layout in llama.cpp.

    Raises:
        ModelError: a weight has no name there.
    """
    import gguf

    config = model.config.get_text_config()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise ModelError(f"this model cannot be written as GGUF here: llama.cpp has no name for {name}")
        weight = tensor.detach().float().cpu().numpy()
        if architecture == "llama" and ".attn_q." in theirs:
            weight = _interleaved(weight, config.num_attention_heads)
        elif architecture == "llama" and ".attn_k." in theirs:
            weight = _interleaved(weight, config.num_key_value_heads)
        elif architecture == "gemma3" and theirs.endswith("norm.weight"):
            weight = weight + 1
        yield theirs, weight


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head with its two halves in turn: 0, d/2, 1, d/2 + 1, …"""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _stored_as(weight: np.ndarray, kind: str) -> Any:
    """The number format of a tensor in a file of this kind."""
    import gguf

    if weight.ndim < 2:  # as llama.cpp has them
        return gguf.GGMLQuantizationType.F32
    if kind == "q8_0" and weight.shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]:
        return gguf.GGMLQuantizationType.F16  # blocks of 32 do not fit
    return gguf.GGMLQuantizationType[kind.upper()]
