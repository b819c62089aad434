"""What the general path costs with a model, measured on this machine: its seconds ÷ those of the fast one.

Both are timed on a few tokens in turns, the quickest of two each: responses to prompts that begin alike. The fast one
is timed also where it is wrong, because it does the same work.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from motif.errors import MotifError, out_of_memory
from motif.models.path import FAST, GENERAL, Path
from motif.models.policy import Policy
from motif.sampling.base import Request, TrainingSampler
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Minibatch, Sample, UpdateStats

PROMPTS = (52, 60, 68, 76)
"""Tokens of each prompt."""
ALIKE = 48
"""Tokens with which all of them begin."""
RESPONSES, TOKENS = 4, 8
"""Responses to each prompt, and tokens of each response."""
BUDGET = 2048
"""Tokens in one pass of an update."""
ROUNDS = 2


def measure_slowdown(policy: Policy, sampler: TrainingSampler, always: bool = False) -> None:
    """Note on paths that are general how many times the seconds of the fast one they take; with `always`, on all.

    All processes must call this. Where one of the two cannot run this model, nothing is noted.
    """
    if isinstance(sampler, LocalSampler) and (always or sampler.path.general):
        sampler.path = replace(sampler.path, slower=_sampling(sampler))
    if always or policy.update_path.general:
        policy.update_path = replace(policy.update_path, slower=_updating(policy))


def _sampling(sampler: LocalSampler) -> float | None:
    policy, chosen = sampler.policy, sampler.path
    requests = [
        Request(prompt, list(range(RESPONSES * index, RESPONSES * (index + 1))), max_tokens=TOKENS)
        for index, prompt in enumerate(_prompts(policy))
    ]

    def sample(path: Path) -> None:
        sampler.path = path
        sampler.sample_past_ends(requests)

    usage = replace(sampler.usage)
    try:
        return _ratio(policy, sample)
    finally:
        sampler.path, sampler.usage = chosen, usage


def _updating(policy: Policy) -> float | None:
    rng, chosen = random.Random(1), policy.update_path
    samples = [
        Sample(prompt, [rng.randrange(_words(policy)) for _ in range(TOKENS)], [0.0] * TOKENS, 1.0, 1.0, 1.0)
        for prompt in _prompts(policy)
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
        return _ratio(policy, update)
    finally:
        policy.update_path = chosen
        policy.wrapped.zero_grad(set_to_none=True)
        policy.reshard()
        policy.unshard()


def _ratio(policy: Policy, run: Callable[[Path], None]) -> float | None:
    """Seconds of the general way ÷ those of the fast one; None: one of them fails with this model."""
    seconds: dict[Path, list[float]] = {FAST: [], GENERAL: []}
    try:
        for _ in range(ROUNDS):
            for path, taken in seconds.items():
                start = time.perf_counter()
                run(path)
                if policy.device.type == "cuda":
                    torch.cuda.synchronize(policy.device)
                taken.append(time.perf_counter() - start)
    except (MotifError, MemoryError):
        raise
    except Exception as error:  # a model that one way does not fit may raise anything
        if out_of_memory(error):
            raise
        return None
    return min(seconds[GENERAL]) / min(seconds[FAST])


def _prompts(policy: Policy) -> list[list[int]]:
    rng = random.Random(0)
    room = max(2, policy.max_length - TOKENS)
    tokens = [rng.randrange(_words(policy)) for _ in range(ALIKE + sum(PROMPTS))]
    return [(tokens[:ALIKE] + tokens[ALIKE + length :][: length - ALIKE])[:room] for length in PROMPTS]


def _words(policy: Policy) -> int:
    rows: int = policy.model.get_input_embeddings().weight.shape[0]
    return min(policy.vocabulary, rows)
