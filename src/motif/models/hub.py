"""Models by name: where their files are, and loading configuration, tokenizer and weights."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motif.config import ModelConfig
from motif.demo import MODELS
from motif.errors import ModelError, MotifError, RecipeError, first_line
from motif.hosts import without_waiting_for_the_hub
from motif.models.architecture import (
    INSTEAD,
    check_blocks,
    check_complete,
    check_description,
    check_files,
    check_head,
    model_class,
    stored_as,
    towers,
)
from motif.models.device import weight_dtype


def locate(name: str) -> str:
    """The folder or hub id behind a model name: `embedded`, `embedded-circuit`, `embedded-read`, `pypi:PACKAGE`,
    a folder, a .gguf file, or a hub id.

    A GGUF file is converted once, to a folder under ~/.cache/motif, because unpacking it takes half a minute.

    Raises:
        ModelError: the package is not installed or holds no GGUF file, or a GGUF file cannot be read here.
    """
    if name in MODELS:
        return str(MODELS[name])
    if file := gguf_file(name):
        return str(_convert(file))
    path = Path(name)
    if path.exists() and not (path / "config.json").is_file():
        kind = "the folder has no config.json, so it" if path.is_dir() else "a file that does not end in .gguf"
        raise ModelError(f"model {name!r}: {kind} is not a Hugging Face model")
    return name


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model name stands for; None if it stands for something else.

    Raises:
        ModelError: there is no such file, or the package is not installed or holds none.
    """
    if name.startswith("pypi:"):
        return _gguf_of_package(name, name.removeprefix("pypi:"))
    path = Path(name)
    if path.suffix != ".gguf":
        return None
    if not path.is_file():
        raise ModelError(f"model {name!r}: no such file")
    return path


def _gguf_of_package(name: str, package: str) -> Path:
    if not re.fullmatch(r"[A-Za-z_][\w-]*", package):  # looking up a.b would run a
        raise ModelError(f"model {name!r}: {package!r} is not the name of a package")
    # find_spec does not run the package, whose own requirements may be missing.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"model {name!r}: install it first: pip install --no-deps {package}")
    if files := _files(spec, "*.gguf"):
        return files[0]
    if sums := _files(spec, "SHA256SUMS"):
        return _joined(name, package, sums[0])
    raise ModelError(f"model {name!r}: the package {package} holds no .gguf file")


def _files(spec: ModuleSpec | None, pattern: str) -> list[Path]:
    """The files of a package, by their names."""
    folders = (spec and spec.submodule_search_locations) or ()
    return [file for folder in folders for file in sorted(Path(folder).rglob(pattern))]


