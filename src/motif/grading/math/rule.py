r"""Equal mathematics: numbers, words, choices and numerals are compared here, everything else by math-verify.

math-verify, which builds on SymPy, may be slow or hang on hostile input (9^{9^{9}}), and only killing its process stops
it. So `Grader` calls `quick` in its own process and `thorough` in a worker. The verdict of math-verify is not
symmetric: the gold comes first, the prediction second. Where it is known to be too lenient (it rounds to six decimals
and drops units and relations), `_differ` checks again. docs/grading.md lists the rules and how often they err.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from motif.errors import DataError
from motif.grading.exact import canonical
from motif.grading.math import intervals
from motif.grading.math.latex import clean, without_text
from motif.grading.math.quantity import numeral, quantity
from motif.grading.numeric import number
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

LONGEST = 2_000  # characters
PLACES = 6  # decimals to which math-verify rounds before it compares
DIGITS = 12  # to which two exact numbers must agree

_BARE_NUMBER = re.compile(rf"[-+]?(?:\d+|\d{{1,3}}(?:,\d{{3}})+)(?:\.\d{{0,{PLACES}}})?")
_WORDS = re.compile(r"(?=.*[A-Za-z]{5})[A-Za-z]+(?: [A-Za-z]+)*")  # shorter words may be products of variables
_CHOICE = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(
    r"(?:option|choice|answer)?\s*(?:\(([A-J])\)|([A-J])\s*(?=[).:]|$))\W*(.*)", re.IGNORECASE | re.DOTALL
)
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|approx|sim|equiv)(?![A-Za-z])")
_DOTS = re.compile(r"\\[lcd]?dots(?![A-Za-z])|\.\.\.")
_SMALL_WORDS = frozenset(["a", "an", "the", "on", "in", "at", "of", "by", "it", "its", "is", "are", "was", "be", "all"])
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
    "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18",
    "nineteen": "19", "twenty": "20",
}  # fmt: skip


class Math(Rule):
    """Equal mathematical objects. A verdict may take arbitrarily long, so ask for it through `Grader`."""

    name = "math"

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict where a comparison of text, numbers or words suffices, else None."""
        if not gold.strip():
            return Grade("ungraded", "the gold answer is empty")
        if len(gold) > LONGEST:
            return Grade("ungraded", f"the gold answer is too long: {len(gold)} characters")
        if len(prediction) > LONGEST:
            return Grade("wrong", f"too long: {len(prediction)} characters")
        if not prediction.strip():
            return Grade("wrong", "empty")
        if canonical(gold) == canonical(prediction):
            return Grade("right")
        wanted, given = clean(gold), clean(prediction)
        if not given:
            return Grade("wrong", "empty")
        if wanted == given:
            return Grade("right")
        for rule in (_quick_numbers, _quick_numerals, _quick_choice, _quick_words, _quick_dots):
            verdict = rule(wanted, given)
            if verdict is not None:
                return verdict
        return None

    def thorough(self, gold: str, prediction: str) -> Grade:
        """The verdict of math-verify, checked by `_differ`.

        An exception in reading the gold passes through. One in reading the prediction makes it wrong: an answer that
        cannot be read is the answer's own fault.
        """
        gold, prediction = _alike(clean(gold), clean(prediction))
        if intervals.is_interval(gold) and (same := intervals.as_intervals(prediction)):
            prediction = same
        elif intervals.is_interval(prediction) and (same := intervals.as_intervals(gold)):
            gold = same
        gold_parsed = _parse(gold)
        if not gold_parsed:
            return Grade("ungraded", f"the gold answer cannot be read as mathematics: {gold[:60]!r}")
        from math_verify import verify

        try:
            predicted = _parse(prediction)
            # Its own time limits use SIGALRM, which the worker needs itself and which works only on the main thread.
            right = bool(predicted) and verify(gold_parsed, predicted, timeout_seconds=None)
        except MemoryError:
            raise
        except Exception as error:
            return Grade("wrong", f"cannot be compared ({type(error).__name__})")
        if not predicted:
            return Grade("wrong", "cannot be read as mathematics")
        problem = _differ(gold, prediction, gold_parsed[0], predicted[0]) if right else ""
        return Grade("right" if right and not problem else "wrong", problem)

    def quick_check(self, gold: str) -> Grade | None:
        """The verdict of `quick` for a plain number, and for a gold answer that already fails there."""
        verdict = self.quick(gold, gold)
        open_question = verdict is None or verdict.verdict == "right"
        return None if open_question and number(gold, units=False) is None else verdict

    def prepare(self) -> None:
        """Import math-verify.

        Raises:
            DataError: it is not installed; the message says how to install it.
        """
        try:
            _parser()
        except Exception as error:
            raise DataError(f"{type(error).__name__}: {error}. Install it with: pip install math-verify") from error


def _quick_numbers(gold: str, prediction: str) -> Grade | None:
    wanted, given = quantity(_number_word(gold)), quantity(_number_word(prediction))
    if wanted is None or given is None:
        return None
    if given.equals(wanted):
        return Grade("right")
    if wanted.value == given.value:
        return Grade("wrong", f"in {given.unit or 'no unit'}, not {wanted.unit or 'plain'}")
    # Fractions and long decimals may still be equal after rounding by math-verify.
    bare = all(_BARE_NUMBER.fullmatch(text.strip()) for text in (gold, prediction))
    return Grade("wrong") if bare or wanted.unit or given.unit else None


def _number_word(text: str) -> str:
    return _NUMBERS.get(without_text(text).strip().lower(), text)


def _quick_numerals(gold: str, prediction: str) -> Grade | None:
    wanted, given = numeral(gold), numeral(prediction)
    if wanted is None or given is None:
        return None
    return Grade("right" if wanted == given else "wrong")


