"""The numbers of one row of an evaluation, from its answers and nothing else."""

from __future__ import annotations

import functools
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from motif.evaluation.second import SecondOpinion
from motif.method.tree import outcome_of
from motif.statistics.calibration import Calibration, calibrate
from motif.statistics.estimators import (
    Outcome,
    Proportion,
    mean_outcome,
    powers_of_two,
    proportion,
    question_pass_at_k,
    vote,
)

ROW = re.compile(r"rounds_(\d+)(_matched|_twin)?")
"""The name of a row: its number of rounds, and whether its one round had the tokens of all rounds, or its questions
were the twins of the held-out ones."""
EXTRA = {"_matched": ", matched tokens", "_twin": ", changed questions"}

PIECES = "texts in pieces"
"""The row of questions that come in pieces, in words."""

NUMBERS = (
    *("accuracy", "low", "high", "n", "samples", "temperature"),
    *("ungraded", "truncated", "well_formed", "mean_tokens"),
)


@dataclass(frozen=True)
class GradedAnswer:
    """One answer with all its rounds, as far as the numbers need it."""

    verdict: str | None
    text: str | None
    truncated: bool
    well_formed: bool
    tokens: int
    reason: str = ""
    rounds: int = 1
    early: bool = False  # it has fewer rounds than it might have had
    score: float | None = None  # where the verdict is partial

    @property
    def outcome(self) -> Outcome:
        """What the answer is worth, from 0 to 1; None: it is not graded."""
        return outcome_of(self.verdict, self.score)


Answers = dict[str, list[GradedAnswer]]
"""The answers to each question, by its id."""


def row_words(name: str) -> str:
    """A row in words: `rounds_3` is 3 rounds, `rounds_1_matched` is 1 round with as many tokens as all rounds,
    `rounds_3_twin` is 3 rounds on changed questions, and `pieces` texts in pieces."""
    match = ROW.fullmatch(name)
    if not match:
        return {"pieces": PIECES, "pieces_twin": PIECES + EXTRA["_twin"]}.get(name, name)
    return f"{match[1]} round{'s' * (match[1] != '1')}" + EXTRA.get(match[2] or "", "")


@dataclass(frozen=True)
class Accuracy:
    """The results of a row over `n` graded questions, with a 95 % interval over questions.

    accuracy: pass@1, the mean over questions of the mean outcome of their `samples` answers (avg@n), drawn at
        `temperature` (0: greedy).
    ungraded: the number of answers without a verdict, which count in neither numerator nor denominator.
    truncated, well_formed: the shares of answers with at least one response cut off, and with only well-formed ones.
    mean_tokens: the generated tokens of one answer, all rounds together.
    mean_rounds: the rounds of one answer, where some answers ended early (`rounds.may_finish`); None elsewhere.
    pass_at: pass@k for k = 2, 4, … up to the number of samples.
    majority: the share of questions whose most frequent answer is right. greedy: that of right greedy answers, drawn
        beside the samples.
    calibration: how the agreement of several answers and accuracy go together. second: a second grader's verdicts.
    outcomes: the mean outcome by question id (None: ungraded), for paired comparisons.
    by_pieces: the accuracy on questions with so many pieces, where they come in pieces.
    answers, answered, right, partial: numbers of all answers, of those with something to grade, of right ones, and of
        those that are worth something in between. reason: the most frequent one of an answer that could not be graded.
    """

    accuracy: float
    low: float
    high: float
    n: int
    samples: int
    temperature: float
    ungraded: int
    truncated: float
    well_formed: float
    mean_tokens: float
    mean_rounds: float | None = None
    pass_at: dict[int, Proportion] = field(default_factory=dict)
    majority: Proportion | None = None
    greedy: Proportion | None = None
    calibration: Calibration | None = field(default=None, repr=False)
    second: SecondOpinion | None = field(default=None, repr=False)
    outcomes: dict[str, Outcome] = field(default_factory=dict, repr=False)
    by_pieces: dict[int, Proportion] = field(default_factory=dict)
    answers: int = field(default=0, repr=False)
    answered: int = field(default=0, repr=False)
    right: int = field(default=0, repr=False)
    partial: int = field(default=0, repr=False)
    reason: str = field(default="", repr=False)

    def to_dict(self, first: int = 0) -> dict[str, Any]:
        """The numbers for JSON, without the outcomes (see `outcomes_dict`); the mean of no question is None.

        With `first`, where there are more questions than these, also the accuracy on so many, the first ones.
        """
        numbers: dict[str, Any] = {name: _finite(getattr(self, name)) for name in NUMBERS}
        if self.mean_rounds is not None:
            numbers["mean_rounds"] = self.mean_rounds
        if 0 < first < len(self.outcomes):
            few = proportion(list(self.outcomes.values())[:first], partial=self.partial > 0)
            numbers["first"] = {"accuracy": _finite(few.value), "low": few.low, "high": few.high, "n": few.n}
        if self.pass_at:
            numbers["pass_at"] = {str(k): _proportion_dict(value) for k, value in self.pass_at.items()}
        if self.by_pieces:
            numbers["by_pieces"] = {str(count): _proportion_dict(value) for count, value in self.by_pieces.items()}
        for name, value in (("majority", self.majority), ("greedy", self.greedy)):
            if value is not None:
                numbers[name] = _proportion_dict(value)
        for name, found in (("calibration", self.calibration), ("second", self.second)):
            if found is not None:
                numbers[name] = found.to_dict()
        return numbers

    def over_first(self, count: int) -> float | None:
        """The accuracy on the first `count` questions (0: on all); None: none of them is graded."""
        if not count or count >= len(self.outcomes):
            return _finite(self.accuracy)
        graded = [outcome for outcome in list(self.outcomes.values())[:count] if outcome is not None]
        return statistics.fmean(graded) if graded else None

    def outcomes_dict(self, row: str) -> dict[str, Any]:
        """A line of outcomes.jsonl: the name of the row, the ids of the questions, and the mean outcome of each."""
        return {"row": row, "questions": list(self.outcomes), "outcomes": list(self.outcomes.values())}

    def __str__(self) -> str:
        return f"{Proportion(self.accuracy, self.low, self.high, self.n)}, n = {self.n}"