def _joined(name: str, package: str, sums: Path) -> Path:
    """A GGUF file whose parts lie in packages of their own (PACKAGE-part1 and so on), joined once in the cache.

    Its name and hash are those that the package itself has in its SHA256SUMS.
    """
    entry = re.search(r"^([0-9a-f]{64}) [ *](?:.*/)?([^/\s]+)\.gguf$", sums.read_text(), re.MULTILINE)
    if not entry:
        raise ModelError(f"model {name!r}: the package {package} holds no .gguf file, nor the hash of one")
    wanted, stem = entry.groups()
    target = cache() / f"{stem}-{wanted[:12]}.gguf"
    if target.is_file():
        return target
    parts: list[Path] = []
    prefix = package.replace("-", "_")
    while found := _files(importlib.util.find_spec(f"{prefix}_part{len(parts) + 1}"), f"{stem}.gguf.part*"):
        parts.append(found[0])
    digest = hashlib.sha256()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as out:
            for part in parts:
                content = part.read_bytes()
                digest.update(content)
                out.write(content)
        if digest.hexdigest() != wanted:
            raise ModelError(
                f"model {name!r}: its {len(parts)} installed parts do not make {stem}.gguf as {package} describes it: "
                f"install all of one version: pip install --no-deps {package} {package}-part1 …"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def cache() -> Path:
    """The folder for what is made once from a model's files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motif"


def _convert(file: Path) -> Path:
    """The Hugging Face folder made from a GGUF file, with its weights dequantised to float32."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("GGUF models need the extra 'gguf': pip install 'motif-rl[gguf]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    status = file.stat()
    digest = hashlib.sha256(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache() / f"{file.stem}-{digest}"
    if target.is_dir():
        return target
    print(f"unpacking {file.name} to {target} (once; about half a minute)", file=sys.stderr, flush=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with readable_errors(file.name):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **tokenizer_of(file))
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )
    # The weights are dequantised already; with these marks save_pretrained would refuse them.
    make_plain(model)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    with contextlib.suppress(OSError):  # another process was first
        partial.rename(target)
    return target


def tokenizer_of(file: Path) -> dict[str, str]:
    """What AutoTokenizer is told beside the folder of a GGUF file: its name, unless the tokenizer has files of its own.

    Those say all of it; transformers does not read from a GGUF file that digits are taken apart.
    """
    return {} if (file.parent / "tokenizer.json").is_file() else {"gguf_file": file.name}


def load_config(name: str) -> Any:
    """The configuration of a model (see `locate` for names).

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoConfig, PreTrainedConfig

    with readable_errors(name):
        check_description(name, PreTrainedConfig.get_config_dict(locate(name))[0])
        if (Path(locate(name)) / "config_sentence_transformers.json").is_file():
            raise ModelError(f"model {name!r} is an embedding model (of sentence-transformers): {INSTEAD}")
        return AutoConfig.from_pretrained(locate(name), trust_remote_code=False)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model (see `locate` for names).

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    with readable_errors(name):
        return AutoTokenizer.from_pretrained(locate(name), trust_remote_code=False)


def load_model(config: ModelConfig, device: torch.device, move: bool = True) -> nn.Module:
    """The bare model in the dtype of the recipe, on the device, without dropout and without adapter.

    `move = False` leaves it on the CPU.

    Raises:
        ModelError: it cannot be found or read, or does not fit in memory.
        RecipeError: it cannot be quantised here.
    """
    description = load_config(config.name)
    loaded_by = model_class(config.name, description)
    options: dict[str, Any] = stored_as(config.name, description)
    if config.four_bit:
        options = {"quantization_config": _four_bit(config, device)}
    with readable_errors(config.name):
        folder = locate(config.name)
        check_files(config.name, Path(folder))
        check_blocks(config.name, Path(folder), description)
        check_head(config.name, Path(folder), description)
        model, found = loaded_by.from_pretrained(
            folder, dtype=weight_dtype(config, device), trust_remote_code=False, output_loading_info=True, **options
        )
        check_complete(config.name, model, found["missing_keys"])
        if options and not config.four_bit:
            make_plain(model)
        model.config.use_cache = False
        if move and not config.four_bit:
            _move(model, device)
    return model.eval()  # no dropout in either pass: the ratio of two passes must be 1 where nothing was updated


def _move(model: Any, device: torch.device) -> None:
    """Move a model to a device, without the towers that text does not pass."""
    apart = towers(model)
    model.to(device)
    for tower in apart if device.type != "cpu" else ():
        tower.to("cpu")


def make_plain(model: Any) -> None:
    """Take the marks of quantisation from a model whose weights are plain numbers by now.

    Among them are the steps that read its files: transformers would take them back, and quantise again, when it saves.
    """
    steps = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [kept for step in steps if (kept := _without_scales(step)) is not None]
    model.hf_quantizer = None
    model.is_quantized = False
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def _without_scales(step: Any) -> Any | None:
    """A step by which transformers reads weights, without what undoes quantisation; None: nothing is left of it."""
    operations = getattr(step, "operations", None)
    if operations is None:  # names alone
        return None if any("weight_scale_inv" in target for target in step.target_patterns) else step
    plain = [operation for operation in operations if not hasattr(operation, "hf_quantizer")]
    if len(plain) == len(operations):
        return step
    sources = step._original_source_patterns
    ending = sources[0].rpartition(".")[2]
    own = [source for source in sources if source.endswith(f".{ending}")]
    return step.copy(own, step._original_target_patterns, operations=plain) if plain else None


def read_model(like: Any, folder: Path) -> Any:
    """A model of the same kind as another, with weights from a folder, in float32 on the CPU.

    Raises:
        ModelError: the folder holds the weights of another model.
        SafetensorError, OSError: a file cannot be read.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    with _quiet():  # what is wrong is said below, once
        model, found = type(like).from_pretrained(
            folder, config=copy.deepcopy(like.config), ignore_mismatched_sizes=True, output_loading_info=True, **options
        )
    for kind, text in (
        ("mismatched", "of another shape at"),
        ("missing", "not all there, without"),
        ("unexpected", "too many, with"),
    ):
        if names := sorted(str(name) for name in found[f"{kind}_keys"]):
            raise ModelError(f"{folder} belongs to another model: its weights are {text} {names[0]}")
    return model


def _four_bit(config: ModelConfig, device: torch.device) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None or device.type != "cuda":
        raise RecipeError(
            "model.four_bit needs CUDA and the extra 'four-bit': pip install 'motif-rl[four-bit]', or set it false"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=weight_dtype(config, device),
        bnb_4bit_use_double_quant=True,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and tables of weights: what is wrong is said by us, once."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    if level == logging.WARNING:  # unless somebody wants more
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Turn whatever the libraries raise while they load a model into one line that names it.

    Raises:
        ModelError: the model cannot be loaded, or does not fit in memory.
    """
    try:
        with _quiet(), warnings.catch_warnings():
            # They warn of one another's old names, about which a user can do nothing.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
            here = name in MODELS or name.startswith("pypi:") or Path(name).exists()
            with contextlib.nullcontext() if here else without_waiting_for_the_hub():
                yield
    except MotifError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(f"model {name!r} does not fit in memory: {first_line(error)}") from error
    except Exception as error:  # readers of a dozen formats raise anything over a malformed file
        if "ignore_mismatched_sizes" in str(error):
            raise ModelError(f"model {name!r}: its weights have other sizes than its config.json says") from error
        if "no file named model.safetensors" in str(error):
            raise ModelError(f"model {name!r} has no weights: add its model.safetensors") from error
        if "backend tokenizer" in str(error):
            raise ModelError(
                f"model {name!r} has no tokenizer that can be read: add the files of its tokenizer"
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        more = f" {lines[1]}" if len(lines) > 1 and lines[0].endswith(":") else ""  # the cause follows its kind
        raise ModelError(f"model {name!r} could not be loaded: {first_line(error)}{more}") from error
