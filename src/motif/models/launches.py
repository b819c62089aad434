"""Fewer and larger operations, where launching them takes longer than their arithmetic: on a GPU.

A layer of transformers is some hundred small operations, each a kernel that a GPU takes microseconds to start whatever
its work. Where `Policy.launch_bound` says so, some of them are computed together here, in as many operations as
torch has kernels for. What they compute is the same up to rounding; each is compared with the layer's own first.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.adapter import lora_layers
from motif.models.policy import Policy

CLOSE = 1e-4
"""Difference up to which two ways of computing the same in float32 are taken for equal, where values are of size 1."""
ROTARY = "apply_rotary_pos_emb"
"""What transformers calls the function, in the module of each architecture."""
Norm = Callable[[Tensor], Tensor]

_SHIFTS: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()
"""By norm: what is added to its weight. None: it computes something else."""


@contextlib.contextmanager
def fewer_launches(policy: Policy, anywhere: bool = False) -> Iterator[None]:
    """Compute norms and rotary embeddings in fewer operations inside the block, where launching is what takes time.

    Args:
        anywhere: also where it is not, for those who do not mind that it rounds otherwise.
    """
    if not (policy.launch_bound or anywhere) or policy.shards:
        yield
        return
    with contextlib.ExitStack() as stack:
        for module in policy.decoder.modules():
            if norm := _fused_norm(module):
                stack.enter_context(replaced(module, "forward", norm))
        code = sys.modules[type(policy.decoder).__module__]
        if rotary := _fused_rotary(getattr(code, ROTARY, None), policy.device, policy.launch_bound):
            stack.enter_context(replaced(code, ROTARY, rotary))
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object an attribute inside the block, and what it had before after it."""
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


# -- norms -------------------------------------------------------------------------------------------------------------


def _fused_norm(module: nn.Module) -> Norm | None:
    """The same as a module computes, if that is x / sqrt(mean(x²) + eps) times its weight, or times 1 + its weight."""
    if not type(module).__name__.endswith("RMSNorm"):
        return None
    if module not in _SHIFTS:
        _SHIFTS[module] = next((shift for shift in (0, 1) if _is_norm(module, shift)), None)
    shift = _SHIFTS[module]
    return None if shift is None else _norm(module, shift)


def norm_weight(module: Any) -> tuple[Tensor, float] | None:
    """What a norm multiplies by, and its epsilon, if it is one that `fewer_launches` computes at once."""
    if not isinstance(module, nn.Module) or _fused_norm(module) is None:
        return None
    weight, shift = module.get_parameter("weight").detach(), _SHIFTS[module]
    return (weight.float() + shift if shift else weight), _eps(module)


def _eps(module: nn.Module) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _norm(module: Any, shift: int) -> Norm:
    own, eps = type(module).forward, _eps(module)

    def norm(rows: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight = module.weight
        if args or kwargs or rows.dtype != weight.dtype:
            return own(module, rows, *args, **kwargs)
        if not torch.is_autocast_enabled(rows.device.type):
            return F.rms_norm(rows, weight.shape, weight + shift if shift else weight, eps)
        with torch.autocast(rows.device.type, enabled=False):
            return F.rms_norm(rows, weight.shape, weight + shift if shift else weight, eps)

    return norm


def _is_norm(module: nn.Module, shift: int) -> bool:
    weight, eps = getattr(module, "weight", None), _eps(module)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or not isinstance(eps, float):
        return False
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, len(weight), generator=generator).to(weight.device)
    try:
        with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
            expected = type(module).forward(module, rows)
            found = F.rms_norm(rows, weight.shape, weight.float() + shift, eps)
    except (RuntimeError, TypeError):  # it wants other arguments
        return False
    return torch.allclose(found, expected.float(), CLOSE, CLOSE)


# -- rotary embeddings -------------------------------------------------------------------------------------------------


def _fused_rotary(own: Any, device: torch.device, launch_bound: bool) -> Any:
    """The same as an architecture's function computes, if that turns the halves of each head against each other."""
    if own is None:
        return None
    sign = torch.tensor([[-1.0], [1.0]], device=device)
    last: list[Tensor] = []  # the sines of this pass, as they were given and with signs: all layers get the same
    turns: list[Tensor] = []  # the sines of this pass, and the matrix (size, size) by which each row's heads turn

    @functools.cache
    def matrices(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of each row's matrix, what stands by the cosines and what by the sines; before a step is recorded."""
        unit = torch.eye(size, dtype=dtype, device=device)
        half = size // 2
        return unit, torch.cat([unit[half:], -unit[:half]])

    def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or sin.shape[-1] != query.shape[-1] or query.dtype != sin.dtype:
            return own(query, key, cos, sin, *args, **kwargs)
        both = _neighbours(query, key)
        if both is not None and launch_bound:
            if not turns or turns[0] is not sin:
                unit, swap = matrices(query.shape[3], query.dtype)
                turns[:] = sin, torch.addcmul(unit * cos, swap, sin)
            turned = torch.bmm(both.squeeze(2), turns[1]).unsqueeze(2)
            return turned.split([query.shape[1], key.shape[1]], dim=1)
        if not last or last[0] is not sin:
            last[:] = sin, (sin.unflatten(-1, (2, -1)) * sign.to(sin.dtype)).flatten(-2)
        cosines, sines = cos.unsqueeze(1), last[1].unsqueeze(1)
        if both is not None:
            turned = torch.addcmul(both * cosines, _swapped(both), sines)
            return turned.split([query.shape[1], key.shape[1]], dim=1)
        return tuple(torch.addcmul(heads * cosines, _swapped(heads), sines) for heads in (query, key))

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 3, 8, generator=generator).to(device) for heads in (4, 2))
    angles = torch.randn(2, 3, 4, generator=generator).repeat(1, 1, 2).to(device)
    try:
        pairs = [(f(query, key, angles.cos(), angles.sin())) for f in (own, rotary)]
        same = all(torch.allclose(one, other, CLOSE, CLOSE) for one, other in zip(*pairs, strict=True))
    except (RuntimeError, TypeError, ValueError, IndexError):  # it wants other arguments
        return None
    return rotary if same else None


