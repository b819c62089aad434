"""Questions whose rounds are written out: lines of a file that a warm start trains on, or that prompts show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from motif.config import RoundsConfig
from motif.method.demonstrations import UnfitDemonstration
from motif.method.solutions import written
from motif.method.tree import Question

Written = tuple[Question, list[str]]
"""A question, and a response a round."""


def worked(columns: Mapping[str, Any], line: int, config: RoundsConfig) -> Written:
    """A line of `question`, `answer` and `rounds`, each a text or an object of `reasoning` and `note`.

    Raises:
        UnfitDemonstration: something is missing, or of another kind.
    """
    return Question(f"demonstration-{line}", *_question(columns), line), list(_responses(columns.get("rounds"), config))


def _question(columns: Mapping[str, Any]) -> tuple[str, str]:
    for name in ("question", "answer"):
        value = columns.get(name)
        if not isinstance(value, str) or not value.strip():
            raise UnfitDemonstration(f"{name!r} must be a text, and is missing or empty")
    return columns["question"].strip(), columns["answer"].strip()


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
