"""The words of each round's prompt, from the settings alone: no tokenizer, and no chat template around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from motif.config import Example, RoundsConfig
from motif.errors import RecipeError
from motif.method.notes import Quotation
from motif.method.solutions import spread, written
from motif.method.tree import Question
from motif.method.wording import system_prompt
from motif.text import read_text


class Turn(NamedTuple):
    """What a round is asked: the question, the notes of earlier rounds but the last, and what is new in this round."""

    asked: str
    earlier: str
    new: str


class Prompts:
    """The prompts of one run.

    Args:
        text: the system prompt before anything is filled in.
        clean: what is done to the text of a worked example.
    """

    def __init__(self, config: RoundsConfig, text: str, clean: Callable[[str], str] = str):
        self.config, self.quotation, self._clean = config, Quotation.of(config.progress), clean
        names = ("think_open", "think_close", "note_open", "note_close", "answer_open", "answer_close")
        marks = (*config.think_tags, *config.note_tags, *config.answer_marks)
        self.system_prompt = fill(text, dict(zip(names, marks, strict=True)))

    def system(self, rounds: int) -> str:
        """The system message for so many rounds: the system prompt, and the examples in this form."""
        prompt = fill(self.system_prompt, {"rounds": str(rounds)})
        return "\n\n".join(filter(None, (prompt, *(self._example(example, rounds) for example in self.examples))))

    @property
    def examples(self) -> list[Example]:
        """The worked examples that every prompt shows."""
        return self.config.examples if isinstance(self.config.examples, list) else []

    def turn(self, question: str, notes: Sequence[str], rounds: int) -> Turn:
        """What is asked in the round that follows these notes (one per earlier round), of `rounds` rounds in all."""
        config, current = self.config, len(notes) + 1
        counters = {"round": str(current), "rounds": str(rounds)}
        asked = fill(config.question, counters | {"question": question})
        carried = list(enumerate(notes, start=1))[0 if config.carry == "all" else -1 :]
        told = [
            fill(config.progress, counters | {"previous": str(previous), "note": self.quotation.quote(note)})
            for previous, note in carried
        ]
        final = current == rounds and config.announce_final
        counter = fill(config.final if final else config.counter, counters)
        return Turn(asked, "".join(told[:-1]), "".join(told[-1:]) + counter)

    def asked(self, question: Question, number: int) -> str:
        """What round `number` (from 1) is asked: the question, with that round's piece of what it is about."""
        if not question.pieces:
            return question.text
        return fill(self.config.piece, {"question": question.text, "piece": question.pieces[number - 1]})

    def _example(self, example: Example, rounds: int) -> str:
        """What a worked example asks and answers in each of so many rounds."""
        lines, notes = ["Example:"], list[str]()
        config = self.config
        if config.think == "model":  # its marks may not stand in a prompt
            config = config.model_copy(update={"think_tags": ("", "")})
        for reasoning, note in spread(example.rounds, rounds, config.answer_marks):
            response = written(reasoning, note, config).strip()
            lines += ["".join(self.turn(example.question, notes, rounds)).strip(), response]
            notes.append(note)
        return self._clean("\n".join(lines))


def prompt_text(config: RoundsConfig) -> str:
    """The system prompt before anything is filled in.

    Raises:
        RecipeError: its file cannot be read, or tells a number of rounds that is not to be told.
    """
    if config.system_prompt_file:
        try:
            text = read_text(config.system_prompt_file).strip()
        except OSError as error:
            raise RecipeError(f"rounds.system_prompt_file: {error}") from None
        except ValueError as error:
            raise RecipeError(f"rounds.system_prompt_file: {config.system_prompt_file}:{error}") from None
        if "{rounds}" in text and not config.total:
            raise RecipeError("rounds.system_prompt_file tells the number of rounds: leave {rounds} out, or set total")
        return text
    if config.system_prompt != "default":
        return config.system_prompt
    return system_prompt(config)


def fill(template: str, values: dict[str, str]) -> str:
    """The template with its placeholders filled in, once: one inside a note or a question is left alone."""
    # Not str.format, because prompts are full of braces.
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
