"""Request models and errors: OpenAI's format with a few additional fields.

Requests are parsed strictly. Parameters of the API that rounds do not support (tools, log-probabilities, penalties, …)
are accepted only with a value that asks for nothing. So is every other field, by whatever name: null, [] and {} ask for
nothing. An answer that is sent back may hold whatever a server or a client has added to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from motif.config import nearest

MOST_ROUNDS = 32
MOST_PIECES = 1024
MOST_CHOICES = 128
"""Answers of one request: `n` times its prompts."""
LONGEST_TEXT = 2**20
"""Characters of one text in a request."""


class ApiError(Exception):
    """An error response in the API's format."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _nothing(value: Any) -> None:
    if value is not None and value not in ([], {}):
        raise PydanticCustomError("asks_for_something", "is not supported")


Nothing = Annotated[Any, AfterValidator(_nothing), WithJsonSchema({"enum": [None, [], {}]})]
"""A value that asks for nothing, in a field of a feature that rounds do not have."""


class RequestModel(BaseModel):
    """A part of a request. Types are not converted, and unknown fields must ask for nothing."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    __pydantic_extra__: dict[str, Nothing] = Field(init=False)


SEMANTIC_ERRORS = {
    "no_question": "the last message is not a user's, or is empty",
    "bad_combination": "parameters that conflict: several greedy answers, fewer tokens than rounds, …",
    "too_many_answers": "`n` times the number of prompts exceeds the limit of one request",
    "too_many_tokens": "a round's token limit exceeds the server's",
    "context_length_exceeded": "the question leaves no room for a response in the model's window",
}
"""Errors that no schema expresses: codes of requests that fit the schema and are refused with status 400."""


def _whole(value: Any) -> Any:
    """Accept 3.0 for 3: JSON has one type of number, and some clients write integers as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no(value: Any) -> Any:
    """Accept JSON's `false`, but not 0, which Python considers equal to it."""
    if value is not False:
        raise ValueError("must be false")
    return value


WholeNumber = BeforeValidator(_whole)
FalseOnly = Annotated[Literal[False], BeforeValidator(_no)]
Content = Annotated[str, Field(max_length=LONGEST_TEXT)]
QuestionText = Annotated[str, Field(max_length=LONGEST_TEXT, pattern=r"[^\s\x1c-\x1f\x85\uFEFF]")]
"""Not blank by the definitions of Python, ECMAScript (which JSON Schema follows) and Unicode."""
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Tokens = Annotated[int, Field(ge=1, le=2**31), WholeNumber]
Zero = Annotated[float, Field(ge=0, le=0)]


class TextPart(RequestModel):
    """A part of a message."""

    type: Literal["text"]
    text: Content
    prompt_cache_breakpoint: dict[str, Any] | None = None
    """A hint to a cache, which changes no answer."""


class AnswerPart(TextPart):
    """A part of an answer that is sent back."""

    model_config = ConfigDict(extra="ignore")


Name = Annotated[str, Field(max_length=64, pattern=r"^[^\s<|\\/>]*$")]


class ChatMessage(RequestModel):
    """One message of a chat that is not an answer."""

    role: Literal["system", "developer", "user"]
    content: Content | Annotated[list[TextPart], Field(max_length=1024)]
    name: Name | None = None
    """Who of several users wrote it."""
    type: Literal["text", "message"] | None = None


class AnswerMessage(RequestModel):
    """An answer that is sent back. Only its text is read, not its reasoning or whatever else was added to it."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["assistant"]
    content: Content | Annotated[list[AnswerPart], Field(max_length=1024)] | None = None
    name: Name | None = None
    """Who of several assistants wrote it."""
    refusal: Nothing = None
    tool_calls: Nothing = None
    function_call: Nothing = None
    audio: Nothing = None


def _kind_of_message(message: Any) -> str:
    return "answer" if isinstance(message, dict) and message.get("role") == "assistant" else "message"


Message = Annotated[
    Annotated[ChatMessage, Tag("message")] | Annotated[AnswerMessage, Tag("answer")], Discriminator(_kind_of_message)
]


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: bool | None = None
    """Send a last chunk with the usage."""
    include_obfuscation: FalseOnly | None = None


class GenerationRequest(RequestModel):
    """Parameters of both kinds of request. One that is left out or null takes the server's default."""

    model: Annotated[str, Field(max_length=512)] | None = None
    """The served model's id, as listed by `/v1/models`."""
    rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS), WholeNumber] | None = None
    """Number of rounds. Default: as trained."""
    pieces: Annotated[list[QuestionText], Field(min_length=1, max_length=MOST_PIECES)] | None = None
    """What the question is about, in pieces: round t shows the question and piece t. Default: a message that is longer
    than the server's `--pieces` is cut, and its last paragraph, line or sentence is the question."""
    tokens_first: Tokens | None = None
    """Limit on new tokens in round 1. Default: as trained."""
    tokens_continue: Tokens | None = None
    """Limit on new tokens in each later round. Default: as trained."""
    max_tokens: Tokens | None = None
    """Limit on new tokens in all rounds together. If it is below the sum of the rounds' own limits, the rounds share it
    in proportion to them."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES), WholeNumber] | None = None
    """Number of answers. More than one requires a temperature above 0."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WholeNumber] | None = None
    """The same seed gives the same answers. Default: a new one for every request, which the response reports."""
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    """The content ends before the first of these texts. Rounds are not cut: a stop text inside the reasoning
    would end it."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy, as is any value below 0.01. Default: the recipe's `eval.temperature`."""
    top_p: Annotated[float, Field(ge=0.001, le=1)] | None = None
    early_finish: bool | None = None
    """End with the first round that gives an answer. Default: set by the server's --early-finish; always with a recipe
    that has rounds.may_finish."""
    answer_only: bool | None = None
    """Return only the answer, as a grader would see it, without the text around it."""
    question_id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Use the random numbers that `motif eval` uses for the question with this id."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    """Written to the server's log, and not used otherwise."""
    logprobs: FalseOnly | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def budget(self) -> tuple[str, int | None]:
        """Name and value of the limit on new tokens in all rounds together."""
        return "max_tokens", self.max_tokens


