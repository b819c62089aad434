"""Equal text: for answers that are words or codes."""

from __future__ import annotations

import unicodedata

from motif.grading.rule import Rule
from motif.grading.verdict import Grade

LONGEST = 100_000  # characters


class Exact(Rule):
    """Equal text after Unicode NFKC and with runs of white space as one space; upper and lower case differ."""

    name = "exact"
    in_process = True

    def thorough(self, gold: str, prediction: str) -> Grade:
        """`ungraded` if the gold answer is empty."""
        wanted = canonical(gold)
        if not wanted:
            return Grade("ungraded", "the gold answer is empty")
        if len(prediction) > LONGEST:
            return Grade("wrong", f"too long: {len(prediction)} characters")
        return Grade("right" if canonical(prediction) == wanted else "wrong")


def canonical(text: str) -> str:
    """NFKC with runs of white space as one space, except that superscripts, subscripts and fractions stay.

    Plain NFKC turns 10² into 102 and 2½ into 21⁄2, which are other numbers.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_compatible, text)))
    return " ".join(text.split())


def _compatible(char: str) -> str:
    kind = unicodedata.decomposition(char)
    return char if kind.startswith(("<super>", "<sub>", "<fraction>")) else unicodedata.normalize("NFKC", char)
