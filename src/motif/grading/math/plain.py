r"""Readers of values without parts of other types: numerals, dates, ratios, ranges, sets of real numbers, expressions.

Each takes all of a cleaned text or returns None. `Unreadable` means that no other reader may try.
"""

from __future__ import annotations

import re

from motif.grading.math import calendar, region
from motif.grading.math.expression import Node, Unreadable, parse
from motif.grading.math.latex import split, without_text
from motif.grading.math.quantity import quantity, scalar
from motif.grading.math.values import Listing, Numeral, Pattern, Range, Ratio, Region, Value
from motif.grading.math.words import spelled_number

MOST_SIGNS = 3

_MARKED = r"\{?\s*\(?(?:\\text\s*\{)?\s*(\w+)\s*\}?\s*\)?\s*\}?"
_BASED = re.compile(rf"(-?)\(?\s*(?:\\text\s*\{{)?([0-9A-Za-z.]+)\}}?\s*\)?_\s*{_MARKED}")
_BASED_IN_WORDS = re.compile(r"(-?)([0-9A-Za-z]+)(?: in)? \(?base[ -](\w+)\)?")
_BASES = {"binary": 2, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16}
_MEASURE = r"\d[\d.,]*\s?[A-Za-z]+"
_COMPOUND = re.compile(rf"{_MEASURE}(?:,? (?:and )?{_MEASURE}){{1,3}}")
_WORDS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)+|[A-Za-z]{3,}(?:-[A-Za-z]{3,})+")
_TO = re.compile(r"\\text\s*\{\s*to\s*\}|(?<=[\d)}])\s+to\s+(?=[\d(\\])")
_RANGE = re.compile(
    r"(?:\\text\s*\{\s*(?:from|between)\s*\}|from |between )?\s*\$?([\d,.]+)\s*"
    r"(?:[-–]|\\text\s*\{\s*(?:to|and)\s*\}| to | and |\\sim)\s*\$?([\d,.]+)(.*)",
    re.DOTALL,
)
_BUILDER = re.compile(
    r"\\\{\s*([A-Za-z])\s*(?:\\in\s*(\\mathbb\{[RZNQC]\}))?\s*(?:\\mid|\||:|;|\\text\{\s*such that\s*\})\s*(.*)\\\}",
    re.DOTALL,
)
_SET_SIGN = re.compile(r"\\[lgn]e(?![A-Za-z])|[<>]|\\c[ua]p(?![A-Za-z])|\\setminus|\\mathbb\{R\}|\\text\{except\}")
_JOINING = re.compile(r"\\text\s*\{\s*,?\s*(and|or|except)\s*,?\s*\}|(?<=[\s\d)\]])(and|or|except)(?=\s)")


def pattern(text: str) -> Value | None:
    """A list or a sum with dots."""
    return Pattern(re.sub(r"[\s{}]|\\text", "", text)) if r"\ldots" in text else None


def compound(text: str) -> Value | None:
    """Several numbers with their units: 2 hours and 30 minutes."""
    plain = without_text(text)
    if not _COMPOUND.fullmatch(plain):
        return None
    parts = [quantity(part) for part in re.findall(_MEASURE, plain)]
    found = tuple(part for part in parts if part is not None and part.unit)
    return Listing(found) if len(found) == len(parts) == len({part.unit for part in found}) else None


def numeral(text: str) -> Value | None:
    """Digits with a base as their index, or in words after them."""
    match = _BASED.fullmatch(text) or _BASED_IN_WORDS.fullmatch(without_text(text))
    if match is None:
        return None
    spelled = spelled_number(match[3])
    base = int(match[3]) if match[3].isdecimal() else int(_BASES.get(match[3], 0) if spelled is None else spelled)
    digits = match[2].upper()
    if not (digits[0].isdigit() or (base > 10 and len(digits) > 1 and digits == match[2])):
        return None  # x_1 is a variable
    if not 1 <= base <= 36 or not re.fullmatch(r"[0-9A-Z]+(?:\.[0-9A-Z]+)?", digits):
        raise Unreadable("a base")
    return Numeral(match[1] + (digits.lstrip("0") or "0"), base)


