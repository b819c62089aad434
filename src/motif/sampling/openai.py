"""A server elsewhere that continues prompts, in the place of the local model.

Any OpenAI-compatible server will do. With the API `completions` it gets the token ids of each round's prompt, exactly
as in training; with `chat` the messages of the round, for servers that take no token ids and apply a chat template of
their own. Nothing but standard fields is sent, and what `extra` holds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2

from motif.errors import RecipeError, SamplerError
from motif.method.rounds import Rounds
from motif.sampling.answer import Ask, OnText, Said
from motif.sampling.vllm.client import CONNECT_SECONDS, IDLE_SECONDS

Api = Literal["completions", "chat"]
SEEDS = 2**63
"""Servers take signed 64-bit seeds."""


class UpstreamError(SamplerError):
    """The server elsewhere failed, or answered what cannot be used; `retry_after` is what a busy one says."""

    def __init__(self, message: str, retry_after: str | None = None):
        super().__init__(message)
        self.retry_after = retry_after


def base_url(url: str) -> str:
    """The address to which `/completions` and the like are appended: as given, or with /v1 where it names no path.

    Raises:
        RecipeError: it is no address.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RecipeError(f"--upstream {url!r} is no address of a server: write it like http://gpu1:8000/v1")
    return url.strip().rstrip("/") + ("" if parts.path.strip("/") else "/v1")


class Upstream:
    """A speaker (see `motif.sampling.answer`) at an address. To be made, used and closed in one event loop.

    Args:
        url: from `base_url`. model: what it calls the model; empty: the only one that it serves.
        key: its API key, if it asks for one. extra: fields added to each request.
        seconds: without a word from it until a response counts as lost.
    """

    def __init__(self, url: str, api: Api, rounds: Rounds, model: str, key: str, extra: dict[str, Any], seconds: float):
        self.url, self.api, self.rounds, self.model, self.extra = url, api, rounds, model, extra
        self.window: int | None = None
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS),
        )

    async def greet(self) -> None:
        """Ask what it serves.

        Raises:
            UpstreamError: it does not answer, or the model is not there.
        """
        async with self._answer("GET", "/models", None) as answer:
            await answer.aread()
            try:
                cards = {str(card["id"]): card for card in answer.json()["data"]}
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
                await self.greet()
        except (UpstreamError, TimeoutError) as error:
            return str(error) or f"{self.url} does not answer"
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def say(self, ask: Ask, on_text: OnText | None = None) -> Said:
        """Continue the prompt of the ask's round; cancelling closes the connection.

        Raises:
            UpstreamError: it failed.
        """
        path = "/chat/completions" if self.api == "chat" else "/completions"
        body, prompt = await asyncio.to_thread(self._body, ask)
        heard = _Heard(self.rounds.config.think_tags)
        async with self._answer("POST", path, body) as answer:
            async for line in _lines(answer):
                piece = heard.take(line)
                if piece and on_text:
                    await on_text(piece)
        if not heard.reason:
            raise UpstreamError(f"{self.url} broke off an answer")
        text = "".join(heard.pieces)
        count = len(self.rounds.tokenizer(text, add_special_tokens=False)["input_ids"]) if not heard.usage else 0
        return Said(
            text=text,
            truncated=heard.reason == "length",
            prompt_tokens=int(heard.usage.get("prompt_tokens", prompt)),
            completion_tokens=int(heard.usage.get("completion_tokens", count)),
        )

    def _body(self, ask: Ask) -> tuple[dict[str, Any], int]:
        """The request, and the tokens of its prompt by our own count."""
        prompt = self.rounds.prompt(ask.question, list(ask.notes), ask.rounds)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": ask.limits.tokens,
            "temperature": ask.limits.temperature,
            "top_p": ask.limits.top_p,
            "seed": ask.key % SEEDS,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.api == "chat":
            body["messages"] = self.rounds.messages(ask.question, list(ask.notes), ask.rounds)
        else:
            body["prompt"] = prompt
        return body | self.extra, len(prompt)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: Any) -> AsyncIterator[httpx2.Response]:
        try:
            async with self._client.stream(method, self.url + path, json=body) as answer:
                if answer.status_code != httpx2.codes.OK:
                    await answer.aread()
                    busy = answer.status_code == httpx2.codes.TOO_MANY_REQUESTS
                    raise UpstreamError(
                        f"{self.url} answered {answer.status_code} to {path}: {_message(answer)}",
                        answer.headers.get("Retry-After", "1") if busy else None,
                    )
                yield answer
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise UpstreamError(f"{self.url} failed: {type(error).__name__} {error}".strip()) from error


@dataclass
class _Heard:
    """A streamed response, as far as it has come."""

    think_tags: tuple[str, str]
    pieces: list[str] = field(default_factory=list)
    reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    _reasoning: bool = False

    def take(self, line: str) -> str:
        """The text that an event adds.

        Raises:
            UpstreamError: it is an error, or nothing that can be read.
        """
        try:
            event = json.loads(line)
            if event.get("error"):
                error = event["error"]
                raise UpstreamError(f"upstream: {error.get('message', error) if isinstance(error, dict) else error}")
            self.usage = event.get("usage") or self.usage
            piece = "".join(self._choice(choice) for choice in event.get("choices", [])[:1])
        except (ValueError, TypeError, AttributeError, KeyError):
            raise UpstreamError(f"upstream sent what cannot be read: {line[:100]!r}") from None
        if piece:
            self.pieces.append(piece)
        return piece

    def _choice(self, choice: dict[str, Any]) -> str:
        self.reason = choice.get("finish_reason") or self.reason
        if "delta" not in choice:
            return str(choice.get("text") or "")
        delta = choice["delta"]
        said, thought = delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""
        opening, closing = self.think_tags
        piece = ""
        if thought:  # the server has taken the reasoning out, and its tags with it
            piece, self._reasoning = ("" if self._reasoning else opening) + thought, True
        if said:
            piece, self._reasoning = piece + (closing if self._reasoning else "") + said, False
        return piece


async def _lines(answer: httpx2.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        content = line.removeprefix("data:").strip()
        if line.startswith("data:") and content != "[DONE]":
            yield content


def _message(answer: httpx2.Response) -> str:
    try:
        body = answer.json()
        error = body.get("error", body.get("detail", body))
        return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
    except (ValueError, AttributeError):
        return answer.text[:200].strip()


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in list(names)[:8]) or "no model"
