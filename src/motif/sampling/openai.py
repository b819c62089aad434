"""Sampling on any server that speaks OpenAI's format, in the place of the local model.

With the API `completions` the server gets the token ids of each round's prompt, exactly as in training; with `chat` the
messages of the round, for servers that take no token ids and apply a chat template of their own. Nothing but standard
fields is sent, and what `extra` holds.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2

from motif.errors import SamplerError, UsageError
from motif.method.rounds import Rounds
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import sample_each
from motif.sampling.http import CONNECT_SECONDS, events, make_client, message_of, read_timeout

Api = Literal["completions", "chat"]
SEEDS = 2**63
"""Servers take signed 64-bit seeds."""


class UpstreamError(SamplerError):
    """The server failed, or answered what cannot be used; `retry_after` is what a busy one says."""

    def __init__(self, message: str, retry_after: str | None = None):
        super().__init__(message)
        self.retry_after = retry_after


def base_url(url: str) -> str:
    """The address to which `/completions` and the like are appended: as given, or with /v1 where it names no path.

    Raises:
        UsageError: it is not an address.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"--upstream {url!r} is not the address of a server: write it like http://gpu1:8000/v1")
    return url.strip().rstrip("/") + ("" if parts.path.strip("/") else "/v1")


class OpenAISampler:
    """A sampler at an address. To be made, used and closed in one event loop.

    Args:
        url: from `base_url`. model: what it calls the model; empty: the only one that it serves.
        key: its API key, if it asks for one. extra: fields added to each request.
        seconds: without a word from it until a response counts as lost.
    """

    def __init__(self, url: str, api: Api, rounds: Rounds, model: str, key: str, extra: dict[str, Any], seconds: float):
        self.url, self.api, self.rounds, self.model, self.extra = url, api, rounds, model, extra
        self.window: int | None = None
        self.decoding = 0
        self._client = make_client(key, read_timeout(seconds))

    async def start(self) -> None:
        """Ask what it serves.

        Raises:
            UpstreamError: it does not answer, or the model is not there.
        """
        async with self._response("GET", "/models", None) as response:
            await response.aread()
            try:
                cards = {str(card["id"]): card for card in response.json()["data"]}
            except (ValueError, KeyError, TypeError):
                raise UpstreamError(f"{self.url} answers /models with no list of models") from None
        if self.model and self.model not in cards:
            raise UpstreamError(f"{self.url} serves {_listed(cards)}, not {self.model!r} (--upstream-model)")
        if not self.model and len(cards) != 1:
            raise UpstreamError(f"{self.url} serves {_listed(cards)}: choose one with --upstream-model")
        self.model = self.model or next(iter(cards))
        window = cards[self.model].get("max_model_len")
        self.window = window if isinstance(window, int) else None

    async def ready(self) -> str | None:
        """Why no answer can be had now; None if it can."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.start()
        except (UpstreamError, TimeoutError) as error:
            return str(error) or f"{self.url} does not answer"
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, as texts, each from a call of its own; giving up closes the connections.

        Raises:
            UpstreamError: it failed.
        """
        return sample_each(request, functools.partial(self._complete, on_text))

    async def _complete(self, on_text: OnText | None, request: Request, index: int) -> Completion:
        path = "/chat/completions" if self.api == "chat" else "/completions"
        body = await asyncio.to_thread(self._body, request, index)
        streamed = _Streamed(self.rounds.config.think_tags)
        async with self._response("POST", path, body) as response:
            async for content in events(response):
                piece = streamed.take(content)
                if piece and on_text:
                    await on_text(piece)
        if not streamed.reason:
            raise UpstreamError(f"{self.url} broke off an answer")
        text, usage = "".join(streamed.pieces), streamed.usage
        count = len(self.rounds.tokenizer(text, add_special_tokens=False)["input_ids"]) if not usage else 0
        return Completion(
            request=request,
            index=index,
            token_ids=[],
            logprobs=[],
            truncated=streamed.reason == "length",
            text=text,
            prompt_tokens=int(usage.get("prompt_tokens", len(request.prompt_ids))),
            completion_tokens=int(usage.get("completion_tokens", count)),
        )

    def _body(self, request: Request, index: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.keys[index] % SEEDS,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.api == "chat":
            body["messages"] = request.messages()
        else:
            body["prompt"] = list(request.prompt_ids)
        return body | self.extra

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: Any) -> AsyncIterator[httpx2.Response]:
        try:
            async with self._client.stream(method, self.url + path, json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    await response.aread()
                    busy = response.status_code == httpx2.codes.TOO_MANY_REQUESTS
                    raise UpstreamError(
                        f"{self.url} answered {response.status_code} to {path}: {message_of(response)}",
                        response.headers.get("Retry-After", "1") if busy else None,
                    )
                yield response
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise UpstreamError(f"{self.url} failed: {type(error).__name__} {error}".strip()) from error


@dataclass
class _Streamed:
    """A streamed response, as far as it has come."""

    think_tags: tuple[str, str]
    pieces: list[str] = field(default_factory=list)
    reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    _reasoning: bool = False

    def take(self, content: str) -> str:
        """The text that an event adds.

        Raises:
            UpstreamError: it is an error, or nothing that can be read.
        """
        try:
            event = json.loads(content)
            if event.get("error"):
                error = event["error"]
                raise UpstreamError(f"upstream: {error.get('message', error) if isinstance(error, dict) else error}")
            self.usage = event.get("usage") or self.usage
            piece = "".join(self._choice(choice) for choice in event.get("choices", [])[:1])
        except (ValueError, TypeError, AttributeError, KeyError):
            raise UpstreamError(f"upstream sent what cannot be read: {content[:100]!r}") from None
        if piece:
            self.pieces.append(piece)
        return piece

    def _choice(self, choice: dict[str, Any]) -> str:
        self.reason = choice.get("finish_reason") or self.reason
        if "delta" not in choice:
            return str(choice.get("text") or "")
        delta = choice["delta"]
        content, thought = delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""
        opening, closing = self.think_tags
        piece = ""
        if thought:  # the server has taken the reasoning out, and its tags with it
            piece, self._reasoning = ("" if self._reasoning else opening) + thought, True
        if content:
            piece, self._reasoning = piece + (closing if self._reasoning else "") + content, False
        return piece


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in list(names)[:8]) or "no model"
