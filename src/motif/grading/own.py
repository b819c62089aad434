"""Graders and rewards of the user's own: what they may ask for, how they are called, and what they may return.

A function gets what it asks for by the names of its parameters (`NAMES`, and every column of the row). One that asks
for `completions` is called as TRL calls it, with lists; they hold one answer. It returns a number from 0 to 1, a
verdict, True or False, a `Grade`, or several named parts, whose weighted mean counts.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from motif.grading.verdict import Grade
from motif.method.tree import Node, Question, Tree, Verdict

NAMES = ("answer", "gold", "question", "response", "responses", "notes", "row")
"""What a function may ask for, beside the columns of the row. `prediction` is `answer`."""
MADE_UP = "42"
"""The answer on which a reward is tried where the data has no gold answers."""


@dataclass(frozen=True)
class Answered:
    """An answer with all that a reward may ask for.

    answer: None if the last response has none. responses: the texts of all rounds. notes: those that rounds after the
    first were shown. columns: of the row that the question comes from.
    """

    answer: str | None
    gold: str
    question: str = ""
    responses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Tree, leaf: Node) -> Answered:
        """The answer of a final response in its tree."""
        chain, question = tree.trajectory(leaf), tree.question
        texts, notes = (node.text for node in chain), (node.note for node in chain[:-1])
        return cls(leaf.answer, question.gold, question.whole, tuple(texts), tuple(notes), question.columns)

    @classmethod
    def given(cls, question: Question, answer: str | None) -> Answered:
        """An answer that no trajectory led to: a demonstration's, or the gold answer."""
        return cls(answer, question.gold, question.whole, (answer or "",), (), question.columns)

    def offers(self) -> dict[str, Any]:
        """What a function may ask for, by name; columns of the same names as these are in `row` only."""
        return {
            **self.columns,
            "row": dict(self.columns),
            "answer": self.answer,
            "prediction": self.answer,
            "gold": self.gold,
            "question": self.question,
            "response": self.responses[-1] if self.responses else self.answer or "",
            "responses": list(self.responses),
            "notes": list(self.notes),
        }

    def offers_batch(self) -> dict[str, Any]:
        """What TRL passes to a reward function, of one answer: prompts and completions are messages where the
        column `prompt` holds messages, and columns keep their names."""
        prompt = self.columns.get("prompt", self.question)
        text = self.offers()["response"]
        completion = [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text
        columns = {name: [value] for name, value in self.columns.items() if name not in ("prompt", "completion")}
        return columns | {"prompts": [prompt], "completions": [completion]}


class Reward:
    """One or several functions of the user's own as one reward.

    Args:
        functions: by name; a class is made an object first. The parts of several functions are logged by these names.
        weights: of the parts, by name (default: 1). Their weighted mean counts; a part of weight 0 is only logged.
        positional: a function of two parameters with other names is called with the gold answer and the answer.

    Raises:
        TypeError: one of them cannot be called.
    """

    def __init__(
        self, functions: Mapping[str, Any], weights: Mapping[str, float] | None = None, positional: bool = False
    ):
        self.calls = {name: _Call(function, positional) for name, function in functions.items()}
        self.weights = dict(weights or {})
        self.waits = any(call.waits for call in self.calls.values())

    @property
    def asks(self) -> list[str] | None:
        """All names that the functions ask for, so that what nobody asks for need not be sent; None: everything."""
        names = [call.asks for call in self.calls.values()]
        return None if None in names else sorted({name for asked in names for name in asked or ()})

    def grade(self, answered: Answered) -> Grade:
        """The grade of an answer, by functions that do not wait.

        Raises:
            TypeError, ValueError: a function asks for what there is not, or returns what is not a reward.
            Exception: whatever a function raises.
        """
        if missing := self._without_answer(answered):
            return missing
        return self._combined({name: call(answered) for name, call in self.calls.items()})

    async def grade_waiting(self, answered: Answered) -> Grade:
        """The same, where some of the functions are coroutines; these are awaited together."""
        if missing := self._without_answer(answered):
            return missing
        results = {name: call(answered) for name, call in self.calls.items()}
        waiting = {name: result for name, result in results.items() if inspect.isawaitable(result)}
        awaited = await asyncio.gather(*waiting.values())
        return self._combined(results | dict(zip(waiting, awaited, strict=True)))

    def _without_answer(self, answered: Answered) -> Grade | None:
        asked = answered.answer is None and any(call.needs_answer for call in self.calls.values())
        return Grade("wrong", "no answer") if asked else None

    def _combined(self, results: Mapping[str, Any]) -> Grade:
        if len(results) == 1:
            [(name, result)] = results.items()
            return as_grade(result, self.weights, batch=self.calls[name].batch)
        parts: dict[str, float] = {}
        for name, result in results.items():
            if self.calls[name].batch and isinstance(result, list) and result == [None]:
                continue  # TRL's way to say that a function does not apply
            grade = as_grade(result, {}, batch=self.calls[name].batch)
            if grade.outcome is None:
                return Grade("ungraded", f"{name}: {grade.reason}")
            parts[name] = grade.outcome
        return _weighed(parts, self.weights)


class _Call:
    """A function, and how it is called."""

    def __init__(self, function: Any, positional: bool):
        self.function: Any = function() if inspect.isclass(function) else function
        if not callable(self.function):
            raise TypeError(f"a reward is a function, not {type(function).__name__}")
        called = self.function if inspect.isroutine(self.function) else self.function.__call__
        self.waits = inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(called)
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # some that are written in C
            parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("gold", "answer")]
        self.named = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        self.needed = [one.name for one in parameters if one.name in self.named and one.default is one.empty]
        self.everything = any(one.kind is one.VAR_KEYWORD for one in parameters)
        places = [one for one in parameters if one.default is one.empty and one.kind is not one.KEYWORD_ONLY]
        places = [one for one in places if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        self.only_places = any(one.kind is one.POSITIONAL_ONLY for one in places)
        self.pair = (positional or self.only_places) and len(places) == 2
        self.batch = "completions" in self.named

    @property
    def asks(self) -> list[str] | None:
        """The names that it asks for; None: everything."""
        pair = ["gold", "answer"] if self.pair else []
        return None if self.everything or self.batch else [*self.named, *pair]

    @property
    def needs_answer(self) -> bool:
        """Whether an answer that is missing is wrong without asking it."""
        return not self.batch and (bool({"answer", "prediction"} & {*self.needed}) or self.only_places)

    def __call__(self, answered: Answered) -> Any:
        offers = answered.offers_batch() if self.batch else answered.offers()
        missing = [name for name in self.needed if name not in offers]
        by_place = self.only_places or (missing and (self.needed[0] == "gold" or not {*self.needed} & {*offers}))
        if self.pair and by_place:
            return (
                Grade("wrong", "no answer")
                if answered.answer is None
                else self.function(answered.gold, answered.answer)
            )
        if missing or self.only_places:
            raise TypeError(
                f"it asks for {' and '.join(map(repr, missing or ['an argument without a name']))}, which is neither a "
                f"column of the data ({', '.join(answered.columns) or 'there are none'}) nor one of {', '.join(NAMES)}"
            )
        names = list(offers) if self.everything else [name for name in self.named if name in offers]
        return self.function(**{name: offers[name] for name in names})


def as_grade(result: Any, weights: Mapping[str, float] | None = None, batch: bool = False) -> Grade:
    """The grade that a function returned: a number from 0 to 1, True or False, a verdict, a Grade, or named parts.

    Args:
        weights: of the parts, by name.
        batch: it returns a list, of one of these.

    Raises:
        TypeError, ValueError: anything else.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("it returned something to await: write the reward itself as async def")
    if batch:
        if not isinstance(result, (list, tuple)) or len(result) != 1:
            raise TypeError(f"it was given one completion, so it must return a list of one reward, not {result!r:.60}")
        [result] = result
    if isinstance(result, Grade):
        return result
    if isinstance(result, str) and result in ("right", "wrong", "ungraded"):
        return Grade(result)  # type: ignore[arg-type]
    if isinstance(result, Mapping):
        if not result:
            raise TypeError("it returned no part at all")
        return _weighed({str(name): _number(value, f"part {name!r} is") for name, value in result.items()}, weights)
    return Grade.of(_number(result, "it returned"))


def _weighed(parts: Mapping[str, float], weights: Mapping[str, float] | None) -> Grade:
    shares = {name: (weights or {}).get(name, 1.0) for name in parts}
    total = math.fsum(shares.values())
    if not total > 0:
        raise ValueError(f"no part has a weight: {', '.join(parts) or 'none applies'}")
    score = math.fsum(shares[name] * value for name, value in parts.items()) / total
    return Grade.of(min(1.0, score), parts=parts)


def _number(value: Any, what: str) -> float:
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        words = "None" if value is None else f"{value!r:.40} ({type(value).__name__})"
        raise TypeError(f"{what} {words}, not a number from 0 to 1, True, False, {', '.join(get_args(Verdict)[:2])}")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # a tensor or array of several numbers
        raise TypeError(f"{what} a {type(value).__name__} of several numbers, not one number from 0 to 1") from None
    if not 0 <= number <= 1:
        raise ValueError(f"{what} {number:g}, and a reward is a number from 0 to 1: divide it by its largest value")
    return number
