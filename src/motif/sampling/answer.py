"""One question answered in rounds and watched as it happens: what `motif serve` and `motif solve` have in common.

An answer is a tree of one trajectory, grown by `motif.sampling.grow` on any sampler. Prompts, reading and random
numbers are therefore those of training, so the same question, seed and limits give what `motif eval` gives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import Completion, OnText, Sampler
from motif.sampling.grow import Grower, Observer, RoundLimits, TreeShape, completion_tokens


@dataclass(frozen=True)
class AnswerPlan:
    """A question, and how it is to be answered.

    `limits` holds one entry per round. `budget`: at most so many new tokens in all rounds together. `step`, `seed`,
    `id` and `index` are what the random numbers come from: those of the response `index` to the question `id` in
    `motif.sampling.grow`. `early_finish`: the first round that gives an answer is the last. `pieces`: what the question
    is about, one a round.
    """

    question: str
    limits: tuple[RoundLimits, ...]
    budget: int | None = None
    seed: int = 0
    step: str = "solve"
    id: str = ""
    index: int = 0
    early_finish: bool = False
    pieces: tuple[str, ...] = ()

    @property
    def as_question(self) -> Question:
        """What a tree is grown for."""
        text = "\n".join([self.question, *self.pieces])
        return Question(self.id or f"solve/{text}", self.question, "", pieces=self.pieces)


@dataclass(frozen=True)
class RoundStarted:
    """Round `round` of `of` begins."""

    round: int
    of: int


@dataclass(frozen=True)
class RoundText:
    """A piece of the response of a round."""

    round: int
    of: int
    text: str


@dataclass(frozen=True)
class RoundEnded:
    """A round as it was read; `note` is what the next one is shown."""

    round: int
    of: int
    text: str
    note: str
    answer: str | None
    truncated: bool
    well_formed: bool
    prompt_tokens: int
    completion_tokens: int
    last: bool
    """No round follows: it is the final one, or it gave the answer early."""

    def to_dict(self) -> dict[str, Any]:
        """What is reported of a round beside its text."""
        return {
            "round": self.round,
            "note": self.note,
            "answer": self.answer,
            "truncated": self.truncated,
            "well_formed": self.well_formed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


Event = RoundStarted | RoundText | RoundEnded
OnEvent = Callable[[Event], Awaitable[None]]


@dataclass
class Trace:
    """All rounds of an answer; `content` is what the last one says to the reader."""

    rounds: list[RoundEnded] = field(default_factory=list)
    content: str = ""

    @property
    def answer(self) -> str | None:
        """The answer of the last round, which a grader would be shown; None: it gave none."""
        return self.rounds[-1].answer

    @property
    def prompt_tokens(self) -> int:
        """Of all rounds."""
        return sum(ended.prompt_tokens for ended in self.rounds)

    @property
    def completion_tokens(self) -> int:
        """Of all rounds."""
        return sum(ended.completion_tokens for ended in self.rounds)

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens as the OpenAI API counts them; reasoning is all rounds but the one that answers."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": completion - self.rounds[-1].completion_tokens},
        }


async def answer(plan: AnswerPlan, rounds: Rounds, sampler: Sampler, on_event: OnEvent | None = None) -> Trace:
    """Answer the plan's question in rounds; `on_event` gets everything as it happens.

    Raises:
        SamplerError, RecipeError: see the sampler.
    """
    watcher = _Watcher(len(plan.limits), on_event)
    shape = TreeShape([1] * len(plan.limits), plan.limits, "current", plan.budget, plan.early_finish, plan.index)
    tree = Tree(plan.as_question, 0)
    await Grower(sampler, rounds, shape, plan.seed, plan.step, watcher, threaded=True).grow([tree])
    trace = watcher.trace
    trace.content = rounds.final_part(trace.rounds[-1].text)
    return trace


class _Watcher(Observer):
    """Turns the rounds of a trajectory into events and a trace."""

    def __init__(self, count: int, on_event: OnEvent | None):
        self.trace, self.count, self.tell = Trace(), count, on_event

    async def on_round(self, number: int) -> None:
        if self.tell:
            await self.tell(RoundStarted(number, self.count))

    def on_text(self, number: int) -> OnText | None:
        tell = self.tell
        if tell is None:  # the sampler need not spell its pieces one by one
            return None

        async def piece(text: str) -> None:
            await tell(RoundText(number, self.count, text))

        return piece

    async def on_response(self, tree: Tree, node: Node, completion: Completion, last: bool) -> None:
        counted = completion.prompt_tokens
        ended = RoundEnded(
            round=node.round,
            of=self.count,
            text=node.text,
            note=node.note,
            answer=node.answer,
            truncated=node.truncated,
            well_formed=node.well_formed,
            prompt_tokens=len(node.prompt_ids) if counted is None else counted,
            completion_tokens=completion_tokens(completion),
            last=last,
        )
        self.trace.rounds.append(ended)
        if self.tell:
            await self.tell(ended)
