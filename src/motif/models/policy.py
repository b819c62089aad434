"""The model being trained: load it, compute log-probabilities of sampled tokens, switch the adapter off, save it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motif.config import ModelConfig
from motif.demo import MODELS
from motif.errors import ModelError, RecipeError
from motif.models.sharding import Shards, full_tensor, shard_like

LOGIT_ELEMENTS = 2**24
"""Logits alive at once in `token_logprobs`: 64 MiB in float32, whatever the vocabulary and the sequence length."""


def locate(name: str) -> str:
    """The folder or hub id behind a model name: `embedded`, `embedded-circuit`, `pypi:PACKAGE`, a folder, a .gguf file,
    or a hub id.

    A GGUF file is converted once, to a folder under ~/.cache/motif, because unpacking it takes half a minute each time.

    Raises:
        RecipeError: the package is not installed or holds no GGUF file, or a GGUF file cannot be read here.
    """
    if name in MODELS:
        return str(MODELS[name])
    if file := gguf_file(name):
        return str(_converted(file))
    path = Path(name)
    if path.exists() and not (path / "config.json").is_file():
        raise RecipeError(f"model {name!r}: the folder has no config.json, so it is not a Hugging Face model")
    return name


def gguf_file(name: str) -> Path | None:
    """The GGUF file behind a model name; None where it is no such name.

    Raises:
        RecipeError: there is no such file, or the package is not installed or holds none.
    """
    path = Path(name)
    if name.startswith("pypi:"):
        package = name.removeprefix("pypi:")
        if not re.fullmatch(r"[A-Za-z_][\w-]*", package):  # looking up a.b would run a
            raise RecipeError(f"model {name!r}: {package!r} is no name of a package")
        # find_spec does not run the package, which may need what we do not.
        spec = importlib.util.find_spec(package.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"model {name!r}: install it first: pip install --no-deps {package}")
        files = [file for place in spec.submodule_search_locations for file in sorted(Path(place).rglob("*.gguf"))]
        if not files:
            raise RecipeError(f"model {name!r}: the package {package} holds no .gguf file")
        return files[0]
    if path.suffix != ".gguf":
        return None
    if not path.is_file():
        raise RecipeError(f"model {name!r}: no such file")
    return path


def _converted(file: Path) -> Path:
    """The Hugging Face folder made from a GGUF file, with its weights dequantised to float32."""
    if importlib.util.find_spec("gguf") is None:
        raise RecipeError("GGUF models need the extra 'gguf': pip install 'motif-rl[gguf]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = file.stat()
    digest = hashlib.sha256(f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motif"
    target = cache / f"{file.stem}-{digest}"
    if target.is_dir():
        return target
    print(f"unpacking {file.name} to {target} (once; about half a minute)", file=sys.stderr, flush=True)
    partial = cache / f".{target.name}.{os.getpid()}.partial"
    with _readable_errors(file.name):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )
    # The weights are dequantised already; with these marks save_pretrained would refuse them.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    with contextlib.suppress(OSError):  # another process was first
        partial.rename(target)
    return target


def is_own_base(name: str, folder: Path) -> bool:
    """Whether `folder` itself is the model `name` (or holds its GGUF file): an export of the whole model, which needs
    no weights added."""
    place = Path(name)
    return place.exists() and (place.parent if place.suffix == ".gguf" else place).resolve() == folder.resolve()


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU, which `accelerate launch --cpu` also asks for."""
    if name != "auto":
        return torch.device(name)
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def context_limit(config: Any) -> int:
    """The longest sequence, in tokens, over which a model of this configuration attends to all that came before."""
    limit = getattr(config, "max_position_embeddings", None) or 2**20
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        limit = min(limit, window)
    return int(limit)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model (see `locate` for names)."""
    from transformers import AutoTokenizer

    with _readable_errors(name):
        return AutoTokenizer.from_pretrained(locate(name), trust_remote_code=False)


def load_model(config: ModelConfig, device: torch.device, move: bool = True) -> nn.Module:
    """The bare model in the dtype of the recipe, on the device, without dropout and without adapter.

    `move = False` leaves it on the CPU.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"quantization_config": _four_bit(device)} if config.four_bit else {}
    with _readable_errors(config.name):
        model: Any = AutoModelForCausalLM.from_pretrained(
            locate(config.name), dtype=_dtype(config, device), trust_remote_code=False, **options
        )
    model.config.use_cache = False
    if move and not config.four_bit:
        model.to(device)
    return model.eval()  # no dropout in either pass: the ratio of two passes must be 1 where nothing was updated


