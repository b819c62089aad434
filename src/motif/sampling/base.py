"""Samplers: whatever turns prompts into responses.

There is one way to ask, `Sampler.sample`, and one loop that asks, `motif.sampling.grow`. `local.batch.LocalSampler`
decodes with the live weights of the policy being trained, `local.engine.Engine` does so for many callers at once,
`vllm.sampler.ServerSampler` asks vLLM servers, and `openai.OpenAISampler` any server that speaks OpenAI's format.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from motif.models.int8 import Precision
    from motif.models.path import Path

OnText = Callable[[str], Awaitable[None]]
"""Gets the text of a response piece by piece while it is sampled."""
Message = dict[str, str]


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and how often to continue it.

    `keys` holds one 64-bit key per wanted response: all randomness of a response comes from its key and the token's
    position, so what is sampled does not depend on what else is in the batch. `temperature` 0 is greedy. `messages`
    makes the same prompt as chat messages, for servers that apply a template of their own. `paths` are the places of
    the responses in their tree, one per key.
    """

    prompt_ids: Sequence[int]
    keys: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    policy: Literal["current", "base"] = "current"
    messages: Callable[[], list[Message]] = list
    paths: Sequence[tuple[int, ...]] = ()


@dataclass(frozen=True)
class Completion:
    """One response: the sampled token ids (end token included, if one was sampled) and their log-probabilities.

    Log-probabilities are natural logs under softmax(logits / temperature), before any top-p cut (for greedy: at
    temperature 1). `truncated`: the token limit ended it. A server that works on texts leaves the token ids out and
    gives `text` instead, with its own counts of tokens where it has them.
    """

    request: Request
    index: int  # which of the request's keys
    token_ids: list[int]
    logprobs: list[float]
    truncated: bool
    version: int | None = None  # of the weights (see `TrainingSampler.sync_weights`), where the sampler has a copy
    text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass
class Usage:
    """Tokens a sampler has computed so far: prompt tokens actually run through the model, and generated tokens."""

    prefill_tokens: int = 0
    generated_tokens: int = 0
    decoded_rows: int = 0
    """Tokens run through the model in decoding steps: fewer than generated where responses are equal for a while."""
    requested_prompt_tokens: int = field(default=0)
    """Prompt tokens as a sampler without sharing would have computed them: every response's own prompt."""

    def since(self, before: Usage) -> Usage:
        """What has been used since `before`, a copy taken then."""
        return Usage(*(getattr(self, part.name) - getattr(before, part.name) for part in fields(self)))


class Sampler(Protocol):
    """Anything that continues prompts."""

    def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, each as soon as it ends. Closing the iterator gives up what has not ended.

        Args:
            on_text: for a request with one key: gets the text as it is produced, from samplers that stream.
        """
        ...


class TrainingSampler(Sampler, Protocol):
    """A sampler that follows a policy in training."""

    usage: Usage

    @property
    def path(self) -> Path | None:
        """How it decodes in this process; None: servers decode."""
        ...

    @property
    def precision(self) -> Precision:
        """The numbers that are multiplied in this process."""
        ...

    def exact(self) -> TrainingSampler:
        """The same sampler in float32, for evaluations and probes; only one of the two can sample at a time."""
        ...

    def measure_slowdown(self, always: bool = False) -> None:
        """Note on a path that is general how many times the seconds of the fast one it takes; `always`: on any."""
        ...

    def sync_weights(self, version: int) -> None:
        """Take over the policy's weights as they are now: from now on "current" means these.

        Args:
            version: a number of its own for each state of the weights: the steps trained so far.
        """
        ...

    def rest(self) -> None:
        """Leave the device's memory to an update, until the next request."""
        ...

    def close(self) -> None:
        """Give back what is held; requests under way fail."""
        ...


class ServingSampler(Sampler, Protocol):
    """A sampler that answers whoever asks, for as long as a server runs.

    `window`: tokens of a prompt and its response together, where it is known. `decoding`: responses being decoded in
    this process.
    """

    window: int | None
    decoding: int

    async def start(self) -> None:
        """Find out whether answers can be had.

        Raises:
            SamplerError: they cannot.
        """
        ...

    async def ready(self) -> str | None:
        """Why no answer can be had now; None if it can."""
        ...

    async def aclose(self) -> None:
        """Give back what is held; requests under way fail."""
        ...
