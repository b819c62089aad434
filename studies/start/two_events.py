"""Worked solutions of whole stories, two events a round: four events fit three rounds, and rounds are alike."""

from __future__ import annotations


def cut(solution: str) -> list[str]:
    """The pieces of a solution: two lines each, an event a line."""
    lines = solution.splitlines()
    return ["\n".join(lines[start : start + 2]) for start in range(0, len(lines), 2)]


def note(pieces: list[str]) -> str:
    """The note after these pieces: what the last line has found, the event and the count after it."""
    return pieces[-1].rpartition("<<")[2].rstrip(">")
