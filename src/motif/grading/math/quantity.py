r"""Numbers with what stands beside them: units, currencies, percent and degree signs, bases, powers of ten.

Every value is an exact rational, so no rounding makes two answers equal. Units are compared only where both sides have
one, and they are never converted. A percent sign may be missing or added where the number itself is the percentage:
0.15 is 15 %, but not 0.15 %.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from motif.grading.math.latex import without_text
from motif.grading.numeric import DECIMAL, DIGITS, VALUE_WORDS, value

LONGEST = 120  # characters

_FRACTION = r"\\frac\{\s*(?P<over>\d{1,60})\s*\}\{\s*(?P<under>\d{1,60})\s*\}"
_VALUE = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<currency>(?:\\?\$|[£€¥]|USD|EUR|GBP)?)\s*(?P<inner>[-+]?)\s*"
    rf"(?:(?:(?P<units>{DIGITS})\s*)?{_FRACTION}"
    rf"|(?:(?P<mixed>{DIGITS})\s+)?(?P<top>{DIGITS})\s*/\s*(?P<bottom>{DIGITS})"
    rf"|{DECIMAL})"
    r"(?:(?:\s*(?:\\times|\\cdot|x)\s*10\s*\^\s*\{?\s*|[eE])(?P<exponent>[-+]?\d{1,4})\}?)?"
    r"(?P<rest>.*)",
    re.DOTALL,
)
_BASED = re.compile(r"\(?\s*(?:\\text\{)?([0-9A-Za-z]+)\}?\s*\)?_\{?\s*(?:\\text\{)?\s*(\w+)\s*\}?\s*\}?")
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip
_SYNONYMS = {
    "dollar": "$", "usd": "$", "\\$": "$", "euro": "€", "eur": "€", "£": "pound", "gbp": "pound", "lb": "pound",
    "percent": "%", "\\%": "%",
    "degree": "°", "deg": "°", "^\\circ": "°", "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "millimeter": "mm", "millimetre": "mm", "inche": "inch", "in": "inch",
    "feet": "foot", "ft": "foot", "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s", "gram": "g",
    "kilogram": "kg", "liter": "l", "litre": "l", "rad": "radian", "cent": "¢", "people": "person", "mph": "mile/h",
}  # fmt: skip
_UNIT = re.compile(r"(?:[A-Za-z]{1,20}|[$€£¢%°'])(?:\^?(?:\d|\{-?\d\}))?")
_NOT_UNITS = re.compile(rf"{VALUE_WORDS}|[a-z]", re.IGNORECASE)
_LETTER_UNITS = frozenset("mgshlLCFNJWKV")


@dataclass(frozen=True)
class Quantity:
    """A number and its unit, which may be empty."""

    value: Fraction
    unit: str

    def equals(self, gold: Quantity) -> bool:
        """Whether this means the same as the gold."""
        if self.unit == gold.unit:
            return self.value == gold.value
        if "%" in (self.unit, gold.unit) and not (self.unit and gold.unit):
            return self._percent(gold)
        return self.value == gold.value and not (self.unit and gold.unit)

    def _percent(self, gold: Quantity) -> bool:
        percent, plain = (self, gold) if self.unit else (gold, self)
        if percent.value == 100 * plain.value:
            return True
        return percent.value == plain.value and (abs(plain.value) >= 1 or percent is gold)


def quantity(text: str) -> Quantity | None:
    """The quantity in a cleaned text, or None if the text is not one quantity."""
    match = _VALUE.fullmatch(text) if len(text) <= LONGEST else None
    if match is None or re.match(r"[A-Za-z](?![A-Za-z])", match["rest"]):
        return None  # 3m is three times m; 3 m are metres
    number, unit = value(match), _unit(f"{match['currency']} {match['rest']}")
    return None if number is None or unit is None else Quantity(number, unit)


def numeral(text: str) -> tuple[str, int] | None:
    """The digits and the base of a numeral with its base as a subscript; None if the text is not one."""
    match = _BASED.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    base = int(match[2]) if match[2].isdecimal() else _BASES.get(match[2].lower(), -1)
    is_numeral = 2 <= base <= 36 or (base >= 0 and match[1].isdecimal())  # x_1 is a variable, 40_1 a slip
    return (match[1].upper().lstrip("0") or "0", base) if is_numeral else None


def _unit(text: str) -> str | None:
    """The unit in one spelling; None if the text is not a unit but part of an expression."""
    in_text = re.findall(r"\\text\{([^{}]*)\}", text)  # as text, even one letter is a unit
    plain = re.sub(r"\s+\^", "^", without_text(text.replace("^\\circ", "°")))
    plain = plain.replace("\\%", "%").replace("\\$", "$").strip(" .")
    words = re.split(r"(?:[\s.]|(?<![{^])-)+|(?<=\S)(?=/)|(?<=/)", plain)
    parts = []
    for word in filter(None, words):
        if word in ("/", "per"):
            parts.append("/")
            continue
        if not _UNIT.fullmatch(word):
            return None
        bare = re.sub(r"[\^{}]", "", word)
        letters = bare.rstrip("0123456789-")
        if _NOT_UNITS.fullmatch(letters) and not (letters in _LETTER_UNITS or any(word in name for name in in_text)):
            return None
        is_singular = letters.lower() in _SYNONYMS or len(letters) < 3
        singular = letters if is_singular else letters.removesuffix("s")
        parts.append(_SYNONYMS.get(singular.lower(), singular) + bare[len(letters) :])
    return "".join(parts)
