"""What clients of servers have in common: their keys, and bounded reading of replies, streams of events and errors."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
from pydantic_core import from_json

from motif.errors import UsageError

CONNECT_SECONDS = 10.0
"""Timeout for connecting to a server, and for asking what it serves."""
IDLE_SECONDS = 3.0
"""How long a connection is reused: less than the five seconds after which the server closes it."""
THIS_MACHINE = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Addresses that are asked directly, also where the environment names a proxy and no exception."""
SHOWN = 300
"""Characters of a server's message in a message of ours."""
LONGEST_BODY, LONGEST_EVENT = 2**22, 2**26
"""Most bytes of a reply in one piece, and of one event of a stream."""


class TooLong(httpx2.StreamError):
    """A server sent more than a reply of its kind can hold."""


def bearer(key: str | None) -> str:
    """The Authorization header of an API key; empty without one.

    Raises:
        UsageError: no header can hold the key. The message does not repeat it.
    """
    key = (key or "").strip()
    if not key.isprintable():
        raise UsageError("a server's API key holds control characters: check the environment variable that it is in")
    return f"Bearer {key}" if key else ""


def make_client(authorization: str, timeout: httpx2.Timeout | float = CONNECT_SECONDS) -> httpx2.AsyncClient:
    """A client with any number of connections, for replies that are not compressed; it belongs to one event loop."""
    headers = {b"Accept-Encoding": b"identity"}
    return httpx2.AsyncClient(
        headers=headers | ({b"Authorization": authorization.encode()} if authorization else {}),
        timeout=timeout,
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS),
        mounts=dict.fromkeys(THIS_MACHINE),
    )


def read_timeout(seconds: float) -> httpx2.Timeout:
    """Timeouts of a streamed response: `seconds` without a word from the server."""
    return httpx2.Timeout(seconds, connect=CONNECT_SECONDS, pool=None)


async def events(response: httpx2.Response, longest: int = LONGEST_EVENT) -> AsyncIterator[str]:
    """The contents of a stream of server-sent events, up to its end mark; `longest`: bytes of one of them.

    Raises:
        TooLong: one is longer.
    """
    line = bytearray()
    async for part in _parts(response):
        for ended in re.split(rb"([\r\n])", part):
            if ended in (b"\r", b"\n"):
                if content := _content(line):
                    yield content
                line.clear()
            elif len(line) + len(ended) > longest:
                raise TooLong(f"sent an event of more than {longest:,} bytes")
            else:
                line += ended
    if content := _content(line):
        yield content


def _content(line: bytearray) -> str:
    if not line.startswith(b"data:"):
        return ""
    content = line.decode("utf-8", "replace").removeprefix("data:").strip()
    return "" if content == "[DONE]" else content


async def read_reply(response: httpx2.Response) -> bytes:
    """The body of a reply.

    Raises:
        TooLong: it has more than `LONGEST_BODY` bytes.
    """
    body = bytearray()
    async for part in _parts(response):
        body += part
        if len(body) > LONGEST_BODY:
            raise TooLong(f"sent a reply of more than {LONGEST_BODY:,} bytes")
    return bytes(body)


async def _parts(response: httpx2.Response) -> AsyncIterator[bytes]:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TooLong("sent a compressed reply, whose size nobody knows")
    async for part in response.aiter_raw():
        yield part


def message_of(body: bytes) -> str:
    """What a server says is wrong, from the body of its reply."""
    try:
        return message_in(from_json(body))
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace")[:SHOWN].strip()


def message_in(body: dict[str, Any]) -> str:
    """The message in an error as OpenAI's API and its relatives write it.

    Raises:
        AttributeError: the body is not an object.
    """
    error = body.get("error", body.get("detail", body))
    return str(error.get("message", error) if isinstance(error, dict) else error)[:SHOWN]


def describe(error: Exception) -> str:
    """The kind of a transport's error and what it says, which may be nothing."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def spellings(secret: str) -> set[str]:
    """How a secret may appear in a message: as it is, in an address, as text in JSON, in an Authorization header."""
    if not secret:
        return set()
    coded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret, safe=""), quote(secret), repr(secret)[1:-1], coded, coded.rstrip("=")}
