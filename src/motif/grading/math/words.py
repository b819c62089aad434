"""English (and other) words in answers: numbers in words, hedges, names of units, sentences around an answer.

The words themselves are in words.toml.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

_DATA = tomllib.loads((Path(__file__).with_suffix(".toml")).read_text(encoding="utf-8"))


def _inverted(table: dict[str, str]) -> dict[str, str]:
    return {word: name for name, words in table.items() for word in words.split()}


_TENS = _DATA["numbers"]["tens"].split()
_SMALL_NUMBERS = {word: value for value, word in enumerate(_DATA["numbers"]["small"].split())} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_ONE_OR_MORE = frozenset(["a", "an", *_SMALL_NUMBERS])
_PARTS: dict[str, int] = _DATA["numbers"]["parts"]
_MAGNITUDES = {word: int(value) for word, value in _inverted(_DATA["magnitudes"]).items()}
NEGATIVE = frozenset(_DATA["meaning"]["negative"].split())
"""Words that turn what stands beside them into something else, or leave it open."""
CHANGED = frozenset(_DATA["meaning"]["changed"].split())
"""Words that say before an answer that it is not the answer, or not yet."""
ABOUT_ANSWERS = frozenset(_DATA["meaning"]["about_answers"].split())
FACT_WORDS = frozenset(_DATA["meaning"]["facts"].split())
"""Words that say that a letter is any number of a kind."""
_SMALL_WORDS = frozenset(_DATA["meaning"]["small"].split())
_NO_UNITS = frozenset(_DATA["meaning"]["no_units"].split())
_UNITS: dict[str, Any] = _DATA["units"]
_KNOWN = frozenset(_UNITS["known"].split())
_SYNONYMS = _inverted(_UNITS["names"])
_FOREIGN = _inverted(_UNITS["foreign"])
_FOREIGN_VALUE = re.compile("|".join(_UNITS["foreign_values"]["parts"].split()))
_SIGNS = _inverted(_DATA["currencies"]["signs"])
_CODES = {
    word: word if name == "themselves" else name for word, name in _inverted(_DATA["currencies"]["codes"]).items()
}
_CURRENCY_NAMES = _inverted(_DATA["currencies"]["names"])
_NATIONS = re.compile(r"(?:us|u\.s\.|american|canadian|australian|indian|japanese|chinese|korean|british|russian) ")
_RAISED = {"square": "2", "sq": "2", "cubic": "3", "cu": "3", "squared": "2", "cubed": "3"}
_NO_PLURAL = re.compile(r"(?:ss|us|is|less)$")
_AFTER = re.compile(
    r"\s+(?:in (?:total|all)|total|altogether|overall|remaining|left|left over|apiece|each|now|tall|long|wide|high|"
    r"deep|old|away|ago|later|increase|decrease|chance|off|discount|profit)$"
)
_PER = re.compile(r"(.*?) ?\b(per|of|in|from|for|a|an|each|every) (.*)", re.DOTALL)
_ATOM = re.compile(r"([^\W\d_]+|[$€£¢%°'\"]|[^\x00-\x7f])(?:\s*\^?\s*\{?\s*(-?[123])\s*\}?)?")
_SENTENCE = re.compile(
    r"(?P<subject>(?:\S+\s+){1,5}?)(?:is|are|was|were|am|equals)\s+(?P<rest>\S.*)", re.IGNORECASE | re.DOTALL
)


def spelled_number(text: str) -> Fraction | None:
    """The value of a number in English words, such as "two hundred and five" or "minus three"; None for other text."""
    words = re.split(r"[\s-]+", text.casefold().replace(",", " ").strip())
    if len(words) > 24:
        return None
    negative = words[0] in ("minus", "negative")
    words = words[negative:]
    if (
        len(words) == 2
        and (part := _PARTS.get(words[1].removesuffix("s")))
        and words[0] in ("a", "an", *_SMALL_NUMBERS)
    ):
        value: Fraction | int | None = Fraction(_SMALL_NUMBERS.get(words[0], 1), part)
    else:
        value = _whole(words)
    return None if value is None else Fraction(-value if negative else value)


def _whole(words: list[str]) -> int | None:
    if len(words) > 1 and words[0] in ("a", "an") and words[1] in _MAGNITUDES:
        words = ["one", *words[1:]]
    total, group, previous, bound = 0, 0, "", 10**15
    for index, word in enumerate(words):
        if word == "and" and previous in ("hundred", "thousand", "million") and index < len(words) - 1:
            continue
        if word in _SMALL_NUMBERS:
            value = _SMALL_NUMBERS[word]
            fits = previous == "" or previous in _MAGNITUDES or (previous in _TENS and 0 < value < 10)
            if not fits or (value == 0 and len(words) > 1):
                return None
            group += value
        elif word == "hundred" and 0 < group < 100:
            group *= 100
        elif word in ("thousand", "million", "billion", "trillion") and 0 < group < 1000 and _MAGNITUDES[word] < bound:
            bound = _MAGNITUDES[word]
            total, group = total + group * bound, 0
        else:
            return None
        previous = word
    return total + group if previous else None


def is_value(word: str) -> bool:
    """Whether a word is a number or a power of ten."""
    word = word.casefold()
    return any(form in _SMALL_NUMBERS or form in _MAGNITUDES for form in _singulars(word))


def _singulars(word: str) -> tuple[str, ...]:
    return word, word.removesuffix("s"), word.removesuffix("es")


def is_negative(text: str) -> bool:
    """Whether a text denies, hedges, or leaves something open."""
    words = re.findall(r"[^\W\d_]+(?:'[a-z]+)?", text.casefold())
    return any(word in NEGATIVE or word.endswith("n't") for word in words)


def magnitude(text: str) -> tuple[int, str]:
    """What a unit begins with ("million dollars": 10^6), and the rest."""
    value, words = 1, text.split()
    while words and (known := next((form for form in _singulars(words[0].casefold()) if form in _MAGNITUDES), None)):
        value, words = value * _MAGNITUDES[known], words[2 if words[1:2] == ["of"] else 1 :]
    return value, " ".join(words)


@functools.lru_cache(maxsize=4096)
def unit(text: str) -> str | None:
    """The one spelling of a unit, or of what is counted; None for other words.

    Known units may be combined ("km/h", "m s^-1", "dollars per hour"). Things that are counted are plural nouns with
    up to three words before them ("right triangles"). Words that change the value, deny or hedge are no units.
    """
    text = re.sub(r"\s+", " ", text.strip().rstrip("."))
    text = re.sub(r"\((?:in )?([^()\d]*)\)", r"\1", text)
    if not text:
        return ""
    text = re.sub(r"\bper cent\b", "percent", text)
    if text == "times":
        return text
    for reader in (currency, _combined):
        found = reader(text)
        if found is not None:
            return found
    shorter = _AFTER.sub("", f" {text}").strip()
    if shorter != text:
        return unit(shorter)
    counted = _counted(text)
    if counted is not None:
        return counted
    one, joined, other = text.partition(" and ")
    if joined and _counted(one) and _counted(other):
        return f"{_counted(one)} and {_counted(other)}"
    match = _PER.fullmatch(text)
    if match is None or is_negative(match[3]):
        return None
    first = unit(match[1])
    if match[2] in ("of", "in", "from", "for"):
        return first if first and _plain_words(match[3]) else None
    second = unit(match[3])
    return None if first is None or second is None else f"{first}/{second}"


def currency(text: str) -> str | None:
    """The one spelling of a currency's sign, code or name; None for other text."""
    text = text.strip().replace("\\$", "$")
    if text in _SIGNS:
        return _SIGNS[text]
    if len(text) == 1 and unicodedata.category(text) == "Sc":
        return text
    folded = text.casefold().rstrip(".")
    if folded in _CODES and (text.isupper() or folded in ("usd", "eur", "rmb")):
        return _CODES[folded]
    folded = _NATIONS.sub("", folded)
    return _CURRENCY_NAMES.get(folded) or _CURRENCY_NAMES.get(folded.removesuffix("s"))


