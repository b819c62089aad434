"""The model being trained: log-probabilities of sampled tokens, and which weights are in use."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from motif.config import ModelConfig
from motif.errors import ModelError, RecipeError, first_line
from motif.method.template import ChatTemplate
from motif.method.tokens import is_ordinary
from motif.models.adapter import adapted_parameter, lora_layers, with_adapter
from motif.models.architecture import check_vocabulary, decoder_of, text_parts, towers
from motif.models.device import pick_device, weight_dtype
from motif.models.head import OwnHead, scaled_logits
from motif.models.hub import load_config, load_model, load_tokenizer, read_model
from motif.models.kernels import notices, tell_missing
from motif.models.path import NOT_COMPARED
from motif.models.recurrent import bound_time_steps, layer_kinds
from motif.models.shape import context_limit, windows
from motif.models.sharding import Shards, full_tensor, shard_like
from motif.models.sizes import CACHE_NAMES, choices, count

LOGIT_ELEMENTS = 2**24
"""Logits in memory at once: 64 MiB in float32, for any vocabulary and sequence length."""


class Policy:
    """A causal language model with a trainable LoRA adapter, or with all weights trainable.

    The sampler and the trainer share these weights. `seed` fixes the adapter's initial values. With `shard` each
    process of the group keeps a shard of every weight (see `motif.models.sharding`).

    Raises:
        ModelError: the model cannot be loaded, or its architecture is not supported (see `_check`).
        RecipeError: the model cannot be quantised or sharded.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, shard: bool = False):
        self.config = config
        self.device = pick_device(config.device)
        self.launch_bound = self.device.type == "cuda"  # see `motif.models.launches`
        notices()
        if self.device.index is not None:  # in this thread; other threads that compute enter it themselves
            torch.cuda.set_device(self.device)
        description = load_config(config.name)
        self.tokenizer = load_tokenizer(config.name)
        if rows := getattr(description.get_text_config(), "vocab_size", None):
            check_vocabulary(config.name, self.tokenizer, description, rows)  # before weights are read
        model = load_model(config, self.device, move=not shard)  # sharded because it may not fit the device
        rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        check_vocabulary(config.name, self.tokenizer, model.config, rows)
        text = text_parts(model)
        model.requires_grad_(False)
        if config.adapter == "lora":
            self.wrapped: Any = with_adapter(model, text, config, seed)
            self.model: Any = self.wrapped.get_base_model()
        else:
            self.wrapped = self.model = model
            for part in text:
                part.requires_grad_(True)
        for parameter in self.wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.text_config: Any = self.model.config.get_text_config()
        self.local = bool(windows(self.text_config))  # some layers see only what is near
        # Whether an update's kernels are told of a causal mask behind a context instead of given it.
        self.implicit_masks = self.device.type == "cuda" and self.text_config._attn_implementation == "sdpa"
        self.decoder: Any = decoder_of(self.model)
        bound_time_steps(self.decoder)
        self.update_path = NOT_COMPARED  # until it is, see `motif.training.check`
        self._head: Callable[[Any, Tensor], Tensor] = scaled_logits
        self.end_ids = _end_ids(self.model, self.tokenizer)
        self.half = weight_dtype(config, self.device) != torch.float32
        self.autocast = self.half
        self.cache_argument = _cache_argument(self.decoder)
        self.recurrent, self.attends = layer_kinds(self.text_config)
        self.continues: bool | None = None  # whether recurrent layers do, see `motif.models.prefix`
        self.shards: Shards | None = None
        if shard:
            if not (layers := self._layers()):
                raise RecipeError("this model has no layers to shard one by one: set train.shard = 'optimizer'")
            apart = {parameter for tower in towers(self.model) for parameter in tower.parameters()}
            self.shards = Shards(self.model, layers, self.device, apart)
            self.decoder = self.shards.forward_method(self.decoder.__call__)  # a method, not a child module
        self._trained = {name: p for name, p in self.wrapped.named_parameters() if p.requires_grad}
        self._check()
        tell_missing(self.device)

    # -- computing -------------------------------------------------------------------------------------------------

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""
        return self._head(self.model, hidden)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to the base's dtype where it is not float32."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[None]:
        """Compute in float32 inside the block, also with weights in bfloat16: each is cast when it is used."""
        self.autocast = False
        try:
            with CastToFloat32() if self.half else contextlib.nullcontext():
                yield
        finally:
            self.autocast = self.half

    def _precisions(self) -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
        """Contexts for a pass that is computed again in the backward one, where that of `in_float32` is not active."""
        exact = self.half and not self.autocast
        return contextlib.nullcontext(), CastToFloat32() if exact else contextlib.nullcontext()

    @contextlib.contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Use another attention function, by its name in transformers, inside the block."""
        config = self.text_config
        default = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = default

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
                checkpoint(self.score, *piece, use_reentrant=False, context_fn=self._precisions)
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
    def logits_at_once(self) -> int:
        """Logits in memory at once in an update."""
        return LOGIT_ELEMENTS * (4 if self.launch_bound else 1)

    @property
    def vocabulary(self) -> int:
        """Rows of the output head."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def parameter_count(self) -> int:
        """Parameters of the model, the adapter's included."""
        return sum(parameter.numel() for parameter in self.wrapped.parameters())

    @property
    def computed_parameters(self) -> int:
        """Parameters in the products of one token: without those that are looked up, and of experts the chosen."""
        return self.counts.computed

    @property
    def trained_share(self) -> float:
        """The share of the weights that training changes, embeddings and output head left out."""
        layers = lora_layers(self.wrapped) if self.config.adapter == "lora" else []
        own = sum(parameter.numel() for parameter in self._trained.values())
        reached = [getattr(layer.get_base_layer(), adapted_parameter(layer)).numel() for layer in layers]
        return min(1.0, sum(reached) / max(1, self.counts.matrices - own)) if layers else 1.0

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
        """Switch the adapter off inside the block (LoRA only)."""
        with self.wrapped.disable_adapter():
            yield

    @contextlib.contextmanager
    def activation_checkpointing(self, active: bool) -> Iterator[None]:
        """Recompute activations in the backward pass instead of keeping them, inside the block.

        Raises:
            RecipeError: the architecture has no layers that can do so.
        """
        if not active:
            yield
            return
        layers = self._layers()
        if not layers:
            raise RecipeError(
                "this model cannot recompute activations: set train.activation_checkpointing = false, and a smaller "
                "train.microbatch_tokens if memory is short"
            )
        # Not the layers' own switch: that takes away the keys and values of a shared prompt.
        for layer in layers:
            layer.forward = functools.partial(  # nothing is drawn in a pass, so no generator's state to restore
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _layers(self) -> list[Any]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        decoder = decoder_of(self.model)
        return [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]

    # -- saving ----------------------------------------------------------------------------------------------------

    def state(self, here: bool = True) -> dict[str, Tensor]:
        """Trained tensors by name, complete, on the CPU. With sharded weights all processes must call this.

        `here = False`: this process only contributes its shards, and returns nothing.
        """
        state: dict[str, Tensor] = {}
        for name, parameter in self._trained.items() if here or self.shards else ():
            tensor = full_tensor(parameter.detach())
            if here:
                state[name] = tensor.cpu().clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state()` returned.

        Raises:
            ModelError: the tensors belong to another model or adapter shape.
        """
        trained = self._trained
        if trained.keys() != state.keys() or any(trained[name].shape != state[name].shape for name in trained):
            raise ModelError("the saved weights belong to another model or adapter shape than the recipe's")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(shard_like(state[name], parameter))
        self.reshard()  # drops weights that were gathered before

    @contextlib.contextmanager
    def swapped_weights(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Use other trained weights, from `state()`, inside the block."""
        current = self.state()
        self.load_state(state)
        try:
            yield
        finally:
            self.load_state(current)

    def save_pretrained(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write `state()`, an adapter in PEFT format or the whole model, into a folder; no tokenizer."""
        kept = {} if self.config.adapter == "lora" else self._kept()
        self.wrapped.save_pretrained(folder, state_dict=state | kept)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty template; an honest card comes with export

    def _kept(self) -> dict[str, Tensor]:
        """What is saved but never trained: a tower, and the bias with which some routers balance their experts.

        Not from `state_dict()`, which drops sharded weights that were gathered.
        """
        frozen = {name: p.detach() for name, p in self.wrapped.named_parameters() if name not in self._trained}
        return frozen | {
            f"{prefix}.{name}".lstrip("."): buffer
            for prefix, module in self.wrapped.named_modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and name not in module._non_persistent_buffers_set
        }

    def load_adapter(self, tensors: dict[str, Tensor], source: str) -> None:
        """Load the tensors by name of an adapter that `save_pretrained` wrote; `source` is for errors.

        Raises:
            ModelError: they belong to another model or adapter shape.
        """
        from peft import set_peft_model_state_dict

        try:
            loaded: Any = set_peft_model_state_dict(self.wrapped, tensors)
        except RuntimeError as error:  # torch lists every tensor of another shape
            first = next((line.strip() for line in str(error).split("\n")[1:]), str(error))
            raise ModelError(f"{source} belongs to another model or adapter shape: {first[:300]}") from error
        if loaded.unexpected_keys:
            raise ModelError(f"{source} belongs to another model: it has weights for {loaded.unexpected_keys[0]}")

    def read_model(self, folder: Path) -> dict[str, Tensor]:
        """The weights, for `load_state`, in a folder to which `save_pretrained` wrote the whole model.

        transformers reads it, because it also wrote it: weights may have other names and shapes there than in memory
        (experts one by one, say).

        Raises:
            ModelError: they belong to another model.
        """
        weights = dict(read_model(self.model, folder).named_parameters())
        return {name: weights[name].detach() for name in self._trained}

    def _check(self) -> None:
        """Compare our logits with the model's own on a few tokens; where they differ, its own head is used.

        Raises:
            ModelError: that differs too, the logits are not finite, or a token sees those after it.
        """
        kind, allowed = self.model.config.model_type, 2e-2 if self.autocast else 1e-3
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocabulary, (2, 5), generator=generator).to(self.device)
        ids[1, :3] = ids[0, :3]
        try:
            with torch.no_grad(), self.precision(), choices(self.model) as chosen:
                theirs = self.model(input_ids=ids, use_cache=False).logits.float()
                output = self.decoder(input_ids=ids, use_cache=False)
                gap = self._gap(output.last_hidden_state, theirs)
                if not gap < allowed:
                    self._head = OwnHead(output)
                    gap = self._gap(output.last_hidden_state, theirs)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError) as error:
            raise ModelError(
                f"model type {kind!r} computes its logits in a way motif does not know: {first_line(error)}"
            ) from error
        if not bool(torch.isfinite(theirs).all()):
            raise ModelError(
                f"model {self.config.name!r} computes logits that are not finite: its weights are broken, or its "
                "numbers too large for model.dtype (set it to 'float32')"
            )
        size = max(1.0, theirs.abs().max().item())
        if not (theirs[0, :3] - theirs[1, :3]).abs().max().item() / size < allowed:
            raise ModelError(f"model type {kind!r} lets tokens see those after them, so it cannot write text in order")
        if not gap < allowed:
            raise ModelError(f"model type {kind!r} computes its logits in a way motif does not know (gap {gap:.2g})")
        self.counts = count(self.model, chosen)

    def _gap(self, states: Tensor, theirs: Tensor) -> float:
        """Largest difference of our logits from the model's own, as a share of the largest; not a number: none is."""
        try:
            return (self.head(states).float() - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
        except (TypeError, AttributeError, RuntimeError):  # states or output layer of another shape than we know
            if isinstance(self._head, OwnHead):
                raise
            return float("nan")


class CastToFloat32(TorchFunctionMode):
    """Gives every function of torch its bfloat16 arguments in float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each function."""
        args, kwargs = tree_map_only(Tensor, _float32, (args, kwargs or {}))
        return func(*args, **kwargs)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _cache_argument(decoder: nn.Module) -> str:
    """What the decoder's forward pass calls its cache; empty if it takes none."""
    names = inspect.signature(type(decoder).forward).parameters
    return next((name for name in CACHE_NAMES if name in names), "")


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a response: the generation config's, the tokenizer's, and the chat template's after a response.

    Raises:
        ModelError: there is none, or the tokenizer's is ordinary text.
    """
    ends = model.generation_config.eos_token_id if model.generation_config else None
    ids = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if tokenizer.eos_token_id is not None:
        if is_ordinary(str(tokenizer.eos_token)):
            raise ModelError(
                f"the tokenizer's end token {tokenizer.eos_token!r} is ordinary text, at which responses would end: "
                "name another as eos_token in the model's tokenizer_config.json"
            )
        ids.add(tokenizer.eos_token_id)
    if tokenizer.chat_template and (turn_end := ChatTemplate(tokenizer, "system").turn_end()) is not None:
        ids.add(turn_end)
    if not ids:
        raise ModelError("the tokenizer has no end-of-sequence token, so responses could never end")
    return sorted(ids)
