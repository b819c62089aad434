"""Whether motif can train a model of some configuration, told before its weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from motif.errors import ModelError

WORDS = {
    "ForSequenceClassification": "a classifier",
    "ForTokenClassification": "a classifier",
    "ForRewardModel": "a reward model",
    "RewardModel": "a reward model",
    "ForMaskedLM": "an encoder",
    "ForPreTraining": "an encoder",
    "ForQuestionAnswering": "a reader of answers",
}
"""What models are whose class ends like this."""
INSTEAD = "name a model that writes text, such as Qwen/Qwen3-0.6B"


def check_description(name: str, description: dict[str, Any]) -> None:
    """Refuse what cannot be trained, from the contents of a model's config.json.

    Raises:
        ModelError: one sentence says why, and what to do.
    """
    import transformers
    from transformers import CONFIG_MAPPING

    kind = description.get("model_type")
    if kind is None:
        what = "names no model_type" if "_class_name" not in description else "describes a diffusion model"
        raise ModelError(f"model {name!r}: its config.json {what}: {INSTEAD}")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in description:
            raise ModelError(
                f"model {name!r} needs code of its own (auto_map), which motif does not run: {INSTEAD}, or a version "
                "of it that transformers has built in"
            )
        raise ModelError(
            f"model {name!r} is of the type {kind!r}, which transformers {transformers.__version__} does not know; a "
            "newer one may: pip install --upgrade transformers"
        )
    for architecture in description.get("architectures") or ():
        if what := next((words for ending, words in WORDS.items() if str(architecture).endswith(ending)), ""):
            raise ModelError(f"model {name!r} is {what} ({architecture}), and writes no text: {INSTEAD}")


def stored_as(name: str, config: Any) -> dict[str, Any]:
    """Options with which the stored weights of a model load as plain numbers.

    Raises:
        ModelError: they are quantised in a way that cannot be undone here.
    """
    settings = quantisation(config)
    if not settings:
        return {}
    from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

    method = settings["quant_method"]
    if method == "mxfp4":
        return {"quantization_config": Mxfp4Config(dequantize=True)}
    if method == "fp8":
        return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
    raise ModelError(
        f"model {name!r} is stored quantised ({method or 'in an unknown way'}), and motif trains beside plain weights: "
        "name the model that it was made from; model.four_bit = true makes that one small on a GPU"
    )


def quantisation(config: Any) -> dict[str, Any]:
    """How a configuration says that weights are quantised, `quant_method` in small letters; empty: they are not."""
    stored = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(), "quantization_config", None
    )
    if not stored:
        return {}
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    return settings | {"quant_method": str(settings.get("quant_method", "")).rpartition(".")[2].lower()}


def model_class(name: str, config: Any) -> Any:
    """The class of transformers that reads a model of this configuration as a writer of text.

    A model that also sees is read without its tower where transformers has such a class, and otherwise whole.

    Raises:
        ModelError: it has none; one sentence says what the model is.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto as auto

    kind = type(config)
    writes, sees = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING, kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    what = "" if writes or sees else _other_kind(kind)
    try:
        text = config.get_text_config()
    except ValueError:  # more than one
        text, what = config, what or "made of several language models"
    if not what and getattr(config, "is_encoder_decoder", False):
        what = "an encoder with a decoder"
    elif not what and (masked or getattr(text, "use_bidirectional_attention", None) in (True, "all")):
        what = "an encoder, whose tokens see those after them"
    if not what and writes:
        return AutoModelForCausalLM
    if not what and sees and type(text) is not kind:
        return AutoModelForImageTextToText
    raise ModelError(f"model {name!r} is {what or 'not a language model'} ({config.model_type}): {INSTEAD}")


def is_whole(config: Any) -> bool:
    """Whether a configuration is of a model with its towers, rather than of what writes alone."""
    from transformers.models.auto import modeling_auto as auto

    return (
        type(config) in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        and type(config.get_text_config()) is not type(config)
        and not any(str(name).endswith("ForCausalLM") for name in config.architectures or ())
    )


def _other_kind(kind: type) -> str:
    from transformers.models.auto import modeling_auto as auto

    for what, mappings in {
        "a speech model": (auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, auto.MODEL_FOR_CTC_MAPPING),
        "a sound model": (auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING),
        "a vision model": (auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, auto.MODEL_FOR_IMAGE_MAPPING),
        "a model that compares images with texts": (auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,),
    }.items():
        if any(kind in mapping for mapping in mappings):
            return what
    return ""


def decoder_of(model: Any) -> Any:
    """The part of a model between its tokens and its output head.

    Raises:
        ModelError: it cannot be told.
    """
    from transformers import PreTrainedModel

    decoder = model.get_decoder()
    if decoder is not model:
        return decoder_of(decoder) if hasattr(decoder, "lm_head") else decoder  # a whole writer inside a wrapper
    parts = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    if len(parts) != 1:
        raise ModelError(f"model type {model.config.model_type!r}: motif cannot tell its decoder from its output head")
    return parts[0]


def text_parts(model: Any) -> list[nn.Module]:
    """The parts of a model that text passes: its decoder and its output head."""
    return [decoder_of(model), model.get_output_embeddings()]


