"""Whether a gold answer can be the answer of a response: what no response would give cannot teach anything."""

from __future__ import annotations

import re

from motif.method.answers import boxed

LONGEST_TEXT = 12  # words

_MISSING = frozenset(["nan", "null", "n/a", "<na>", "nat", "-", "--", "?", "??", "...", "tbd", "todo", "#n/a", "#ref!"])
_HEADING = re.compile(
    r"#+\s.*|(?:step|solution|answer|proof|part|problem|question|example|explanation|hint|case|note)s?\s*\d*\s*[:.)]?",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SOLUTION = "a worked solution: name the answer in it by data.answer_pattern, or its column by data.answer_column"


def answer_in_box(gold: str) -> str | None:
    r"""The answer that is found in a response of `\boxed{gold}`; None if none is."""
    return boxed(f"\\boxed{{{gold}}}")


def problem(gold: str) -> str:
    """What is the matter with a gold answer that is to be compared as an answer; empty if nothing is."""
    text = gold.strip()
    if text.casefold() in _MISSING:
        return "a missing value, not an answer"
    if (
        "####" in text
        or re.search(r"<<[^<>]*=[^<>]*>>", text)
        or (r"\boxed" in text and not re.match(r"\$*\\boxed", text))
    ):
        return _SOLUTION
    if _HEADING.fullmatch(text):
        return "a heading, not an answer"
    words = len(_WORD.findall(text))
    if words > LONGEST_TEXT and (len(text.splitlines()) > 1 or re.search(r"[.!?:]\s+\S", text) or "=" in text):
        return _SOLUTION
    if answer_in_box(gold) is None:
        return r"its braces are not balanced, so that no response can give it in \boxed{}"
    return ""
