r"""The answer in a response, found in time linear in the length of the text."""

from __future__ import annotations

import re

# A sign counts unless it is a minus between two terms. Digits inside a word (x2, GPT4) are not a number.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.+\-−])[-+−])?"
    r"(?:\\[dt]?frac\{\d+\}\{\d+\}"
    r"|(?<![^\W\d])(?:\d{1,3}(?:(?:\{,\}|,)\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?"
    r"|(?<!\w)\.\d+)"
)

# What stands between two numbers of an enumeration, which may also have each number on a line of its own.
_LISTED = re.compile(r"[\s,;/|&•*$]*(?:(?:and|or)\b)?[\s,;/|&•*$]*")
_ANSWER_IS = re.compile(r"####|\banswer\s*(?:is|=|:)(?:\s*:)?", re.IGNORECASE)
_END = re.compile(r"\n|(?<=\S)\.\s+(?=[A-Z])")
LONGEST_JOIN = 40  # characters between two items of a list
_JOIN = re.compile(r"(?:[\s,;.&$*/|]|\\[,;:! ()\[\]]|\\q?quad|\\(?:text|mbox)\{\s*(?:and|or)?\s*\}|and\b|or\b)*")


def boxed(text: str, open_mark: str = "\\boxed{", close_mark: str = "}", join: bool = True) -> str | None:
    r"""The stripped content of the last complete box, or None where there is none.

    With `}` as the closing mark, braces are balanced (`\{` and `\}` are characters, not braces). Of nested boxes the
    innermost of the last one counts; a box that is never closed is ignored.

    Args:
        join: read boxes with nothing between them but commas, white space, "and" or "or" as one answer, a list. So
            several candidates in a row are not several tries. It is off for gold answers in worked solutions.
    """
    if close_mark == "}":
        spans = _balanced(text, open_mark)
        if join and len(spans) > 1:
            return _joined(text, spans, open_mark)
        span = spans[-1] if spans else None
    elif open_mark == close_mark:
        span = _last_pair(text, open_mark)
    else:
        span = _last_enclosed(text, open_mark, close_mark)
    return None if span is None else text[slice(*span)].strip()


def _balanced(text: str, open_mark: str) -> list[tuple[int, int]]:
    """The spans of all complete boxes that contain no other box, in order."""
    # One pass with a stack: to match braces anew from every mark would be quadratic on nested unclosed boxes.
    tokens = re.compile(re.escape(open_mark) + r"|\\.|[{}]", re.DOTALL)
    starts: list[int | None] = []  # of each open brace, where its content starts; None if it does not open a box
    spans: list[tuple[int, int]] = []
    for token in tokens.finditer(text):
        if token.group() == open_mark:
            starts.append(token.end())
        elif token.group() == "{":
            starts.append(None)
        elif token.group() == "}" and starts:
            start = starts.pop()
            if start is not None and (not spans or start > spans[-1][0]):
                spans.append((start, token.start()))
    return spans


def _joined(text: str, spans: list[tuple[int, int]], open_mark: str) -> str:
    """The contents of the last box and of those in a row before it, as a list."""
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

    A number at the end of an enumeration ("1, 2, 3 or 4") is not an answer: a list of all candidates must not count.
    """
    previous, last = None, None
    for match in _NUMBER.finditer(text):
        previous, last = last, match
    if last is None:
        return None
    if previous is not None:
        between = text[previous.end() : last.start()]
        if len(between) <= LONGEST_JOIN and _LISTED.fullmatch(between):
            return None
    return last.group()


def final(text: str, fallback: str = "text") -> str | None:
    r"""The answer of a response that is free text, or nothing but an answer.

    It is the content of the last box, if there is one. Otherwise only what follows the last "####", "answer is" or
    "answer:" counts, up to the end of its sentence, or the whole text if there is none of these. In that, `fallback`
    chooses: the last number (`last_number`), all of it (`text`), or None (`none`).
    """
    box = boxed(text)
    if box is not None:
        return box
    statement = None
    for match in _ANSWER_IS.finditer(text):
        statement = match
    if statement is not None:
        text = _END.split(text[statement.end() :].strip(), maxsplit=1)[0].strip(" *:")
    if fallback == "last_number":
        return last_number(text)
    return text.strip() if fallback == "text" else None
