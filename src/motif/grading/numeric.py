r"""Equal numbers: both sides are read as exact rationals, so 0.5, 1/2, .50 and \frac{1}{2} are the same answer.

A number has an optional sign and currency sign, then digits (with thousands commas, decimals, as a/b, \frac{a}{b} or
1.5e3), then an optional percent sign, degree sign or unit in words ("18 dollars", "5\text{ cm}^2"), then an optional
full stop. `$...$` around it is ignored.

Two rules are choices. A percent sign is ignored: 60% equals 60, not 0.6. A unit is ignored, too, and not compared. But
words that change the value ("3 million", "2 and a half", "2 pi") make the answer something other than a number.
"""

from __future__ import annotations

import re
from fractions import Fraction

from motif.grading.exact import canonical
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

LONGEST = 200  # characters
LARGEST_EXPONENT = 300  # of ten: Fraction writes out every digit of the power

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
"""A pattern for digits, with or without thousands commas."""
DECIMAL = rf"(?P<decimal>{DIGITS}(?:\.\d*)?|\.\d+)"
"""A pattern for a number without a sign."""
VALUE_WORDS = (
    r"and|or|to|plus|minus|over|mod|base|not|pi|sqrt|squared|cubed|factorial|mn|bn|dozens?|hundred|thousand|million|"
    r"billion|trillion|hal(?:f|ves)|(?:third|quarter|fourth|fifth|tenth|hundredth|thousandth)s?"
)
"""A pattern for words after a number that change its value, so they are not units."""

_LATEX_SPACE = re.compile(r"\\[,!;: ]|~")
_CURRENCY = r"(?:\\?\$|[£€¥])"
_VALUE = re.compile(
    rf"(?P<sign>[-+]?)\s*{_CURRENCY}*\s*(?P<inner>[-+]?)\s*"
    rf"(?:\\[dt]?frac\{{(?P<over>\d+)\}}\{{(?P<under>\d+)\}}"
    rf"|(?P<top>{DIGITS})\s*/\s*(?P<bottom>{DIGITS})"
    rf"|{DECIMAL}(?:[eE](?P<exponent>[-+]?\d{{1,4}}))?)"
    rf"(?P<rest>.*)",
    re.DOTALL,
)
_SUFFIX = re.compile(rf"\s*(?:\\?%|\^\{{?\\circ\}}?|\\degree|°|{_CURRENCY})?\s*\.?\s*")
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*([^{}]*?)\s*\}")
_UNIT_WORD = re.compile(r"(?:[^\W\d_]{2,20}|[mgshlLCFNJW])(?:\^?(?:[23]|\{[23]\}))?")
_VALUE_WORD = re.compile(VALUE_WORDS, re.IGNORECASE)


class Numeric(Rule):
    """Equal rationals."""

    name = "numeric"
    in_process = True

    def thorough(self, gold: str, prediction: str) -> Grade:
        """`ungraded` if the gold answer is not a number, `wrong` if the prediction is not."""
        wanted = number(gold)
        if wanted is None:
            return Grade("ungraded", f"the gold answer is not a number: {gold[:60]!r}")
        if len(prediction) > LONGEST:
            return Grade("wrong", f"too long for a number: {len(prediction)} characters")
        given = number(prediction)
        if given is None:
            return Grade("wrong", "not a number")
        return Grade("right" if given == wanted else "wrong")


def number(text: str, units: bool = True) -> Fraction | None:
    """The exact value, or None if the text is not one number of at most 200 characters.

    Without `units`, a number followed by words is not a number.
    """
    if len(text) > LONGEST:
        return None
    match = _VALUE.fullmatch(_cleaned(text))
    if match is None or not (_SUFFIX.fullmatch(match["rest"]) or (units and _is_unit(match["rest"]))):
        return None
    return value(match)


def _cleaned(text: str) -> str:
    text = canonical(text).replace("−", "-").replace("{,}", ",")
    text = _LATEX_SPACE.sub(" ", text).strip().rstrip(".").strip()
    for mark in ("$$", "$"):
        # "$18$" is mathematics around 18; "$18" is money, which the number pattern reads.
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and not text.endswith("\\$"):
            text = text[len(mark) : -len(mark)].strip().rstrip(".")
    return re.sub(r"(?<=\d,) (?=\d{3})", "", text).strip()  # 10,\!236


def _is_unit(rest: str) -> bool:
    words = re.split(r"[\s/.\-]+", _TEXT_COMMAND.sub(r" \1", rest).strip(" ."))
    return all(_UNIT_WORD.fullmatch(word) and not _VALUE_WORD.fullmatch(word) for word in words)


def value(match: re.Match[str]) -> Fraction | None:
    """The number that a pattern of this module or of `motif.grading.math.quantity` has matched.

    Of its groups, `decimal`, `over` or `top` is the number, `under` or `bottom` its denominator, `units` or `mixed` the
    whole part of a mixed number, `exponent` the power of ten, and `sign` or `inner` the sign.

    Returns:
        None where there are two signs, for a division by zero, and for an exponent beyond 300.
    """
    part = {name: (text or "").replace(",", "") for name, text in match.groupdict().items()}
    under, whole = part["under"] or part["bottom"], part.get("units") or part.get("mixed")
    power = int(part["exponent"] or 0)
    if (part["sign"] and part["inner"]) or abs(power) > LARGEST_EXPONENT or (under and not int(under)):
        return None
    result = Fraction(part["decimal"] or part["over"] or part["top"])
    if under:
        result /= int(under)
    if whole:
        result += int(whole)
    if power:
        result *= Fraction(10) ** power
    return -result if "-" in (part["sign"], part["inner"]) else result
