"""What stands around every request: its key, its body, its client, and its line in the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from motif.serve.admission import Limits
from motif.serve.protocol import Refused

if TYPE_CHECKING:
    from motif.serve.app import Service

log = logging.getLogger("motif.serve")

OPEN = ("/health", "/health/ready")
"""What is told without a key: nothing about the model."""
PATHS = {*OPEN, "/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1/completions"}
GONE = 499
"""Status in log and metrics of a request whose client went away."""
CLOSE = {"Connection": "close"}
"""For answers to requests whose body is not read."""
T = TypeVar("T")


class Gone(Exception):
    """The client went away."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away. The request's body must have been read.

    Raises:
        Gone: it went away.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        for part in (task, watch):
            part.cancel()
        await asyncio.wait((task, watch))


async def read_body(request: Request, limits: Limits) -> bytes:
    """The request's body, if it is JSON, not too long, and there in time.

    Raises:
        Refused: it is not. Gone: the client went away.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # and no browser sends that across sites without asking first
        raise Refused(415, "the body must be JSON: Content-Type: application/json", code="not_json", headers=CLOSE)
    too_long = Refused(413, f"the body is longer than {limits.body:,} bytes", code="too_long", headers=CLOSE)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise too_long
    except TimeoutError:
        message = f"the body was not there within {limits.body_seconds:g} s"
        raise Refused(408, message, kind="timeout_error", code="slow_body", headers=CLOSE) from None
    except ClientDisconnect:
        raise Gone from None
    return bytes(body)


class Account:
    """What is known of a request when it ends."""

    def __init__(self) -> None:
        self.status, self.said = 0, ""


class Guard:
    """Checks the key before anything else, and writes a line about every request. No text of a request is in it."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, name, account = time.monotonic(), secrets.token_hex(8), Account()
        scope.setdefault("state", {})["account"] = account

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                account.status = account.status or message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        try:
            if scope["path"] in OPEN or self._opens(Request(scope)):
                await self.app(scope, receive, named)
            else:
                wrong = Refused(401, "wrong or missing API key", code="invalid_api_key")
                headers = {"WWW-Authenticate": "Bearer", **CLOSE}
                await JSONResponse(wrong.content, 401, headers)(scope, receive, named)
        except Gone:
            account.status = GONE
        except asyncio.CancelledError:
            account.status = account.status or GONE
            raise
        except Exception:
            account.status = 500
            raise
        finally:
            self._note(scope, account, time.monotonic() - begun, name)

    def _opens(self, request: Request) -> bool:
        if not self.service.keys:
            return True
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
        # All are compared, and in constant time, so that the time tells nothing.
        fits = [hmac.compare_digest(digest, known) for known in self.service.keys]
        return kind.lower() == "bearer" and any(fits)

    def _note(self, scope: Scope, account: Account, seconds: float, name: str) -> None:
        self.service.metrics.request(_route(scope["path"]), account.status, seconds)
        if scope["path"] in (*OPEN, "/metrics") and account.status == 200:
            return  # asked for every few seconds
        client = scope["client"][0] if scope.get("client") else "-"
        path = scope["path"][:200].encode("unicode_escape").decode()  # one line, whatever the client sent
        said = f" {account.said}" if account.said else ""
        log.info("%s %s %s %d %.2f s%s %s", client, scope["method"], path, account.status, seconds, said, name)


def _route(path: str) -> str:
    """The route of a path, so that clients cannot make up names of their own."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}"
    return path if path in PATHS else "other"