def _combined(text: str) -> str | None:
    """Known units with powers, products and "per" between them."""
    parts: list[str] = []
    raised = ""
    text = re.sub(r"\\cdot(?![A-Za-z])|⋅|·|(?<=[a-zA-Z])-(?=[a-zA-Z])", " ", text)
    for piece in re.findall(r"/|[^\s/]+(?:\s*\^\s*\{?-?\d\}?)?", text):
        folded = piece.casefold().rstrip(".")
        if folded in ("/", "per"):
            parts.append("/")
        elif folded in _RAISED and not raised and (folded[-1] == "d") == bool(parts and parts[-1].isalpha()):
            if folded[-1] == "d":
                parts[-1] += _RAISED[folded]
            else:
                raised = _RAISED[folded]
        else:
            match = _ATOM.fullmatch(piece.rstrip("."))
            name = _known(match[1]) if match else None
            if match is None or name is None:
                return None
            parts.append(name + (match[2] or raised))
            raised = ""
    if raised or not parts or parts[-1] == "/" or parts.count("/") > 2 or len(parts) > 6:
        return None
    joined = " ".join(parts).replace(" / ", "/").replace("/ ", "/")
    inverse = re.fullmatch(r"(\w+) (\w+?)-([12])", joined)  # m s^-2
    return f"{inverse[1]}/{inverse[2]}{inverse[3].replace('1', '')}" if inverse else joined


