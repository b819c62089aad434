"""One optimiser step (or several) on the trained nodes of a step's trees."""

from __future__ import annotations

import functools
import gc
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import nn

from motif.config import Recipe, TrainConfig
from motif.distributed import ALONE, Processes
from motif.errors import OutOfResources, SamplerMismatch, out_of_memory
from motif.models.device import give_back_memory
from motif.models.policy import Policy
from motif.models.sharding import full_tensor
from motif.training.batch import Minibatch, Sample, UpdateStats, split_by_work

T = TypeVar("T")

NOT_SUMMED = ("grad_norm", "updates", "skipped", "causes", "sampler_gap_max")
"""Statistics that are the same in every process, or are not sums."""


@dataclass
class Budget:
    """Tokens of a micro-batch: as many as the recipe says, halved for good wherever they do not fit in memory.

    `fits`: the limit found so far, for the checkpoint; None while the recipe's number fits.
    """

    requested: int
    fits: int | None = None

    def __post_init__(self) -> None:
        self._reported = self.fits

    @property
    def tokens(self) -> int:
        """The limit in force."""
        return min(self.requested, self.fits or self.requested)

    def run(self, batch: Minibatch, work: Callable[[int], T]) -> T:
        """Return `work(tokens)`, with the limit halved until it fits in memory.

        Raises:
            OutOfResources: the longest sequence by itself does not fit, or the weights are sharded: the other
                processes wait in an exchange, so the work cannot be repeated.
        """
        while True:
            try:
                return work(self.tokens)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._refuse_to_halve(batch, error)
            # Here, after the handler: the error's traceback held the tensors of the pass that failed.
            self.fits = max(1, min(self.tokens, sum(sample.length for sample in batch.samples)) // 2)
            gc.collect()
            give_back_memory()
            if batch.policy.device.type == "cuda":
                torch.cuda.empty_cache()

    def _refuse_to_halve(self, batch: Minibatch, error: Exception) -> None:
        if batch.policy.shards:
            raise OutOfResources(
                "out of memory in the update, in the middle of an exchange with the other processes: lower "
                "train.microbatch_tokens, and add --allow-changes"
            ) from error
        if self.tokens == 1:  # every piece has been by itself
            longest = max(sample.length for sample in batch.samples)
            raise OutOfResources(
                f"out of memory in the update, with a single sequence of {longest:,} tokens: set "
                "train.activation_checkpointing = true, or lower rollout.tokens_first or rollout.tokens_continue, "
                "and add --allow-changes"
            ) from error

    def pop_warning(self, step: int) -> str | None:
        """A warning if the limit has been halved since the last call, otherwise None."""
        if self.fits == self._reported:
            return None
        self._reported = self.fits
        return (
            f"warning: out of memory in the update of step {step}. It was repeated with micro-batches of "
            f"{self.tokens:,} tokens, which are kept from now on: set train.microbatch_tokens for the next run"
        )


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: TrainConfig, processes: Processes = ALONE
) -> torch.optim.Optimizer:
    """AdamW with learning rate 0; with `shard = "optimizer"` its state is spread over the processes."""
    options: dict[str, Any] = {"betas": config.betas, "weight_decay": config.weight_decay, "lr": 0.0}
    if config.shard == "optimizer" and processes.count > 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, **options)
    return torch.optim.AdamW(parameters, **options)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    samples: Sequence[Sample],
    recipe: Recipe,
    processes: Processes = ALONE,
    budget: Budget | None = None,
    max_gap: float = 0.0,
) -> UpdateStats:
    """Train on `samples` for `inner_epochs` × `minibatches` optimiser steps.

    Gradients of micro-batches are summed before clipping, and the weights are those of the whole batch, so the result
    does not depend on the token budget beyond rounding. An optimiser step whose gradient is not finite is not taken:
    the weights and the optimiser's state stay as they are, bit for bit, and it is counted in `skipped`.

    Args:
        samples: of the whole batch, the same in every process.
        processes: among which every minibatch is divided; they take the same optimiser steps.
        budget: tokens of a micro-batch; by default the recipe's.
        max_gap: mean difference (nats) from the sampler's log-probabilities up to which it trains; 0: no limit.

    Returns:
        Statistics of all processes together; of no sample, all zero.

    Raises:
        OutOfResources: see `Budget.run`.
        SamplerMismatch: the sampler's log-probabilities are not the trainer's. Nothing has been trained.
    """
    if not samples:
        return UpdateStats()
    config, budget = recipe.loss, budget or Budget(recipe.train.pass_tokens)
    stats = UpdateStats()
    policy.reshard()
    parts = min(config.minibatches, len(samples))
    # `parts` makes an optimiser step on a part weigh like the whole.
    shares = [split_by_work(samples[start::parts], processes.count)[processes.rank] for start in range(parts)]
    minibatches = [Minibatch(policy, share, scale=parts, processes=processes) for share in shares]
    for batch in minibatches:
        if parts * config.inner_epochs > 1:
            batch.old_T = budget.run(batch, batch.logprobs)
        if config.kl_beta:
            with policy.adapter_disabled():
                batch.reference_T = budget.run(batch, batch.logprobs)
    for _ in range(config.inner_epochs):
        for batch in minibatches:
            before = stats
            stats = budget.run(batch, functools.partial(_fresh_gradient, batch, recipe, optimizer, before))
            if max_gap and before.computed_tokens == 0:  # of the first: nothing has been changed yet
                _refuse_mismatch(stats, optimizer, processes, max_gap, recipe.sampler.overlap)
            if not policy.shards:  # which sum them on the way
                processes.sum_gradients(policy.trainable())
            norm = full_tensor(torch.nn.utils.clip_grad_norm_(policy.trainable(), recipe.train.max_grad_norm)).item()
            if not math.isfinite(norm):  # the same in all processes
                stats = _skip(stats, before, batch, processes)
                optimizer.zero_grad(set_to_none=True)
                continue
            optimizer.step()
            stats.grad_norm += norm
            stats.updates += 1
    return _sum_over_processes(stats, processes)