def answers_of(tree: dict[str, Any]) -> tuple[str, list[GradedAnswer]]:
    """The id of a question and its answers, from the record of its tree (`Tree.to_dict`).

    Raises:
        KeyError, TypeError, ValueError: this is not the record of a tree that branches only in its first round.
    """
    return tree["question"]["id"], [_answer_of(response) for response in tree["responses"]]


def _answer_of(response: dict[str, Any]) -> GradedAnswer:
    chain = [response]
    while chain[-1].get("children"):
        [child] = chain[-1]["children"]
        chain.append(child)
    return GradedAnswer(
        verdict=chain[-1].get("verdict"),
        text=chain[-1]["answer"],
        truncated=any(node["truncated"] for node in chain),
        well_formed=all(node["well_formed"] for node in chain),
        tokens=sum(node["tokens"] for node in chain),
        reason=chain[-1].get("reason", ""),
        rounds=len(chain),
        early=bool(chain[-1].get("unused")),
        score=chain[-1].get("score"),
    )


def summarise(
    answers: Answers,
    temperature: float = 0.0,
    equal: Callable[[str, str], bool] | None = None,
    greedy: Answers | None = None,
    pieces: Mapping[str, int] | None = None,
) -> Accuracy:
    """The numbers of a row from its answers.

    Args:
        temperature: the sampling temperature of the answers.
        equal: which answers vote together (see `estimators.majority`).
        greedy: a greedy answer to each question, if they were drawn beside the samples.
        pieces: how many pieces the questions have, by id, where they come in pieces.
    """
    outcomes = {name: _outcomes(group) for name, group in answers.items()}
    means = {name: mean_outcome(values) for name, values in outcomes.items()}
    everything = [answer for group in answers.values() for answer in group]
    graded = sum(value is not None for values in outcomes.values() for value in values)
    samples = max((len(group) for group in answers.values()), default=0)
    several = samples > 1
    mean = functools.partial(proportion, partial=any(answer.verdict == "partial" for answer in everything))
    accuracy = mean(list(means.values()), graded)
    votes = [vote([a.text for a in answers[name]], values, equal) for name, values in outcomes.items() if several]
    return Accuracy(
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        n=accuracy.n,
        samples=samples,
        temperature=temperature,
        ungraded=sum(answer.verdict == "ungraded" for answer in everything),
        truncated=_mean([answer.truncated for answer in everything]),
        well_formed=_mean([answer.well_formed for answer in everything]),
        mean_tokens=_mean([answer.tokens for answer in everything]),
        mean_rounds=_mean([a.rounds for a in everything]) if any(a.early for a in everything) else None,
        pass_at={
            k: mean([question_pass_at_k(values, k) for values in outcomes.values()], graded)
            for k in powers_of_two(samples)[1:]
        },
        majority=mean([right for _, right in votes]) if several else None,
        calibration=calibrate(votes, mean),
        greedy=mean([mean_outcome(_outcomes(group)) for group in greedy.values()]) if greedy else None,
        outcomes=means,
        by_pieces=_by_pieces(means, pieces or {}, mean),
        answers=len(everything),
        answered=sum(answer.text is not None for answer in everything),
        right=sum(answer.verdict == "right" for answer in everything),
        partial=sum(answer.verdict == "partial" for answer in everything),
        reason=next(iter(Counter(a.reason for a in everything if a.verdict == "ungraded")), ""),
    )


def _by_pieces(
    means: Mapping[str, Outcome], pieces: Mapping[str, int], proportion: Callable[[list[Outcome]], Proportion]
) -> dict[int, Proportion]:
    return {
        count: proportion([mean for name, mean in means.items() if pieces[name] == count])
        for count in sorted(set(pieces.values()))
    }


def _outcomes(answers: Sequence[GradedAnswer]) -> list[Outcome]:
    return [answer.outcome for answer in answers]


def _proportion_dict(value: Proportion) -> dict[str, float | int | None]:
    return {"value": _finite(value.value), "low": value.low, "high": value.high, "n": value.n}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
