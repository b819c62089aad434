"""What the general path of updates costs with a model: see `motif.sampling.local.speed`."""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor

from motif.models.path import Path
from motif.models.policy import Policy
from motif.sampling.base import TrainingSampler
from motif.sampling.local.speed import RESPONSES, TOKENS, prompts, slowdown, words
from motif.training.batch import Minibatch, Sample, UpdateStats

BUDGET = 2048
"""Tokens in one pass of an update."""


def measure_slowdown(policy: Policy, sampler: TrainingSampler, always: bool = False) -> None:
    """Note on paths that are general how many times the seconds of the fast one they take; with `always`, on all.

    All processes must call this. Where one of the two cannot run this model, nothing is noted.
    """
    sampler.measure_slowdown(always)
    if always or policy.update_path.general:
        policy.update_path = replace(policy.update_path, slower=_updating(policy))


def _updating(policy: Policy) -> float | None:
    rng, chosen = random.Random(1), policy.update_path
    samples = [
        Sample(prompt, [rng.randrange(words(policy)) for _ in range(TOKENS)], [0.0] * TOKENS, 1.0, 1.0, 1.0)
        for prompt in prompts(policy)
        for _ in range(RESPONSES)
    ]

    def update(path: Path) -> None:
        policy.update_path = path
        batch = Minibatch(policy, samples)

        def score(states: Tensor, at: Tensor) -> None:
            logprobs_T, _ = policy.score(states, batch.targets_T[at], batch.temperatures_T_1[at])
            logprobs_T.sum().backward()

        batch.run_all(BUDGET, score, UpdateStats())

    try:
        return slowdown(policy, update)
    finally:
        policy.update_path = chosen
        policy.wrapped.zero_grad(set_to_none=True)
        policy.reshard()
        policy.unshard()
