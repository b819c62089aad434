r"""Equal mathematics: both answers are read whole into typed values, and a table says what may equal what.

Reading and the comparison of plain values take microseconds, so `quick` does them in the caller's process. Expressions
are compared by their values to many digits (`motif.grading.math.evaluate`), which a worker does.
"""

from __future__ import annotations

import re

from motif.errors import DataError
from motif.grading.exact import canonical
from motif.grading.gold import LONGEST_TEXT, answer_in_box, problem
from motif.grading.math.compare import equal
from motif.grading.math.latex import clean
from motif.grading.math.quantity import plain_number
from motif.grading.math.read import LONGEST, read
from motif.grading.math.values import Choice, Choices, Date, Listing, Numeral, Pattern, Scalar, Time, Value, Words
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

_PLAIN = (Numeral, Choices, Date, Time, Pattern, Words)
_COMMAS = re.compile(r"\d{1,3}(?:,\d{2,3}){2,}")
_DECIMAL_COMMA = re.compile(r"-?(?:\d+,(?:\d{1,2}|\d{4,})|0,\d+)")
_SPACES = re.compile(r"(?<![^\W_])\s+|\s+(?![^\W_\\])")


class Math(Rule):
    """Equal mathematical objects. Comparing expressions may take long, so ask for a verdict through `Grader`."""

    name = "math"

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict where a comparison of text, numbers or words suffices, else None."""
        numbers = plain_number(gold), plain_number(prediction)
        if numbers[0] is not None and numbers[1] is not None and "$" not in gold:
            return _verdict(numbers[0] == numbers[1]) if len(prediction) < 12 or numbers[0] == numbers[1] else None
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
        if _SPACES.sub("", wanted) == _SPACES.sub("", given):
            return Grade("right")
        return None if _COMMAS.fullmatch(wanted) or _COMMAS.fullmatch(given) else _quickly(read(wanted), read(given))

    def thorough(self, gold: str, prediction: str) -> Grade:
        """The verdict without the shortcut that equal texts are equal answers."""
        wanted, given = read(clean(gold)), read(clean(prediction))
        if equal(wanted, given) or _as_lists(gold, prediction) or _with_decimal_comma(wanted, clean(prediction)):
            return Grade("right")
        return Grade("wrong", _difference(wanted, given))

    def prepare(self) -> None:
        """Import mpmath.

        Raises:
            DataError: it is not installed; the message says how to install it.
        """
        try:
            import mpmath  # noqa: F401
        except Exception as error:
            raise DataError(f"{type(error).__name__}: {error}. Install it with: pip install mpmath") from error

    def quick_check(self, gold: str) -> Grade | None:
        """The verdict on a gold answer that is compared in this process, or that no response would give."""
        if plain_number(gold) is not None:
            return Grade("right")
        value = read(clean(gold))
        if not gold.strip() or len(gold) > LONGEST:
            return self.quick(gold, gold)
        wrong = problem(gold)
        if not wrong and isinstance(value, Words) and not _can_be_boxed(value):
            wrong = "text that no response would box, and that cannot be read as mathematics"
        return Grade("wrong", wrong) if wrong else _quickly(value, read(clean(answer_in_box(gold) or "")))


def _can_be_boxed(value: Words) -> bool:
    """Whether a text says something, and is short."""
    counted = sum(word.isalpha() and len(word) > 1 for word in value.words)
    return any(word[-1].isalnum() for word in value.words) and counted <= LONGEST_TEXT


def _as_lists(gold: str, prediction: str) -> bool:
    """Whether 100,200,300 is meant as a list, as the other side shows."""
    texts = [clean(gold), clean(prediction)]
    if any(map(_COMMAS.fullmatch, texts)):
        wanted, given = (read(re.sub(r",\s*", ", ", text)) for text in texts)
        return isinstance(wanted, Listing) and isinstance(given, Listing) and equal(wanted, given)
    return False


def _with_decimal_comma(wanted: Value, prediction: str) -> bool:
    """Whether `0,5` is meant as a decimal, as the gold shows."""
    is_decimal = isinstance(wanted, Scalar) and wanted.literal and wanted.node[1].denominator != 1
    return (
        is_decimal and bool(_DECIMAL_COMMA.fullmatch(prediction)) and equal(wanted, read(prediction.replace(",", ".")))
    )


def _quickly(wanted: Value, given: Value) -> Grade | None:
    """The verdict where no expression has to be evaluated, which only one thread at a time can do, else None."""
    if isinstance(wanted, Scalar) and isinstance(given, Scalar) and wanted.literal and given.literal:
        few = all(value.node[2] <= 6 and value.node[1].denominator <= 10**6 for value in (wanted, given))
        same = equal(wanted, given)
        return Grade("right") if same else Grade("wrong", _difference(wanted, given)) if few else None
    is_product = isinstance(given, Words) and len(given.words) == 1 and len(given.words[0]) <= 4
    plain = isinstance(wanted, _PLAIN) and isinstance(given, _PLAIN)
    if plain or (isinstance(given, Words) and not is_product):
        return Grade("right") if equal(wanted, given) else Grade("wrong", _difference(wanted, given))
    if isinstance(wanted, Choice) and isinstance(given, Choice) and (wanted.text is None or given.text is None):
        return _verdict(equal(wanted, given))
    return None


def _verdict(right: bool) -> Grade:
    return Grade("right" if right else "wrong")


def _difference(wanted: Value, given: Value) -> str:
    """What kind of difference there is, where that is more than another value."""
    if isinstance(wanted, Scalar) and isinstance(given, Scalar):
        if wanted.unit != given.unit and wanted.unit and given.unit and wanted.node == given.node:
            return f"in {given.unit}, not {wanted.unit}"
        return ""
    kinds = [type(value).__name__.lower() for value in (given, wanted)]
    return "" if kinds[0] == kinds[1] else f"{_KINDS.get(kinds[0], kinds[0])}, not {_KINDS.get(kinds[1], kinds[1])}"


_KINDS = {"scalar": "a number or expression", "listing": "a list", "region": "a set of real numbers", "words": "text",
          "named": "a named value", "system": "named values", "choices": "several options"}  # fmt: skip