def _neighbours(query: Tensor, key: Tensor) -> Tensor | None:
    """Heads of queries and keys (rows, heads, T, size) as one tensor, if they lie one after the other in memory."""
    if (
        query.shape[2] > 1
        or query.requires_grad
        or (query.stride(0), query.stride(1)) != (key.stride(0), key.stride(1))
    ):
        return None  # more than one token each is not what a joint product leaves
    after = query.storage_offset() + query.shape[1] * query.stride(1)
    memory = query.untyped_storage().data_ptr(), after
    if (key.untyped_storage().data_ptr(), key.storage_offset()) != memory or query.stride(3) != key.stride(3):
        return None
    shape = (query.shape[0], query.shape[1] + key.shape[1], *query.shape[2:])
    return query.as_strided(shape, query.stride())


def _swapped(heads: Tensor) -> Tensor:
    """The halves of the last dimension in the other order."""
    return heads.unflatten(-1, (2, -1)).flip(-2).flatten(-2)


# -- adapters ----------------------------------------------------------------------------------------------------------


class AdapterCopies:
    """Copies in bfloat16 of a LoRA adapter's weights, with which passes compute inside the block.

    peft casts the float32 weights, and each input, in every layer of every pass. Gradients of the copies are added up
    in float32, by `collect` after each backward pass, and at the end of the block are the weights' own. Where launching
    is not what takes time, or products are in float32, nothing is copied. Adapters of embeddings and experts are left
    to peft.
    """

    def __init__(self, policy: Policy):
        active = policy.launch_bound and policy.autocast and policy.config.adapter == "lora" and not policy.shards
        layers = lora_layers(policy.wrapped) if active else []
        self.layers = [layer for layer in layers if isinstance(layer.get_base_layer(), nn.Linear) and _plain(layer)]
        self.weights = [part["default"].weight for layer in self.layers for part in (layer.lora_A, layer.lora_B)]
        self.copies: list[Tensor] = []
        self._sum: Tensor | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> AdapterCopies:
        if self.weights:
            flat = torch.cat([weight.detach().flatten() for weight in self.weights]).to(torch.bfloat16)
            trained = torch.is_grad_enabled()
            self.copies = [part.requires_grad_(trained) for part in self._split(flat)]
            for layer, down, up in zip(self.layers, self.copies[::2], self.copies[1::2], strict=True):
                self._stack.enter_context(replaced(layer, "forward", _with_adapter(layer, down, up)))
        return self

    def collect(self) -> None:
        """Add the gradients that a backward pass has left."""
        if not any(copy.grad is not None for copy in self.copies):
            return
        fresh = torch.cat([torch.zeros_like(c).flatten() if c.grad is None else c.grad.flatten() for c in self.copies])
        self._sum = fresh.float() if self._sum is None else self._sum.add_(fresh)
        for copy in self.copies:
            copy.grad = None

    def __exit__(self, kind: Any, *error: Any) -> None:
        self._stack.close()
        if kind is None and self._sum is not None:
            for weight, gradient in zip(self.weights, self._split(self._sum), strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad + gradient

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([weight.numel() for weight in self.weights])
        return [part.view(weight.shape) for part, weight in zip(parts, self.weights, strict=True)]


def _plain(layer: Any) -> bool:
    """Whether a layer adds one adapter as LoRA has it: no variant, no bias, no dropout."""
    if "default" not in layer.lora_B:
        return False
    dropped = not isinstance(layer.lora_dropout["default"], nn.Identity)
    return layer.lora_B["default"].bias is None and not dropped and not getattr(layer, "lora_variant", {})


def _with_adapter(layer: Any, down: Tensor, up: Tensor) -> Callable[[Tensor], Tensor]:
    scale = layer.scaling["default"]

    def forward(rows: Tensor) -> Tensor:
        output: Tensor = layer.base_layer(rows)
        if layer.disable_adapters:
            return output
        low = F.linear(rows, down).flatten(0, -2)
        return torch.addmm(output.flatten(0, -2), low, up.t(), alpha=scale).view(output.shape)

    return forward
