"""Policies and samples for updates, and a gradient computed the plain way."""

from __future__ import annotations

import itertools
import random

import torch

from motif.config import ModelConfig, Recipe
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.training.batch import Sample
from motif.training.loss import LossInputs, policy_loss, token_weights


def lora(folder: str, seed: int = 1) -> Policy:
    """The tiny model with an adapter that does something."""
    policy = Policy(ModelConfig(name=folder, lora_rank=4, lora_alpha=8, device="cpu"), seed)
    policy.update_path = FAST
    shake(policy, seed)
    return policy


def full(folder: str) -> Policy:
    policy = Policy(ModelConfig(name=folder, adapter="full", device="cpu"))
    policy.update_path = FAST
    return policy


def shake(policy: Policy, seed: int, size: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def sequences(count: int = 7, seed: int = 0) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Prompts and responses of unequal length, and temperatures."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(6, 100) for _ in range(rng.randint(1, 12))] for _ in range(count)]
    responses = [[rng.randrange(1, 100) for _ in range(rng.randint(1, 15))] for _ in range(count)]
    return prompts, responses, [rng.choice([0.5, 0.8, 1.0, 1.3]) for _ in range(count)]


def samples(policy: Policy, kind: str = "grpo", seed: int = 0) -> list[Sample]:
    prompts, responses, temperatures = sequences(seed=seed)
    weights = token_weights([len(response) for response in responses], kind, 20)
    rng = random.Random(seed)
    with torch.no_grad():
        flat = policy.token_logprobs(prompts, responses, temperatures)[0]
    logprobs = iter((flat + 0.1 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed))).tolist())
    return [
        Sample(prompt, response, list(itertools.islice(logprobs, len(response))), rng.gauss(0, 1), temperature, weight)
        for prompt, response, temperature, weight in zip(prompts, responses, temperatures, weights, strict=True)
    ]


def sample(prompt: list[int], response: list[int], rng: random.Random) -> Sample:
    guesses = [-rng.random() * 4 for _ in response]
    return Sample(prompt, response, guesses, rng.gauss(0, 1), rng.choice([0.7, 1.0]), 0.01)


def plain_gradient(policy: Policy, samples: list[Sample], recipe: Recipe) -> list[torch.Tensor]:
    """Every sample alone, prompt and all."""
    for one in samples:
        logprobs, _ = policy.token_logprobs([one.prompt_ids], [one.token_ids], [one.temperature])
        ones = torch.ones_like(logprobs)
        sampled = torch.tensor(one.sampler_logprobs)
        inputs = LossInputs(logprobs, logprobs.detach(), sampled, ones * one.advantage, ones * one.weight)
        policy_loss(inputs, recipe.loss).loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.trainable()]


class Keep(torch.optim.SGD):
    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        self.seen = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
