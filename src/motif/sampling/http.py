"""What clients of servers have in common: reading streams of events and the errors that servers answer with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

CONNECT_SECONDS = 10.0
"""Timeout for connecting to a server, and for asking what it serves."""
IDLE_SECONDS = 3.0
"""How long a connection is reused: less than the five seconds after which the server closes it."""
SHOWN = 300
"""Characters of a server's message in a message of ours."""


def make_client(key: str | None, timeout: httpx2.Timeout | float = CONNECT_SECONDS) -> httpx2.AsyncClient:
    """A client with an API key, if there is one, and any number of connections; it belongs to one event loop."""
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=timeout,
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS),
    )


def read_timeout(seconds: float) -> httpx2.Timeout:
    """Timeouts of a streamed response: `seconds` without a word from the server."""
    return httpx2.Timeout(seconds, connect=CONNECT_SECONDS, pool=None)


async def events(response: httpx2.Response) -> AsyncIterator[str]:
    """The contents of a stream of server-sent events, up to its end mark."""
    async for line in response.aiter_lines():
        content = line.removeprefix("data:").strip()
        if line.startswith("data:") and content != "[DONE]":
            yield content


def message_of(response: httpx2.Response) -> str:
    """What a server says is wrong, from a body that has been read."""
    try:
        return message_in(response.json())
    except (ValueError, AttributeError):
        return response.text[:SHOWN].strip()


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
