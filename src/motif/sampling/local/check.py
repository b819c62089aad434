"""Whether a sampler computes what the trainer computes, found out before it is used.

The sampler answers random prompts that have parts in common, at several temperatures and past end tokens; rows enter
late and leave early. The trainer's plain pass over each sequence says which log-probabilities it should have reported
and which tokens it should have drawn. Rounding to bfloat16 hides most faults, so a sampler in bfloat16 is first checked
in float32, and then its mean difference is compared with that of the trainer's own rounding.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from motif.errors import ModelError
from motif.models.adapter import lora_layers
from motif.models.experts import recorded_choices, share_changed
from motif.models.path import ALLOWED, Finding, Gaps, off_by
from motif.models.policy import Policy
from motif.models.windows import narrowed
from motif.sampling.base import Completion, Request
from motif.sampling.local.drawing import uniforms

MEAN = 0.05
"""Mean difference (nats) that rounding explains in bfloat16, where the trainer's own is smaller."""
OTHER_TOKENS = 0.1
"""Share of tokens that may be drawn otherwise: a random number may lie between two tokens."""
ADAPTER = 0.1
"""Size of what a random adapter adds to a layer's output, where inputs are of size 1."""
Sample = Callable[[Sequence[Request]], list[Completion]]
"""Answers requests past end tokens; the last request enters when the others are being decoded."""
Expected = tuple[Tensor, Tensor]
"""What the trainer says of a response: log-probabilities (T,) of its tokens, and the tokens (T,) to be drawn."""


def not_sampled(policy: Policy, found: Sequence[Finding]) -> ModelError:
    """Why a model cannot be sampled, from what was found of the ways to decode, the general one last."""
    problem, cause = found[-1].problem, found[-1].cause
    if "off by" in problem:
        problem += ", decoding with transformers' own caches"
    elif cause and not isinstance(cause, NotImplementedError):
        problem = f"decoding with transformers' own caches ends in an error ({problem})"
    known = found[1:] and not found[0].cause  # an exception from inside transformers says little
    fast = f" (and its prompts cannot be shared: {found[0].problem})" if known else ""
    return ModelError(
        f"model type {policy.model.config.model_type!r} cannot be sampled here: {problem}{fast}: choose another model, "
        "or sample it with vLLM servers (sampler.urls)"
    )


def compare(policy: Policy, sample: Sample, steps: int) -> Finding:
    """Compare a sampler with the trainer.

    Args:
        steps: tokens of the longest response.
    """
    with random_adapter(policy), narrowed(policy) as size:
        return _compare(policy, sample, _requests(policy, steps, size))


def distance(policy: Policy, sample: Sample, steps: int) -> Gaps:
    """How far log-probabilities of a sampler in other numbers are from the trainer's, on the same requests."""
    with random_adapter(policy), narrowed(policy) as size:
        done = sample(_requests(policy, steps, size))
        found = _differences(done, [_expected(policy, one) for one in done])
    return Gaps(found.mean().item(), found.max().item())


def _compare(policy: Policy, sample: Sample, requests: list[Request]) -> Finding:
    own, found = 0.0, Finding()
    if not policy.config.four_bit:  # whose kernels have one precision
        with policy.in_float32():
            done = sample(requests)
            with recorded_choices(policy.model) as choices:
                exact = [_expected(policy, one) for one in done]
        found = _strictly(done, exact)
        if found.problem or not policy.half:
            return found
        with recorded_choices(policy.model) as others:
            rounded = [_expected(policy, one) for one in done]
        found = replace(found, rerouted=share_changed(choices, others))
        own = torch.cat([a[0] - b[0] for a, b in zip(rounded, exact, strict=True)]).abs().mean().item()
    done = sample(requests)
    mean = _differences(done, [_expected(policy, one) for one in done]).mean().item()
    return found if mean < explained_by_rounding(own) else Finding(f"{off_by(mean)} on average")


def explained_by_rounding(own: float) -> float:
    """The mean difference (nats) from a sampler in bfloat16 that rounding explains, of which the trainer's is `own`."""
    return max(MEAN, 2 * own)


def _requests(policy: Policy, steps: int, size: int) -> list[Request]:
    rng = random.Random(0)
    vocabulary = min(policy.vocabulary, policy.model.get_input_embeddings().weight.shape[0])
    size = max(1, min(size, policy.max_length - steps))

    def tokens(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    prompt = tokens(size)
    cousin, other = prompt[: size * 3 // 4] + tokens(size // 8), prompt[: size // 2] + tokens(size // 4)
    requests = [
        Request(prompt, [1, 2], max_tokens=steps),
        Request(cousin or prompt, [3], max_tokens=max(3, steps // 2), temperature=1.5),
        Request(other or prompt, [4], max_tokens=steps, temperature=0.7),
    ]
    if policy.config.adapter == "lora":
        requests.append(Request(other or prompt, [5], max_tokens=3, policy="base"))
    return requests


@contextlib.contextmanager
def random_adapter(policy: Policy) -> Iterator[None]:
    """Let a LoRA adapter change the outputs inside the block; a new one changes nothing, and would not be missed."""
    layers = [] if policy.shards else [layer for layer in lora_layers(policy.wrapped) if "default" in layer.lora_B]
    weights = [layer.lora_B["default"].weight for layer in layers]
    before = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                size = ADAPTER / (layer.scaling["default"] * layer.r["default"] ** 0.5)
                weight.copy_(size * torch.randn(weight.shape, generator=generator))
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


@torch.no_grad()
def _expected(policy: Policy, done: Completion) -> Expected:
    request, tokens = done.request, done.token_ids
    switched = policy.adapter_disabled() if request.policy == "base" else contextlib.nullcontext()
    with switched, policy.precision():
        ids = torch.tensor([[*request.prompt_ids, *tokens[:-1]]], device=policy.device)
        states = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state[0, len(request.prompt_ids) - 1 :]
        logprobs_T_V = (policy.head(states).float() / request.temperature).log_softmax(-1).cpu()
    sums_T_V = logprobs_T_V.double().exp().cumsum(-1)
    keys = np.full(len(tokens), request.keys[done.index], dtype=np.uint64)
    points = torch.from_numpy(uniforms(keys, np.arange(len(tokens)))).unsqueeze(-1) * sums_T_V[:, -1:]
    drawn = torch.searchsorted(sums_T_V, points, right=True).squeeze(-1)
    return logprobs_T_V.gather(-1, torch.tensor(tokens).unsqueeze(-1)).squeeze(-1), drawn


def _differences(done: Sequence[Completion], expected: Sequence[Expected]) -> Tensor:
    pairs = zip(done, expected, strict=True)
    return torch.cat([torch.tensor(one.logprobs) - logprobs for one, (logprobs, _) in pairs]).abs()


def _strictly(done: Sequence[Completion], exact: Sequence[Expected]) -> Finding:
    differences = _differences(done, exact)
    gaps = Gaps(differences.mean().item(), differences.max().item())
    if not gaps.largest < ALLOWED:  # nor not a number
        return Finding(off_by(gaps.largest))
    pairs = zip(done, exact, strict=True)
    others = torch.cat([torch.tensor(one.token_ids) != tokens for one, (_, tokens) in pairs])
    share = others.float().mean().item()
    wrong = f"{100 * share:.0f} % of its tokens are not the ones to be drawn" if share > OTHER_TOKENS else ""
    return Finding(wrong, gaps)
