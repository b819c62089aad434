"""One question thought about in rounds, told as it happens: what `motif serve` and `motif solve` have in common.

Whoever can continue a prompt is a `Speaker`: the local model (`motif.sampling.local.engine`), or a server elsewhere
(`motif.sampling.openai`). What the model is told and how its responses are read is `motif.method.rounds`' business, and
the random numbers are those of `motif.sampling.grow`, so the same question, seed and limits give what `motif eval`
gives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from motif.method.keys import sampling_key
from motif.method.rounds import Rounds


@dataclass(frozen=True)
class Limits:
    """How one round is drawn: at most so many new tokens, at this temperature (0 is greedy) and top-p."""

    tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A question, and how it is to be thought about.

    `limits` holds one entry per round. `budget`: at most so many new tokens in all rounds together (see `allowance`).
    `step`, `seed`, `id` and `index` are what the random numbers come from: those of the response `index` to the
    question `id` in `motif.sampling.grow.grow`. `early_finish`: the first round that gives an answer is the last.
    """

    question: str
    limits: tuple[Limits, ...]
    budget: int | None = None
    seed: int = 0
    step: str = "solve"
    id: str = ""
    index: int = 0
    early_finish: bool = False

    def key(self, number: int) -> int:
        """The randomness of the response in round `number` (from 1)."""
        path = (self.index, *[0] * (number - 1))
        return sampling_key(self.seed, self.step, self.id or f"solve/{self.question}", path)


@dataclass(frozen=True)
class Ask:
    """What a speaker is to continue: the round after `notes`, out of `rounds`."""

    question: str
    notes: Sequence[str]
    rounds: int
    limits: Limits
    key: int


@dataclass(frozen=True)
class Said:
    """A speaker's response, and the tokens of its prompt and of itself (an end token included)."""

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int


OnText = Callable[[str], Awaitable[None]]


class Speaker(Protocol):
    """Whoever continues prompts."""

    async def say(self, ask: Ask, on_text: OnText | None = None) -> Said:
        """The response; `on_text` gets it piece by piece as it is produced. Cancelling the call ends the work."""
        ...


@dataclass(frozen=True)
class Begun:
    """Round `round` of `of` begins."""

    round: int
    of: int


@dataclass(frozen=True)
class Text:
    """A piece of the response of a round."""

    round: int
    of: int
    text: str


@dataclass(frozen=True)
class Ended:
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
        """What is told of a round beside its text."""
        return {
            "round": self.round,
            "note": self.note,
            "answer": self.answer,
            "truncated": self.truncated,
            "well_formed": self.well_formed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


Event = Begun | Text | Ended


@dataclass
class Thought:
    """All rounds; `content` is what the last one says to the reader, and `answer` what a grader would be shown."""

    rounds: list[Ended] = field(default_factory=list)
    content: str = ""

    @property
    def answer(self) -> str | None:
        """The answer of the last round; None: it gave none."""
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


def allowance(left: int | None, limits: Sequence[int]) -> int:
    """The limit of the round that comes next, when `left` tokens are left for it and the later ones.

    A budget below the sum of the rounds' own limits is shared among them in proportion, at least one token each; what
    a round leaves over goes to the later ones. So a small budget makes all rounds shorter and none fall out.
    """
    own, later = limits[0], len(limits) - 1
    if left is None:
        return own
    return min(own, max(1, min(left * own // sum(limits), left - later)))


async def think(
    plan: Plan, rounds: Rounds, speaker: Speaker, on_event: Callable[[Event], Awaitable[None]] | None = None
) -> Thought:
    """Think about the plan's question; `on_event` gets everything as it happens.

    Without `on_event` the speaker need not tell its pieces one by one.
    """
    thought, count = Thought(), len(plan.limits)
    notes: list[str] = []
    tokens = [limits.tokens for limits in plan.limits]
    left = plan.budget

    for number, limits in enumerate(plan.limits, start=1):

        async def on_text(text: str, number: int = number) -> None:
            assert on_event is not None
            await on_event(Text(number, count, text))

        if on_event:
            await on_event(Begun(number, count))
        limited = Limits(allowance(left, tokens[number - 1 :]), limits.temperature, limits.top_p)
        ask = Ask(plan.question, tuple(notes), count, limited, plan.key(number))
        said = await speaker.say(ask, on_text if on_event else None)
        left = None if left is None else left - said.completion_tokens
        reading = rounds.read(said.text, said.truncated, final=number == count)
        ended = Ended(
            round=number,
            of=count,
            text=said.text,
            note=reading.note,
            answer=reading.answer,
            truncated=said.truncated,
            well_formed=reading.well_formed,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            last=number == count or (plan.early_finish and reading.answer is not None),
        )
        thought.rounds.append(ended)
        if on_event:
            await on_event(ended)
        if ended.last:
            break
        notes.append(reading.note)
    thought.content = rounds.final_part(thought.rounds[-1].text)
    return thought
