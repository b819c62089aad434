r"""Equal mathematics: numbers and words are compared here, everything else by math-verify (SymPy underneath).

math-verify may be slow or hang on hostile input (9^{9^{9}}) and can only be stopped by killing it, so `Grader` calls
`quick` in its own process and `grade` in a worker. Its verdict is not symmetric: gold first, prediction second.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from motif.grading import exact, numeric
from motif.grading.verdict import Grade

LONGEST = 2_000  # characters
PLACES = 6  # decimal places to which math-verify rounds before comparing

_BARE_NUMBER = re.compile(rf"[-+]?(?:\d+|\d{{1,3}}(?:,\d{{3}})+)(?:\.\d{{0,{PLACES}}})?")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it)|mbox)\s*\{([^{}\\]*)\}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{5})[A-Za-z]+(?: [A-Za-z]+)*")  # shorter words may be products of variables


def grade(gold: str, prediction: str) -> Grade:
    """Right if both are the same mathematical object. May take arbitrarily long: call it through `Grader`."""
    return quick(gold, prediction) or by_math_verify(gold, prediction)


def quick(gold: str, prediction: str) -> Grade | None:
    """The verdict where comparing text, numbers or words is enough, else None."""
    if not gold.strip():
        return Grade("ungraded", "the gold answer is empty")
    if len(gold) > LONGEST:
        return Grade("ungraded", f"the gold answer is too long: {len(gold)} characters")
    if len(prediction) > LONGEST:
        return Grade("wrong", f"too long: {len(prediction)} characters")
    if not prediction.strip():
        return Grade("wrong", "empty")
    if exact.canonical(gold) == exact.canonical(prediction):
        return Grade("right")
    return _quick_numbers(gold, prediction) or _quick_words(gold, prediction)


def _quick_numbers(gold: str, prediction: str) -> Grade | None:
    wanted, found = numeric.number(gold, units=False), numeric.number(prediction, units=False)
    if wanted is None or found is None:
        return None
    if wanted == found:
        return Grade("right")
    # Percentages, fractions and long decimals may still be equal by math-verify's rounding.
    bare = all(_BARE_NUMBER.fullmatch(text.strip()) for text in (gold, prediction))
    return Grade("wrong") if bare else None


def _quick_words(gold: str, prediction: str) -> Grade | None:
    # math-verify reads a word as a product of letters, to which "silent" equals "listen".
    gold = gold.strip()
    whole = _TEXT.fullmatch(gold.replace("(\\text", "\\text").rstrip(")")) or _WORDS.fullmatch(gold)
    if whole is None or re.search(r"\d", gold):
        return None
    return Grade("right" if _letters(prediction) == _letters(gold) else "wrong")


def _letters(text: str) -> str:
    return re.sub(r"[^\w,\\]", "", _TEXT.sub(r"\1", text)).casefold()


def by_math_verify(gold: str, prediction: str) -> Grade:
    """The verdict of math-verify alone; exceptions of its parser and comparison pass through."""
    gold_parsed = _parse(gold)
    if not gold_parsed:
        return Grade("ungraded", f"the gold answer cannot be read as mathematics: {gold[:60]!r}")
    predicted = _parse(prediction)
    if not predicted:
        return Grade("wrong", "cannot be read as mathematics")
    from math_verify import verify

    # Its own time limits rest on SIGALRM, which is the worker's and works on the main thread only.
    return Grade("right" if verify(gold_parsed, predicted, timeout_seconds=None) else "wrong")


def _parse(text: str) -> list[Any]:
    # math-verify looks for mathematics inside a response; the box says that all of this is the answer.
    text = text.strip()
    if text.startswith("$") and text.endswith("$") and not text.endswith("\\$"):
        text = text.strip("$")
    return list(_parser()("\\boxed{" + text + "}", parsing_timeout=None, raise_on_error=True))


@functools.cache
def _parser() -> Any:
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off, which is the aim
    return parse
