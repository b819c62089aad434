r"""Equal numbers: both sides are read as exact rationals, so 0.5, 1/2, .50 and \frac{1}{2} are the same answer.

What is read as a number: an optional sign and currency sign, then digits (thousands commas, decimals, a/b, \frac{a}{b},
1.5e3), then an optional percent or degree sign or a unit in words ("18 dollars", "5\text{ cm}^2"), then an optional
full stop. `$...$` around it is ignored.

Two rules are choices. A percent sign is dropped: 60% equals 60, not 0.6. A unit is dropped without being compared, but
words that change the value ("3 million", "2 and a half", "2 pi") make the answer not a number.
"""

from __future__ import annotations

import re
from fractions import Fraction

from motif.grading.exact import canonical
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

LONGEST = 200  # characters
LARGEST_EXPONENT = 300

_LATEX_SPACE = re.compile(r"\\[,!;: ]|~")
_CURRENCY = r"(?:\\?\$|[£€¥])"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_VALUE = re.compile(
    rf"(?P<outer>[-+]?)\s*{_CURRENCY}*\s*(?P<inner>[-+]?)\s*"
    rf"(?:\\[dt]?frac\{{(?P<over>\d+)\}}\{{(?P<under>\d+)\}}"
    rf"|(?P<whole>{_DIGITS})\s*/\s*(?P<part>{_DIGITS})"
    rf"|(?P<decimal>(?:{_DIGITS}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{{1,4}})?))"
    rf"(?P<rest>.*)",
    re.DOTALL,
)
_SUFFIX = re.compile(rf"\s*(?:\\?%|\^\{{?\\circ\}}?|\\degree|°|{_CURRENCY})?\s*\.?\s*")
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*([^{}]*?)\s*\}")
_UNIT_WORD = re.compile(r"(?:[^\W\d_]{2,20}|[mgshlLCFNJW])(?:\^?(?:[23]|\{[23]\}))?")
_VALUE_WORDS = re.compile(
    r"and|or|to|plus|minus|over|mod|base|not|pi|sqrt|squared|cubed|factorial|mn|bn|dozens?|hundred|thousand|million|"
    r"billion|trillion|hal(?:f|ves)|(?:third|quarter|fourth|fifth|tenth|hundredth|thousandth)s?",
    re.IGNORECASE,
)


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
        value = number(prediction)
        if value is None:
            return Grade("wrong", "not a number")
        return Grade("right" if value == wanted else "wrong")


def number(text: str, units: bool = True) -> Fraction | None:
    """The exact value, or None if the text is not one number of at most 200 characters.

    With `units` false, a number followed by words is not a number.
    """
    if len(text) > LONGEST:
        return None
    match = _VALUE.fullmatch(_cleaned(text))
    if match is None or (match["outer"] and match["inner"]):
        return None
    rest = match["rest"]
    if not _SUFFIX.fullmatch(rest) and not (units and _is_unit(rest)):
        return None
    value = _value(match)
    return -value if value is not None and "-" in (match["outer"], match["inner"]) else value


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
    return all(_UNIT_WORD.fullmatch(word) and not _VALUE_WORDS.fullmatch(word) for word in words)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["decimal"]:
        digits = match["decimal"].replace(",", "")
        exponent = re.search(r"[eE]([-+]?\d+)$", digits)
        if exponent and abs(int(exponent[1])) > LARGEST_EXPONENT:
            return None  # Fraction would write out every digit of the power of ten
        return Fraction(digits)
    above = int((match["over"] or match["whole"]).replace(",", ""))
    below = int((match["under"] or match["part"]).replace(",", ""))
    return Fraction(above, below) if below else None
