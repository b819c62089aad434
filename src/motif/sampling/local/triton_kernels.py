"""The steps of decoding that are one kernel each on a GPU, in Triton: attention, rotary embeddings, norms, SwiGLU.

`motif.sampling.local.kernels` says what each computes and when it is used. R rows are decoded; `product` (R, N + K)
is what a joint product leaves (`motif.sampling.local.joining`): outputs of N numbers a row, and K of an adapter's inner
ones, which times `up` (K, N) are added to the outputs. Numbers are added up in float32.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOWEST = tl.constexpr(-1e30)
ROWS, COLUMNS, RANKS = 16, 64, 64


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: tuple[Tensor, Tensor] | None,
    ranges: Tensor,
    last: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """See `Kernels`."""
    rows, heads, group, size = query.shape
    width = values.shape[3]
    prompts = (keys[0], values[0]) if table is None else table
    output = query.new_empty(rows, heads, group, width)
    query, keys, values = (_dense(tensor) for tensor in (query, keys, values))
    shared, weighted = (_dense(tensor) for tensor in prompts)
    sizes = triton.next_power_of_2(size), triton.next_power_of_2(width)
    _attend[rows, heads](
        query, keys, values, shared, weighted, ranges, last, bias, sinks, output, scale, softcap or 1.0,
        ranges.shape[1], shared.shape[1] if table is not None else 0, 0 if bias is None else bias.stride(0),
        *query.stride()[:3], *keys.stride()[:3], *values.stride()[:3], *shared.stride()[:2], *weighted.stride()[:2],
        GROUP=group, SIZE=size, WIDTH=width, GROUPS=max(16, triton.next_power_of_2(group)),
        KEYS=max(16, sizes[0]), VALUES=max(16, sizes[1]),
        BLOCK=64 if max(sizes) * query.element_size() <= 256 else 16,
        BIASED=bias is not None, CAPPED=softcap is not None, SINKS=sinks is not None, WORK=_work(query),
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return output


def _work(tensor: Tensor) -> tl.dtype:
    """What products are of: the interpreter, with which kernels are tested on a CPU, knows none in bfloat16."""
    return getattr(tl, str(tensor.dtype if tensor.is_cuda else torch.float32).removeprefix("torch."))


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, with the numbers of its last dimension side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def turn(
    product: Tensor,
    up: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    last: Tensor,
    heads: int,
) -> Tensor:
    """See `Kernels`."""
    (rows, size), own = (len(product), keys.shape[3]), keys.shape[1]
    output = product.new_empty(rows, own, heads // own, size)
    _turn[triton.cdiv(rows, ROWS), heads + 2 * own](
        product, up, *(norms or (None, None)), cos, sin, keys, values, last, output, rows, *up.shape, eps,
        product.stride(0), up.stride(0), cos.stride(0) if len(cos) > 1 else 0, sin.stride(0) if len(sin) > 1 else 0,
        *keys.stride()[:3], *values.stride()[:3],
        HEADS=heads, OWN=own, SIZE=size, SIZES=max(16, triton.next_power_of_2(size)), NORMED=norms is not None,
        ROWS=ROWS, RANKS=RANKS, WORK=_work(product), num_warps=4,
    )  # fmt: skip
    return output


def add_norm(product: Tensor, up: Tensor, residual: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """See `Kernels`."""
    total, normed = torch.empty_like(residual), torch.empty_like(residual)
    rows, width = residual.shape
    _add_norm[(triton.cdiv(rows, ROWS),)](
        product, up, residual, weight, total, normed, rows, up.shape[0], width, eps,
        product.stride(0), up.stride(0), residual.stride(0),
        NORMED=weight is not None, ROWS=ROWS, COLUMNS=COLUMNS, RANKS=RANKS, WORK=_work(product), num_warps=8,
    )  # fmt: skip
    return total, normed


def swiglu(product: Tensor, up: Tensor) -> Tensor:
    """See `Kernels`."""
    rows, width = len(product), up.shape[1] // 2
    output = product.new_empty(rows, width)
    _swiglu[triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS)](
        product, up, output, rows, up.shape[0], width, product.stride(0), up.stride(0),
        ROWS=ROWS, COLUMNS=COLUMNS, RANKS=RANKS, WORK=_work(product), num_warps=4,
    )  # fmt: skip
    return output


# -- kernels -----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["depth", "tokens", "bias_row"])  # which change often: compiled once for all
def _attend(
    query, keys, values, shared, weighted, ranges, last, bias, sinks, output, scale, softcap,
    depth, tokens, bias_row,
    query_row, query_head, query_group, key_row, key_head, key_token, value_row, value_head, value_token,
    shared_head, shared_token, weighted_head, weighted_token,
    GROUP: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, GROUPS: tl.constexpr, KEYS: tl.constexpr,
    VALUES: tl.constexpr, BLOCK: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr, SINKS: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    group, size, width = tl.arange(0, GROUPS), tl.arange(0, KEYS), tl.arange(0, VALUES)
    place = query + row * query_row + head * query_head + group[:, None] * query_group + size[None, :]
    asked = tl.load(place, mask=(group < GROUP)[:, None] & (size < SIZE)[None, :], other=0.0).to(WORK)
    highest = tl.full([GROUPS], LOWEST, tl.float32)
    total = tl.zeros([GROUPS], tl.float32)
    if SINKS:
        highest = tl.load(sinks + head * GROUP + group, mask=group < GROUP, other=0.0).to(tl.float32)
        total += 1.0
    result = tl.zeros([GROUPS, VALUES], tl.float32)
    for level in range(depth):
        start = tl.load(ranges + (row * depth + level) * 2)
        count = tl.load(ranges + (row * depth + level) * 2 + 1)
        highest, total, result = _tokens(
            asked, shared + head * shared_head + start * shared_token,
            weighted + head * weighted_head + start * weighted_token, shared_token, weighted_token,
            bias + row * bias_row + start if BIASED else bias, count, highest, total, result, scale, softcap,
            SIZE, WIDTH, KEYS, VALUES, BLOCK, BIASED, CAPPED,
        )  # fmt: skip
    highest, total, result = _tokens(
        asked, keys + row * key_row + head * key_head, values + row * value_row + head * value_head,
        key_token, value_token, bias + row * bias_row + tokens if BIASED else bias, tl.load(last + row) + 1,
        highest, total, result, scale, softcap, SIZE, WIDTH, KEYS, VALUES, BLOCK, BIASED, CAPPED,
    )  # fmt: skip
    place = output + ((row * tl.num_programs(1) + head) * GROUP + group[:, None]) * WIDTH + width[None, :]
    result = (result / total[:, None]).to(output.dtype.element_ty)
    tl.store(place, result, mask=(group < GROUP)[:, None] & (width < WIDTH)[None, :])


@triton.jit
def _tokens(
    asked, keys, values, key_token, value_token, bias, count, highest, total, result, scale, softcap,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr, BLOCK: tl.constexpr,
    BIASED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Go on with a softmax and its weighted sum over so many tokens more (as in FlashAttention, arXiv 2205.14135)."""
    size, width = tl.arange(0, KEYS), tl.arange(0, VALUES)
    for first in range(0, count, BLOCK):
        token = first + tl.arange(0, BLOCK)
        there = token < count
        place = keys + token[:, None].to(tl.int64) * key_token + size[None, :]
        block = tl.load(place, mask=there[:, None] & (size < SIZE)[None, :], other=0.0).to(asked.dtype)
        scores = tl.dot(asked, tl.trans(block), input_precision="ieee") * scale
        if CAPPED:
            scores = softcap * (2.0 / (1.0 + tl.exp(-2.0 * scores / softcap)) - 1.0)
        if BIASED:
            scores += tl.load(bias + token, mask=there, other=0.0)[None, :]
        scores = tl.where(there[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        kept = tl.exp(highest - higher)
        place = values + token[:, None].to(tl.int64) * value_token + width[None, :]
        block = tl.load(place, mask=there[:, None] & (width < WIDTH)[None, :], other=0.0).to(asked.dtype)
        result = result * kept[:, None] + tl.dot(weights.to(asked.dtype), block, input_precision="ieee")
        total = total * kept + tl.sum(weights, 1)
        highest = higher
    return highest, total, result


@triton.jit
def _outputs(
    product, up, row, column, rows, ranks, width, there, product_row, up_row, RANKS: tl.constexpr, WORK: tl.constexpr
):  # fmt: skip
    """Columns of a joint product (ROWS, COLUMNS), with what the adapter adds, in float32."""
    seen = (row < rows)[:, None] & there[None, :]
    line = product + row[:, None] * product_row
    found = tl.load(line + column[None, :], mask=seen, other=0.0).to(tl.float32)
    for first in range(0, ranks, RANKS):
        rank = first + tl.arange(0, RANKS)
        known = rank < ranks
        inner = tl.load(line + width + rank[None, :], mask=(row < rows)[:, None] & known[None, :], other=0.0)
        place = up + rank[:, None] * up_row + column[None, :]
        outer = tl.load(place, mask=known[:, None] & there[None, :], other=0.0)
        found += tl.dot(inner.to(WORK), outer.to(WORK), input_precision="ieee")
    return found


@triton.jit
def _turn(
    product, up, query_norm, key_norm, cos, sin, keys, values, last, output, rows, ranks, width, eps,
    product_row, up_row, cos_row, sin_row, key_row, key_head, key_token, value_row, value_head, value_token,
    HEADS: tl.constexpr, OWN: tl.constexpr, SIZE: tl.constexpr, SIZES: tl.constexpr, NORMED: tl.constexpr,
    ROWS: tl.constexpr, RANKS: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    size = tl.arange(0, SIZES)
    there, seen = size < SIZE, (row < rows)[:, None] & (size < SIZE)[None, :]
    found = _outputs(product, up, row, head * SIZE + size, rows, ranks, width, there, product_row, up_row, RANKS, WORK)
    if head < HEADS + OWN:
        swapped = tl.where(size < SIZE // 2, size + SIZE // 2, size - SIZE // 2)
        column = head * SIZE + swapped
        other = _outputs(product, up, row, column, rows, ranks, width, there, product_row, up_row, RANKS, WORK)
        if NORMED:
            norm = query_norm if head < HEADS else key_norm
            factor = 1.0 / tl.sqrt(tl.sum(found * found, 1) / SIZE + eps)
            found *= factor[:, None] * tl.load(norm + size, mask=there, other=0.0).to(tl.float32)[None, :]
            other *= factor[:, None] * tl.load(norm + swapped, mask=there, other=0.0).to(tl.float32)[None, :]
        cosines = tl.load(cos + row[:, None] * cos_row + size[None, :], mask=seen, other=0.0).to(tl.float32)
        sines = tl.load(sin + row[:, None] * sin_row + size[None, :], mask=seen, other=0.0).to(tl.float32)
        found = found * cosines + tl.where(size < SIZE // 2, -1.0, 1.0)[None, :] * other * sines
    if head < HEADS:
        place = output + (row[:, None] * HEADS + head) * SIZE + size[None, :]
        tl.store(place, found.to(output.dtype.element_ty), mask=seen)
    else:
        token = tl.load(last + row, mask=row < rows, other=0)
        if head < HEADS + OWN:
            line = row * key_row + (head - HEADS) * key_head + token * key_token
            tl.store(keys + line[:, None] + size[None, :], found.to(keys.dtype.element_ty), mask=seen)
        else:
            line = row * value_row + (head - HEADS - OWN) * value_head + token * value_token
            tl.store(values + line[:, None] + size[None, :], found.to(values.dtype.element_ty), mask=seen)


@triton.jit
def _add_norm(
    product, up, residual, weight, total, normed, rows, ranks, width, eps, product_row, up_row, residual_row,
    NORMED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANKS: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    squares = tl.zeros([ROWS], tl.float32)
    for first in range(0, width, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        there, seen = column < width, (row < rows)[:, None] & (column < width)[None, :]
        found = _outputs(product, up, row, column, rows, ranks, width, there, product_row, up_row, RANKS, WORK)
        found += tl.load(residual + row[:, None] * residual_row + column[None, :], mask=seen, other=0.0)
        tl.store(total + row[:, None] * width + column[None, :], found.to(total.dtype.element_ty), mask=seen)
        squares += tl.sum(found * found, 1)
    if NORMED:
        tl.debug_barrier()  # other threads have written what these read
        factor = 1.0 / tl.sqrt(squares / width + eps)
        for first in range(0, width, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            there, seen = column < width, (row < rows)[:, None] & (column < width)[None, :]
            found = tl.load(total + row[:, None] * width + column[None, :], mask=seen, other=0.0).to(tl.float32)
            found *= factor[:, None] * tl.load(weight + column, mask=there, other=0.0).to(tl.float32)[None, :]
            tl.store(normed + row[:, None] * width + column[None, :], found.to(normed.dtype.element_ty), mask=seen)


@triton.jit
def _swiglu(
    product, up, output, rows, ranks, width, product_row, up_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANKS: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < width
    gate = _outputs(product, up, row, column, rows, ranks, 2 * width, there, product_row, up_row, RANKS, WORK)
    found = _outputs(product, up, row, width + column, rows, ranks, 2 * width, there, product_row, up_row, RANKS, WORK)
    found *= gate / (1.0 + tl.exp(-gate))
    place = output + row[:, None] * width + column[None, :]
    tl.store(place, found.to(output.dtype.element_ty), mask=(row < rows)[:, None] & there[None, :])