def _quick_choice(gold: str, prediction: str) -> Grade | None:
    letter = _CHOICE.fullmatch(without_text(gold).strip())
    if letter is None:
        return None
    choice = _CHOSEN.match(without_text(prediction).strip())
    # A choice with its text is accepted, but not with another choice beside it.
    if choice is None or re.search(r"\([A-J]\)|\b[B-HJ]\b", choice[3]):
        return None
    return Grade("right" if (choice[1] or choice[2]).upper() == letter[1] else "wrong")


def _quick_words(gold: str, prediction: str) -> Grade | None:
    # math-verify reads a word as a product of letters, to which "silent" equals "listen".
    whole = re.fullmatch(r"[({]?\\text\{[^{}]*\}[)}]?", gold) or _WORDS.fullmatch(gold)
    if whole is None or not re.search(r"[^\W\d]", without_text(gold)):
        return None
    wanted, given = _words_of(gold), _words_of(prediction)
    if not wanted:
        return None
    if "".join(wanted) == "".join(given) or (re.search(r"\d", gold) and sorted(wanted) == sorted(given)):
        return Grade("right")
    # "The function is even": a short sentence that ends in the answer.
    sentence = re.search(r"\b(?:is|are|was|am)\s", without_text(prediction))
    if sentence and len(given) <= len(wanted) + 4 and given[-len(wanted) :] == wanted and not _is_hedged(prediction):
        return Grade("right")
    return Grade("wrong")


def _words_of(text: str) -> list[str]:
    words = re.findall(r"[\w+-]+|,|\\\w+", without_text(text).casefold().replace(" and ", ", ").replace(",,", ","))
    while words and words[0] in _SMALL_WORDS and len(words) > 1:
        del words[0]
    return words


def _is_hedged(text: str) -> bool:
    return bool(re.search(r"\b(?:not|or|neither|nor|never|no|either)\b|n't", without_text(text).casefold()))


def _quick_dots(gold: str, prediction: str) -> Grade | None:
    # A pattern means what its author had in mind; math-verify takes all patterns for equal.
    if not (_DOTS.search(gold) or _DOTS.search(prediction)):
        return None
    same = re.sub(r"[\s{}]", "", _DOTS.sub("…", gold)) == re.sub(r"[\s{}]", "", _DOTS.sub("…", prediction))
    return Grade("right" if same else "wrong")


def _alike(gold: str, prediction: str) -> tuple[str, str]:
    """Both texts, without a choice's letter that only one has, and with signs and degrees spelled out."""
    if not _CHOICE.match(without_text(gold).strip()):
        prediction = re.sub(r"^(?:\\text\{\s*\([A-J]\)\s*\}|\([A-J]\))\s*(?=\S)", "", prediction)
    pair = [re.sub(r"^\s*\{(.*)\}\s*$", r"\1", text) if text.count("{") == 1 else text for text in (gold, prediction)]
    for index, (one, other) in enumerate((pair, pair[::-1])):
        if one.count(r"\pm") == 1 and r"\pm" not in other:
            pair[index] = _both_signs(one)
    if any(re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text) for text in pair):
        pair = [re.sub(r"(\d+(?:\.\d+)?)\s*\^\\circ", r"(\\frac{\1 \\pi}{180})", text) for text in pair]
    return pair[0], pair[1]


def _both_signs(text: str) -> str:
    r"""The list with its one element that has a \pm written twice, with + and with -."""
    inner = re.fullmatch(r"\\\{(.*)\\\}", text)
    elements = re.split(r",(?![^({]*[)}])", inner[1] if inner else text)
    both: list[str] = []
    for element in elements:
        head, sign, tail = element.partition(r"\pm")
        both += [f"{head}+{tail}", f"{head.rpartition('=')[2]}-{tail}"] if sign else [element]
    return rf"\{{{','.join(both)}\}}" if inner else ", ".join(both)


def _differ(gold: str, prediction: str, wanted: Any, given: Any) -> str:
    """Why two answers that math-verify calls equal are different; empty if they are equal."""
    related = bool(_RELATION.search(gold)), bool(_RELATION.search(prediction))
    if related[0] != related[1] and not (intervals.is_interval(gold) or intervals.is_interval(prediction)):
        return "a relation, not a value" if related[1] else "a value, not a relation"
    left, equal, _ = gold.partition("=")
    if (
        equal
        and "=" not in prediction
        and not re.fullmatch(r"\s*(?:[A-Za-z]|\\[a-z]+)\w*(?:_\{?\w+\}?)?\s*(?:\(.*\))?\s*", left)
    ):
        return "a value, not an equation"
    if gold.startswith("(") and prediction.startswith(r"\{"):
        return "a set, not a tuple"
    units = quantity(gold), quantity(prediction)
    if units[0] and units[1] and not units[1].equals(units[0]) and units[0].value == units[1].value:
        return "another unit"
    try:
        exact_numbers = all(not one.has(_float()) and one.is_number for one in (wanted, given))
        if exact_numbers:
            gap = abs((wanted - given).evalf(30))
            if gap > abs(wanted.evalf(30)) * 10**-DIGITS:
                return "not equal, only close"
    except (AttributeError, TypeError, ValueError):
        pass  # not numbers
    return ""


@functools.cache
def _float() -> Any:
    from sympy import Float

    return Float


def _parse(text: str) -> list[Any]:
    # math-verify searches a response for mathematics; the box marks all of the text as the answer.
    return list(_parser()("\\boxed{" + text + "}", parsing_timeout=None, raise_on_error=True))


@functools.cache
def _parser() -> Any:
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off, as intended
    return parse
