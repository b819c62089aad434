r"""Numbers as they are written down, with what stands beside them: units, currencies, percent signs, powers of ten.

`numeric` and `math` read numbers here. Every number is an exact rational, so no rounding makes two answers equal.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from motif.grading.math.expression import Node, Unreadable, parse, repeating
from motif.grading.math.latex import without_text
from motif.grading.math.values import Scalar
from motif.grading.math.words import currency, magnitude, spelled_number, unit

LONGEST = 200  # characters
LARGEST_EXPONENT = 300  # of ten: Fraction writes out every digit of the power

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)|\d{1,3}(?:'\d{3})+(?!\d)|\d+)"
_SIGNS = "".join(char for char in map(chr, range(0xA2, 0x20D0)) if unicodedata.category(char) == "Sc")
_CURRENCY = (
    rf"(?:\\?[A-Z]{{0,2}}\\?\$|[{_SIGNS}]|(?:USD|EUR|GBP|JPY|INR|CNY|RMB|CHF|CAD|AUD|KRW|RUB|Rs\.?)(?![A-Za-z]))"
)
_FRACTION = (
    r"\\frac\s*(?:\{\s*(?P<over>[-+]?\d{1,200})\s*\}|(?P<over1>\d))\s*(?:\{\s*(?P<under>\d{1,200})\s*\}|(?P<under1>\d))"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>{_CURRENCY}?)\s*(?P<inner>[-+]?)\s*"
    rf"(?:(?:(?P<units>\d+)\s*)?{_FRACTION}"
    rf"|(?:(?P<mixed>\d+)\s+)?(?P<top>{_DIGITS})\s*/\s*(?P<bottom>{_DIGITS})"
    r"|(?P<repeating>\d*\.\d*\\(?:overline|bar)\s*(?:\{\d+\}|\d)|\d*\.\d*(?:\\dot\s*\{?\d\}?\d*)+|\d+\.\d*\(\d+\))"
    r"|(?P<dotted>\d*\.\d+)\s*\\ldots"
    r"|(?P<european>\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,})(?![\d.,])"
    rf"|(?P<decimal>{_DIGITS}(?:\.\d*)?|\.\d+)"
    r"(?:(?:\s*(?:\\times|\\cdot|x)\s*10\s*\^\s*(?:\{\s*(?P<power>[-+]?\d{1,5})\s*\}|(?P<power1>[-+]?\d{1,5}))|[eE](?P<exponent>[-+]?\d{1,5}))(?!\d))?"
    r")(?P<rest>.*)",
    re.DOTALL,
)
_PLAIN = re.compile(r"([-+]?)\$?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
_ROUND = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)")
_AGAIN = re.compile(r"(\d{1,6}?)\1{2,}")
_TAIL = re.compile(
    r"\\text\s*\{|\\%|%|\^\\circ|\\(?:\$)|[€£¥₹₩₽]|\\Omega|\\mu(?![A-Za-z])|(?<=[\s\d}])[^\W\d_]{2,}|(?<=\s)[A-Za-z](?![A-Za-z(])"
)


def plain_number(text: str) -> Fraction | None:
    """The value of the commonest spellings: digits, thousands commas, decimals, a sign, a dollar sign."""
    match = _PLAIN.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    whole = match[1] + match[2].replace(",", "")
    return Fraction(whole + match[3]) if match[3] else Fraction(int(whole))  # several times as fast as from a text


def quantity(text: str) -> Scalar | None:
    """The number and unit in a cleaned text, or None if the text is not one number."""
    if len(text) > LONGEST:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _spelled(without_text(text).split()) if text[:1].isalpha() or text.startswith("\\text") else None
    value = _value(match)
    rest = match["rest"]
    if value is None or (re.match(r"[^\W\d_](?![^\W\d_])", rest) and rest.isascii()):
        return None  # 3m is three times m; 3 m are metres
    tail = _unit(match["currency"], rest)
    if tail is None:
        return None
    places = len((match["decimal"] or "").partition(".")[2]) if match["decimal"] else 0
    return Scalar(("n", value * tail[0], places), tail[1], True)


def _spelled(words: list[str]) -> Scalar | None:
    """A number in words ("two hundred and five"), with what it counts ("three apples"); None for other text."""
    for count in range(len(words), 0, -1):
        value = spelled_number(" ".join(words[:count]))
        if value is not None:
            name = unit(" ".join(words[count:])) if count < len(words) else ""
            return None if name is None else Scalar(("n", value, 0), name, True)
    return None


def scalar(text: str) -> Scalar | None:
    """The expression and unit in a cleaned text; None if the text is not one expression."""
    number = quantity(text)
    if number is not None:
        return number
    money = re.match(rf"([-+]?)\s*({_CURRENCY})\s*(.+)", text, re.DOTALL)
    if money:
        inside = _expression(money[1] + money[3])
        return None if inside is None else Scalar(inside, currency(money[2]) or "")
    for match in _TAIL.finditer(text):
        if match.start() == 0 or text.count("{", 0, match.start()) != text.count("}", 0, match.start()):
            continue
        tail = _unit("", text[match.start() :])
        if tail is not None and tail[1] == "°" and _ROUND.search(text):
            continue  # the degrees of an angle in a sine
        if tail is not None and tail[0] == 1 and tail[1]:
            head = _expression(text[: match.start()])
            if head is not None:
                return Scalar(head, tail[1])
    whole = _expression(text)
    return None if whole is None else Scalar(whole)


def _expression(text: str) -> Node | None:
    try:
        return parse(text.strip())
    except (Unreadable, RecursionError):
        return None


def _unit(money: str, rest: str) -> tuple[int, str] | None:
    """The power of ten and the unit after a number; None if there is something else."""
    if not money and not rest:
        return 1, ""
    singles = {word.strip() for word in re.findall(r"\\text\s*\{([^{}]*)\}", rest)}
    text = without_text(rest.replace("^\\circ", "°").replace("\\%", "%").replace("\\$", "$"))
    text = re.sub(r"\\mu(?![A-Za-z])\s*", "µ", re.sub(r"\\Omega(?![A-Za-z])", "ohm", text))
    text = re.sub(r"° ?([CFK])(?![A-Za-z])", r"\1", re.sub(r"\s*\^\s*", "^", text)).strip(" .,")
    if not re.search(r"[^\W\d_]|[%°$'\"]|[^\x00-\x7f]", text) and text:
        return None
    if re.fullmatch(r"[A-Za-z]", text) and text not in "mgshlLCFNJWKVA" and text not in singles:
        return None
    factor, text = magnitude(text) if text else (1, "")
    name = unit(f"{_money(money)} {text}" if money and text.startswith(("per ", "/", "a ", "an ", "each")) else text)
    if name is None:
        return (factor, text) if text in singles and re.fullmatch(r"[A-Za-z]", text) else None
    sign = _money(money)
    if money and name and not name.startswith(sign) and name not in (sign, "person"):
        return None if name in ("%", "°") else (factor, sign)
    return factor, name or sign


def _money(sign: str) -> str:
    return (currency(sign.replace("\\", "")) or "") if sign else ""


def _value(match: re.Match[str]) -> Fraction | None:
    """The number that the pattern has matched; None for two signs, a division by zero, or a large exponent."""
    part = {name: (text or "").replace(",", "").replace("'", "") for name, text in match.groupdict().items()}
    power = int(part["exponent"] or part["power"] or part["power1"] or 0)
    under, over = part["under"] or part["under1"] or part["bottom"], part["over"] or part["over1"] or part["top"]
    whole = part["units"] or part["mixed"]
    if (part["sign"] and part["inner"]) or abs(power) > LARGEST_EXPONENT:
        return None
    if part["repeating"]:
        try:
            result = repeating(part["repeating"])
        except Unreadable:
            return None
    elif part["dotted"]:
        again = _AGAIN.search(part["dotted"].partition(".")[2])
        if again is None or again.end() != len(part["dotted"].partition(".")[2]):
            return None
        stem = part["dotted"][: part["dotted"].index(".") + 1 + again.start()]
        result = repeating(f"{stem}\\overline{{{again[1]}}}")
    elif match["european"]:
        whole_part, _, decimals = match["european"].partition(",")
        result = Fraction(f"{whole_part.replace('.', '')}.{decimals or 0}")
    elif under:
        if not int(under) or (whole and not 0 < int(over) < int(under)):
            return None
        result = Fraction(int(over), int(under)) + int(whole or 0)
    else:
        result = Fraction(part["decimal"]) * Fraction(10) ** power
    return -result if "-" in (part["sign"], part["inner"]) else result
