"""Worked solutions of whole stories, two events in the first round and one a round after it: four fit three rounds."""

from __future__ import annotations


def cut(solution: str) -> list[str]:
    """The pieces of a solution that tells an event a line."""
    first, second, *later = solution.splitlines()
    return [f"{first}\n{second}", *later]


def note(pieces: list[str]) -> str:
    """The note after these pieces: what the last line has found, the event and the count after it."""
    return pieces[-1].rpartition("<<")[2].rstrip(">")
