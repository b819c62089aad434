"""One vLLM server: its OpenAI-compatible API, token ids in and out.

Nothing is trusted: a response that is not exactly what was requested is a `Fault`, and the caller tries another server.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pydantic_core import from_json

from motif.errors import SamplerError, ServiceError
from motif.sampling.http import CONNECT_SECONDS, describe, events, message_in, message_of, read_reply, read_timeout

LOAD_SECONDS = 120.0
"""Timeout for loading an adapter."""
WHOLE = 2**20
"""More tokens than a response has."""


class Fault(Exception):
    """A server failed in a way that another try, there or elsewhere, may fix."""


class NotLoaded(Fault):
    """The server does not know the adapter, because it has restarted, for example."""


@dataclass(frozen=True)
class VllmRequest:
    """`count` siblings from one prompt; sibling i is drawn with the seed `seed + i`."""

    model: str
    prompt_ids: Sequence[int]
    seed: int
    count: int
    max_tokens: int
    temperature: float
    top_p: float
    end_ids: Sequence[int]

    def body(self) -> dict[str, Any]:
        """The request to /v1/completions.

        It states what a server would otherwise take from the model's generation config: top-k, penalties, end tokens.
        """
        return {
            "model": self.model,
            "prompt": list(self.prompt_ids),
            "n": self.count,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": list(self.end_ids),
            "ignore_eos": True,  # the end tokens are those just named, and no others
            "skip_special_tokens": False,
            "logprobs": 0,  # of the sampled token, and no others
            "return_token_ids": True,
            "stream": True,  # a sibling is sent as soon as it ends,
            "stream_interval": WHOLE,  # and as a whole, not token by token
        }


@dataclass
class VllmChoice:
    """One sibling, as far as it has arrived."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(eq=False)