class Policy:
    """A causal language model with a trainable LoRA adapter, or trainable altogether.

    The sampler and the trainer share these weights. `seed` fixes the adapter's initial values. With `shard` each of the
    processes that are joined keeps a piece of every weight (see `motif.models.sharding`).

    Raises:
        RecipeError: the model cannot be found, or its architecture cannot be driven (see `_check`).
    """

    def __init__(self, config: ModelConfig, seed: int = 0, shard: bool = False):
        self.config = config
        self.device = pick_device(config.device)
        self.tokenizer = load_tokenizer(config.name)
        model = load_model(config, self.device, move=not shard)  # what is sharded may not fit the device as a whole
        if config.adapter == "lora":
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(seed)
            lora = LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=0.0,
                target_modules=config.lora_targets,
                task_type="CAUSAL_LM",
            )
            with _readable_errors(config.name):
                self.wrapped: Any = get_peft_model(model, lora).eval()
            self.model: Any = self.wrapped.get_base_model()
        else:
            self.wrapped = self.model = model.requires_grad_(True)
        for parameter in self.wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.decoder: Any = self.model.get_decoder()
        self.end_ids = _end_ids(self.model, self.tokenizer)
        self.autocast = _dtype(config, self.device) != torch.float32
        self.shards: Shards | None = None
        if shard:
            if not (layers := self._layers()):
                raise RecipeError("this model has no layers to gather one by one: set train.shard = 'optimizer'")
            self.shards = Shards(self.model, layers, self.device)
            self.decoder = self.shards.entered_by(self.decoder.__call__)  # no child module
        self._trained = {name: p for name, p in self.wrapped.named_parameters() if p.requires_grad}
        self._check()

    # -- computing -------------------------------------------------------------------------------------------------

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D), with the few scalings that architectures add after the head."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        settings = self.model.config
        if scale := getattr(settings, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(settings, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(settings, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to the base's dtype where it is not float32."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def attention_mask(self, visible: Tensor) -> Tensor:
        """The attention mask (rows, 1, queries, keys) as the model's kernels want it, from booleans."""
        if self.model.config._attn_implementation != "eager":
            return visible
        # Eager kernels add the mask to their scores.
        return torch.where(visible, 0.0, torch.finfo(self.model.dtype).min).to(self.model.dtype)

    @contextlib.contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Another attention function than the model's own, by its name in transformers, for a while."""
        config = self.model.config
        own = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = own

    def token_logprobs(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperatures: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (nats) of the response tokens, one flat vector over all sequences.

        One right-padded forward pass; logits are made in chunks of positions and recomputed in the backward pass, so
        memory does not grow with vocabulary times sequence length. Logits are divided by each sequence's sampling
        temperature, so the numbers are comparable with the sampler's.

        Returns:
            logprobs_T, entropies_T: T is the total number of response tokens; entropies carry no gradient.
        """
        lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        scales: list[float] = []
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            ids[row, : lengths[row]] = torch.tensor([*prompt, *response])
            rows += [row] * len(response)
            columns += range(len(prompt) - 1, lengths[row] - 1)  # the state before a token predicts it
            targets += response
            scales += [temperatures[row]] * len(response)
        with self.precision():
            # Padding is on the right, where causal attention never looks, so no mask is needed.
            hidden = self.decoder(input_ids=ids.to(self.device), use_cache=False).last_hidden_state
            hidden_T = hidden[torch.tensor(rows, device=self.device), torch.tensor(columns, device=self.device)]
            targets_T = torch.tensor(targets, device=self.device)
            scales_T = torch.tensor(scales, device=self.device).unsqueeze(-1)
            chunk = max(1, LOGIT_ELEMENTS // self.vocabulary)
            parts = [
                checkpoint(self.score, *piece, use_reentrant=False)
                for piece in zip(hidden_T.split(chunk), targets_T.split(chunk), scales_T.split(chunk), strict=True)
            ]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def score(self, hidden_T: Tensor, targets_T: Tensor, scales_T: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (T,) of tokens from the states (T, D) before them; scales_T is (T, 1)."""
        logprobs_T_V = torch.log_softmax(self.head(hidden_T).float() / scales_T, dim=-1)
        with torch.no_grad():
            entropies_T = -(logprobs_T_V.exp() * logprobs_T_V).sum(-1)
        return logprobs_T_V.gather(-1, targets_T.unsqueeze(-1)).squeeze(-1), entropies_T

    @property
    def vocabulary(self) -> int:
        """Rows of the output head."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def parameter_count(self) -> int:
        """Parameters of the model, the adapter's included."""
        return sum(parameter.numel() for parameter in self.wrapped.parameters())

    @property
    def max_length(self) -> int:
        """Longest sequence the model takes, in tokens."""
        return context_limit(self.model.config)

    # -- which weights ---------------------------------------------------------------------------------------------

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that training changes; of sharded ones this process's pieces."""
        return list(self._trained.values())

    def unshard(self) -> None:
        """Gather sharded weights; all processes must call this. Until `reshard`, passes need no other process."""
        if self.shards:
            self.shards.unshard()

    def reshard(self) -> None:
        """Keep only this process's shards of the weights."""
        if self.shards:
            self.shards.reshard()

    @contextlib.contextmanager
    def adapter_disabled(self) -> Iterator[None]:
        """The adapter-off model, for a while (LoRA only)."""
        with self.wrapped.disable_adapter():
            yield

    @contextlib.contextmanager
    def activation_checkpointing(self, active: bool) -> Iterator[None]:
        """Activations are recomputed in the backward pass instead of kept, for a while.

        Raises:
            RecipeError: the architecture has no layers that can do so.
        """
        if not active:
            yield
            return
        layers = self._layers()
        if not layers:
            raise RecipeError("this model cannot recompute activations: set train.activation_checkpointing = false")
        # Not the layers' own switch: that takes away the keys and values of a shared prompt.
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _layers(self) -> list[Any]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        return [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]

    # -- keeping ---------------------------------------------------------------------------------------------------

    def state(self, here: bool = True) -> dict[str, Tensor]:
        """Trained tensors by name, whole, on the CPU. All processes that share sharded weights must ask for them.

        `here = False`: this process only helps, and gets nothing.
        """
        state: dict[str, Tensor] = {}
        for name, parameter in self._trained.items() if here or self.shards else ():
            tensor = full_tensor(parameter.detach())
            if here:
                state[name] = tensor.cpu().clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put `state()` back.

        Raises:
            RecipeError: the tensors belong to another model or adapter shape.
        """
        own = self._trained
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise RecipeError("the saved weights belong to another model or adapter shape than the recipe's")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(shard_like(state[name], parameter))
        self.reshard()  # of what was gathered before

    @contextlib.contextmanager
    def swapped_weights(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Other trained weights, from `state()`, for a while."""
        own = self.state()
        self.load_state(state)
        try:
            yield
        finally:
            self.load_state(own)

    def save_pretrained(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write `state()`, an adapter in PEFT format or the whole model, into a folder; no tokenizer."""
        self.wrapped.save_pretrained(folder, state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty template; an honest card comes with export

    def load_tensors(self, tensors: dict[str, Tensor], source: str) -> None:
        """Load what `save_pretrained` wrote, or one file of several, from tensors by name; `source` is for errors.

        Raises:
            ModelError: they belong to another model or adapter shape.
        """
        try:
            if self.config.adapter == "lora":
                from peft import set_peft_model_state_dict

                loaded: Any = set_peft_model_state_dict(self.wrapped, tensors)
            else:  # not strict: a large model's files each leave keys missing
                loaded = self.wrapped.load_state_dict(tensors, strict=False)
        except RuntimeError as error:  # torch lists every tensor of another shape
            first = next((line.strip() for line in str(error).split("\n")[1:]), str(error))
            raise ModelError(f"{source} belongs to another model or adapter shape: {first[:300]}") from error
        if loaded.unexpected_keys:
            raise ModelError(f"{source} belongs to another model: it has weights for {loaded.unexpected_keys[0]}")

    def _check(self) -> None:
        """Refuse an architecture whose logits we would get wrong: compare ours with the model's own on a few tokens."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocabulary, (2, 5), generator=generator).to(self.device)
        with torch.no_grad(), self.precision():
            theirs = self.model(input_ids=ids, use_cache=False).logits.float()
            ours = self.head(self.decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
        if not bool(torch.isfinite(theirs).all()):
            raise RecipeError(
                f"model {self.config.name!r} computes logits that are not finite: its weights are broken, or its "
                "numbers too large for model.dtype (set it to 'float32')"
            )
        gap = (ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
        if not gap < (2e-2 if self.autocast else 1e-3):
            kind = self.model.config.model_type
            raise RecipeError(f"model type {kind!r} computes its logits in a way motif does not know (gap {gap:.2g})")


def _dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def _four_bit(device: torch.device) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None or device.type != "cuda":
        raise RecipeError(
            "model.four_bit needs CUDA and the extra 'four-bit': pip install 'motif-rl[four-bit]', or set it false"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a response: the generation config's, the tokenizer's, and the chat template's end of turn."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    ids = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>"):
        index = tokenizer.get_vocab().get(token)
        if index is not None:
            ids.add(index)
    if not ids:
        raise RecipeError("the tokenizer has no end-of-sequence token, so responses could never end")
    return sorted(ids)


@contextlib.contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    except RecipeError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise RecipeError(f"model {name!r} does not fit the memory: {_first_line(error)}") from error
    except Exception as error:  # whatever the readers of a dozen formats raise over a file that lies
        raise RecipeError(f"model {name!r} could not be loaded: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """What an error says, in a line; its kind where that says more."""
    said = str(error).strip().split("\n")[0][:500]
    return said if isinstance(error, OSError | ValueError) and said else f"{type(error).__name__} {said}".strip()
