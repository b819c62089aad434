"""A model whose states are rotated throughout, so that its layers in 8 bits need not rotate what they read.

QuaRot's fold (arXiv 2404.00456): rows of the embedding and outputs of the layers that write into the residual stream
(`o_proj`, `down_proj`) are rotated, and so the stream is. A norm only divides it by its length, which no rotation
changes, once its scale is in the weights that read it. Values are rotated within heads, and attention mixes them
within heads. All of this is done to weights, except for the few embedded rows; `down_proj` alone rotates its inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.models.int8 import block, hadamard, rotated
from motif.models.launches import norm_weight, replaced
from motif.models.policy import Policy
from motif.sampling.local.layers import ATTENTION, MLP, has_form, has_parts

SMALLEST = 16
"""Numbers of a head that have to be rotated together; else `o_proj` rotates its inputs, in larger blocks."""


@dataclass(frozen=True)
class Turn:
    """What is done to a layer's weights (N, K) and bias before they are made whole numbers.

    turned: size of the blocks in which its inputs come rotated; 0: they do not. scale: (K,) of the norm that it reads.
    size: of the blocks in which its outputs are rotated; 1: they are not.
    """

    turned: int = 0
    scale: Tensor | None = None
    size: int = 1

    def of(self, weight: Tensor) -> Tensor:
        """Weights of some output channels, whole blocks."""
        weight = weight if self.scale is None else weight * self.scale
        if self.size == 1:
            return weight
        return torch.matmul(hadamard(self.size), weight.unflatten(0, (-1, self.size))).flatten(0, 1)


PLAIN = Turn()


@dataclass(frozen=True)
class Rotation:
    """How a policy's states are kept rotated; `turns` has all linear layers that read or write them."""

    embedding: Any
    norms: dict[Any, float]
    turns: dict[nn.Linear, Turn]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Embed rotated rows and divide by lengths only, inside the block, in which layers have weights for that."""
        embed = self.embedding.forward
        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced(self.embedding, "forward", lambda ids: rotated(embed(ids))))
            for norm, eps in self.norms.items():
                stack.enter_context(replaced(norm, "forward", _unscaled(eps)))
            yield


@torch.no_grad()
def find_rotation(policy: Policy, layers: Collection[nn.Module]) -> Rotation | None:
    """How to rotate a policy's states, if it has the form for that and all that reads or writes them is in `layers`."""
    decoder, head = policy.decoder, policy.model.get_output_embeddings()
    blocks, final = list(getattr(decoder, "layers", [])), norm_weight(getattr(decoder, "norm", None))
    if final is None or not blocks or not all(has_parts(one) and has_form(policy, one) for one in blocks):
        return None
    embedding = decoder.get_input_embeddings()
    if not _is_chain(policy, [embedding, *blocks, decoder.norm, head]):
        return None
    width = block(len(final[0]))
    turns, norms = {_base(head): Turn(width, final[0])}, {decoder.norm: final[1]}
    for one in blocks:
        attention, mlp = one.self_attn, one.mlp
        value, out = _base(attention.v_proj), _base(attention.o_proj)
        within = block(attention.head_dim)
        within = within if within >= min(SMALLEST, block(out.in_features)) else 0
        readers = [getattr(attention, name) for name in ATTENTION], [getattr(mlp, name) for name in MLP]
        for norm, parts in zip((one.input_layernorm, one.post_attention_layernorm), readers, strict=True):
            scale, norms[norm] = norm_weight(norm) or (None, 0.0)
            turns |= {_base(part): Turn(width, scale) for part in parts}
        turns[value] = Turn(width, turns[value].scale, within or 1)
        turns[out] = Turn(within, None, width)
        turns[_base(mlp.down_proj)] = Turn(0, None, width)
    return Rotation(embedding, norms, turns) if turns.keys() <= set(layers) else None


def _is_chain(policy: Policy, parts: list[Any]) -> bool:
    """Whether each of these parts is given just what the one before it returns, in a pass over three tokens."""
    given: list[Any] = []
    returned: list[Any] = []

    def see(module: Any, rows: Any, output: Any) -> None:
        given.append(rows[0] if rows else None)
        returned.append(output)

    hooks = [part.register_forward_hook(see) for part in parts]
    try:
        with policy.precision():
            ids = torch.arange(3, device=policy.device)[None]
            policy.head(policy.decoder(input_ids=ids, use_cache=False).last_hidden_state)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = list(zip(returned, given[1:], strict=False))
    return len(given) == len(parts) and all(
        isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other) for one, other in pairs
    )


def _base(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _unscaled(eps: float) -> Any:
    return lambda rows: F.rms_norm(rows, rows.shape[-1:], None, eps)
