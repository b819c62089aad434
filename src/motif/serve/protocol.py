"""What may be asked of the server, and what it answers: OpenAI's format with a few fields of our own.

A request is read strictly. What the API knows and the rounds do not (tools, log-probabilities, penalties, …) is taken
only with the value that asks for nothing, and everything else that is not here is refused with its name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from motif.config import nearest

MOST_ROUNDS = 32
MOST_CHOICES = 128
"""Of one request: `n` times its prompts."""
LONGEST_TEXT = 2**20
"""Characters of one text in a request."""


class ApiError(Exception):
    """A request that gets an error instead of an answer, in the API's format."""

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


class RequestModel(BaseModel):
    """A part of a request: types are not converted, and unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


RULES = {
    "no_question": "the last message is not a user's, or is empty",
    "bad_combination": "parameters that do not go together: several greedy answers, fewer tokens than rounds, …",
    "too_many_answers": "`n` times the prompts is more than one request may ask for",
    "too_many_tokens": "a round's limit is above the server's",
    "context_length_exceeded": "the question leaves no room for a response in the model's window",
}
"""What no schema of a request says: the codes of those refused with status 400 although they are of the right form."""


def _whole(value: Any) -> Any:
    """JSON has one kind of number, and some clients write 3 as 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no(value: Any) -> Any:
    """JSON's `false`, and not the 0 that Python takes for equal to it."""
    if value is not False:
        raise ValueError("must be false")
    return value


WHOLE = BeforeValidator(_whole)
No = Annotated[Literal[False], BeforeValidator(_no)]
Prose = Annotated[str, Field(max_length=LONGEST_TEXT)]
Question = Annotated[str, Field(max_length=LONGEST_TEXT, pattern=r"[^\s\x1c-\x1f\x85\uFEFF]")]
"""Not blank, in the sense of all of Python, ECMAScript (which JSON Schema means) and Unicode."""
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Tokens = Annotated[int, Field(ge=1, le=2**31), WHOLE]
Zero = Annotated[float, Field(ge=0, le=0)]


class TextPart(RequestModel):
    """A piece of a message."""

    type: Literal["text"]
    text: Prose


class Message(RequestModel):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Prose | Annotated[list[TextPart], Field(max_length=1024)]
    type: Literal["text", "message"] | None = None
    reasoning_content: Prose | None = None
    """Of an answer that is sent back. It is not read: the reasoning is not kept, as between rounds."""
    refusal: None = None
    tool_calls: None = None
    motif: dict[str, Any] | None = None
    """Of an answer that is sent back. It is not read."""


class StreamOptions(RequestModel):
    """How an answer is streamed."""

    include_usage: bool | None = None
    """A last chunk with the usage."""


