r"""Picking the answer out of a response. Pure, and linear in the length of the text."""

from __future__ import annotations

import re

# A sign counts only where it is not a minus between two terms, and digits inside a word (x2, GPT4) are no number.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.+\-−])[-+−])?"
    r"(?:\\[dt]?frac\{\d+\}\{\d+\}"
    r"|(?<![^\W\d])(?:\d{1,3}(?:(?:\{,\}|,)\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?"
    r"|(?<!\w)\.\d+)"
)


def boxed(text: str, open_mark: str = "\\boxed{", close_mark: str = "}") -> str | None:
    r"""The stripped content of the last complete mark, or None where there is none.

    With `}` as the closing mark, braces are balanced (`\{` and `\}` are characters, not braces). Of nested boxes the
    innermost of the last counts; a box that is never closed is ignored.
    """
    if close_mark == "}":
        span = _last_balanced(text, open_mark)
    elif open_mark == close_mark:
        span = _last_pair(text, open_mark)
    else:
        span = _last_enclosed(text, open_mark, close_mark)
    return None if span is None else text[slice(*span)].strip()


def _last_balanced(text: str, open_mark: str) -> tuple[int, int] | None:
    # One pass with a stack: matching braces anew from every mark would be quadratic on nested unclosed boxes.
    tokens = re.compile(re.escape(open_mark) + r"|\\.|[{}]", re.DOTALL)
    starts: list[int | None] = []  # content start of each open brace; None for a brace that belongs to no mark
    last: tuple[int, int] | None = None
    for token in tokens.finditer(text):
        if token.group() == open_mark:
            starts.append(token.end())
        elif token.group() == "{":
            starts.append(None)
        elif token.group() == "}" and starts:
            start = starts.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, token.start())
    return last


def _last_pair(text: str, mark: str) -> tuple[int, int] | None:
    places = [match.start() for match in re.finditer(re.escape(mark), text)]
    pairs = len(places) // 2
    return (places[2 * pairs - 2] + len(mark), places[2 * pairs - 1]) if pairs else None


def _last_enclosed(text: str, open_mark: str, close_mark: str) -> tuple[int, int] | None:
    last_close = text.rfind(close_mark)
    start = text.rfind(open_mark, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return None
    start += len(open_mark)
    return start, text.index(close_mark, start)


def last_number(text: str) -> str | None:
    r"""The last number as written (sign, thousands commas, decimals, `a/b`, `\frac{a}{b}`), or None."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    return None if last is None else last.group()
