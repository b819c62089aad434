"""Samplers: whatever turns prompts into responses.

`rollout.grow` talks to this protocol only. `local.LocalSampler` decodes with the live weights of the policy being
trained, `server.ServerSampler` asks vLLM servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Request:
    """One prompt and how often to continue it.

    `keys` holds one 64-bit key per wanted response: all randomness of a response comes from its key and the token's
    position, so what is sampled does not depend on what else is in the batch. `temperature` 0 is greedy. `tag` is the
    caller's own.
    """

    prompt_ids: Sequence[int]
    keys: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    policy: Literal["current", "base"] = "current"
    tag: Any = None


@dataclass(frozen=True)
class Completion:
    """One response: the sampled token ids (end token included, if one was sampled) and their log-probabilities.

    Log-probabilities are natural logs under softmax(logits / temperature), before any top-p cut (for greedy: at
    temperature 1). `truncated`: the token limit ended it.
    """

    request: Request
    index: int  # which of the request's keys
    token_ids: list[int]
    logprobs: list[float]
    truncated: bool
    version: int | None = None  # of the weights (see `Sampler.publish`), where the sampler has a copy of them


@dataclass
class Usage:
    """Tokens a sampler has computed so far: prompt tokens actually run through the model, and generated tokens."""

    prefill_tokens: int = 0
    generated_tokens: int = 0
    decoded_rows: int = 0
    """Tokens run through the model in decoding steps: fewer than generated where responses say the same for a while."""
    requested_prompt_tokens: int = field(default=0)
    """Prompt tokens as a sampler without sharing would have computed them: every response's own prompt."""

    def since(self, before: Usage) -> Usage:
        """What has been used since `before`, a copy taken then."""
        return Usage(*(getattr(self, part.name) - getattr(before, part.name) for part in fields(self)))


class Sampler(Protocol):
    """Anything that can answer requests."""

    usage: Usage

    def run(self, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]) -> None:
        """Answer all requests and all that `then` returns; `then` is called once per response, as soon as it ends."""
        ...


class TrainingSampler(Sampler, Protocol):
    """A sampler that follows a policy in training."""

    def publish(self, version: int) -> None:
        """From now on "current" means the policy's weights as they are now.

        Args:
            version: a number of its own for each state of the weights: the steps trained so far.
        """
        ...

    def cancel(self) -> None:
        """Let a `run` in another thread end soon, with an error."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...
