"""The command that starts a vLLM server for `ServerSampler`."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from motif.config import Recipe
from motif.errors import RecipeError
from motif.models.device import pick_device, weight_dtype
from motif.models.hub import load_config, locate
from motif.models.shape import context_limit, window_of

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that `--max-lora-rank` takes."""


def commands(recipe: Recipe) -> list[str]:
    """One shell command per server of the recipe (on port 8000, if it names none).

    Raises:
        RecipeError: no server can have its adapter.
        ModelError: the model cannot be found.
    """
    if recipe.model.adapter == "full":
        raise RecipeError("servers need model.adapter = 'lora' (see docs/scaling.md for training all weights)")
    if recipe.model.lora_rank > RANKS[-1]:
        raise RecipeError(f"vLLM takes adapters of rank {RANKS[-1]} at most: lower model.lora_rank")
    words = _words(recipe)
    return [
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True "
        + shlex.join(["vllm", "serve", *words, "--host", parts.hostname or "", "--port", str(parts.port or _port(url))])
        for url in recipe.sampler.urls or ["http://127.0.0.1:8000"]
        for parts in [urlsplit(url)]
    ]


def _words(recipe: Recipe) -> list[str]:
    rank = next(rank for rank in RANKS if rank >= recipe.model.lora_rank)
    dtype = str(weight_dtype(recipe.model, pick_device(recipe.model.device))).removeprefix("torch.")
    four_bit = ["--quantization", "bitsandbytes"] if recipe.model.four_bit else []
    return [
        locate(recipe.model.name),
        *("--dtype", dtype, *four_bit),
        *("--max-model-len", str(window_of(recipe, context_limit(load_config(recipe.model.name))))),
        # Two: with overlap, the adapter before the last is still in use when the last one comes.
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", str(rank)),
        *("--logprobs-mode", "processed_logprobs"),  # at the sampling temperature, as the trainer has them
        *("--generation-config", "vllm"),  # no top-k or penalties from the model's own settings
    ]


def _port(url: str) -> int:
    return 443 if url.startswith("https") else 80
