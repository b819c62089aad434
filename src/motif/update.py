"""One optimiser step (or several) on the trained nodes of a step's trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motif.config import Recipe
from motif.loss import LossInputs, policy_loss, token_weights
from motif.policy import Policy
from motif.tree import Tree


@dataclass(frozen=True)
class Sample:
    """One response to train on: token ids as sampled, and what its tokens weigh in the loss."""

    prompt_ids: list[int]
    token_ids: list[int]
    sampler_logprobs: list[float]
    advantage: float
    temperature: float
    weight: float  # of each of its tokens, see `motif.loss.token_weights`

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass
class UpdateStats:
    """What an update did, in sums over its response tokens (`tokens` counts each inner epoch anew)."""

    tokens: int = 0
    computed_tokens: int = 0  # forward and backward, prompts and padding included
    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    sampler_gap: float = 0.0
    grad_norm: float = 0.0
    updates: int = 0


def collect(trees: Sequence[Tree], recipe: Recipe) -> list[Sample]:
    """The samples of a batch: every node with a non-zero advantage, weighted as part of the whole batch.

    Nodes of dead groups (advantage 0) have no gradient and are left out, but they count in the weights, so leaving
    them out changes nothing. With a KL penalty they do have a gradient and stay.
    """
    rollout = recipe.rollout
    nodes = [node for tree in trees for node in tree.walk() if node.advantage is not None]
    longest = max(rollout.tokens_first, rollout.tokens_continue if recipe.credit.train_rounds == "all" else 0)
    weights = token_weights([len(node.token_ids) for node in nodes], recipe.loss.kind, longest) if nodes else []
    return [
        Sample(
            prompt_ids=node.prompt_ids,
            token_ids=node.token_ids,
            sampler_logprobs=node.logprobs,
            advantage=node.advantage or 0.0,
            temperature=rollout.temperature_first if node.round == 1 else rollout.temperature_continue,
            weight=weight,
        )
        for node, weight in zip(nodes, weights, strict=True)
        if node.advantage or recipe.loss.kl_beta
    ]


def microbatches(samples: Sequence[Sample], budget: int) -> list[list[Sample]]:
    """Cut samples into batches of similar length with at most `budget` tokens each, padding included.

    A single sample longer than the budget gets a batch of its own.
    """
    batches: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: -sample.length):  # so the first of a batch is its longest
        if batches and batches[-1][0].length * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return batches


def update(policy: Policy, optimizer: torch.optim.Optimizer, samples: Sequence[Sample], recipe: Recipe) -> UpdateStats:
    """Train on `samples` for `inner_epochs` × `minibatches` optimiser steps.

    Gradients of micro-batches are summed before clipping, and the weights are those of the whole batch, so the result
    does not depend on the token budget beyond rounding.

    Raises:
        FloatingPointError: the gradient is not finite; the weights are as before this optimiser step.
    """
    config, budget = recipe.loss, recipe.train.microbatch_tokens
    stats = UpdateStats()
    parts = min(config.minibatches, len(samples))
    # With a single update the old policy is the current one, and its log-probabilities need no pass of their own.
    old = _logprobs(policy, samples, budget) if parts * config.inner_epochs > 1 else {}
    reference: dict[int, Tensor] = {}
    if config.kl_beta:
        with policy.base():
            reference = _logprobs(policy, samples, budget)
    for _ in range(config.inner_epochs):
        for start in range(parts):
            optimizer.zero_grad(set_to_none=True)
            with policy.recomputing(recipe.train.activation_checkpointing):
                for batch in microbatches(samples[start::parts], budget):
                    _accumulate(policy, batch, recipe, old, reference, parts, stats)
            norm = torch.nn.utils.clip_grad_norm_(policy.trainable(), recipe.train.max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(
                    "the gradient is not finite: lower train.learning_rate, or set model.dtype = 'float32'"
                )
            optimizer.step()
            stats.grad_norm += norm.item()
            stats.updates += 1
    return stats


def _accumulate(
    policy: Policy,
    batch: Sequence[Sample],
    recipe: Recipe,
    old: dict[int, Tensor],
    reference: dict[int, Tensor],
    scale: float,
    stats: UpdateStats,
) -> None:
    """Forward and backward of one micro-batch; `scale` makes an optimiser step on a part weigh like the whole."""
    logprobs_T, entropies_T = _forward(policy, batch)
    inputs = LossInputs(
        logprobs_T=logprobs_T,
        old_logprobs_T=_joined(old, batch) if old else logprobs_T.detach(),
        sampler_logprobs_T=_spread(policy, [sample.sampler_logprobs for sample in batch]),
        advantages_T=_spread(policy, [[sample.advantage] * len(sample.token_ids) for sample in batch]),
        weights_T=_spread(policy, [[sample.weight * scale] * len(sample.token_ids) for sample in batch]),
        reference_logprobs_T=_joined(reference, batch) if reference else None,
    )
    outputs = policy_loss(inputs, recipe.loss)
    outputs.loss.backward()
    stats.tokens += len(logprobs_T)
    stats.computed_tokens += len(batch) * max(sample.length for sample in batch)
    stats.loss += outputs.loss.item()
    stats.entropy += entropies_T.sum().item()
    stats.kl += outputs.kl.item()
    stats.clipped += outputs.clipped.item()
    stats.sampler_gap += outputs.sampler_gap.item()


def _forward(policy: Policy, batch: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    return policy.token_logprobs(
        [sample.prompt_ids for sample in batch],
        [sample.token_ids for sample in batch],
        [sample.temperature for sample in batch],
    )


@torch.no_grad()
def _logprobs(policy: Policy, samples: Sequence[Sample], budget: int) -> dict[int, Tensor]:
    """Log-probabilities of every sample's tokens under the weights in force, by the sample's identity."""
    result: dict[int, Tensor] = {}
    for batch in microbatches(samples, budget):
        pieces = _forward(policy, batch)[0].split([len(sample.token_ids) for sample in batch])
        result |= {id(sample): piece for sample, piece in zip(batch, pieces, strict=True)}
    return result


def _joined(pieces: dict[int, Tensor], batch: Sequence[Sample]) -> Tensor:
    return torch.cat([pieces[id(sample)] for sample in batch])


def _spread(policy: Policy, values: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([value for row in values for value in row], dtype=torch.float32, device=policy.device)
