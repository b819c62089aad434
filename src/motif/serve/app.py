"""The ASGI application: routes, the middleware around them, and errors in the API's format."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from motif.serve.answering import Answering
from motif.serve.chat import ChatPage
from motif.serve.middleware import RequestMiddleware, read_body
from motif.serve.openapi import document
from motif.serve.protocol import ApiError, ChatRequest, CompletionRequest, parse_request
from motif.serve.requests import chat_job, completion_job
from motif.serve.service import Service
from motif.text import one_line

log = logging.getLogger("motif.serve")


def make_app(service: Service, keys: Sequence[str] = (), host: str = "127.0.0.1") -> Starlette:
    """The ASGI application of a service.

    Args:
        keys: API keys, any of which grants access; empty: no key is required.
        host: the address that the server listens on.
    """
    endpoints = _Endpoints(service, keyed=bool(keys))
    routes = [
        Route("/", ChatPage().__call__),
        Route("/health", endpoints.health),
        Route("/health/ready", endpoints.health_ready),
        Route("/metrics", endpoints.metrics),
        Route("/openapi.json", endpoints.openapi),
        Route("/v1/models", endpoints.models),
        Route("/v1/models/{id:path}", endpoints.model),
        Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
        Route("/v1/completions", endpoints.completions, methods=["POST"]),
    ]
    handlers: Any = {ApiError: _api_error, HTTPException: _http_error, Exception: _internal_error}
    middleware = [Middleware(RequestMiddleware, keys=keys, host=host, metrics=service.metrics)]
    app = Starlette(routes=routes, exception_handlers=handlers, middleware=middleware)
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    """The handlers of the routes."""

    def __init__(self, service: Service, keyed: bool):
        self.service = service
        self._document = json.dumps(document(service.served.name, keyed), ensure_ascii=False).encode()

    async def health(self, request: Request) -> Response:
        """Report that the process is alive."""
        return JSONResponse({"status": "ok"})

    async def health_ready(self, request: Request) -> Response:
        """Report whether the server accepts requests."""
        reason = None if self.service.draining else await self.service.served.sampler.ready()
        if self.service.draining:  # perhaps only since the upstream was asked
            reason = "shutting down"
        if reason:
            log.warning("not ready: %s", one_line(reason))
            return JSONResponse({"status": "unready", "reason": "see the server's log"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def openapi(self, request: Request) -> Response:
        """Return the description of this API."""
        return Response(self._document, media_type="application/json")

    async def models(self, request: Request) -> Response:
        """List the one model."""
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """Return the one model by its id."""
        name = request.path_params["id"]
        if name != self.service.served.name:
            raise ApiError(404, f"model {name[:200]!r} is not served here", param="model", code="model_not_found")
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        served = self.service.served
        shape = served.recipe.rollout
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
        service = self.service
        body = parse_request(ChatRequest, await read_body(request, service.limits))
        return Answering(service, "chat", chat_job(body, service.served, service.limits))

    async def completions(self, request: Request) -> Response:
        """Answer prompts."""
        service = self.service
        body = parse_request(CompletionRequest, await read_body(request, service.limits))
        return Answering(service, "text", completion_job(body, service.served, service.limits))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.content, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "nothing is served at this path", 405: f"this path does not accept {request.method}"}
    api_error = ApiError(error.status_code, messages.get(error.status_code, error.detail), code="not_found")
    return JSONResponse(api_error.content, error.status_code, error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    message = "internal server error; the server's log has the cause"
    return JSONResponse(ApiError(500, message, kind="server_error", code="internal_error").content, 500)