def day_or_time(text: str) -> Value | None:
    """A date or a time of day."""
    return calendar.read(without_text(text))


def nodes(text: str) -> list[Node]:
    r"""The expressions of a list; one with `\pm` stands for several."""
    parts = split(text, [",", ";", r"\text{and}", r"\text{or}"])
    return [parse(one) for part in parts for one in (both_signs(part) if r"\pm" in part else [part])]


def both_signs(text: str) -> list[str]:
    r"""The texts that one with `\pm` and `\mp` stands for: `\mp` has the sign that the first `\pm` has not."""
    count = len(re.findall(r"\\pm(?![A-Za-z])", text))
    if not 1 <= count <= MOST_SIGNS:
        raise Unreadable("signs")
    texts = []
    for chosen in range(1 << count):
        signs = ["+-"[chosen >> index & 1] for index in range(count)]
        pieces = re.split(r"\\pm(?![A-Za-z])", text)
        one = pieces[0] + "".join(sign + piece for sign, piece in zip(signs, pieces[1:], strict=True))
        texts.append(re.sub(r"\\mp(?![A-Za-z])", "-" if signs[0] == "+" else "+", one))
    return [re.sub(r"^\s*\+|(?<=[({,=])\s*\+", "", one) for one in texts]


def real_set(text: str) -> Value | None:
    """Intervals, inequalities in one variable, unions, differences, set-builders, and such sets in words."""
    if re.search(r" (?:except|other than|excluding)", text):
        found = region.all_except(without_text(text), nodes)
        if found is not None:
            return found
    if text == r"\emptyset" or re.fullmatch(r"\\\{\s*\\?\s*\\\}|\{\s*\}", text):
        return Region(region.EMPTY)
    spelled = _JOINING.sub(lambda match: rf"\text{{{match[1] or match[2]}}}", text)
    builder = _BUILDER.fullmatch(spelled)
    if builder and builder[2] not in (None, r"\mathbb{R}"):
        return None
    if builder:
        found = region.region(builder[3].strip(), nodes)
        if found is None or found.variable not in ("", builder[1]):
            raise Unreadable("a set-builder")
        return Region(found.condition)
    return region.region(spelled, nodes) if _looks_like_a_set(spelled) else None


def _looks_like_a_set(text: str) -> bool:
    """Whether a text is an interval with an open, an infinite or a mixed end, an inequality, or made of sets."""
    if _SET_SIGN.search(text):
        return not re.fullmatch(r"<[^<>]*,[^<>]*>", text)
    if re.match(r"(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*[\[(\]\\]", text):
        return True
    ends = text[:1] + text[-1:]
    return set(ends) <= set("([])") and (ends not in ("()", "[]") or r"\infty" in text)


def ratio(text: str) -> Value | None:
    """Parts with colons or "to" between them."""
    parts = split(_TO.sub(":", text), [":"])
    if not 2 <= len(parts) <= 6 or not all(parts):
        return None
    return Ratio(tuple(parse(part) for part in parts), bool(_TO.search(text)))


def number_range(text: str) -> Value | None:
    """From one number to a larger one, with a dash or in words."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    low, high = quantity(match[1]), quantity(match[2] + match[3])
    if low is None or high is None or low.node[1] >= high.node[1]:
        return None
    return Range(low.node[1], high.node[1])


def expression(text: str) -> Value | None:
    """A number or an expression, and its unit."""
    if re.fullmatch(r"\d+(?:-\d+){2,}", text) or re.search(r"\\mathbb", text):
        raise Unreadable("a code, or a set of numbers")
    if _WORDS.fullmatch(text) and re.search(r"[A-Za-z]{2}", text):
        return None  # words, not a product of letters
    return scalar(text.replace("–", "-"))
