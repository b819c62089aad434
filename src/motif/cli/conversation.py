"""`motif solve`: a conversation in the terminal that shows rounds, notes and the answer as they are produced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motif.config import Recipe, load_recipe, recipe_of
from motif.errors import RecipeError, SamplerError
from motif.text import harmless

if TYPE_CHECKING:
    from motif.sampling.answer import Event, Plan, Thought
    from motif.serve.opening import Opened

DEMO = Path("runs/demo")


def solve(
    question: Annotated[
        str | None,
        typer.Argument(help='The question, e.g. "What is 15 × 24?"; - reads standard input. None: a conversation.'),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run folder. Default: runs/demo if it exists.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The untrained model of this recipe. Default without a run: demo.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How many rounds to think. Default: as trained.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Sample instead of decoding greedily.")] = False,
    seed: Annotated[int, typer.Option(help="Seed for --sample.")] = 0,
    early_finish: Annotated[
        bool, typer.Option("--early-finish", help="End with the first round that gives an answer.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="Read the question from this file.")] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of the file or standard input is a question of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each question.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="a.b=c", help="Change one setting of the recipe. Repeatable.")
    ] = None,
) -> None:
    """Answer questions, showing each round as it is thought.

    Without a question, in a terminal: a conversation. Ctrl-C stops the answer, Ctrl-D ends.
    """
    questions = _questions(question, file, lines)
    if run is not None and recipe is not None:
        raise RecipeError("a run has its own recipe: give --run or --recipe, and --set to change a setting")
    if run is None and recipe is None and any((DEMO / part).exists() for part in ("adapter", "model")):
        run = DEMO
    source = recipe or "demo"
    resolved = load_recipe(source, settings or []) if run is None else recipe_of(run, settings or [])

    from motif.evaluation.any_model import Target
    from motif.sampling.answer import Plan
    from motif.serve.opening import open_local

    opened = open_local(Target(str(run or source), resolved, run, Path()), rows=1)
    print(f"model: {harmless(opened.about)}", file=sys.stderr if as_json else sys.stdout, flush=True)
    talk = _Talk(opened, as_json, {"seed": seed if sample else None})
    limits = _limits(resolved, rounds or resolved.rollout.rounds, sample)

    def plan(text: str) -> Plan:
        return Plan(text, limits, seed=seed, early_finish=early_finish)

    try:
        with asyncio.Runner() as runner:
            if questions is not None:
                for text in questions:
                    runner.run(talk.answer(plan(text)))
            else:
                for text in _typed():
                    try:
                        runner.run(talk.answer(plan(text)))
                    except KeyboardInterrupt:
                        print("\n(stopped)", flush=True)
                    except (RecipeError, SamplerError) as error:
                        print(f"motif: {error}", file=sys.stderr, flush=True)
    finally:
        opened.speaker.close()  # type: ignore[union-attr]  # it is the local one


def _questions(question: str | None, file: Path | None, lines: bool) -> list[str] | None:
    """The questions that are given; None: they will be typed.

    Raises:
        RecipeError: there is none, or one too many.
    """
    if question not in (None, "-") and (file or lines):
        raise RecipeError("give the question itself, or --file, or - for standard input (with or without --lines)")
    if question not in (None, "-"):
        text = str(question)
    elif file is not None:
        if question == "-":
            raise RecipeError("--file and - are two places to read from: choose one")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"--file {file}: {getattr(error, 'strerror', None) or error}") from None
    elif question == "-" or not sys.stdin.isatty():
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    elif lines:
        raise RecipeError("--lines needs a file or standard input")
    else:
        return None
    found = text.splitlines() if lines else [text.strip()]
    found = [line.strip() for line in found if line.strip()]
    if not found:
        raise RecipeError("the question is empty")
    return found


def _typed() -> Iterator[str]:
    """What a person types, until Ctrl-D."""
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


def _limits(recipe: Recipe, count: int, sample: bool) -> Any:
    from motif.sampling.answer import Limits

    shape = recipe.rollout
    first = Limits(shape.tokens_first, shape.temperature_first, shape.top_p_first)
    later = Limits(shape.tokens_continue, shape.temperature_continue, shape.top_p_continue)
    if not sample:
        first, later = Limits(first.tokens, 0.0), Limits(later.tokens, 0.0)
    return (first, *[later] * (count - 1))


class _Talk:
    """Shows one answer after the other: token by token in a terminal, round by round elsewhere, or as JSON."""

    def __init__(self, opened: Opened, as_json: bool, facts: dict[str, Any]):
        self.opened, self.as_json, self.facts = opened, as_json, facts
        self.live = sys.stdout.isatty()
        self._fresh = True

    async def answer(self, plan: Plan) -> None:
        """Think about one question and show it."""
        from motif.sampling.answer import think

        if self.as_json:
            thought = await think(plan, self.opened.rounds, self.opened.speaker)
            print(json.dumps(self._record(plan, thought)), flush=True)
            return
        thought = await think(plan, self.opened.rounds, self.opened.speaker, self._show)
        answer = "(none given)" if thought.answer is None else harmless(thought.answer)
        print(f"\nanswer: {answer}", flush=True)

    async def _show(self, event: Event) -> None:
        from motif.sampling.answer import Begun, Text

        if isinstance(event, Begun):
            print(f"\nround {event.round} of {event.of}\n  ", end="", flush=True)
            self._fresh = True
        elif isinstance(event, Text):
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

    def _record(self, plan: Plan, thought: Thought) -> dict[str, Any]:
        return {
            "question": plan.question,
            "answer": thought.answer,
            "content": thought.content,
            "rounds": [{"text": ended.text, **ended.to_dict()} for ended in thought.rounds],
            "usage": thought.usage,
            "model": self.opened.about,
            **self.facts,
        }


def _indented(text: str) -> str:
    return harmless(text).replace("\n", "\n  ")
