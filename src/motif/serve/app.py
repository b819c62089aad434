"""Routes and errors of the server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from motif.serve.admission import Gate, Limits
from motif.serve.answering import Answering
from motif.serve.metrics import Metrics
from motif.serve.middleware import Guard, read_body
from motif.serve.openapi import document
from motif.serve.protocol import ChatRequest, CompletionRequest, Refused, read
from motif.serve.requests import Served, chat_job, completion_job

log = logging.getLogger("motif.serve")


class Service:
    """All that answers requests: the model, the gate before it, and what is under way.

    Args:
        keys: API keys, any of which opens; empty: no key is asked for.
        ready: why no answer can be had now; None if it can.
    """

    def __init__(self, served: Served, limits: Limits, keys: Sequence[str], ready: Callable[[], Awaitable[str | None]]):
        self.served, self.limits, self.ready = served, limits, ready
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self.gate = Gate(limits.concurrency, limits.queue)
        self.metrics = Metrics()
        self.metrics.gauges += [
            ("answers_running", "Answers being thought.", lambda: self.gate.taken),
            ("requests_waiting", "Requests in the queue.", lambda: len(self.gate.waiting)),
            (
                "responses_decoding",
                "Rows of the batch in this process.",
                lambda: getattr(served.speaker, "decoding", 0),
            ),
        ]
        self.running: set[asyncio.Task[None]] = set()
        self.draining = self.stopped = False
        self.openapi = json.dumps(document(served.name, bool(keys)), ensure_ascii=False).encode()

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/health", self.health),
            Route("/health/ready", self.health_ready),
            Route("/metrics", self.metrics_text),
            Route("/openapi.json", self.openapi_json),
            Route("/v1/models", self.models),
            Route("/v1/models/{id:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]
        handlers: Any = {Refused: _refused, HTTPException: _not_here, Exception: _failed}
        app = Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, service=self)])
        app.router.redirect_slashes = False
        return app

    def stop(self) -> None:
        """End what is under way; its clients are told."""
        self.draining = self.stopped = True
        for task in self.running:
            task.cancel()

    # -- what is asked ---------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """The process is there."""
        return JSONResponse({"status": "ok"})

    async def health_ready(self, request: Request) -> Response:
        """It takes requests."""
        reason = "shutting down" if self.draining else await self.ready()
        if reason:
            log.warning("not ready: %s", reason)
            return JSONResponse({"status": "unready", "reason": "see the server's log"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics_text(self, request: Request) -> Response:
        """Numbers for Prometheus."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi_json(self, request: Request) -> Response:
        """The description of this API."""
        return Response(self.openapi, media_type="application/json")

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """The one model, by its id."""
        name = request.path_params["id"]
        if name != self.served.name:
            raise Refused(404, f"no model {name[:200]!r} is served here", param="model", code="model_not_found")
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        served, shape = self.served, self.served.recipe.rollout
        return {
            "id": served.name,
            "object": "model",
            "created": served.created,
            "owned_by": "motif",
            "max_model_len": served.window,
            "motif": {
                "rounds": shape.rounds,
                "tokens_first": shape.tokens_first,
                "tokens_continue": shape.tokens_continue,
                "temperature": served.recipe.eval.temperature,
            },
        }

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        body = await read_body(request, self.limits)
        return Answering(self, "chat", chat_job(read(ChatRequest, body), self.served, self.limits))

    async def completions(self, request: Request) -> Response:
        """Answer prompts."""
        body = await read_body(request, self.limits)
        return Answering(self, "text", completion_job(read(CompletionRequest, body), self.served, self.limits))


async def _refused(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return JSONResponse(refused.content, refused.status, refused.headers)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is nothing at this address", 405: f"this address does not take {request.method}"}
    refused = Refused(error.status_code, known.get(error.status_code, error.detail), code="not_found")
    return JSONResponse(refused.content, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    refused = Refused(500, "an error in the server; see its log", kind="server_error", code="internal_error")
    return JSONResponse(refused.content, 500)
