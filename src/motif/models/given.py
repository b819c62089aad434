"""A model and a tokenizer that a caller has in memory, as a folder that a recipe can name."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from motif.errors import ModelError, first_line


def keep_model(model: Any, tokenizer: Any, folder: Path) -> str:
    """Save a model and its tokenizer in a folder of their hash, and return its path.

    An adapter means something only with its base: without these weights nobody could load the run. They are read from
    there, so the object itself stays as it is.

    Raises:
        ModelError: it is not a whole transformers model, it has no tokenizer, or it cannot be saved.
    """
    from transformers import PreTrainedModel

    if hasattr(model, "peft_config"):
        raise ModelError("model: it has an adapter: merge it first (model.merge_and_unload()), or give the base model")
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"model: give a name, a folder or a model of transformers, not a {type(model).__name__}")
    if getattr(model, "hf_quantizer", None) is not None:
        raise ModelError("model: its weights are quantised: give its name, and settings={'model.quantize': 'nf4'}")
    tokenizer = tokenizer or _own_tokenizer(model)
    if not hasattr(tokenizer, "save_pretrained"):
        raise ModelError(f"tokenizer: give one of transformers, not a {type(tokenizer).__name__}")
    target = folder.resolve() / f"base-{_digest(model, tokenizer)}"
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
            raise ModelError(f"model: it cannot be saved in {folder}: {first_line(error)}") from error
        partial.rename(target)
    return str(target)


def _own_tokenizer(model: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.name_or_path or "", trust_remote_code=False)
    except Exception as error:  # whatever the hub or the network raises
        raise ModelError("tokenizer: the model does not say where its tokenizer is: give it, too") from error


def _digest(model: Any, tokenizer: Any) -> str:
    import torch

    total = hashlib.sha256(repr((model.config.to_dict(), len(tokenizer), tokenizer.chat_template)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:12]
