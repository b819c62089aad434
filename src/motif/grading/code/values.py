"""Comparison of values that an untrusted program sent, without making objects of them.

Both sides are in the encoding of `motif.grading.code.inside.encode`. They never fill a hash table: keys that collide
would make that quadratic, and the program would choose the keys.

These rules apply where Python's `==` leaves a choice, or where a hidden test should not depend on rounding:

* A list, a tuple, a set and a dict differ from each other. So do a bool and a number (1 is not True), text and bytes.
* Integers are equal if they are the same. If one of two numbers is a float, they are equal within a relative 1e-6 or an
  absolute 1e-9, whichever is wider, unless the test gives its own tolerance. NaN equals nothing, as in Python.
* Items of sets and keys of dicts are compared exactly (3 and 3.0 differ there). The order of a dict does not count.
"""

from __future__ import annotations

import json
import math

from motif.grading.code.inside import DEEPEST, Encoded

RELATIVE, ABSOLUTE = 1e-6, 1e-9
SHOWN = 80  # characters of a value in a reason

_SEQUENCES = ("list", "tuple")
_BRACKETS = {"list": "[]", "tuple": "()", "set": "{}", "dict": "{}"}


def same(expected: Encoded, given: Encoded, relative: float = RELATIVE, absolute: float = ABSOLUTE) -> bool:
    """Whether `given` is the expected value. What is not in the encoding is not equal to anything.

    Raises:
        RecursionError: `given` is nested too deeply (check it with `well_formed` first).
    """
    if not isinstance(expected, list) or not isinstance(given, list):
        return type(expected) is type(given) and bool(expected == given)
    kind, other = expected[0], given[0]
    if kind in ("int", "float") and other in ("int", "float"):
        return _same_number(expected, given, relative, absolute)
    if kind != other or len(expected) != len(given):
        return False
    if kind in _SEQUENCES:
        pairs = zip(expected[1:], given[1:], strict=True)
        return all(same(one, two, relative, absolute) for one, two in pairs)
    if kind == "set":
        return sorted(map(json.dumps, expected[1:])) == sorted(map(json.dumps, given[1:]))
    if kind == "dict":
        pairs = zip(_by_key(expected), _by_key(given), strict=True)
        return all(one[0] == two[0] and same(one[1], two[1], relative, absolute) for one, two in pairs)
    if kind == "complex":
        parts = zip(expected[1:], given[1:], strict=True)
        return all(_same_number(["float", one], ["float", two], relative, absolute) for one, two in parts)
    return bool(expected == given)


def _by_key(encoded: list[Encoded]) -> list[tuple[str, Encoded]]:
    return sorted(((json.dumps(key), value) for key, value in encoded[1:]), key=lambda pair: pair[0])


def _same_number(expected: list[str], given: list[str], relative: float, absolute: float) -> bool:
    if expected[0] == given[0] == "int":
        return expected[1] == given[1]
    try:
        return math.isclose(_number(expected), _number(given), rel_tol=relative, abs_tol=absolute)
    except OverflowError:
        return False  # an integer beyond the range of floats


def _number(encoded: list[str]) -> float:
    return float(int(encoded[1], 16)) if encoded[0] == "int" else float(encoded[1])


def well_formed(encoded: Encoded, depth: int = 0) -> bool:
    """Whether `encode` could have returned this: a program may send anything."""
    if encoded is None or isinstance(encoded, (bool, str)):
        return True
    if not isinstance(encoded, list) or not encoded or depth > DEEPEST:
        return False
    kind, items = encoded[0], encoded[1:]
    if kind in ("list", "tuple", "set"):
        return all(well_formed(item, depth + 1) for item in items)
    if kind == "dict":
        return all(
            isinstance(pair, list) and len(pair) == 2 and all(well_formed(part, depth + 1) for part in pair)
            for pair in items
        )
    if not all(isinstance(item, str) for item in items) or (kind in ("float", "complex") and len(str(items)) > SHOWN):
        return False
    try:
        if kind == "int":
            return len(items) == 1 and hex(int(items[0], 16)) == items[0]
        if kind in ("float", "complex"):
            return len(items) == (1 if kind == "float" else 2) and all(repr(float(item)) == item for item in items)
    except ValueError:
        return False
    return kind == "bytes" and len(items) == 1


def show(encoded: Encoded) -> str:
    """A well-formed value as Python would write it, cut to 80 characters."""
    text = _written(encoded, [SHOWN])
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _written(encoded: Encoded, left: list[int]) -> str:
    # `left` holds the number of characters still needed, so that a megabyte is not written out to show a line of it.
    if not isinstance(encoded, list):
        text = repr(encoded[:SHOWN]) if isinstance(encoded, str) else repr(encoded)
    elif encoded[0] == "int":
        text = str(int(encoded[1], 16)) if len(encoded[1]) < SHOWN else encoded[1]
    elif encoded[0] == "float":
        text = encoded[1]
    elif encoded[0] == "complex":
        text = f"complex({encoded[1]}, {encoded[2]})"
    elif encoded[0] == "bytes":
        text = f"bytes.fromhex({encoded[1][:SHOWN]!r})"
    else:
        return _container(encoded, left)
    left[0] -= len(text)
    return text


def _container(encoded: list[Encoded], left: list[int]) -> str:
    kind, items = encoded[0], encoded[1:]
    if kind == "set" and not items:
        return "set()"
    parts = []
    for item in items:
        if left[0] <= 0:
            break
        left[0] -= 2
        parts.append(": ".join(_written(part, left) for part in item) if kind == "dict" else _written(item, left))
    comma = "," if kind == "tuple" and len(items) == 1 else ""
    brackets = _BRACKETS[kind]
    return brackets[0] + ", ".join(parts) + comma + brackets[1]
