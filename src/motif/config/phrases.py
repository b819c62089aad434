"""What is wrong with a value, in one plain phrase for each kind of problem that pydantic finds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any

from pydantic import ValidationInfo

from motif.text import brief, counted, without_user_info

PHRASES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "decimal": "must be a number",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
    "list": "must be a list, in brackets",
    "tuple": "must be a list, in brackets",
    "set": "must be a list, in brackets",
    "dict": "must be a section with settings of its own",
    "mapping": "must be a section with settings of its own",
    "model": "must be a section with settings of its own",
    "missing": "is missing",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
}
"""By the type of a problem, or the first word of it: `int_type`, `int_parsing`, `int_from_float`, …"""


def phrase(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, to follow its name: `must be a whole number`."""
    kind, known = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    if kind in ("literal_error", "enum"):
        return f"must be {known['expected']}{_meant(problem['input'], known['expected'])}"
    if kind in ("too_short", "string_too_short"):
        return f"must have at least {_items(known['min_length'], kind)}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {_items(known['max_length'], kind)}"
    words = PHRASES.get(kind) or PHRASES.get(kind.partition("_")[0])
    if words is None:
        return str(problem["msg"]).replace("Input should be", "must be")
    return words.format(**{key: f"{value:g}" for key, value in known.items() if isinstance(value, int | float)})


def _items(count: int, kind: str) -> str:
    return counted(count, "character" if kind.startswith("string") else "item")


def _meant(value: Any, expected: str) -> str:
    """A hint at the word that a misspelt one is most like."""
    close = difflib.get_close_matches(str(value), expected.split("'")[1::2], n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def sentence(problem: Mapping[str, Any]) -> str:
    """A problem as a sentence: the name of the setting, what is wrong, and the value."""
    place, message = list(problem["loc"]), phrase(problem)
    where = ".".join(map(str, place))
    if not where or message.startswith(f"{where}."):
        return message
    if len(place) > 1 and isinstance(place[-1], int):
        where, message = ".".join(map(str, place[:-1])), f"item {place[-1] + 1} {message}"
    hidden = problem["type"] == "missing" or isinstance(problem["input"], Mapping)
    shown = "" if hidden else f" (got {brief(without_user_info(_written(problem['input'])))})"
    return f"{brief(where)}: {message}{shown}"


def by_value(problems: Iterable[Any]) -> list[Any]:
    """The problems, but one for each value: of a value that may be of several kinds, pydantic has one for each kind.

    It adds the kind, such as `constrained-int`, to the place of the value.
    """
    found: dict[Any, Any] = {}
    for problem in problems:
        *place, last = problem["loc"] or [""]
        kind = problem["type"] != "extra_forbidden" and isinstance(last, str) and not last.isidentifier()
        value = tuple(place) if kind and place else problem["loc"]
        if kind and value in found:
            message = f"{phrase(found[value])} or {phrase(problem).removeprefix('must be ')}"
            found[value] = problem | {"loc": value, "type": "value_error", "msg": message}
        else:
            found[value if kind else (value, len(found))] = problem | {"loc": value}
    return list(found.values())


def refuse_bools(section: Any, value: Any, info: ValidationInfo) -> Any:
    """Refuse true and false in a field for numbers or text: pydantic takes them for 1 and 0.

    Raises:
        ValueError: the value is one of them, or a list with one.
    """
    kind = str(section.model_fields[info.field_name].annotation)
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, bool) for part in parts) and "bool" not in kind and "Any" not in kind:
        raise ValueError("must not be true or false")
    return value


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date | time) else repr(value)
