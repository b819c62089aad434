r"""Inequalities as intervals: `x > 2` is `(2, \infty)`, `x < 5, x \ne -5` is two intervals."""

from __future__ import annotations

import re

LONGEST = 300  # characters

_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<=|>=|<|>")
_VARIABLE = re.compile(r"[A-Za-z]|\\[a-z]+(?:_\{?\w\}?)?")
_NAMES = {"<=": r"\le", ">=": r"\ge"}
_INTERVAL = re.compile(r"^[\[(].*,.*[\])]$")
_MEMBER = re.compile(r"^(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*")


def is_interval(text: str) -> bool:
    r"""Whether a cleaned answer looks like an interval or a union of intervals."""
    parts = re.split(r"\\cup(?![A-Za-z])", _MEMBER.sub("", text))
    return all(_INTERVAL.match(part.strip()) and part.count(",") == 1 for part in parts)


def as_intervals(text: str) -> str | None:
    r"""The intervals of a cleaned inequality in one variable, as LaTeX; None if the text is not one.

    Parts joined by `or` form a union; of parts joined by `and`, or by commas, all hold.
    """
    if len(text) > LONGEST or not _RELATION.search(text):
        return None
    pieces = []
    for alternative in re.split(r"\\text\{\s*or\s*\}|\bor\b|\\cup(?![A-Za-z])|\\vee(?![A-Za-z])", text):
        piece = _all_of(alternative)
        if piece is None:
            return None
        pieces += piece
    return r" \cup ".join(pieces)


def _all_of(text: str) -> list[str] | None:
    low, high, opening, closing = r"-\infty", r"\infty", "(", ")"
    holes: list[str] = []
    variables: set[str] = set()
    for condition in re.split(r",|;|\\text\{\s*and\s*\}|\band\b|\\wedge(?![A-Za-z])", text):
        names = [_NAMES.get(name, name) for name in _RELATION.findall(condition)]
        sides = [side.strip() for side in _RELATION.split(condition)]
        if len(sides) == 3:
            first, second = (sides[0], names[0], sides[1]), (sides[1], names[1], sides[2])
            relations = [first, second]
        elif len(sides) == 2:
            relations = [(sides[0], names[0], sides[1])]
        else:
            return None
        for relation in relations:
            variable, name, bound = _turned(*relation)
            if not bound or not _VARIABLE.fullmatch(variable):
                return None
            variables.add(variable)
            if name == r"\ne":
                holes.append(bound)
            elif name in (">", r"\ge"):
                low, opening = bound, "[" if name == r"\ge" else "("
            else:
                high, closing = bound, "]" if name == r"\le" else ")"
    if len(variables) != 1:
        return None
    edges = [(low, opening), *((hole, "(") for hole in holes)]
    ends = [*((hole, ")") for hole in holes), (high, closing)]
    return [f"{mark}{left},{right}{close}" for (left, mark), (right, close) in zip(edges, ends, strict=True)]


def _turned(left: str, name: str, right: str) -> tuple[str, str, str]:
    """The relation with its variable on the left."""
    if _VARIABLE.fullmatch(right) and not _VARIABLE.fullmatch(left):
        return right, {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}.get(name, name), left
    return left, name, right
