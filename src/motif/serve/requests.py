"""From a request to what is to be thought: questions, rounds, limits and seeds, checked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from motif.config import Recipe
from motif.method.rounds import Rounds
from motif.sampling.answer import Limits, Plan, Speaker
from motif.serve.admission import ServerLimits
from motif.serve.protocol import MOST_CHOICES, ApiError, ChatRequest, CompletionRequest, Message, Settings

GREEDY_BELOW = 0.01
"""Temperatures below are taken as 0: logits divided by less overflow."""


@dataclass(frozen=True)
class ServedModel:
    """The one model that a server serves, and how it thinks unless asked otherwise.

    `window`: tokens of a prompt and its response together; None: not known. `fingerprint`: of all that decides an
    answer, where that is known.
    """

    name: str
    recipe: Recipe
    rounds: Rounds
    speaker: Speaker
    window: int | None
    created: int
    fingerprint: str | None = None
    early_finish: bool = False


@dataclass(frozen=True)
class Job:
    """A request, ready to be thought: a plan per choice, and what becomes of their contents."""

    plans: tuple[Plan, ...]
    seed: int
    stop: tuple[str, ...]
    answer_only: bool
    stream: bool
    include_usage: bool
    user: str


def chat_job(request: ChatRequest, served: ServedModel, limits: ServerLimits) -> Job:
    """What a chat asks for.

    Raises:
        ApiError: it cannot be done.
    """
    return _job(request, [question_of(request.messages)], served, limits, "messages")


def completion_job(request: CompletionRequest, served: ServedModel, limits: ServerLimits) -> Job:
    """What prompts ask for: each is a question.

    Raises:
        ApiError: it cannot be done.
    """
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    return _job(request, prompts, served, limits, "prompt")


def question_of(messages: Sequence[Message]) -> str:
    """The one question that a round is told: a single user message as it is, and what came before written above it.

    Raises:
        ApiError: the last message is not a user's, or is empty.
    """
    *earlier, last = messages
    if last.role != "user" or not _text(last).strip():
        raise ApiError(
            400, "the last message must be a user's and hold the question", param="messages", code="no_question"
        )
    names = {"user": "User: ", "assistant": "Assistant: ", "system": "", "developer": ""}
    return "\n\n".join([*(names[message.role] + _text(message) for message in earlier), _text(last)])


def _text(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _job(request: Settings, questions: Sequence[str], served: ServedModel, limits: ServerLimits, where: str) -> Job:
    if request.model is not None and request.model != served.name:
        raise ApiError(
            404,
            f"no model {request.model!r} is served here, but {served.name!r}",
            param="model",
            code="model_not_found",
        )
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options goes with stream = true", param="stream_options", code="bad_combination")
    if request.question_id is not None and len(questions) > 1:
        message = "question_id names one question, not several"
        raise ApiError(400, message, param="question_id", code="bad_combination")
    n = request.n or 1
    rounds = _round_limits(request, served, limits)
    if n > 1 and rounds[0].temperature == 0:
        message = f"n = {n} greedy answers would all be equal: set temperature too, e.g. 1.0"
        raise ApiError(400, message, param="n", code="bad_combination")
    most = min(MOST_CHOICES, limits.concurrency)
    if n * len(questions) > most:
        message = f"{n * len(questions)} answers are more than the {most} of one request"
        raise ApiError(400, message, param="n" if n > 1 else where, code="too_many_answers")
    name, budget = request.budget
    if budget is not None and budget < len(rounds):
        message = f"{name} = {budget} leaves nothing for some of {len(rounds)} rounds"
        raise ApiError(400, message, param=name, code="bad_combination")
    seed = request.seed
    if seed is None:
        seed = secrets.randbits(52) if request.question_id is None else served.recipe.train.seed
    early = served.early_finish if request.early_finish is None else request.early_finish
    plans = tuple(
        Plan(
            question=question,
            limits=rounds,
            budget=budget,
            seed=seed,
            step="solve" if request.question_id is None else "eval",
            id=request.question_id or "",
            index=index,
            early_finish=early,
        )
        for question in questions
        for index in range(n)
    )
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    usage = bool(request.stream_options and request.stream_options.include_usage)
    return Job(plans, seed, tuple(stop), bool(request.answer_only), bool(request.stream), usage, request.user or "")


def _round_limits(request: Settings, served: ServedModel, limits: ServerLimits) -> tuple[Limits, ...]:
    own = served.recipe.rollout
    for name in ("tokens_first", "tokens_continue"):
        asked = getattr(request, name)
        if asked is not None and asked > limits.max_tokens:
            message = f"{name} = {asked} is more than this server's {limits.max_tokens} (motif serve --max-tokens)"
            raise ApiError(400, message, param=name, code="too_many_tokens")
    first, later = request.tokens_first or own.tokens_first, request.tokens_continue or own.tokens_continue
    temperature = served.recipe.eval.temperature if request.temperature is None else request.temperature
    temperature = 0.0 if temperature < GREEDY_BELOW else temperature
    top_p = 1.0 if request.top_p is None else request.top_p
    count = request.rounds or own.rounds
    return tuple(Limits(tokens, temperature, top_p) for tokens in [first] + [later] * (count - 1))


def check_fit(plan: Plan, served: ServedModel) -> None:
    """Refuse a question that does not leave room for a response in every round, with its notes full.

    Raises:
        ApiError: it does not.
    """
    if served.window is None:
        return
    room = served.window - max(limits.tokens for limits in plan.limits)
    count = len(plan.limits)
    # The first round's prompt alone is soon told of a question that is far too long.
    prompt = len(served.rounds.prompt(plan.question, [], count))
    if prompt <= room:
        prompt = served.rounds.longest_prompt(plan.question, count)
    if prompt > room:
        message = (
            f"the question makes a prompt of {prompt} tokens or more, and the window of {served.window} has room for "
            f"{max(room, 0)} beside a response: shorten it, or ask for fewer tokens_first or tokens_continue"
        )
        raise ApiError(400, message, code="context_length_exceeded")
