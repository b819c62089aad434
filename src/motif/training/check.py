"""Which way an update computes, found out before the first one: its log-probabilities and gradients are compared.

The reference is a plain pass of each sequence by itself. The samples have a part in common, fork in the middle, and
reach beyond several windows where layers have them. The sampler's check is `motif.sampling.local.check`.
"""

from __future__ import annotations

import contextlib
import random

import torch
from torch import Tensor

from motif.distributed import ALONE, Processes
from motif.errors import ModelError, MotifError, first_line, out_of_memory
from motif.models.path import ALLOWED, Finding, Gaps, Path, choose, off_by
from motif.models.policy import Policy
from motif.models.prefix import MIN_SHARED_TOKENS
from motif.models.windows import narrowed
from motif.sampling.local.check import MEAN, random_adapter
from motif.training.batch import Minibatch, Sample, UpdateStats

BUDGET = 512
"""Tokens in one pass."""
GRADIENT = 1e-2
"""Largest error of a gradient that rounding explains in float32, as a share of the parameter's largest."""
NOTHING = 1e-5
"""The same, as a share of any parameter's largest: some gradients are zero but for rounding."""
ROUNDED = 0.3
"""Error of all gradients together, as a share of their size, that rounding explains in less than float32."""


def choose_update_path(policy: Policy, processes: Processes = ALONE) -> Path:
    """Let the policy's updates take the first way that computes what a plain pass does. All processes must call this.

    Raises:
        ModelError: none does.
    """

    def compare(path: Path) -> Finding:
        policy.update_path = path
        found = processes.gather(_found(policy, processes))
        worst = max(found, key=lambda one: one.gap)
        return Finding(next((one.problem for one in found if one.problem), ""), worst.gaps)

    path, found = choose(compare)
    if policy.implicit_masks and (path is None or path.general):
        policy.implicit_masks = False
        path, found = choose(compare)
    if path is None and policy.launch_bound:
        policy.launch_bound = False  # each operation by itself
        path, found = choose(compare)
    if path is None:
        raise ModelError(
            f"model type {policy.model.config.model_type!r} cannot be trained: {found[1].problem} (and its prompts "
            f"cannot be shared: {found[0].problem}): choose a model of another type"
        )
    policy.update_path = path
    return path


def _found(policy: Policy, processes: Processes) -> Finding:
    """What is to be said of the policy's way."""
    try:
        with random_adapter(policy), narrowed(policy) as size:
            exact = contextlib.nullcontext() if policy.config.four_bit else policy.in_float32()
            with exact:
                return _compare(policy, _samples(policy, size), processes)
    except (MotifError, MemoryError):
        raise
    except Exception as error:  # a model that does not fit may raise anything
        if out_of_memory(error):
            raise
        return Finding(first_line(error))
    finally:
        policy.wrapped.zero_grad(set_to_none=True)
        policy.reshard()  # a backward pass has dropped some of what was gathered
        policy.unshard()


def _samples(policy: Policy, size: int) -> list[Sample]:
    rng = random.Random(0)
    vocabulary = min(policy.vocabulary, policy.model.get_input_embeddings().weight.shape[0])
    size = max(2, min(size, policy.max_length - 24))

    def tokens(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    prompt, begun = tokens(size), tokens(10)
    cousin, other = prompt[: size * 3 // 4] + tokens(size // 8), prompt[: size // 2] + tokens(size // 4)
    # Two responses to each of two prompts: one pass has segments behind contexts of different lengths.
    pairs = [
        (prompt, begun + tokens(9), 1.0),
        (prompt, begun + tokens(3), 1.0),
        (cousin, tokens(7), 1.5),
        (cousin, tokens(9), 1.5),
        (other, tokens(12), 0.7),
    ]
    return [
        Sample(prompt, response, [0.0] * len(response), 1.0, temperature, 1.0)
        for prompt, response, temperature in pairs
    ]


def _compare(policy: Policy, samples: list[Sample], processes: Processes) -> Finding:
    """Add the gradient of a way to that of plain passes with the opposite sign, and see whether anything is left."""
    batch = Minibatch(policy, samples, processes=processes)
    batch.worth = MIN_SHARED_TOKENS  # so that prompts as short as these are shared
    weights_T = torch.rand(len(batch.targets_T), generator=torch.Generator().manual_seed(0)).to(policy.device) - 0.5
    wanted_T = _plain(policy, samples, -weights_T)
    parameters = policy.trainable()
    sizes = [_largest(parameter.grad) for parameter in parameters]
    found_T = torch.full_like(wanted_T, torch.nan)

    def score(states: Tensor, at: Tensor) -> None:
        logprobs_T, _ = policy.score(states, batch.targets_T[at], batch.temperatures_T_1[at])
        found_T[at] = logprobs_T.detach()
        (logprobs_T * weights_T[at]).sum().backward()

    batch.run_all(BUDGET, score, UpdateStats())
    differences_T = (found_T - wanted_T).abs()
    gaps = Gaps(differences_T.mean().item(), differences_T.max().item())
    rounded = policy.config.four_bit
    gap = gaps.mean if rounded else gaps.largest
    if not gap < (MEAN if rounded else ALLOWED):  # nor not a number
        return Finding(off_by(gap))
    left = [_largest(parameter.grad) for parameter in parameters]
    if not all(size < float("inf") for size in [*left, *sizes]):
        return Finding("its gradients are not finite")
    most = max(sizes)
    share, nothing = (ROUNDED, ROUNDED) if rounded else (GRADIENT, NOTHING)
    off = [rest / most for rest, size in zip(left, sizes, strict=True) if rest > share * size + nothing * most]
    wrong = f"gradients are off by up to {100 * max(off):.2g} % of the largest" if off else ""
    return Finding(wrong, None if rounded else gaps)


def _plain(policy: Policy, samples: list[Sample], weights_T: Tensor) -> Tensor:
    """Log-probabilities (T,) by a pass of each sequence alone; adds the gradient of their weighted sum."""
    parts = []
    for sample, weights in zip(samples, weights_T.split([len(one.token_ids) for one in samples]), strict=True):
        logprobs_T, _ = policy.token_logprobs([sample.prompt_ids], [sample.token_ids], [sample.temperature])
        (logprobs_T * weights).sum().backward()
        parts.append(logprobs_T.detach())
    return torch.cat(parts)


def _largest(gradient: Tensor | None) -> float:
    """The largest element, of a shard that of this process."""
    if gradient is None:
        return 0.0
    local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return local.abs().max().item() if local.numel() else 0.0
