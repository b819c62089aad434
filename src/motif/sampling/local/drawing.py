"""Drawing tokens from logits, with random numbers that depend on a response's key and the token's position alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from motif.models.device import to_device


def uniforms(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one per (key, counter): SplitMix64 (Steele et al., 2014), addressed by position."""
    with np.errstate(over="ignore"):
        x = keys + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


LIKELIEST = 1024
"""Tokens among which those of top-p are sought on a GPU before all are sorted."""


def draw(
    logits: Tensor, temperature: np.ndarray, top_p: np.ndarray, uniform: Tensor, row_of: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw tokens, one or more from each row.

    Args:
        logits: (rows, V), overwritten. temperature, top_p: (rows,) float32; temperature 0 is greedy. They are the
            host's, so that a GPU need not be asked what there is to do.
        uniform: (draws,) in [0, 1), float64 (float32 on MPS). row_of: (draws,) the row of each draw.

    Returns:
        Token ids (draws,) and their log-probabilities (draws,) under softmax(logits / temperature), before top-p.
    """
    greedy = temperature == 0
    # In place where it can be: with a large vocabulary, fresh memory costs more than the arithmetic.
    weights = logits.float()
    if not (temperature == 1).all():
        scale = np.where(greedy, np.float32(1), temperature)
        weights = weights / to_device(scale, weights.device).unsqueeze(-1)
    highest, likeliest = weights.max(-1, keepdim=True)
    weights = weights.sub_(highest).exp_()
    total = weights.sum(-1)
    chosen = likeliest.squeeze(-1)[row_of]
    if not greedy.all():
        kept = weights
        if (top_p < 1).any():
            most = LIKELIEST if weights.device.type == "cuda" else None
            kept = _nucleus(weights / total.unsqueeze(-1), to_device(top_p, weights.device), most)
        drawn = _invert(kept, uniform, row_of)
        chosen = torch.where(to_device(greedy, weights.device)[row_of], chosen, drawn) if greedy.any() else drawn
    return chosen, (weights[row_of, chosen] / total[row_of]).log()


def _nucleus(probabilities: Tensor, top_p: Tensor, most: int | None = None) -> Tensor:
    """Probabilities (rows, V) with all but the likeliest tokens, which together reach top_p (rows,), set to 0.

    `most`: so many are sorted if they are enough for every row; None: all are.
    """
    few = most is not None and most < probabilities.shape[-1]
    if few:
        ordered, order = probabilities.topk(most or 0, dim=-1)
        few = not bool((ordered.sum(-1) < top_p).any())
    if not few:
        ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # mass of the more likely tokens
    ordered = ordered.masked_fill(before >= top_p.unsqueeze(-1), 0.0)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered)


def _invert(weights: Tensor, uniform: Tensor, row_of: Tensor) -> Tensor:
    """The token at which the sum of a row's weights (rows, V) first exceeds uniform (draws,) times their total.

    Blocks of tokens first, then one block's tokens: only the sums of blocks are accumulated in double precision.
    """
    size = weights.shape[1]
    block = min(256, size & -size)  # a power of two that divides the vocabulary
    blocks = weights.unflatten(-1, (size // block, block))
    exact = torch.float64 if weights.device.type != "mps" else torch.float32
    sums = blocks.sum(-1).to(exact).cumsum(-1)[row_of]
    point = uniform.to(exact).unsqueeze(-1) * sums[:, -1:]
    which = _first_above(sums, point)
    point = point - torch.where(which > 0, sums.gather(-1, (which - 1).clamp_(min=0)), 0.0)
    inside = blocks[row_of, which.squeeze(-1)].to(exact).cumsum(-1)
    return (which * block + _first_above(inside, point)).squeeze(-1)


def _first_above(sums: Tensor, point: Tensor) -> Tensor:
    """Where the running sums (rows, X) exceed point (rows, 1); where they never do, for rounding, where they end."""
    ending = torch.searchsorted(sums, sums[:, -1:].contiguous())
    above = torch.minimum(torch.searchsorted(sums, point, right=True), ending)
    return above.clamp_(max=sums.shape[-1] - 1)  # sums that are not numbers end nowhere