def towers(model: Any) -> list[nn.Module]:
    """The models inside a model that text does not pass, which see or hear: neither trained nor needed on a device."""
    from transformers import PreTrainedModel

    decoder = decoder_of(model)
    around = [part for part in model.modules() if decoder in part.modules()]
    return [
        part
        for outer in around
        for part in outer.children()
        if outer is not decoder and part not in around and isinstance(part, PreTrainedModel)
    ]


def check_complete(name: str, model: Any, missing: Iterable[str]) -> None:
    """Refuse a model that was read without some weights that text passes, in whose place are random numbers.

    Raises:
        ModelError: there are some.
    """
    needed = {id(parameter) for part in text_parts(model) for parameter in part.parameters()}
    named = dict(model.named_parameters())
    if lacking := sorted(key for key in missing if key in named and id(named[key]) in needed):
        raise ModelError(
            f"model {name!r} lacks {len(lacking)} weights, such as {lacking[0]}: it was stored as another kind of "
            f"model (an embedding model, say), or not completely; {INSTEAD}"
        )


def check_files(name: str, folder: Path) -> None:
    """Compare the weight files of a folder with its index and their own headers, without reading weights.

    Raises:
        ModelError: a file is missing, cut off, or not a file of weights.
    """
    index = folder / "model.safetensors.index.json"
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"model {name!r}: {index.name} cannot be read: download it again") from error
    if missing := sorted(str(file) for file in named if not (folder / file).is_file()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"model {name!r} is not complete: {missing[0]}{more} is missing; download it again")
    for file in sorted(named) or sorted(path.name for path in folder.glob("model*.safetensors")):
        if problem := _problem(folder / file):
            raise ModelError(f"model {name!r}: {file} {problem}: download it again")


def check_head(name: str, folder: Path, config: Any) -> None:
    """Refuse files of a decoder without the output head that it needs, in whose place would be random numbers.

    Raises:
        ModelError: the files are those.
    """
    bare = all(str(kind).endswith("Model") for kind in config.architectures or [""])
    if not bare or config.get_text_config().tie_word_embeddings:
        return
    names = [key for file in folder.glob("model*.safetensors") for key in _header(file)]
    if names and not any(word in key for key in names for word in ("head", "embed_out", "output")):
        raise ModelError(
            f"model {name!r} has no weights for its output head: it was stored as another kind of model (an embedding "
            f"model, say); {INSTEAD}"
        )


def check_blocks(name: str, folder: Path, config: Any) -> None:
    """Refuse FP8 weights whose last blocks are not whole: transformers takes all blocks for equally large.

    Raises:
        ModelError: there are some.
    """
    block = quantisation(config).get("weight_block_size")
    if not block:
        return
    shapes: dict[str, list[int]] = {}
    for file in folder.glob("model*.safetensors"):
        shapes |= {key: entry["shape"] for key, entry in _header(file).items() if entry.get("dtype") != "I8"}
    for key, grid in shapes.items():
        weight = shapes.get(key.removesuffix("_scale_inv"), [])
        if not key.endswith("_scale_inv") or len(weight) != 2 or len(grid) != 2:
            continue
        if any(count > 1 and size != count * side for size, count, side in zip(weight, grid, block, strict=True)):
            raise ModelError(
                f"model {name!r}: blocks of {block[0]} × {block[1]} do not divide its FP8 weight "
                f"{key.removesuffix('_scale_inv')} ({weight[0]} × {weight[1]}), which cannot be read rightly here: "
                "name a version of it in bfloat16"
            )


def _header(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, by name: dtype, shape and place.

    Raises:
        ValueError, UnicodeDecodeError: it is damaged.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries: dict[str, Any] = json.loads(stream.read(length))
    return {key: entry for key, entry in entries.items() if key != "__metadata__"}


def _problem(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
    length = int.from_bytes(start, "little")
    if start.startswith(b"version ") or len(start) < 8:
        return "is not there, only a pointer of Git LFS is" if len(start) == 8 else "is empty"
    if length > min(size - 8, 2**30):
        return "is cut off, or not a safetensors file"
    try:
        ends = [entry["data_offsets"][1] for entry in _header(file).values()]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "is damaged"
    return "is cut off" if size < 8 + length + max(ends, default=0) else ""


def check_vocabulary(name: str, tokenizer: Any, config: Any, rows: int) -> None:
    """Refuse a tokenizer that writes ids for which the model has no embedding, or that is of another vocabulary.

    Ids of added tokens that no text contains, such as a place for an image, may lie beyond.

    Args:
        rows: of the model's embedding.

    Raises:
        ModelError: it does not fit.
    """
    added = tokenizer.added_tokens_decoder
    ids = set(tokenizer.get_vocab().values())
    used = (ids - set(added)) | {tokenizer.eos_token_id or 0}
    text = config.get_text_config()
    ends = getattr(text, "eos_token_id", None)
    own = [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
    if max(used, default=0) >= rows:
        problem = f"has token ids up to {max(used):,}, and the model {rows:,} embeddings"
    elif own and min(own) > max(ids, default=0):
        problem = f"ends at id {max(ids, default=0):,}, and the model's end token is {min(own):,}"
    elif 2 * len(ids) < rows and not own:
        problem = f"has {len(ids):,} tokens, and the model {rows:,} embeddings"
    else:
        return
    raise ModelError(
        f"model {name!r} and its tokenizer do not belong together: the tokenizer {problem}; put the "
        "tokenizer's files of this model beside its weights"
    )
