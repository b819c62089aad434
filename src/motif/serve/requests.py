"""From a request to plans: its questions, rounds, limits and seeds, checked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from motif.config import Recipe
from motif.method.pieces import read_in_pieces
from motif.method.rounds import Rounds
from motif.sampling.answer import AnswerPlan
from motif.sampling.base import ServingSampler
from motif.sampling.grow import RoundLimits
from motif.serve.admission import ServerLimits
from motif.serve.protocol import (
    MOST_CHOICES,
    AnswerMessage,
    ApiError,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
)
from motif.text import counted

FIRST_LOOK = 4
"""Characters of a question for each token of the window that are read first."""
CUT_TOKENS = 16
"""Tokens that the beginning of a text may have beyond its part of the whole, because of the cut."""
GREEDY_BELOW = 0.01
"""Lower temperatures count as 0, because logits divided by them overflow."""


@dataclass(frozen=True)
class ServedModel:
    """The one model that a server serves, and its defaults.

    window: tokens of a prompt and its response together; None if unknown. fingerprint: identifies all that decides an
    answer, where that is known. piece_tokens: longer messages are read in pieces of so many tokens; 0: none is.
    """

    name: str
    recipe: Recipe
    rounds: Rounds
    sampler: ServingSampler
    window: int | None
    created: int
    fingerprint: str | None = None
    early_finish: bool = False
    piece_tokens: int = 0
    notice: Callable[[str], str] = lambda question: ""
    """What is to be said of a question before it is answered (`motif.session.notices`)."""


@dataclass(frozen=True)
class Job:
    """A checked request: a plan for each choice, and how their contents are returned."""

    plans: tuple[AnswerPlan, ...]
    seed: int
    stop: tuple[str, ...]
    answer_only: bool
    stream: bool
    include_usage: bool
    user: str


def chat_job(request: ChatRequest, served: ServedModel, limits: ServerLimits) -> Job:
    """The job of a chat.

    Raises:
        ApiError: the request is invalid.
    """
    return _job(request, [question_of(request.messages)], served, limits, "messages")


def completion_job(request: CompletionRequest, served: ServedModel, limits: ServerLimits) -> Job:
    """The job of a completion: each prompt is a question.

    Raises:
        ApiError: the request is invalid.
    """
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    return _job(request, prompts, served, limits, "prompt")


def question_of(messages: Sequence[ChatMessage | AnswerMessage]) -> str:
    """The one question of a chat: the last message as it is, with any earlier messages written above it.

    Raises:
        ApiError: the last message is not the user's, or is empty.
    """
    *earlier, last = messages
    if last.role != "user" or not _text(last).strip():
        message = "the last message must be a user's and contain the question"
        raise ApiError(400, message, param="messages", code="no_question")
    return "\n\n".join([*(_speaker(message) + _text(message) for message in earlier), _text(last)])


def _speaker(message: ChatMessage | AnswerMessage) -> str:
    if message.role in ("system", "developer"):
        return ""
    return message.role.title() + (f" ({message.name}): " if message.name else ": ")


def _text(message: ChatMessage | AnswerMessage) -> str:
    content = message.content or ""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _job(
    request: GenerationRequest, questions: Sequence[str], served: ServedModel, limits: ServerLimits, where: str
) -> Job:
    """The job of a request; `where`: the parameter that holds the questions."""
    if request.model is not None and request.model != served.name:
        message = f"model {request.model!r} is not served here; {served.name!r} is"
        raise ApiError(404, message, param="model", code="model_not_found")
    texts = [_in_pieces(question, request, served) for question in questions]
    rounds = [_round_limits(request, served, limits, len(pieces)) for _, pieces in texts]
    _check_conflicts(request, questions, max(rounds, key=len), served)
    n = request.n or 1
    most = min(MOST_CHOICES, limits.concurrency)
    if n * len(questions) > most:
        message = f"{n * len(questions)} answers are more than the {most} that one request may ask for"
        raise ApiError(400, message, param="n" if n > 1 else where, code="too_many_answers")
    seed = request.seed
    if seed is None:
        seed = secrets.randbits(52) if request.question_id is None else served.recipe.train.seed
    early_finish = served.early_finish if request.early_finish is None else request.early_finish
    plans = tuple(
        AnswerPlan(
            question=question,
            limits=of_question,
            budget=request.budget[1],
            seed=seed,
            step="solve" if request.question_id is None else "eval",
            id=request.question_id or "",
            index=index,
            early_finish=early_finish,
            pieces=pieces,
        )
        for (question, pieces), of_question in zip(texts, rounds, strict=True)
        for index in range(n)
    )
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    usage = bool(request.stream_options and request.stream_options.include_usage)
    return Job(plans, seed, tuple(stop), bool(request.answer_only), bool(request.stream), usage, request.user or "")


def _in_pieces(message: str, request: GenerationRequest, served: ServedModel) -> tuple[str, tuple[str, ...]]:
    """What is asked, and the pieces of what it is about: given, cut from a long message, or none."""
    most = served.recipe.rollout.most_rounds
    if request.pieces is not None:
        question, pieces = message, tuple(request.pieces)
    else:
        question, pieces = read_in_pieces(message, served.piece_tokens, served.recipe.data.in_pieces, served.rounds)
    if pieces and request.rounds not in (None, len(pieces)):
        raise _conflict("rounds", f"= {request.rounds}, but the text has {counted(len(pieces), 'piece')}, one a round")
    if len(pieces) > most:
        message = f"the text has {len(pieces)} pieces, more than the {counted(most, 'round')} that this server allows"
        raise ApiError(400, message, code="context_length_exceeded")
    return question, pieces


def _check_conflicts(
    request: GenerationRequest, questions: Sequence[str], rounds: Sequence[RoundLimits], served: ServedModel
) -> None:
    """Refuse parameters that conflict."""
    if request.stream_options and request.stream_options.include_usage and not request.stream:
        raise _conflict("stream_options", "requires stream = true")
    if request.question_id is not None and len(questions) > 1:
        raise _conflict("question_id", "identifies one question, not several")
    if (request.n or 1) > 1 and rounds[0].temperature == 0:
        raise _conflict("n", f"= {request.n}: greedy answers would all be equal; set temperature too, e.g. to 1.0")
    if request.early_finish is False and served.rounds.config.may_finish:
        raise _conflict("early_finish", "= false: this model was trained to end with its first answer")
    name, budget = request.budget
    if budget is not None and budget < len(rounds):
        raise _conflict(name, f"= {budget} leaves no token for some of the {counted(len(rounds), 'round')}")


def _conflict(param: str, problem: str) -> ApiError:
    return ApiError(400, f"{param} {problem}", param=param, code="bad_combination")


def _round_limits(
    request: GenerationRequest, served: ServedModel, limits: ServerLimits, pieces: int
) -> tuple[RoundLimits, ...]:
    trained = served.recipe.rollout
    for name in ("tokens_first", "tokens_continue"):
        tokens = getattr(request, name)
        if tokens is not None and tokens > limits.max_tokens:
            message = f"{name} = {tokens} is more than this server's {limits.max_tokens} (motif serve --max-tokens)"
            raise ApiError(400, message, param=name, code="too_many_tokens")
    first, later = request.tokens_first or trained.tokens_first, request.tokens_continue or trained.tokens_continue
    temperature = served.recipe.eval.temperature if request.temperature is None else request.temperature
    temperature = 0.0 if temperature < GREEDY_BELOW else temperature
    top_p = 1.0 if request.top_p is None else request.top_p
    count = pieces or request.rounds or trained.rounds
    return tuple(RoundLimits(tokens, temperature, top_p) for tokens in [first] + [later] * (count - 1))


def check_fit(plan: AnswerPlan, served: ServedModel) -> None:
    """Check that the question leaves room for a response in every round, even after the longest notes.

    Raises:
        ApiError: it does not.
    """
    if served.window is None:
        return
    asked = plan.as_question
    for number in range(1, (len(plan.pieces) or 1) + 1):
        _check_text(served.rounds.asked(asked, number), plan, served, served.window)


def _check_text(question: str, plan: AnswerPlan, served: ServedModel, window: int) -> None:
    room = window - max(limits.tokens for limits in plan.limits)
    count = len(plan.limits)
    # A question that is far too long is ruled out by its beginning: a megabyte takes seconds to read.
    length, prompt = FIRST_LOOK * window, 0
    while length < len(question) and prompt <= room + CUT_TOKENS:
        prompt = len(served.rounds.prompt(question[:length], [], count))
        length *= FIRST_LOOK
    if prompt <= room + CUT_TOKENS:
        prompt = len(served.rounds.prompt(question, [], count))
    if prompt <= room:
        prompt = served.rounds.longest_prompt(question, count)
    if prompt > room:
        message = (
            f"the question makes a prompt of at least {prompt} tokens, but the window of {window} has room for "
            f"{max(room, 0)} beside a response: shorten the question, or lower tokens_first or tokens_continue"
        )
        raise ApiError(400, message, code="context_length_exceeded")
