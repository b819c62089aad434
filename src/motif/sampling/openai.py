"""Sampling on any server that speaks OpenAI's format, in the place of the local model.

With the API `completions` the server gets the token ids of each round's prompt, exactly as in training; with `chat` the
messages of the round, for servers that take no token ids and apply a chat template of their own. Nothing but standard
fields is sent, `rounds.template_variables` where there are any (as `chat_template_kwargs`, vLLM's and SGLang's name),
and what `extra` holds.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import functools
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from motif.errors import SamplerError, UsageError
from motif.method.rounds import Rounds
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import sample_each
from motif.sampling.http import (
    CONNECT_SECONDS,
    SHOWN,
    bearer,
    describe,
    events,
    make_client,
    message_of,
    read_reply,
    read_timeout,
    spellings,
)

Api = Literal["completions", "chat"]
SEEDS = 2**63
"""Servers take signed 64-bit seeds."""
LONGEST_TOKEN = 32
"""Characters of a token, at least: the server may have another tokenizer."""
SMALLEST_EVENT = 2**16
"""Bytes that an event may have beside its text, each character of which has 12 at most."""
LONGEST_WAIT = 3600
"""Most seconds that a busy server's Retry-After counts for."""


class UpstreamError(SamplerError):
    """The server failed, or answered what cannot be used. The message is for the log.

    Attributes:
        retry_after: seconds after which a busy server wants to be asked again; None: it is not busy.
        may_pass: whether the same request may be answered later.
    """

    def __init__(self, message: str, retry_after: int | None = None, may_pass: bool = True):
        super().__init__(message)
        self.retry_after, self.may_pass = retry_after, may_pass


@dataclass(frozen=True)
class UpstreamAddress:
    """Where a server is, and how it knows us.

    url: the address to which `/completions` and the like are appended, without user info. authorization: the header of
    requests; "": none. secrets: what no message may repeat.
    """

    url: str
    authorization: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def parse(cls, given: str, key: str = "", setting: str = "--upstream") -> UpstreamAddress:
        """The address as given, or with /v1 where it names no path. User info becomes an Authorization header.

        Raises:
            UsageError: it is not an address, or both it and a key say who asks.
        """
        given = given.strip()
        shown = re.sub(r"[^/]*@", "…@", given)  # without a password
        problem = UsageError(f"{setting} {shown!r} is not the address of a server: write it like http://gpu1:8000/v1")
        try:
            parts = urlsplit(given)
            httpx2.URL(given)
            _ = parts.port  # which checks it
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise problem
        except (ValueError, httpx2.InvalidURL):
            raise problem from None
        info, at, host = parts.netloc.rpartition("@")
        user, _, password = info.partition(":")
        authorization, pair = bearer(key), f"{unquote(user)}:{unquote(password)}"
        if at and authorization:
            raise UsageError(f"{setting} {shown!r} names a user, and a key is set too: give one of them")
        if info:
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        path = parts.path.rstrip("/")
        secrets = {text for part in (key.strip(), pair, unquote(password)) if part != ":" for text in spellings(part)}
        return cls(f"{parts.scheme}://{host}{path or '/v1'}", authorization, frozenset(secrets | spellings(info)))

    def without_secrets(self, text: str) -> str:
        """A text for the log, with dots for what it repeats of a password or key."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


class OpenAISampler:
    """A sampler at an address. To be made, used and closed in one event loop.

    Args:
        model: what it calls the model; empty: the only one that it serves. extra: fields added to each request.
        seconds: without a word from it until a response counts as lost. setting: the name of that for the model.
    """

    def __init__(
        self,
        address: UpstreamAddress,
        api: Api,
        rounds: Rounds,
        model: str,
        extra: dict[str, Any],
        seconds: float,
        setting: str = "--upstream-model",
    ):
        self.setting = setting
        self.address, self.url, self.api = address, address.url, api
        self.rounds, self.model, self.extra = rounds, model, extra
        self.window: int | None = None
        self.decoding = 0
        self._client = make_client(address.authorization, read_timeout(seconds))

    async def start(self) -> None:
        """Ask what it serves.

        Raises:
            UpstreamError: it does not answer, or the model is not there.
        """
        async with self._response("GET", "/models", None) as response:
            try:
                cards = {card.id: card for card in _Models.model_validate_json(await read_reply(response)).data}
            except ValidationError:
                raise self._error("answers /models with no list of models") from None
        if self.model and self.model not in cards:
            raise self._error(f"serves {_listed(cards)}, not {self.model!r} ({self.setting})")
        if not self.model and len(cards) != 1:
            raise self._error(f"serves {_listed(cards)}: choose one with {self.setting}")
        self.model = self.model or next(iter(cards))
        window = cards[self.model].max_model_len
        self.window = window if type(window) is int and window > 0 else None

    async def ready(self) -> str | None:
        """Why no answer can be had now; None if it can."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.start()
        except (UpstreamError, TimeoutError) as error:
            return str(error) or f"{self.url} does not answer"
        return None

    def _error(self, what: str, retry_after: int | None = None, may_pass: bool = True) -> UpstreamError:
        return UpstreamError(self.address.without_secrets(f"{self.url} {what}"), retry_after, may_pass)

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
        streamed = _Streamed(self.rounds.config.think_tags, request.max_tokens * self._longest_token)
        try:
            async with self._response("POST", path, body) as response:
                async for content in events(response, 12 * streamed.room + SMALLEST_EVENT):
                    piece = streamed.take(content)
                    if piece and on_text:
                        await on_text(piece)
        except BadReply as bad:
            raise self._error(str(bad)) from None
        if not streamed.reason:
            raise self._error("broke off an answer")
        text = "".join(streamed.pieces)
        if self.api == "chat":
            text = self.rounds.continued(text)
        prompt_tokens, completion_tokens = streamed.usage.prompt_tokens, streamed.usage.completion_tokens
        if completion_tokens is None:
            completion_tokens = len(self.rounds.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Completion(
            request=request,
            index=index,
            token_ids=[],
            logprobs=[],
            truncated=streamed.reason == "length",
            text=text,
            prompt_tokens=len(request.prompt_ids) if prompt_tokens is None else prompt_tokens,
            completion_tokens=completion_tokens,
        )

    @functools.cached_property
    def _longest_token(self) -> int:
        return max(LONGEST_TOKEN, *map(len, self.rounds.tokenizer.get_vocab()))

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
            if self.rounds.config.template_variables:
                body["chat_template_kwargs"] = self.rounds.config.template_variables
        else:
            body["prompt"] = list(request.prompt_ids)
        return body | self.extra

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: Any) -> AsyncIterator[httpx2.Response]:
        try:
            async with self._client.stream(method, self.url + path, json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    busy = response.status_code == httpx2.codes.TOO_MANY_REQUESTS
                    said = message_of(await read_reply(response))
                    wait = retry_after(response.headers.get("Retry-After", "")) if busy else None
                    passing = busy or response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR
                    raise self._error(f"answered {response.status_code} to {path}: {said}", wait, passing)
                yield response
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self._error(f"failed: {describe(error)}") from error


def retry_after(value: str) -> int:
    """The seconds of a Retry-After header, which holds a number or a date; 1 where it holds neither."""
    try:
        if re.fullmatch(r"\d{1,9}(\.\d*)?", value.strip()):
            seconds = float(value)
        else:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        seconds = 1
    return min(max(1, math.ceil(seconds)), LONGEST_WAIT)


# -- replies -----------------------------------------------------------------------------------------------------------


class BadReply(Exception):
    """What a server sent cannot be used; the message says why."""


class _Part(BaseModel):
    """A part of a reply. Types are not converted; fields that are not read may hold anything."""

    model_config = ConfigDict(strict=True, frozen=True)


Count = Annotated[int, Field(ge=0, le=2**31)]


class _Usage(_Part):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class _Delta(_Part):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_Part):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Event(_Part):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Model(_Part):
    id: str
    max_model_len: Any = None


