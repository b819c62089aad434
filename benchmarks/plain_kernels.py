"""What the kernels of `motif.sampling.local.kernels` compute, in plain torch: for tests, and for counting on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Pair | None,
    ranges: Tensor,
    last: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Every row is multiplied with all there is; what it does not see is hidden."""
    index, own = torch.arange(table[0].shape[1] if table else 0), torch.arange(keys.shape[2])
    starts, counts = ranges[..., 0:1], ranges[..., 1:2]
    seen = ((index >= starts) & (index < starts + counts)).any(1)
    visible = torch.cat([seen, own <= last[:, None]], 1)[:, None, None]
    both = [x.float() for x in (keys, values)]
    if table:
        both = [torch.cat([p.float().expand(len(x), -1, -1, -1), x], 2) for p, x in zip(table, both, strict=True)]
    scores = query.float() @ both[0].transpose(2, 3) * scale
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias[:, None, None]
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().expand(len(scores), -1, -1).unsqueeze(-1)], -1)
    weights = scores.softmax(-1)[..., : both[1].shape[2]]
    return (weights @ both[1]).to(query.dtype)


def _outputs(product: Tensor, up: Tensor) -> Tensor:
    outputs, inner = product.float().split([up.shape[1], up.shape[0]], dim=-1)
    return outputs + inner @ up.float()


def turn(
    product: Tensor,
    up: Tensor,
    norms: Pair | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    last: Tensor,
    heads: int,
) -> Tensor:
    """Halves of each head are turned against each other."""
    rows, (own, size) = len(product), keys.shape[1::2]
    found = _outputs(product, up).view(rows, -1, size)
    query, key, value = found.split([heads, own, own], dim=1)
    if norms is not None:
        query, key = (
            F.rms_norm(x, (size,), weight.float(), eps) for x, weight in zip((query, key), norms, strict=True)
        )
    query, key = (
        x * cos.float().unsqueeze(1)
        + torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin.float().unsqueeze(1)
        for x in (query, key)
    )
    row = torch.arange(rows)
    keys[row, :, last], values[row, :, last] = key.to(keys.dtype), value.to(values.dtype)
    return query.to(product.dtype).view(rows, own, heads // own, size)


def add_norm(product: Tensor, up: Tensor, residual: Tensor, weight: Tensor | None, eps: float) -> Pair:
    """The norm is of the sum before it is rounded."""
    total = residual.float() + _outputs(product, up)
    normed = total if weight is None else F.rms_norm(total, weight.shape, weight.float(), eps)
    return total.to(residual.dtype), normed.to(residual.dtype)


def swiglu(product: Tensor, up: Tensor) -> Tensor:
    """The gate comes first."""
    gate, other = _outputs(product, up).chunk(2, dim=-1)
    return (F.silu(gate) * other).to(product.dtype)
