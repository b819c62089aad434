"""Response models: OpenAI's format with a few additional fields, for the description of the API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorDetails(ResponseModel):
    """The error of a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(ResponseModel):
    """An error in the API's format."""

    error: ErrorDetails


class ModelCard(ResponseModel):
    """The served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    """Tokens of the context window, if known."""
    motif: dict[str, Any]
    """Its defaults: `rounds`, `tokens_first`, `tokens_continue`, `temperature`."""


class ModelList(ResponseModel):
    """The served models, of which there is one."""

    object: Literal["list"]
    data: list[ModelCard]


class ReasoningTokens(ResponseModel):
    """New tokens of all rounds except the one that answers."""

    reasoning_tokens: int


class UsageInfo(ResponseModel):
    """Tokens of all rounds and all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: ReasoningTokens


class RoundCard(ResponseModel):
    """Details of a round, without its text."""

    round: int
    note: str
    answer: str | None
    truncated: bool
    well_formed: bool
    prompt_tokens: int
    completion_tokens: int


class ChoiceRounds(ResponseModel):
    """The answer and the rounds that led to it."""

    of: int
    answer: str | None
    rounds: list[RoundCard]


class ResponseMessage(ResponseModel):
    """The answer, and the text of the rounds that led to it."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str


class ChatChoice(ResponseModel):
    """One answer."""

    index: int
    message: ResponseMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None
    motif: ChoiceRounds


class SeedInfo(ResponseModel):
    """The seed that repeats a response, and what a reader should know: that the model was made for other questions."""

    seed: int
    notice: str | None = None


class ChatResponse(ResponseModel):
    """Answers to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None = None
    choices: list[ChatChoice]
    usage: UsageInfo
    motif: SeedInfo


class TextChoice(ResponseModel):
    """One answer to one prompt. Answers to the first prompt come first."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: None
    motif: ChoiceRounds


class CompletionResponse(ResponseModel):
    """Answers to prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None = None
    choices: list[TextChoice]
    usage: UsageInfo
    motif: SeedInfo


class Health(ResponseModel):
    """Whether the server is alive, and whether it accepts requests."""

    status: Literal["ok", "unready"]
    reason: str | None = None