class Server:
    """An address, and what is known about the server there."""

    url: str
    base: str = ""  # the name of the model it serves
    max_length: int = 0
    loaded: set[str] = field(default_factory=set)  # adapters that it is known to have
    waiting: int = 0  # responses requested that have not arrived
    up: bool = True
    strikes: int = 0  # faults since the last response
    fault: str = ""  # the last one

    async def greet(self, client: httpx2.AsyncClient) -> None:
        """Ask what it serves, and which adapters it has.

        Raises:
            Fault: it does not answer, or not as a vLLM server would.
            ServiceError: it requires another API key.
        """
        _, content = await self._call(client, "GET", "/v1/models", None, CONNECT_SECONDS)
        try:
            cards = from_json(content)["data"]
            card = next(card for card in cards if not card.get("parent"))
            base, length = str(card["id"]), int(card["max_model_len"])
            loaded = {str(card["id"]) for card in cards if card.get("parent")}
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            raise Fault("answers /v1/models in a way that is not vLLM's") from None
        if self.base and base != self.base:
            raise Fault(f"now serves {base!r} instead of {self.base!r}")
        self.base, self.max_length, self.loaded = base, length, loaded

    async def load(self, client: httpx2.AsyncClient, name: str, path: str) -> None:
        """Give it an adapter.

        Raises:
            Fault: it does not answer, or failed.
            ServiceError: it refuses the adapter.
        """
        body = {"lora_name": name, "lora_path": path}
        status, content = await self._call(client, "POST", "/v1/load_lora_adapter", body, LOAD_SECONDS)
        # What it has already is that adapter: a name is given once, see `adapters`.
        if status != httpx2.codes.OK and b"already been loaded" not in content:
            raise ServiceError(self._why_not_loaded(status, message_of(content), path))
        self.loaded.add(name)

    async def unload(self, client: httpx2.AsyncClient, name: str) -> None:
        """Take an adapter away, if it is there.

        Raises:
            Fault: it does not answer, or failed.
        """
        self.loaded.discard(name)
        await self._call(client, "POST", "/v1/unload_lora_adapter", {"lora_name": name}, CONNECT_SECONDS)

    async def sleep(self, client: httpx2.AsyncClient) -> None:
        """Let it give its device's memory back: weights go to the CPU's memory, keys and values are dropped.

        Raises:
            Fault: it does not answer, or failed.
            ServiceError: it was started without its sleep mode.
        """
        await self._turn(client, "/sleep?level=1")

    async def wake(self, client: httpx2.AsyncClient) -> None:
        """Let it take the memory again; raises as `sleep` does."""
        await self._turn(client, "/wake_up")

    async def _turn(self, client: httpx2.AsyncClient, path: str) -> None:
        status, content = await self._call(client, "POST", path, None, LOAD_SECONDS)
        if status != httpx2.codes.OK:
            raise ServiceError(
                f"{self.url} cannot sleep and wake ({status}: {message_of(content)}): set sampler.sleep = 'never'"
            )

    async def complete(
        self, client: httpx2.AsyncClient, call: VllmRequest, seconds: float
    ) -> AsyncGenerator[tuple[int, VllmChoice], None]:
        """The siblings as they end: index, and what was sampled.

        Args:
            seconds: how long the server may send nothing before the response counts as lost.

        Raises:
            Fault: the connection broke, the server failed, or what it said is not what was asked for.
            NotLoaded: it does not know the model or adapter.
            ServiceError: it refuses the request itself.
            SamplerError: it answered with another model or adapter than requested.
        """
        open_choices = {index: VllmChoice() for index in range(call.count)}
        url, timeout = self.url + "/v1/completions", read_timeout(seconds)
        try:
            async with client.stream("POST", url, json=call.body(), timeout=timeout) as response:
                if response.status_code != httpx2.codes.OK:
                    self._refuse(response.status_code, message_of(await read_reply(response)))
                async for content in events(response):
                    for index, reason in self._read(content, call, open_choices):
                        yield index, _checked(open_choices.pop(index), reason, call)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            if open_choices:  # else all was said, and the next request finds out
                raise Fault(describe(error)) from error
        if open_choices:
            raise Fault(f"the answer ended with {len(open_choices)} of {call.count} responses missing")

    def _read(self, text: str, call: VllmRequest, open_choices: dict[int, VllmChoice]) -> list[tuple[int, str]]:
        """Take in one event; returns which choices ended with it and why."""
        try:
            event = from_json(text)
            if "error" in event:
                raise Fault(f"failed in mid-answer: {message_in(event)}")
            model, ended = event["model"], []
            for news in event["choices"]:
                choice = open_choices[news["index"]]
                if news.get("token_ids"):
                    choice.token_ids += news["token_ids"]
                    choice.logprobs += news["logprobs"]["token_logprobs"]
                if news.get("finish_reason"):
                    ended.append((int(news["index"]), str(news["finish_reason"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Fault(f"answered what cannot be read ({type(error).__name__}): {text[:200]}") from None
        if model != call.model:
            raise SamplerError(f"{self.url} answered with {model!r} where {call.model!r} was asked for")
        return ended

    async def _call(
        self, client: httpx2.AsyncClient, method: str, path: str, body: Any, seconds: float
    ) -> tuple[int, bytes]:
        """The status and the body of a reply."""
        try:
            async with client.stream(method, self.url + path, json=body, timeout=seconds) as response:
                status, content = response.status_code, await read_reply(response)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Fault(describe(error)) from error
        _check_key(self.url, status)
        if status >= 500 or status == httpx2.codes.TOO_MANY_REQUESTS:
            raise Fault(f"answered {status} to {path}: {message_of(content)}")
        return status, content

    def _refuse(self, code: int, message: str) -> None:
        _check_key(self.url, code)
        if code == httpx2.codes.NOT_FOUND:
            raise NotLoaded(f"does not know the adapter: {message}")
        if 400 <= code < 500 and code not in (httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.TOO_MANY_REQUESTS):
            raise ServiceError(f"{self.url} refuses a request: {message}")
        raise Fault(f"answered {code}: {message}")

    def _why_not_loaded(self, status: int, message: str, path: str) -> str:
        if status == httpx2.codes.NOT_FOUND and message == "Not Found":
            return (
                f"{self.url} takes no adapters at run time: start it as `motif vllm-command` says "
                "(VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora)"
            )
        return (
            f"{self.url} cannot load the adapter {path}: {message}. It must see that folder (sampler.adapter_dir, "
            "sampler.copy_command) and be started as `motif vllm-command` says"
        )


def _checked(choice: VllmChoice, reason: str, call: VllmRequest) -> VllmChoice:
    """The choice, if it is one that was asked for.

    Raises:
        Fault: it is not.
    """
    tokens, logprobs = choice.token_ids, choice.logprobs
    if not tokens:
        raise Fault("answered without token ids: it needs vLLM 0.11 or newer")
    if len(tokens) != len(logprobs):
        raise Fault(f"answered {len(tokens)} tokens with {len(logprobs)} log-probabilities")
    if not all(type(token) is int and token >= 0 for token in tokens):
        raise Fault("answered what are no token ids")
    # Rounding can lift a certain token's probability just above 1.
    if not all(isinstance(value, int | float) and math.isfinite(value) and value < 1e-3 for value in logprobs):
        raise Fault("answered what are no log-probabilities")
    ended = tokens[-1] in call.end_ids
    if any(token in call.end_ids for token in tokens[:-1]) or len(tokens) > call.max_tokens:
        raise Fault(f"answered {len(tokens)} tokens that go past an end token or the limit of {call.max_tokens}")
    if reason not in ("stop", "length") or not (ended or len(tokens) == call.max_tokens):
        raise Fault(f"broke off a response after {len(tokens)} tokens ({reason})")
    return choice


def _check_key(url: str, status: int) -> None:
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        raise ServiceError(
            f"{url} requires an API key: put it into the environment variable that sampler.api_key_variable names"
        )
