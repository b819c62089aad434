r"""Sets of real numbers: intervals as they are written anywhere, inequalities, unions, holes, set-builders.

A set is a condition: ("<", bound) and its like for `x < bound`, ("all",), and ("and", …), ("or", …), ("comma", …) or
("not", …) of conditions. Two conditions are the same if they agree at every bound of either, between neighbouring
bounds, and beyond the outermost.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from motif.grading.math.evaluate import Undefined, points, same, value_at
from motif.grading.math.expression import Node, Unreadable, letters, parse
from motif.grading.math.latex import split
from motif.grading.math.values import Region

MOST_BOUNDS = 40

ALL: Node = ("all",)
EMPTY: Node = ("not", ALL)
INFINITE = {r"\infty": 1, r"+\infty": 1, r"-\infty": -1}
RELATIONS = ("<", ">", r"\le", r"\ge", r"\ne", "=")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_WORDS = {
    "all real numbers": ALL, "all reals": ALL, "all real x": ALL, "real numbers": ALL, "the real numbers": ALL,
    "the set of all real numbers": ALL, "the set of real numbers": ALL, "set of all real numbers": ALL,
    "all real values": ALL, "all real values of x": ALL, "any real number": ALL, "every real number": ALL, "reals": ALL,
    "the set of reals": ALL, "all of the real numbers": ALL, "x can be any real number": ALL, "all x": ALL,
    "empty set": EMPTY, "the empty set": EMPTY, "no solution": EMPTY, "no solutions": EMPTY, "no real solutions": EMPTY,
    "no real solution": EMPTY, "there is no solution": EMPTY, "there are no solutions": EMPTY, "null set": EMPTY,
    "there are no real solutions": EMPTY, "no real roots": EMPTY, "has no solution": EMPTY, "no real root": EMPTY,
}  # fmt: skip
_REALS = re.compile(
    r"(?:[a-z] (?:is|can be) )?(?:the set of )?(?:all|any|every)(?: of the)?(?: real)? (?:numbers?|values?|reals?)"
    r"(?: of)?(?: [a-z])?"
)
_EXCEPT = re.compile(
    rf"({_REALS.pattern}),? (?:except|other than|besides|excluding)(?: for| when)?(?: [a-z] =)? (.+)", re.DOTALL
)
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?|\\(?!in(?:fty)?\b|le\b|ge\b|ne\b)[a-z]+(?:_\{?\w\}?)?")
_AND = (",", ";", r"\text{and}", r"\wedge", r"\cap", r"\&")


def in_words(text: str) -> Region | None:
    """The set that a phrase names."""
    phrase = re.sub(r"\s+", " ", text.casefold()).strip(" .")
    condition = ALL if _REALS.fullmatch(phrase) and "real" in phrase else _WORDS.get(phrase)
    return None if condition is None else Region(condition)


def all_except(text: str, items: Callable[[str], list[Node]]) -> Region | None:
    """All real numbers except some, in words; None for other text."""
    match = _EXCEPT.fullmatch(text)
    if match is None or "real" not in match[1]:
        return None
    return Region(("not", ("or", *(("=", node) for node in items(match[2])))))


def interval(text: str) -> Node | None:
    r"""The condition of one interval: `(0,1]`, `]0;1[`, `(-\infty, 2)`; None for other text.

    Raises:
        Unreadable: an infinite end that is closed, or bounds that are not expressions.
    """
    if len(text) < 5 or text[0] not in "([]" or text[-1] not in ")][" or text.endswith(r"\]"):
        return None
    inner = text[1:-1]
    parts = split(inner, [";"]) if ";" in inner else split(inner, [","])
    if len(parts) == 4 and ";" not in inner and all(part.isdecimal() for part in (parts[1], parts[3])):
        parts = [f"{parts[0]}.{parts[1]}", f"{parts[2]}.{parts[3]}"]  # decimal commas
    elif ";" in inner:
        parts = [re.sub(r"(?<=\d),(?=\d)", ".", part) for part in parts]
    if len(parts) != 2 or not all(parts):
        return None
    ends = []
    for part, closed, below in zip(parts, (text[0] == "[", text[-1] == "]"), (True, False), strict=True):
        sign = INFINITE.get(part.replace(" ", ""))
        if sign is None:
            ends.append(((r"\ge" if closed else ">") if below else (r"\le" if closed else "<"), parse(part)))
        elif closed or sign != (-1 if below else 1):
            raise Unreadable("an infinite end that is closed")
    return ("and", *ends) if ends else ALL


def region(text: str, items: Callable[[str], list[Node]]) -> Region | None:
    r"""The set that a cleaned text describes with intervals, unions, differences and inequalities; None for other text.

    Args:
        items: the expressions in a list, such as the `\pm 1` of `x \ne \pm 1`.

    Raises:
        Unreadable: it looks like a set but cannot be read whole.
    """
    variables: set[str] = set()
    member = re.match(
        r"([A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(?=[(\[\]\\])(?!\\mathbb\{[ZNQC]\})(.*)", text, re.DOTALL
    )
    if member:
        variables.add(member[1])
        text = member[2].strip()
    condition = _union(text, items, variables)
    if condition is None:
        return None
    if len(variables) > 1:
        raise Unreadable("several variables")
    return Region(condition, next(iter(variables), ""))


def _union(text: str, items: Callable[[str], list[Node]], variables: set[str]) -> Node | None:
    parts = [part.strip() for part in re.split(r"\\text\{or\}|\\cup(?![A-Za-z])|\\vee(?![A-Za-z])", text)]
    if re.search(r"\\text\{or\}|\\vee", text) and not all(_relations(part) for part in parts):
        return None  # "(0,1) or (2,3)" are two answers
    conditions = [_all_of(part, items, variables) for part in parts]
    if any(condition is None for condition in conditions):
        return None
    return ("or", *conditions) if len(conditions) > 1 else conditions[0]


def _all_of(text: str, items: Callable[[str], list[Node]], variables: set[str]) -> Node | None:
    whole = _simple(text, items, variables)
    if whole is not None:
        return whole
    minus = re.fullmatch(
        r"(.+?)\s*(?:\\setminus(?![A-Za-z])|(?<=\\mathbb\{R\})\s*-|\\text\{\s*except\s*\})\s*(.+)", text, re.DOTALL
    )
    if minus:
        base = _all_of(minus[1].strip(), items, variables)
        inner = re.fullmatch(r"\\\{(.*)\\\}", minus[2].strip(), re.DOTALL)
        removed: Node | None
        if inner or r"\text{except}" in text:
            removed = ("or", *(("=", node) for node in items(inner[1] if inner else minus[2])))
        else:
            removed = _all_of(minus[2].strip(), items, variables)
        return None if base is None or removed is None else ("and", base, ("not", removed))
    parts = _joined(split(text, _AND))
    conditions = [_simple(part, items, variables) for part in parts] if len(parts) > 1 else [None]
    if any(condition is None for condition in conditions):
        return None
    comma = len(conditions) == 2 and not re.search(r"\\text\{and\}|\\wedge|\\cap|;", text)
    return ("comma" if comma else "and", *conditions)


def _joined(parts: list[str]) -> list[str]:
    """The parts of a list in which `x \\ne 1, 3` is one condition."""
    joined: list[str] = []
    for part in parts:
        if (
            joined
            and r"\ne" in joined[-1]
            and not any(sign in part for sign in RELATIONS)
            and not part.startswith(("(", "["))
        ):
            joined[-1] += "," + part
        else:
            joined.append(part)
    return joined


def _simple(text: str, items: Callable[[str], list[Node]], variables: set[str]) -> Node | None:
    """The condition of an interval, a set of points, a known set or one (possibly double) inequality."""
    text = text.strip()
    while text.startswith(r"\text{") and text.endswith("}") and text.count("{") == 1:
        named = in_words(text[6:-1])
        return named.condition if named else None
    if re.fullmatch(r"(?:([A-Za-z])\s*\\in\s*)?\\mathbb\{R\}", text) or text == r"(-\infty, \infty)":
        return ALL
    if text == r"\emptyset":
        return EMPTY
    part = re.fullmatch(r"\\mathbb\{R\}\s*\^\s*\{?\s*(\\cdot|\+|-)\s*\}?", text)
    if part:
        zero = ("n", Fraction(0), 0)
        return {"+": (">", zero), "-": ("<", zero)}.get(part[1], ("not", ("=", zero)))
    found = interval(text) if not _relations(text) else None
    if found is not None:
        return found
    inner = re.fullmatch(r"\\\{([^{}]*)\\\}", text)
    if inner and not re.search(r"\\mid|:|\|", inner[1]):
        return ("or", *(("=", node) for node in items(inner[1]))) if inner[1].strip() else EMPTY
    return _inequality(text, items, variables)


def _relations(text: str) -> list[str]:
    return re.findall(r"\\[lgn]e(?![A-Za-z])|[<>=]", text)


def _inequality(text: str, items: Callable[[str], list[Node]], variables: set[str]) -> Node | None:
    names = _relations(text)
    sides = [side.strip() for side in re.split(r"\\[lgn]e(?![A-Za-z])|[<>=]", text)]
    if not 1 <= len(names) <= 2 or not all(sides) or (len(names) == 2 and (r"\ne" in names or "=" in names)):
        return None
    conditions: list[Node] = []
    inside = re.fullmatch(r"\|\s*([A-Za-z])\s*\|", sides[0])
    if inside and names[0] in ("<", r"\le", ">", r"\ge") and len(names) == 1 and len(bounds := items(sides[1])) == 1:
        variables.add(inside[1])
        mirrored = (_TURNED[names[0]], ("neg", bounds[0]))
        return ("and" if names[0] in ("<", r"\le") else "or", (names[0], bounds[0]), mirrored)
    for before, sign_, after in zip(sides, names, sides[1:], strict=False):
        if len(names) == 2 and not _VARIABLE.fullmatch(sides[1]):
            return None
        turned = bool(_VARIABLE.fullmatch(after)) and not _VARIABLE.fullmatch(before)
        left, name, right = (after, _TURNED.get(sign_, sign_), before) if turned else (before, sign_, after)
        if not _VARIABLE.fullmatch(left):
            return None
        sign = INFINITE.get(right.replace(" ", ""))
        if sign is not None:
            if (name in ("<", r"\le")) != (sign > 0):
                raise Unreadable("beyond infinity")
            variables.add(left)
            continue
        variables.add(left)
        bounds = items(right)
        if name in (r"\ne", "="):
            points_ = ("or", *(("=", node) for node in bounds))
            conditions.append(("not", points_) if name == r"\ne" else points_)
        elif len(bounds) == 1:
            conditions.append((name, bounds[0]))
        else:
            raise Unreadable("several bounds")
        if left in letters(bounds[0]):
            raise Unreadable("a bound with its own variable")
    return ("and", *conditions) if conditions else ALL


def _bounds(condition: Node) -> list[Node]:
    if condition[0] in ("<", ">", r"\le", r"\ge", "="):
        return [condition[1]]
    return [bound for part in condition[1:] for bound in _bounds(part)]


def _holds(condition: Node, x: Any, values: dict[Node, Any]) -> bool:
    kind = condition[0]
    if kind == "all":
        return True
    if kind == "not":
        return not _holds(condition[1], x, values)
    if kind in ("and", "or"):
        results = (_holds(part, x, values) for part in condition[1:])
        return all(results) if kind == "and" else any(results)
    bound = values[condition[1]]
    return bool({"<": x < bound, ">": x > bound, r"\le": x <= bound, r"\ge": x >= bound, "=": x == bound}[kind])


def _resolved(condition: Node) -> Node:
    """The condition in which a comma between two parts that exclude each other (x < -1, x > 2) means "or"."""
    if condition[0] in ("and", "or", "not"):
        return (condition[0], *map(_resolved, condition[1:]))
    if condition[0] != "comma":
        return condition
    both = ("and", *condition[1:])
    return ("or", *condition[1:]) if same_condition(both, EMPTY) else both


def same_condition(gold: Node, given: Node) -> bool:
    """Whether two conditions hold for the same numbers.

    Raises:
        Unreadable: a bound has no value, or there are more than 40 bounds.
    """
    gold, given = _resolved(gold), _resolved(given)
    bounds: list[Node] = []
    stands_for: dict[Node, Node] = {}
    for bound in dict.fromkeys([*_bounds(gold), *_bounds(given)]):
        equal = next((known for known in bounds if same(known, bound)), None)
        stands_for[bound] = bound if equal is None else equal
        if equal is None:
            bounds.append(bound)
        if len(bounds) > MOST_BOUNDS:
            raise Unreadable("too many bounds")
    names = sorted(frozenset().union(*map(letters, bounds)) if bounds else ())
    tried = 0
    for point in list(points(names))[:3]:
        try:
            values = {bound: value_at(bound, point) for bound in bounds}
            where = sorted(values.values())
        except (Undefined, TypeError):
            continue
        tried += 1
        middles = [(low + high) / 2 for low, high in itertools.pairwise(where)]
        beyond = [where[0] - 1, where[-1] + 1] if where else [0]
        standing = {bound: values[known] for bound, known in stands_for.items()}
        for x in (*where, *middles, *beyond):
            if _holds(gold, x, standing) != _holds(given, x, standing):
                return False
    if not tried:
        raise Unreadable("bounds that are not real")
    return True
