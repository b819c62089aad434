"""What surrounds every request: its API key, its body, its client's connection, and its line in the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from motif.hosts import names_this_machine
from motif.serve.admission import ServerLimits
from motif.serve.metrics import ServerMetrics
from motif.serve.protocol import ApiError
from motif.text import one_line

log = logging.getLogger("motif.serve")

POLLED = ("/health", "/health/ready")
OPEN = ("/", *POLLED)
"""Paths that need no key; they reveal nothing about the model."""
PATHS = {*OPEN, "/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1/completions"}
DISCONNECTED = 499
"""Status in the log and the metrics of a request whose client disconnected."""
CLOSE = {"Connection": "close"}
"""For answers to requests whose body is not read."""
T = TypeVar("T")


class ClientGone(Exception):
    """The client disconnected."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; cancel it when the client disconnects. The request's body must have been read.

    Raises:
        ClientGone: the client disconnected.
    """

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for part in (task, watch):
            part.cancel()
        await asyncio.wait((task, watch))


async def read_body(request: Request, limits: ServerLimits) -> bytes:
    """Return the request's body.

    Raises:
        ApiError: the body is not JSON, is too long, or did not arrive in time.
        ClientGone: the client disconnected.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":  # and no browser sends that across sites without asking first
        raise ApiError(415, "the body must be JSON: set Content-Type: application/json", code="not_json", headers=CLOSE)
    too_long = ApiError(413, f"the body is longer than {limits.body:,} bytes", code="too_long", headers=CLOSE)
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
        message = f"the body did not arrive within {limits.body_seconds:g} s"
        raise ApiError(408, message, kind="timeout_error", code="slow_body", headers=CLOSE) from None
    except ClientDisconnect:
        raise ClientGone from None
    return bytes(body)


class AccessRecord:
    """What the log says of a request when it has ended: its id, its status, and details without any of its text."""

    def __init__(self, request_id: str) -> None:
        self.id, self.status, self.details = request_id, 0, ""


class RequestMiddleware:
    """Checks who asks before anything else, and logs one line for every request, without any of its text.

    Args:
        keys: API keys, any of which grants access; empty: no key is required, but a Host that names this machine.
        host: the address that the server listens on.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], host: str, metrics: ServerMetrics):
        self.app, self.host, self.metrics = app, host, metrics
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, record = time.monotonic(), AccessRecord(secrets.token_hex(8))
        scope.setdefault("state", {})["access_record"] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = record.status or message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        try:
            if error := self._refusal(Request(scope)):
                await JSONResponse(error.content, error.status, error.headers)(scope, receive, send_with_id)
            else:
                await self.app(scope, receive, send_with_id)
        except ClientGone:
            record.status = DISCONNECTED
        except asyncio.CancelledError:
            record.status = record.status or DISCONNECTED
            raise
        except Exception:
            record.status = 500
            raise
        finally:
            self._log(scope, record, time.monotonic() - begun)

    def _refusal(self, request: Request) -> ApiError | None:
        """Why a request is not answered, before its body is read; None if it is."""
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            # A proxy may see another end of this body than we do, and take the rest for a request of somebody else.
            message = "a body has either a Content-Length or a Transfer-Encoding, not both"
            return ApiError(400, message, code="ambiguous_length", headers=CLOSE)
        if not self._digests and not names_this_machine(request.headers.get("host", ""), self.host):
            message = (
                "this server answers to its IP address, localhost and the name given by --host only, as no API key is "
                "set (--api-key, MOTIF_API_KEY)"
            )
            return ApiError(421, message, code="unknown_host", headers=CLOSE)
        if request.scope["path"] in OPEN or not self._digests or self._authorized(request):
            return None
        headers = {"WWW-Authenticate": "Bearer", **CLOSE}
        return ApiError(401, "wrong or missing API key", code="invalid_api_key", headers=headers)

    def _authorized(self, request: Request) -> bool:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
        # All digests are compared, each in constant time, so that the time reveals nothing.
        matches = [hmac.compare_digest(digest, expected) for expected in self._digests]
        return scheme.lower() == "bearer" and any(matches)

    def _log(self, scope: Scope, record: AccessRecord, seconds: float) -> None:
        self.metrics.request(_route(scope["path"]), record.status, seconds)
        if scope["path"] in (*POLLED, "/metrics") and record.status == 200:
            return  # polled every few seconds
        client = scope["client"][0] if scope.get("client") else "-"
        path = one_line(scope["path"][:200])
        details = f" {record.details}" if record.details else ""
        log.info("%s %s %s %d %.2f s%s %s", client, scope["method"], path, record.status, seconds, details, record.id)


def _route(path: str) -> str:
    """The route of a path, so that clients cannot invent label values."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}"
    return path if path in PATHS else "other"