def _known(word: str) -> str | None:
    """The one spelling of a single known unit."""
    if word in ("°", "%", "'", '"'):
        return word
    money = currency(word)
    if money is not None:
        return money
    for name in (word, word.casefold()):
        for form in _singulars(name):
            if form in _SYNONYMS and (len(form) > 1 or form == word):
                return _SYNONYMS[form]
    if not word.isascii() and word.casefold() not in _KNOWN:
        return _foreign(word)
    if len(word) == 1:
        return word if word in _UNITS["single_letters"] else None
    return next((form for form in _singulars(word.casefold()) if form in _KNOWN), None)


def _foreign(word: str) -> str | None:
    """The one spelling of a unit in another script; an unknown word is a unit of its own, unless it is a number."""
    if word in _FOREIGN:
        return _FOREIGN[word]
    return word if re.fullmatch(r"[^\W\d_]{1,12}", word) and not _FOREIGN_VALUE.search(word) else None


def _counted(text: str) -> str | None:
    """What is counted: a plural noun with up to three words before it."""
    words = re.split(r"[ -]", text)
    if len(words) > 4 or not all(re.fullmatch(r"[^\W\d_]+(?:'s?)?", word) for word in words):
        return None
    folded = [word.casefold() for word in words]
    if "times" in folded or any(
        (word in NEGATIVE and word != "different") or word in _NO_UNITS or is_value(word) for word in folded
    ):
        return None
    if any(word.endswith("ly") and len(word) > 4 for word in folded):
        return None
    last = folded[-1]
    if not last.isascii():
        return None if _FOREIGN_VALUE.search(last) else text
    if last in _KNOWN or (last in _SYNONYMS and len(last) > 2):
        return " ".join([*folded[:-1], last])
    is_plural = len(last) > 3 and last.endswith("s") and not _NO_PLURAL.search(last)
    return " ".join([*folded[:-1], last.removesuffix("s")]) if is_plural else None


def _plain_words(text: str) -> bool:
    words = text.casefold().split()
    return len(words) <= 4 and all(
        word.isalpha() and not is_value(word) and (word not in _NO_UNITS or word in ("each", "all")) for word in words
    )


def normal_words(text: str) -> tuple[str, ...]:
    """The words and signs of a text in the form that is compared.

    Case does not matter, except in names without vowels (XYZ, xyz); nor do articles and prepositions at the start.
    """
    found = re.findall(r"\\[A-Za-z]+|[^\W_]+(?:'[^\W_]+)?|[^\s\w]", text)
    words = [word.casefold() if re.search(r"[aeiouAEIOU]|[^\x00-\x7f]", word) else word for word in found]
    while len(words) > 1 and words[0] in _SMALL_WORDS and words[1].isalpha():
        del words[0]
    while len(words) > 1 and words[-1] in (".", "!"):
        words.pop()
    return tuple(word for word in words if word not in ("{", "}"))


def statement(text: str) -> str | None:
    """What a short sentence ("the function is even") says of its subject; None if it is none, or hedges."""
    match = _SENTENCE.fullmatch(re.sub(r"\s+", " ", text.strip()))
    if match is None or is_negative(text) or re.search(r"\d", match["subject"]):
        return None
    return match["rest"]
