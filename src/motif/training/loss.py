r"""The policy-gradient loss as a pure function of log-probabilities and advantages.

The tokens of all sequences are in one flat vector, and each has a weight in the batch's loss. So the loss of a batch is
a weighted sum, and splitting the batch into micro-batches cannot change it:

    L = sum_t w_t [ - c_t min(rho_t A_t, clip(rho_t, 1 - eps_low, 1 + eps_high) A_t) + beta KL_t ]
    rho_t = pi(o_t) / pi_old(o_t)

The kinds differ only in w, with S sequences of lengths |o_i|:

    grpo      1 / (S |o_i|)      mean over sequences of per-sequence means     arXiv 2402.03300
    dapo      1 / sum_i |o_i|    mean over tokens                              arXiv 2503.14476 (with clip-higher)
    dr_grpo   1 / (S L)          sum over a constant length L                  arXiv 2503.20783
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motif.config import LossConfig


@dataclass(frozen=True)
class LossInputs:
    """One micro-batch: vectors of shape (T,), with the T response tokens of its sequences one after the other."""

    logprobs_T: Tensor  # under the policy being updated; carries the gradient
    old_logprobs_T: Tensor  # under the policy before this step's first update
    sampler_logprobs_T: Tensor  # as the sampler reported them
    advantages_T: Tensor
    weights_T: Tensor  # from `token_weights`, over the whole batch
    reference_logprobs_T: Tensor | None = None  # under the adapter-off model; needed for kl_beta > 0


@dataclass(frozen=True)
class LossOutputs:
    """The differentiable loss and, detached, sums over tokens for logging."""

    loss: Tensor
    clipped: Tensor  # tokens whose gradient the clip removed
    kl: Tensor  # sum of the per-token KL estimates
    sampler_gap: Tensor  # sum of |log p_old - log p_sampler|
    sampler_gap_max: Tensor  # maximum of the same
    capped: Tensor  # tokens whose importance weight was cut to the cap


def token_weights(lengths: Sequence[int], kind: str, max_length: int) -> list[float]:
    """The weight w of each sequence's tokens in the batch's loss (the table above), one number per sequence.

    Args:
        lengths: response tokens of every sequence of the batch, including dead groups: leaving out a sequence with
            advantage 0 must not change the weights of the others.
        max_length: L of dr_grpo, the token limit of a response.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "grpo":
        return [1.0 / (len(lengths) * length) for length in lengths]
    if kind == "dapo":
        return [1.0 / sum(lengths)] * len(lengths)
    if kind == "dr_grpo":
        return [1.0 / (len(lengths) * max_length)] * len(lengths)
    raise ValueError(f"unknown loss kind {kind!r}: use grpo, dapo or dr_grpo")


def policy_loss(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """The loss of one micro-batch; the losses of a batch's micro-batches add up to the batch's.

    With `importance_cap` c > 0 a token is weighted by min(c, p_old / p_sampler): truncated importance sampling, for a
    sampler that computes in another precision or with older weights. The KL term is the k3 estimate, times the ratio,
    whose gradient is unbiased (arXiv 2512.02556, section 3.1; TRL's default).
    """
    log_ratio = inputs.logprobs_T - inputs.old_logprobs_T
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    unclipped, clipped = ratio * inputs.advantages_T, clipped_ratio * inputs.advantages_T
    per_token = -torch.minimum(unclipped, clipped)
    gap = inputs.old_logprobs_T - inputs.sampler_logprobs_T
    importance = gap.exp()
    capped = torch.zeros_like(gap)
    if config.importance_cap:
        per_token = per_token * importance.clamp(max=config.importance_cap)
        capped = importance > config.importance_cap
    kl = torch.zeros_like(ratio)
    if config.kl_beta:
        assert inputs.reference_logprobs_T is not None, "kl_beta > 0 needs reference log-probabilities"
        difference = inputs.reference_logprobs_T - inputs.logprobs_T
        kl = (difference.exp() - difference - 1) * ratio
        per_token = per_token + config.kl_beta * kl
    return LossOutputs(
        loss=(per_token * inputs.weights_T).sum(),
        clipped=(clipped < unclipped).sum(dtype=torch.float32).detach(),
        kl=kl.detach().sum(),
        sampler_gap=gap.detach().abs().sum(),
        sampler_gap_max=gap.detach().abs().max(),
        capped=capped.sum(dtype=torch.float32).detach(),
    )