def _fresh_gradient(
    batch: Minibatch, recipe: Recipe, optimizer: torch.optim.Optimizer, stats: UpdateStats, budget: int
) -> UpdateStats:
    """Replace the parameters' gradient by that of a batch; returns a copy of `stats` with its numbers added."""
    after = replace(stats)
    optimizer.zero_grad(set_to_none=True)
    with batch.policy.activation_checkpointing(recipe.train.recomputes):
        batch.gradient(recipe, budget, after)
    give_back_memory()
    return after


def _refuse_mismatch(
    stats: UpdateStats, optimizer: torch.optim.Optimizer, processes: Processes, max_gap: float, overlap: bool
) -> None:
    gap, tokens = processes.total([stats.sampler_gap, stats.tokens])
    if tokens and gap / tokens > max_gap:
        optimizer.zero_grad(set_to_none=True)
        cause = "sampler and trainer do not compute the same"
        change = "model.dtype = 'float32'"
        if overlap:  # then they are also one update apart
            cause += ", or one update changes too much"
            change += ", sampler.overlap = false or a smaller train.learning_rate"
        raise SamplerMismatch(
            f"{cause}: log-probabilities differ by {gap / tokens:.2g} nats on average, above sampler.max_mean_gap = "
            f"{max_gap:g}. Nothing was trained in this step. Set {change} and add --allow-changes, or raise the limit"
        )


def _skip(stats: UpdateStats, before: UpdateStats, batch: Minibatch, processes: Processes) -> UpdateStats:
    """The statistics without an optimiser step that was not taken, but with its work and its causes."""
    names = list(itertools.chain(*processes.gather(batch.nonfinite())))
    if not names:  # it overflowed on the way to the weights, in a sum of all
        names = list(itertools.chain(*processes.gather([sample.name for sample in batch.samples])))
    causes = list(dict.fromkeys([*stats.causes, *names]))
    return replace(before, computed_tokens=stats.computed_tokens, skipped=stats.skipped + 1, causes=causes)


def _sum_over_processes(stats: UpdateStats, processes: Processes) -> UpdateStats:
    names = [field.name for field in fields(stats) if field.name not in NOT_SUMMED]
    stats.sampler_gap_max = max(processes.gather(stats.sampler_gap_max))
    sums = processes.total([getattr(stats, name) for name in names])
    for name, value in zip(names, sums, strict=True):
        setattr(stats, name, value)
    return stats