class _Models(_Part):
    data: list[_Model]


@dataclass
class _Streamed:
    """A streamed response, as far as it has come; `room`: characters that it may still have."""

    think_tags: tuple[str, str]
    room: int
    pieces: list[str] = field(default_factory=list)
    reason: str = ""
    usage: _Usage = field(default_factory=_Usage)
    _reasoning: bool = False

    def take(self, content: str) -> str:
        """The text that an event adds.

        Raises:
            BadReply: it is an error, nothing that can be read, or more than was asked for.
        """
        try:
            event = _Event.model_validate_json(content)
        except ValidationError:
            raise BadReply(f"sent what cannot be read: {content[:100]!r}") from None
        if event.error:
            error = event.error
            raise BadReply(f"failed: {str(error.get('message', error) if isinstance(error, dict) else error)[:SHOWN]}")
        self.usage = event.usage or self.usage
        piece = "".join(self._choice(choice) for choice in (event.choices or [])[:1])
        if piece:
            self.pieces.append(piece)
        return piece

    def _choice(self, choice: _Choice) -> str:
        self.reason = choice.finish_reason or self.reason
        delta = choice.delta or _Delta(content=choice.text)
        content, thought = delta.content or "", delta.reasoning_content or delta.reasoning or ""
        self.room -= len(content) + len(thought)
        if self.room < 0:
            raise BadReply("sent more text than the tokens that were asked for can hold")
        opening, closing = self.think_tags
        piece = ""
        if thought:  # the server has taken the reasoning out, and its tags with it
            piece, self._reasoning = ("" if self._reasoning else opening) + thought, True
        if content:
            piece, self._reasoning = piece + (closing if self._reasoning else "") + content, False
        return piece


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in list(names)[:8]) or "no model"
