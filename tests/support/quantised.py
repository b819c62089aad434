"""Rewrites the weights of a tiny model as checkpoints of today's models have them, in FP8 or MXFP4."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PLAIN = ("lm_head", "embed", "norm", "router", "gate.weight")
FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def to_fp8(folder: Path, block: Sequence[int] | None) -> None:
    """Linear weights with a scale for each block (rows, columns), or None: for each weight."""

    def store(name: str, weight: Tensor) -> dict[str, Tensor]:
        if weight.dim() != 2 or any(part in name for part in PLAIN):
            return {name: weight}
        rows, columns = block or weight.shape
        grid = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
        padded = torch.zeros(grid[0] * rows, grid[1] * columns)
        padded[: weight.shape[0], : weight.shape[1]] = weight
        blocks = padded.view(grid[0], rows, grid[1], columns)
        scales = blocks.abs().amax((1, 3)).clamp(min=1e-8) / 448
        values = (blocks / scales[:, None, :, None]).view(padded.shape)[: weight.shape[0], : weight.shape[1]]
        values = values.to(torch.float8_e4m3fn).contiguous()
        return {name: values, f"{name}_scale_inv": scales if block else scales.reshape(())}

    sizes = {"activation_scheme": "dynamic", "weight_block_size": list(block) if block else None}
    _rewrite(folder, store, {"quant_method": "fp8", "modules_to_not_convert": ["lm_head"], **sizes})


def to_mxfp4(folder: Path) -> None:
    """Stacks of experts in numbers of 4 bits, 32 of which have a power of two in common."""

    def store(name: str, weight: Tensor) -> dict[str, Tensor]:
        if weight.dim() != 3 or not name.endswith("_proj"):
            return {name: weight}
        blocks = weight.transpose(1, 2).reshape(weight.shape[0], weight.shape[2], -1, 32)
        exponents = torch.floor(torch.log2(blocks.abs().amax(-1).clamp(min=1e-8))) - 2
        index = ((blocks / 2 ** exponents[..., None])[..., None] - FP4).abs().argmin(-1).to(torch.uint8)
        packed = index[..., 0::2] | (index[..., 1::2] << 4)
        return {f"{name}_blocks": packed.contiguous(), f"{name}_scales": (exponents + 127).to(torch.uint8)}

    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    _rewrite(folder, store, {"quant_method": "mxfp4", "modules_to_not_convert": plain})


def _rewrite(folder: Path, store: Any, settings: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    stored: dict[str, Tensor] = {}
    for name, weight in load_file(file).items():
        stored |= store(name, weight)
    save_file(stored, file, metadata={"format": "pt"})
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(description | {"quantization_config": settings}))
