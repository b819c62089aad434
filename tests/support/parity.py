"""What motif computes with a model, compared with the model's own plain forward pass, one sequence at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motif.config import ModelConfig, Recipe
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Minibatch, Sample
from motif.training.check import choose_update_path
from motif.training.update import update
from support.architectures import shake_adapter
from support.updates import Keep

TOKENS = 24
"""Tokens of a response."""
TOLERANCE = 1e-4
"""Largest gap (nats) that rounding explains in float32."""


@dataclass(frozen=True)
class Gaps:
    """Mean and largest differences of log-probabilities in nats, and the relative error of the gradient."""

    sampler_mean: float
    sampler_max: float
    update_mean: float
    update_max: float
    gradient: float
    tokens: int  # of the longest sequence
    sampler_path: str
    update_path: str
    reason: str = ""  # why a path is not the fast one
    adapted: float = 1.0  # `Policy.trained_share`

    @property
    def fine(self) -> bool:
        """No difference that rounding does not explain."""
        return max(self.sampler_max, self.update_max) <= TOLERANCE and self.gradient <= 1e-3


def requests(vocabulary: int, longest: int, tokens_each: int, rng: random.Random) -> list[Request]:
    """Prompts that share a beginning and fork in the middle; the longest has `longest` tokens."""

    def tokens(count: int) -> list[int]:
        return [rng.randrange(4, vocabulary - 4) for _ in range(count)]

    stem = tokens(longest // 2)
    questions = [stem + tokens(longest // 8), stem + tokens(longest // 4)]
    notes = [question + tokens(count) for question in questions for count in (longest // 16 + 1, longest // 4)]
    keys = iter(range(100))
    return [
        Request(prompt, [next(keys), next(keys)], max_tokens=tokens_each) for prompt in [*questions, *notes, tokens(3)]
    ]


def plain_logprobs(policy: Policy, prompt: Sequence[int], response: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Log-probabilities (T,) of a response by the whole model's forward pass, without a cache or padding."""
    ids = torch.tensor([[*prompt, *response]])
    logits = policy.wrapped(input_ids=ids, use_cache=False).logits[0].float() / temperature
    chosen = torch.tensor(response).unsqueeze(-1)
    return logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, chosen).squeeze(-1)


def measure(config: ModelConfig, longest: int = 96, rows: int = 8) -> Gaps:
    """Sample, compute log-probabilities and a gradient, and compare each with the plain forward pass."""
    policy = Policy(config)
    if config.adapter == "lora":
        shake_adapter(policy)
    choose_update_path(policy)
    rng = random.Random(0)
    sampler = LocalSampler(policy, max_rows=rows)
    vocabulary = min(policy.vocabulary, policy.model.get_input_embeddings().weight.shape[0])
    tokens = min(TOKENS, policy.max_length // 3)
    done = complete(sampler, requests(vocabulary, min(longest, policy.max_length - tokens), tokens, rng))
    samples = [_sample(one, rng) for one in done]
    with torch.no_grad():
        plain = [plain_logprobs(policy, one.prompt_ids, one.token_ids) for one in samples]
    sampled = torch.cat([torch.tensor(one.sampler_logprobs) for one in samples])
    updated = Minibatch(policy, samples).logprobs(4096)
    sampler_gap, update_gap = ((ours - torch.cat(plain)).abs() for ours in (sampled, updated))
    return Gaps(
        sampler_gap.mean().item(),
        sampler_gap.max().item(),
        update_gap.mean().item(),
        update_gap.max().item(),
        gradient_error(policy, samples),
        max(one.length for one in samples),
        *paths(policy, sampler),
        policy.trained_share,
    )


def paths(policy: Policy, sampler: LocalSampler) -> tuple[str, str, str]:
    """The paths of the sampler and of the update, and why they are not the fast ones."""
    found = [getattr(sampler, "path", None), getattr(policy, "update_path", None)]
    names = ["general" if getattr(path, "general", False) else "fast" for path in found]
    return names[0], names[1], "; ".join(dict.fromkeys(path.reason for path in found if path and path.reason))


def _sample(done: Completion, rng: random.Random) -> Sample:
    tokens = done.token_ids
    return Sample(list(done.request.prompt_ids), tokens, done.logprobs, rng.uniform(-1, 1), 1.0, 0.1 / len(tokens))


def gradient_error(policy: Policy, samples: Sequence[Sample]) -> float:
    """‖ours − plain‖ ÷ ‖plain‖ of the policy gradient, all parameters together."""
    recipe = Recipe.model_validate({"train": {"max_grad_norm": 1e9}})
    with torch.no_grad():  # ratios of one, wherever the sampler is
        exact = Minibatch(policy, samples).logprobs(4096).split([len(one.token_ids) for one in samples])
    samples = [replace(one, sampler_logprobs=row.tolist()) for one, row in zip(samples, exact, strict=True)]
    optimizer = Keep(policy.trainable(), lr=0.0)
    optimizer.zero_grad()
    update(policy, optimizer, samples, recipe)
    policy.wrapped.zero_grad()
    for one in samples:
        logprobs = plain_logprobs(policy, one.prompt_ids, one.token_ids)
        (-(one.advantage * one.weight) * logprobs.sum()).backward()
    plain = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.trainable()]
    error = sum((a - b).pow(2).sum().item() for a, b in zip(optimizer.seen, plain, strict=True))
    return float((error / max(1e-30, sum(b.pow(2).sum().item() for b in plain))) ** 0.5)
