"""The device that a model computes on, and the precision of its weights."""

from __future__ import annotations

import os

import torch

from motif.config import ModelConfig
from motif.errors import ModelError


def pick_device(name: str) -> torch.device:
    """The device of a name. `auto` is CUDA, then Apple's MPS, then the CPU, which `accelerate launch --cpu` asks for.

    Raises:
        ModelError: torch does not know the name.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ModelError(f"model.device = {name!r} is not a device: use 'auto', 'cpu', 'cuda' or 'mps'") from None
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def weight_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the base's weights: `auto` is bfloat16 on GPUs that compute in it, and float32 elsewhere."""
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
