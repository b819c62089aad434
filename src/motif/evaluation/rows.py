"""The rows of an evaluation and how their answers are decoded, as a recipe asks for them. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from motif.config import Recipe


@dataclass(frozen=True)
class EvalRow:
    """One way of answering that is tested: the number of rounds, and the new tokens of the first and of later ones."""

    name: str
    rounds: int
    tokens_first: int
    tokens_continue: int
    twin: bool = False
    """Whether the questions are the twins of the held-out ones."""


@dataclass(frozen=True)
class DecodingMode:
    """How answers are decoded: so many samples per question at this temperature (0 is greedy)."""

    name: str
    samples: int
    temperature: float


@dataclass(frozen=True)
class EvalOverrides:
    """Where an evaluation differs from the recipe's own; None and False: nowhere."""

    rounds: list[int] | None = None
    samples: int | None = None
    temperature: float | None = None
    greedy: bool | None = None
    questions: int | None = None
    matched: bool = False
    twin: bool = False
    second_grader: str | None = None

    def settings(self, recipe: Recipe, settings: list[str]) -> list[str]:
        """`settings` followed by these.

        One sample is greedy; several are drawn at the recipe's temperature, or 1, with a greedy answer beside them,
        unless `temperature` and `greedy` or the settings say otherwise.
        """
        temperature, greedy = self.temperature, self.greedy
        is_set = any(setting.partition("=")[0].strip() == "eval.temperature" for setting in settings)
        if self.samples is not None and temperature is None and not is_set:
            temperature = 0.0 if self.samples == 1 else recipe.eval.temperature or 1.0
        if greedy is None and self.samples is not None:
            greedy = self.samples > 1
        values = {
            "rounds": self.rounds,
            "samples": self.samples,
            "temperature": temperature,
            "greedy": greedy,
            "questions": self.questions,
            "matched": self.matched or None,
            "twin": self.twin or None,
            "second_grader": self.second_grader,
        }
        return settings + [f"eval.{key}={json.dumps(value)}" for key, value in values.items() if value is not None]


def eval_rows(recipe: Recipe) -> list[EvalRow]:
    """The rows of an evaluation: `rounds_1`, `rounds_3`, … and, with `eval.matched`, `rounds_1_matched`.

    Texts in pieces have one row, `pieces`: their rounds follow the text. With `eval.twin` there is one more, of the
    most rounds on changed questions: `rounds_3_twin`.
    """
    first, later = recipe.rollout.tokens_first, recipe.rollout.tokens_continue
    counts = {f"rounds_{count}": count for count in recipe.eval_rounds}
    if recipe.data.in_pieces:
        counts = {recipe.main_row: recipe.rollout.rounds}
    rows = [EvalRow(name, count, first, later) for name, count in counts.items()]
    most = max(rows, key=lambda row: row.rounds)
    if recipe.eval.matched and not recipe.data.in_pieces:
        rows.append(EvalRow("rounds_1_matched", 1, recipe.matched_tokens, later))
    if recipe.eval.twin:
        rows.append(replace(most, name=f"{most.name}_twin", twin=True))
    return rows


def decoding_modes(recipe: Recipe) -> list[DecodingMode]:
    """How the answers of each row are decoded: greedily, or as samples, or as samples with a greedy one beside them."""
    if recipe.eval.temperature == 0:
        return [DecodingMode("greedy", 1, 0.0)]
    sampled = DecodingMode("sampled", recipe.eval.samples, recipe.eval.temperature)
    return [sampled, DecodingMode("greedy", 1, 0.0)] if recipe.eval.greedy else [sampled]


def answers_in(recipe: Recipe, questions: int) -> int:
    """How many answers an evaluation on so many questions takes."""
    return questions * len(eval_rows(recipe)) * sum(mode.samples for mode in decoding_modes(recipe))
