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

# Between two numbers of an enumeration; a line of its own for each is one, too.
_LISTED = re.compile(r"[\s,;/|&•*$]*(?:(?:and|or)\b)?[\s,;/|&•*$]*")
_SAID = re.compile(r"####|\banswer\s*(?:is|=|:)(?:\s*:)?", re.IGNORECASE)
_END = re.compile(r"\n|(?<=\S)\.\s+(?=[A-Z])")
LONGEST_JOIN = 40  # characters
_JOIN = re.compile(r"(?:[\s,;.&$*/|]|\\[,;:! ()\[\]]|\\q?quad|\\(?:text|mbox)\{\s*(?:and|or)?\s*\}|and\b|or\b)*")


def boxed(text: str, open_mark: str = "\\boxed{", close_mark: str = "}", beside: bool = True) -> str | None:
    r"""The stripped content of the last complete mark, or None where there is none.

    With `}` as the closing mark, braces are balanced (`\{` and `\}` are characters, not braces). Of nested boxes the
    innermost of the last counts; a box that is never closed is ignored. Boxes with nothing between them but commas,
    white space, "and" or "or" are one answer, a list: boxing several candidates side by side gives no several tries.
    (Not where `beside` is off, for gold answers in worked solutions.)
    """
    if close_mark == "}":
        spans = _balanced(text, open_mark)
        if beside and len(spans) > 1:
            return _joined(text, spans, open_mark)
        span = spans[-1] if spans else None
    elif open_mark == close_mark:
        span = _last_pair(text, open_mark)
    else:
        span = _last_enclosed(text, open_mark, close_mark)
    return None if span is None else text[slice(*span)].strip()


def _balanced(text: str, open_mark: str) -> list[tuple[int, int]]:
    """The spans of all complete boxes that hold no other, in order."""
    # One pass with a stack: matching braces anew from every mark would be quadratic on nested unclosed boxes.
    tokens = re.compile(re.escape(open_mark) + r"|\\.|[{}]", re.DOTALL)
    starts: list[int | None] = []  # content start of each open brace; None for a brace that belongs to no mark
    found: list[tuple[int, int]] = []
    for token in tokens.finditer(text):
        if token.group() == open_mark:
            starts.append(token.end())
        elif token.group() == "{":
            starts.append(None)
        elif token.group() == "}" and starts:
            start = starts.pop()
            if start is not None and (not found or start > found[-1][0]):
                found.append((start, token.start()))
    return found


def _joined(text: str, spans: list[tuple[int, int]], open_mark: str) -> str:
    """The content of the last box, and before it that of the boxes that stand beside it."""
    parts = [text[slice(*spans[-1])].strip()]
    for (start, end), (later, _) in zip(spans[-2::-1], spans[:0:-1], strict=True):
        between = text[end + 1 : later - len(open_mark)]
        if len(between) > LONGEST_JOIN or not _JOIN.fullmatch(between):
            break
        parts.append(text[start:end].strip())
    return ", ".join(dict.fromkeys(reversed(parts)))


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
    r"""The last number as written (sign, thousands commas, decimals, `a/b`, `\frac{a}{b}`), or None.

    A number in an enumeration ("1, 2, 3 or 4") is no answer: naming all candidates must not hit the right one.
    """
    before, last = None, None
    for match in _NUMBER.finditer(text):
        before, last = last, match
    if last is None:
        return None
    if before is not None:
        between = text[before.end() : last.start()]
        if len(between) <= LONGEST_JOIN and _LISTED.fullmatch(between):
            return None
    return last.group()


def final(text: str, fallback: str = "text") -> str | None:
    r"""The answer that a response gives: free text, or nothing but an answer.

    The last box; else what follows the last "####", or "answer is" or "answer:" up to the end of its sentence; else, by
    `fallback`, the last number (`last_number`), the whole text (`text`), or None (`none`).
    """
    found = boxed(text)
    if found is not None:
        return found
    said = None
    for match in _SAID.finditer(text):
        said = match
    if said is not None:
        text = _END.split(text[said.end() :].strip(), maxsplit=1)[0].strip(" *:")
    if fallback == "last_number":
        return last_number(text)
    return text.strip() if fallback == "text" else None
