"""The description of the API in OpenAPI's terms, made from the types that read the requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from motif import __version__
from motif.serve.protocol import (
    RULES,
    ChatAnswer,
    ChatRequest,
    CompletionAnswer,
    CompletionRequest,
    ErrorAnswer,
    Health,
    ModelCard,
    ModelList,
)

ERRORS = {
    400: "the request cannot be done; the message says why. Codes of requests that fit the schema: "
    + "; ".join(f"`{code}`, {about}" for code, about in RULES.items()),
    401: "wrong or missing API key",
    404: "no such model",
    408: "the body was not there in time",
    413: "the body is too long",
    415: "the body is not declared as JSON",
    429: "the queue is full; Retry-After says when there should be room",
    500: "decoding failed",
    502: "the upstream server failed",
    503: "the server is shutting down",
    504: "not answered within the server's limit of time",
}
READS = (401,)
ASKS = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503, 504)


def document(model: str, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server that serves `model`; `keyed`: it asks for an API key."""
    reads = READS if keyed else ()
    asks = ASKS if keyed else tuple(status for status in ASKS if status != 401)
    events: dict[str, Any] = {"text/event-stream": {}}  # no schema of this version speaks of events
    paths = {
        "/health": {"get": _get("Is the process there", Health, (), open_=True)},
        "/health/ready": {
            "get": _get("Does it take requests", Health, (), open_=True, more={"503": _body("It does not", Health)})
        },
        "/metrics": {
            "get": {
                "summary": "Numbers for Prometheus",
                "responses": {
                    "200": {"description": "Text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
                }
                | _errors(reads),
            }
        },
        "/openapi.json": {
            "get": {
                "summary": "This document",
                "responses": {
                    "200": {"description": "OpenAPI", "content": {"application/json": {"schema": {"type": "object"}}}}
                }
                | _errors(reads),
            }
        },
        "/v1/models": {"get": _get("The served model", ModelList, reads)},
        "/v1/models/{id}": {
            "get": _get("The served model by its id", ModelCard, (*reads, 404))
            | {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "example": model}
                ]
            }
        },
        "/v1/chat/completions": {"post": _post("Answer a chat, in rounds", ChatRequest, ChatAnswer, asks, events)},
        "/v1/completions": {
            "post": _post("Answer prompts, in rounds", CompletionRequest, CompletionAnswer, asks, events)
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "motif serve",
            "version": __version__,
            "description": f"OpenAI-compatible; serves {model!r}, which thinks in rounds.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(model)}
        | ({"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if keyed else {}),
        **({"security": [{"key": []}]} if keyed else {}),
    }


def _schemas(model: str) -> dict[str, Any]:
    read = [(kind, "validation") for kind in (ChatRequest, CompletionRequest)]
    told = [
        (kind, "serialization") for kind in (ChatAnswer, CompletionAnswer, ErrorAnswer, Health, ModelCard, ModelList)
    ]
    _, found = models_json_schema([*read, *told], ref_template="#/components/schemas/{model}")  # type: ignore[list-item]
    schemas: dict[str, Any] = found["$defs"]
    for kind in (ChatRequest, CompletionRequest):
        schemas[kind.__name__]["properties"]["model"]["anyOf"][0] = {"const": model}  # no other is served here
    return schemas


def _ref(kind: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _body(about: str, kind: type[BaseModel]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": _ref(kind)}}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): _body(ERRORS[status], ErrorAnswer) for status in statuses}


def _get(
    about: str,
    kind: type[BaseModel],
    statuses: tuple[int, ...],
    open_: bool = False,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    responses = {"200": _body(about, kind)} | _errors(statuses) | (more or {})
    return {"summary": about, "responses": responses} | ({"security": []} if open_ else {})


def _post(
    about: str, asked: type[BaseModel], told: type[BaseModel], statuses: tuple[int, ...], events: dict[str, Any]
) -> dict[str, Any]:
    answer = {
        "description": "The answer; with `stream`, server-sent events, each a chunk of it as JSON, the last `[DONE]`",
        "content": {"application/json": _ref(told)} | events,
    }
    request = {"required": True, "content": {"application/json": _ref(asked)}}
    return {"summary": about, "requestBody": request, "responses": {"200": answer} | _errors(statuses)}
