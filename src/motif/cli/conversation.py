"""Questions and answers in the terminal: rounds, notes and the answer are shown as they are produced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from motif.errors import MotifError, UsageError
from motif.evaluation.target import Target
from motif.method.pieces import read_in_pieces
from motif.sampling.answer import AnswerPlan, Event, RoundStarted, RoundText, Trace, answer
from motif.sampling.grow import TreeShape
from motif.session import LoadedModel, notices, open_model, piece_limit
from motif.text import counted, harmless


class Conversation:
    """Answers questions with the model of a target, one after the other.

    Args:
        rounds: how many rounds to think; None: as trained.
        seed: of the samples; None: answers are greedy.
        pieces: tokens of a piece of a long message; None: as the recipe says; 0: messages are never cut.
    """

    def __init__(
        self,
        target: Target,
        rounds: int | None,
        seed: int | None,
        early_finish: bool,
        as_json: bool,
        pieces: int | None = None,
    ):
        self.opened = open_model(target.recipe, target.weights, rows=1)
        about = f"model: {harmless(self.opened.about)}"
        print(about, file=sys.stderr if as_json else sys.stdout, flush=True)
        shape = target.recipe.rollout
        chain = shape.model_copy(update={"branching": [1] * (rounds or shape.rounds)})
        self.shape = TreeShape.of(chain, greedy=seed is None)
        self.given, self.recipe = rounds, target.recipe
        self.notice = notices(self.recipe)
        opened = self.opened
        self.pieces = piece_limit(self.recipe, opened.rounds, opened.window) if pieces is None else pieces
        self.seed, self.early_finish = seed or 0, early_finish
        self.transcript = Transcript(self.opened, as_json, {"seed": seed})

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run(self.opened.sampler.aclose())

    def answer_all(self, questions: Sequence[str]) -> None:
        """Answer the given questions."""
        with asyncio.Runner() as runner:
            for question in questions:
                runner.run(self.transcript.answer(self._plan(question)))

    def interactive(self) -> None:
        """Answer what a person types, until Ctrl-D. Ctrl-C stops an answer; an error ends only its own."""
        with asyncio.Runner() as runner:
            for question in _typed():
                try:
                    runner.run(self.transcript.answer(self._plan(question)))
                except KeyboardInterrupt:
                    print("\n(stopped)", flush=True)
                except MotifError as error:
                    print(f"motif: {error}", file=sys.stderr, flush=True)

    def _plan(self, question: str) -> AnswerPlan:
        asked, pieces = read_in_pieces(question, self.pieces, self.recipe.data.in_pieces, self.opened.rounds)
        shape, most = self.shape, self.recipe.rollout.most_rounds
        if len(pieces) > most:
            raise UsageError(f"the text has {len(pieces)} pieces, more than rollout.most_rounds = {most} (--set)")
        if pieces and self.given not in (None, len(pieces)):
            raise UsageError(
                f"the text has {counted(len(pieces), 'piece')}, one a round: leave --rounds out, or set --pieces 0"
            )
        limits = tuple(shape.in_rounds(len(pieces)).limits if pieces else shape.limits)
        if notice := self.notice("\n".join([asked, *pieces])):
            print(f"note: {harmless(notice)}", file=sys.stderr, flush=True)
        return AnswerPlan(asked, limits, seed=self.seed, early_finish=self.early_finish, pieces=pieces)


def _typed() -> Iterator[str]:
    """The questions that a person types, until Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited, and earlier ones are a key away
    while True:
        try:
            text = input("\nquestion: ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if text:
            yield text


class Transcript:
    """Prints one answer after the other: token by token in a terminal, round by round elsewhere, or as JSON."""

    def __init__(self, opened: LoadedModel, as_json: bool, facts: dict[str, Any]):
        self.opened, self.as_json, self.facts = opened, as_json, facts
        self.live = sys.stdout.isatty()
        self._fresh = True

    async def answer(self, plan: AnswerPlan) -> None:
        """Answer one question and print it."""
        if self.as_json:
            trace = await answer(plan, self.opened.rounds, self.opened.sampler)
            print(json.dumps(self._record(plan, trace)), flush=True)
            return
        trace = await answer(plan, self.opened.rounds, self.opened.sampler, self._show)
        given = "(none given)" if trace.answer is None else harmless(trace.answer)
        print(f"\nanswer: {given}", flush=True)

    async def _show(self, event: Event) -> None:
        if isinstance(event, RoundStarted):
            print(f"\nround {event.round} of {event.of}\n  ", end="", flush=True)
            self._fresh = True
        elif isinstance(event, RoundText):
            if self.live:
                self._write(event.text)
        else:
            if not self.live:
                self._write(event.text.rstrip())
            print("  (cut off by the token limit)" if event.truncated else "", flush=True)
            if not event.last:
                print(f"  → note: {_indented(event.note) or '(none)'}", flush=True)

    def _write(self, text: str) -> None:
        if self._fresh:
            text = text.lstrip()
        self._fresh = self._fresh and not text
        print(_indented(text), end="", flush=True)

    def _record(self, plan: AnswerPlan, trace: Trace) -> dict[str, Any]:
        return {
            "question": plan.question,
            **({"pieces": list(plan.pieces)} if plan.pieces else {}),
            "answer": trace.answer,
            "content": trace.content,
            "rounds": [{"text": ended.text, **ended.to_dict()} for ended in trace.rounds],
            "usage": trace.usage,
            "model": self.opened.about,
            **self.facts,
        }


def _indented(text: str) -> str:
    return harmless(text).replace("\n", "\n  ")
