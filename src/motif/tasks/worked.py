"""Questions whose rounds are written out: lines of a file that a warm start trains on, or that prompts show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from motif.config import RoundsConfig, WarmstartConfig
from motif.config.warmstart import CUTS, NOTES
from motif.errors import DataError, RecipeError, first_line
from motif.grading.registry import load_function
from motif.method.demonstrations import UnfitDemonstration
from motif.method.solutions import Cutting, pieces, written
from motif.method.tree import Question

Written = tuple[Question, list[str]]
"""A question, and a response a round."""


def worked(columns: Mapping[str, Any], line: int, config: RoundsConfig) -> Written:
    """A line of `question`, `answer` and `rounds`, each a text or an object of `reasoning` and `note`.

    `pieces` are the texts that the question is about, one a round.

    Raises:
        UnfitDemonstration: something is missing, or of another kind.
    """
    question = Question(f"demonstration-{line}", *_question(columns), line, pieces=_pieces(columns))
    return question, list(_responses(columns.get("rounds"), config))


def cutting_of(config: WarmstartConfig) -> Cutting:
    """How a recipe has solutions cut.

    Raises:
        RecipeError: a function of the user's own cannot be loaded.
    """
    cut: Callable[[str], list[str]] = partial(pieces, cut=config.cut)
    if config.cut not in CUTS:
        own: Callable[[str], Any] = _own("warmstart.cut", config.cut, "a list of texts", _is_texts)
        cut = lambda solution: [text.strip() for text in own(solution) if text.strip()]  # noqa: E731
    if config.notes in NOTES:
        return Cutting(cut, latest=config.notes == "latest")
    return Cutting(cut, _own("warmstart.notes", config.notes, "a text", lambda note: isinstance(note, str)))


def _own(setting: str, name: str, kind: str, suits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """A user's own function, whose errors are told for the solution that it was called with."""
    place, _, function_name = name.rpartition(":")
    try:
        function = load_function(place, function_name)
    except DataError as error:
        raise RecipeError(f"{setting}: {error}") from None

    def call(argument: Any) -> Any:
        try:
            result = function(argument)
        except Exception as error:  # whatever the user's function raises
            raise UnfitDemonstration(f"{setting} raised {type(error).__name__}: {first_line(error)}") from error
        if not suits(result):
            raise RecipeError(f"{setting}: {name} returned {type(result).__name__}, not {kind}")
        return result

    return call


def _is_texts(result: Any) -> bool:
    return isinstance(result, list | tuple) and all(isinstance(text, str) for text in result)


def _question(columns: Mapping[str, Any]) -> tuple[str, str]:
    for name in ("question", "answer"):
        value = columns.get(name)
        if not isinstance(value, str) or not value.strip():
            raise UnfitDemonstration(f"{name!r} must be a text, and is missing or empty")
    return columns["question"].strip(), columns["answer"].strip()


def _pieces(columns: Mapping[str, Any]) -> tuple[str, ...]:
    pieces = columns.get("pieces") or []
    if not isinstance(pieces, list) or not all(isinstance(piece, str) and piece.strip() for piece in pieces):
        raise UnfitDemonstration("'pieces' must be a list of texts that are not empty")
    return tuple(piece.strip() for piece in pieces)


def _responses(rounds: Any, config: RoundsConfig) -> Iterator[str]:
    if not isinstance(rounds, list) or not rounds:
        raise UnfitDemonstration("'rounds' must be a list with a response a round")
    for number, response in enumerate(rounds, start=1):
        if isinstance(response, str):
            yield response
        elif isinstance(response, dict) and set(response) == {"reasoning", "note"}:
            if not all(isinstance(text, str) for text in response.values()):
                raise UnfitDemonstration(f"round {number}: reasoning and note must be texts")
            yield written(response["reasoning"], response["note"], config)
        else:
            raise UnfitDemonstration(f"round {number} must be a text, or an object of 'reasoning' and 'note'")
