"""The OpenAPI document of the server, made from the request and response models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from motif import __version__
from motif.serve.protocol import SEMANTIC_ERRORS, ChatRequest, CompletionRequest
from motif.serve.responses import ChatResponse, CompletionResponse, ErrorResponse, Health, ModelCard, ModelList

ERRORS = {
    400: "the request is invalid; the message says why. Codes of requests that fit the schema: "
    + "; ".join(f"`{code}`, {about}" for code, about in SEMANTIC_ERRORS.items()),
    401: "wrong or missing API key",
    404: "the model is not served here",
    408: "the body did not arrive in time",
    413: "the body is too long",
    415: "the body is not declared as JSON",
    421: "the request names a host that is not this machine, and no API key is set",
    429: "the queue is full; Retry-After says when to try again",
    500: "decoding failed",
    502: "the upstream server failed",
    503: "the server is shutting down",
    504: "no answer within the server's time limit",
}
GENERATE_ERRORS = (400, 404, 408, 413, 415, 429, 500, 502, 503, 504)


def document(model: str, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server that serves `model`; `keyed`: it requires an API key."""
    schemes = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if keyed else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "motif serve",
            "version": __version__,
            "description": f"OpenAI-compatible; serves {model!r}, which thinks in rounds.",
        },
        "paths": _paths(model, keyed),
        "components": {"schemas": _schemas(model), **schemes},
        **({"security": [{"key": []}]} if keyed else {}),
    }


def _paths(model: str, keyed: bool) -> dict[str, Any]:
    reading, polling = ((401,), ()) if keyed else ((421,), (421,))
    generating = tuple(sorted((*GENERATE_ERRORS, *reading)))
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "example": model}
    card = _get("The served model by its id", _json("OK", ModelCard), (*reading, 404)) | {"parameters": [parameter]}
    ready = _get("Whether it accepts requests", _json("It does", Health), polling, keyless=True)
    ready["responses"]["503"] = _json("It does not", Health)
    return {
        "/health": {"get": _get("Whether the process is alive", _json("It is", Health), polling, keyless=True)},
        "/health/ready": {"get": ready},
        "/metrics": {"get": _get("Metrics for Prometheus", _content("Text format", "text/plain", "string"), reading)},
        "/openapi.json": {"get": _get("This document", _content("OpenAPI", "application/json", "object"), reading)},
        "/v1/models": {"get": _get("The served model", _json("OK", ModelList), reading)},
        "/v1/models/{id}": {"get": card},
        "/v1/chat/completions": {"post": _post("Answer a chat, in rounds", ChatRequest, ChatResponse, generating)},
        "/v1/completions": {
            "post": _post("Answer prompts, in rounds", CompletionRequest, CompletionResponse, generating)
        },
    }


def _schemas(model: str) -> dict[str, Any]:
    requests = (ChatRequest, CompletionRequest)
    responses = (ChatResponse, CompletionResponse, ErrorResponse, Health, ModelCard, ModelList)
    models: Any = [(kind, "validation") for kind in requests] + [(kind, "serialization") for kind in responses]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = definitions["$defs"]
    for kind in requests:
        schemas[kind.__name__]["properties"]["model"]["anyOf"][0] = {"const": model}  # the only one served
    return schemas


def _ref(kind: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _json(about: str, kind: type[BaseModel]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": _ref(kind)}}


def _content(about: str, media_type: str, json_type: str) -> dict[str, Any]:
    return {"description": about, "content": {media_type: {"schema": {"type": json_type}}}}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): _json(ERRORS[status], ErrorResponse) for status in statuses}


def _get(about: str, success: dict[str, Any], statuses: tuple[int, ...], keyless: bool = False) -> dict[str, Any]:
    responses = {"200": success} | _errors(statuses)
    return {"summary": about, "responses": responses} | ({"security": []} if keyless else {})


def _post(about: str, request: type[BaseModel], response: type[BaseModel], statuses: tuple[int, ...]) -> dict[str, Any]:
    success = _json(
        "The response; with `stream`, server-sent events: its chunks as JSON, and `[DONE]` at the end", response
    )
    success["content"]["text/event-stream"] = {}  # OpenAPI 3.1 has no schema for events
    body = {"required": True, "content": {"application/json": _ref(request)}}
    return {"summary": about, "requestBody": body, "responses": {"200": success} | _errors(statuses)}