class Settings(RequestModel):
    """How a question is to be thought about. What is left out or null is as the server was started."""

    model: Annotated[str, Field(max_length=512)] | None = None
    """The served model's id, as `/v1/models` tells it."""
    rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS), WHOLE] | None = None
    """How many rounds to think. Default: as trained."""
    tokens_first: Tokens | None = None
    """Limit on new tokens in round 1. Default: as trained."""
    tokens_continue: Tokens | None = None
    """Limit on new tokens in each later round. Default: as trained."""
    max_tokens: Tokens | None = None
    """Limit on new tokens in all rounds together. Less than the rounds' own limits is shared among them in
    proportion."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES), WHOLE] | None = None
    """How many answers; more than one need a temperature."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE] | None = None
    """The same seed gives the same answers. Default: another one every time; the answer tells which."""
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    """The content ends before the first of these. Rounds are not cut: a stop inside the reasoning would end it."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy (and so is anything below 0.01). Default: the recipe's `eval.temperature`."""
    top_p: Annotated[float, Field(ge=0.001, le=1)] | None = None
    early_finish: bool | None = None
    """End with the first round that gives an answer. Default: the server's --early-finish, or else no."""
    answer_only: bool | None = None
    """The content is the bare answer (what a grader would be shown) and not the text around it."""
    question_id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Draw the random numbers that `motif eval` draws for the question of this id."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    """Written to the log, and nothing else."""
    logprobs: No | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def budget(self) -> tuple[str, int | None]:
        """The name and the value of the limit on all new tokens."""
        return "max_tokens", self.max_tokens


class ChatRequest(Settings):
    """A chat. The last message is the question; what comes before is written out above it (docs/serving.md)."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Tokens | None = None
    """The same as `max_tokens`."""
    top_logprobs: Annotated[int, Field(ge=0, le=0), WHOLE] | None = None
    response_format: Annotated[dict[Literal["type"], Literal["text"]], Field(min_length=1)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None

    @property
    def budget(self) -> tuple[str, int | None]:
        """The name and the value of the limit on all new tokens."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().budget


class CompletionRequest(Settings):
    """Questions as they are, one or several; the answers come as `text`."""

    prompt: Question | Annotated[list[Question], Field(min_length=1, max_length=MOST_CHOICES)]
    echo: No | None = None
    suffix: None = None
    best_of: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None


def read(kind: type[Settings], body: bytes) -> Any:
    """A request of this kind from its JSON.

    Raises:
        ApiError: with the first thing that is wrong.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _explained(kind, error) from None


NEUTRAL = {"logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "tools", "tool_choice"}
NEUTRAL |= {"echo", "suffix", "best_of", "response_format", "refusal", "tool_calls"}
"""Fields that are taken only with the value that asks for nothing."""
TAKES = {
    "prompt": f"a question or a list of 1 to {MOST_CHOICES} questions, as texts that are not empty (no token ids)",
    "content": "a text or a list of text parts",
    "stop": "a text or a list of up to 16 texts, none of them empty",
}
"""What fields take that are one of several things, where the reader of types would speak of the first only."""


def _explained(kind: type[Settings], error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_input=False)[0]
    known = set().union(*(part.model_fields for part in (kind, Message, TextPart, StreamOptions)))
    path = [str(part) for part in problem["loc"] if isinstance(part, int) or part in known]  # no names of types
    where = ".".join(path) or None
    if problem["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {problem['msg'].removeprefix('Invalid JSON: ')}", code="bad_json")
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])[:100]
        hint = f": {nearest(name, kind.model_fields)}" if len(problem["loc"]) == 1 else f" in {'.'.join(path)}"
        return ApiError(400, f"unknown or unsupported parameter {name!r}{hint}", param=name, code="unknown_parameter")
    if problem["type"] == "missing":
        return ApiError(400, f"{where} is missing", param=where, code="missing_parameter")
    for name, what in TAKES.items():
        if path and name in (path[0], path[-1]):
            return ApiError(400, f"{where} takes {what}", param=where, code="bad_value")
    said = "is not supported" if path and path[-1] in NEUTRAL else problem["msg"].removeprefix("Input ")
    return ApiError(400, f"{where or 'the body'}: {said}", param=where, code="bad_value")


# -- answers ---------------------------------------------------------------------------------------------------------


class ResponseModel(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorDetails(ResponseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(ResponseModel):
    """An error in the API's format."""

    error: ErrorDetails


class ModelCard(ResponseModel):
    """The served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    """Tokens of the context, where they are known."""
    motif: dict[str, Any]
    """How it thinks unless asked otherwise: `rounds`, `tokens_first`, `tokens_continue`, `temperature`."""


class ModelList(ResponseModel):
    """All served models: one."""

    object: Literal["list"]
    data: list[ModelCard]


class ReasoningTokens(ResponseModel):
    """Of the new tokens, those of all rounds but the one that answers."""

    reasoning_tokens: int


class Usage(ResponseModel):
    """Tokens of all rounds, and of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: ReasoningTokens


class RoundCard(ResponseModel):
    """A round beside its text."""

    round: int
    note: str
    answer: str | None
    truncated: bool
    well_formed: bool
    prompt_tokens: int
    completion_tokens: int


class ChoiceRounds(ResponseModel):
    """How an answer came about."""

    of: int
    answer: str | None
    rounds: list[RoundCard]


class AnswerMessage(ResponseModel):
    """The answer, and the rounds that led to it."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str


class ChatChoice(ResponseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None
    motif: ChoiceRounds


class Drawn(ResponseModel):
    """What repeats an answer."""

    seed: int


class ChatAnswer(ResponseModel):
    """Answers to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None = None
    choices: list[ChatChoice]
    usage: Usage
    motif: Drawn


class TextChoice(ResponseModel):
    """One answer to one prompt; those of the first prompt come first."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: None
    motif: ChoiceRounds


class CompletionAnswer(ResponseModel):
    """Answers to prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None = None
    choices: list[TextChoice]
    usage: Usage
    motif: Drawn


class Health(ResponseModel):
    """Is it there, and does it take requests."""

    status: Literal["ok", "unready"]
    reason: str | None = None