class ChatRequest(GenerationRequest):
    """A chat. The last message is the question; earlier messages are written out above it (docs/serving.md)."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Tokens | None = None
    """The same as `max_tokens`."""
    top_logprobs: Annotated[int, Field(ge=0, le=0), WholeNumber] | None = None
    response_format: Annotated[dict[Literal["type"], Literal["text"]], Field(min_length=1)] | None = None
    tools: Nothing = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    """Without tools it has no effect."""
    functions: Nothing = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: Nothing = None
    prediction: Nothing = None
    moderation: Nothing = None
    web_search_options: None = None
    """Null only: {} turns the search on."""
    reasoning_effort: Nothing = None
    """The rounds decide how long the model thinks: see `rounds`, `tokens_first` and `tokens_continue`."""
    verbosity: Literal["medium"] | None = None
    store: FalseOnly | None = None
    metadata: Nothing = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None
    """Not used: it changes no answer. The same holds for the hints to a cache."""
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    @property
    def budget(self) -> tuple[str, int | None]:
        """Name and value of the limit on new tokens in all rounds together."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().budget


class CompletionRequest(GenerationRequest):
    """Questions as they are, one or several; the answers are returned as `text`."""

    prompt: QuestionText | Annotated[list[QuestionText], Field(min_length=1, max_length=MOST_CHOICES)]
    echo: FalseOnly | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1), WholeNumber] | None = None


R = TypeVar("R", bound=GenerationRequest)


def parse_request(model: type[R], body: bytes) -> R:
    """Parse a request from its JSON.

    Raises:
        ApiError: the first problem found.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _api_error(model, error) from None


NEUTRAL_ONLY = {"logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "response_format"}
NEUTRAL_ONLY |= {
    "tool_choice",
    "function_call",
    "modalities",
    "web_search_options",
    "verbosity",
    "store",
    "service_tier",
}
NEUTRAL_ONLY |= {"echo", "suffix", "best_of", "include_obfuscation"}
"""Fields that are accepted only with a value that has no effect, beside those that are `Nothing`."""
EXPECTED = {
    "prompt": f"a question or a list of 1 to {MOST_CHOICES} questions, each a text that is not empty (no token ids)",
    "content": "a text or a list of text parts",
    "stop": "a text or a list of up to 16 texts, none of them empty",
    "role": "'system', 'developer', 'user' or 'assistant'",
    "name": "at most 64 characters, without white space and < > | / \\",
}
"""Values of fields whose own message would say less."""


def _api_error(model: type[GenerationRequest], error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_input=False)[0]
    parts = (model, ChatMessage, AnswerMessage, TextPart, StreamOptions)
    fields = set().union(*(part.model_fields for part in parts))
    path = [str(part) for part in problem["loc"] if isinstance(part, int) or part in fields]  # without names of types
    where = ".".join(path) or None
    if problem["type"] == "json_invalid":
        reason = problem["msg"].removeprefix("Invalid JSON: ")
        return ApiError(400, f"the body is not valid JSON: {reason}", code="bad_json")
    if problem["type"] == "asks_for_something" and (last := problem["loc"][-1]) not in fields:
        name = str(last)[:100]
        hint = f": {nearest(name, model.model_fields)}" if len(problem["loc"]) == 1 else f" in {'.'.join(path)}"
        return ApiError(400, f"unknown or unsupported parameter {name!r}{hint}", param=name, code="unknown_parameter")
    if problem["type"] == "missing":
        return ApiError(400, f"{where} is missing", param=where, code="missing_parameter")
    for name, expected in EXPECTED.items():
        if path and name in (path[0], path[-1]):
            return ApiError(400, f"{where} must be {expected}", param=where, code="bad_value")
    reason = problem["msg"].removeprefix("Input ")
    if NEUTRAL_ONLY.intersection(path[:1] + path[-1:]):
        reason = "is not supported"
    return ApiError(400, f"{where or 'the body'}: {reason}", param=where, code="bad_value")
