r"""An answer, read whole into a typed value. What cannot be read whole is words, and only equal words are equal.

`read` tries one type after another; each reader takes all of the text or nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from fractions import Fraction

from motif.grading.math import names, plain, region
from motif.grading.math.expression import Node, Unreadable, letters, parse
from motif.grading.math.latex import split, top_level, unwrapped, without_text
from motif.grading.math.quantity import quantity, scalar
from motif.grading.math.values import (
    Chain,
    Choice,
    Choices,
    Equation,
    Listing,
    Matrix,
    Named,
    Pattern,
    Qualified,
    Region,
    Relation,
    Scalar,
    Set,
    System,
    Tuple,
    Value,
    Words,
)  # fmt: skip
from motif.grading.math.words import is_negative, normal_words, statement

LONGEST = 2_000  # characters
MOST_ITEMS = 200
DEEPEST = 12

_WRAPPED = re.compile(r"[({]?\\text\s*\{([^{}]*)\}[)}]?")
_RELATIONS = (r"\le", r"\ge", r"\ne", "<", ">", "=", r"\approx", r"\in")
_CHOICE = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? )?"
    r"(?:\(([A-J])\)|([A-J])(?=[.):]|$))[.):]?(?:\s+|$)(.*)|\(([A-J])\)(-?[^\W_]+.*)",
    re.DOTALL | re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"\([A-J]\)|\b[B-HJ]\b(?![_^])|^A$")
_OPTION_TEXTS = frozenset(
    [
        "none of the above",
        "none of these",
        "none",
        "false",
        "no",
        "not enough information",
        "cannot be determined",
        "neither",
        "no solution",
        "no solutions",
        "never",
        "no change",
        "the answer cannot be determined",
        "not possible",
        "impossible",
        "incorrect",
        "wrong",
        "undefined",
        "all of the above",
        "no real solutions",
        "no effect",
        "unknown",
    ]
)
_OPTIONS = re.compile(r"(?:(?:options|choices|answers|statements|only) )+(?=[(A-J])", re.IGNORECASE)
_OPERATOR = re.compile(r"[+*/^=<>_|,!]|-\s|\\(?:cdot|times|le|ge|ne|cup|cap|in|to|implies)(?![A-Za-z])")
_AND_WORD = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<=[\s,)}])(?:and|or)(?=[\s(\\])|\\?&")
_AND = " \N{SYMBOL FOR GROUP SEPARATOR} "
_CASES = re.compile(
    r"(?:\\?\{?\s*)\\begin\{(?P<kind>cases|aligned|align\*?|array)\}(?:\{[clr|]*\})?(.*)\\end\{(?P=kind)\}", re.DOTALL
)
_BRACKETS = (("(", ")"), ("[", "]"), (r"\langle", r"\rangle"), ("<", ">"))
_MATRIX = re.compile(
    r"(?P<factor>[^&]*?)(?P<open>[(\[]?)\s*\\begin\{(?P<kind>[bp]?matrix|array|smallmatrix)\}(?:\{[clr|]*\})?(?P<body>.*)"
    r"\\end\{(?P=kind)\}\s*[)\]]?\s*(?P<turned>\^\s*\{?\s*(?:T|\\top|\\text\s*\{\s*T\s*\})\s*\}?)?",
    re.DOTALL,
)


@functools.lru_cache(maxsize=4096)
def read(text: str) -> Value:
    """The value of a cleaned text; `Words` where it cannot be read whole."""
    if len(text) <= LONGEST:
        try:
            value = _read(text, 0)
            if value is not None:
                return value
        except (Unreadable, RecursionError):
            pass
    return _words(text)


def _words(text: str) -> Words:
    said = statement(without_text(text))
    return Words(normal_words(without_text(text)), normal_words(said) if said else ())


def _read(text: str, depth: int) -> Value | None:
    if depth > DEEPEST:
        raise Unreadable("too deep")
    for reader in _READERS:
        value = reader(text, depth)
        if value is not None:
            return value
    return None


def _part(text: str, depth: int) -> Value:
    """A part of a value: one that cannot be read makes the whole unreadable, unless it is a word or two."""
    text = unwrapped(text)
    if not text:
        raise Unreadable("an empty part")
    value = _read(text, depth + 1)
    if value is not None:
        return value
    if re.fullmatch(r"[^\W_][\w\s'-]*", without_text(text)) and not is_negative(without_text(text)):
        return _words(text)
    raise Unreadable(text)


def _value_or_words(text: str, depth: int) -> Value:
    try:
        return _read(unwrapped(text), depth + 1) or _words(text)
    except Unreadable:
        return _words(text)


def _in_words(text: str, depth: int) -> Value | None:
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped and text.startswith(("(", "{")) == text.endswith((")", "}}")):
        inner = wrapped[1].strip()
        if text.startswith("(") and re.fullmatch("[A-J]", inner):
            return Choice(inner)
        return _value_or_words(inner, depth) if inner else None
    named = region.in_words(without_text(text))
    if named is not None:
        return named
    if re.fullmatch(r"[A-J](?: +[A-J])+", text):
        return Choices(tuple(text.replace(" ", "")))
    if not re.fullmatch(r"[A-Za-z]{2,}", text):
        return None
    # A word, not a product of letters. Letters of options come in order, or there are two.
    is_options = re.fullmatch(r"[A-J]+", text) and len(set(text)) == len(text)
    return Choices(tuple(text)) if is_options and (len(text) == 2 or sorted(text) == [*text]) else _words(text)


def _led(text: str, depth: int) -> Value | None:
    rest = names.after_lead(text)
    return None if rest is None else _read(unwrapped(rest), depth + 1)


def _choice(text: str, depth: int) -> Value | None:
    in_text = text.startswith(r"\text")
    spelled = re.sub(r"\s+", " ", re.sub(r"^\\text\s*\{([^{}]*)\}", r"\1 ", text)).strip()
    if re.fullmatch(r"[A-J]|\([A-J]\)|[A-J]\)", spelled):
        return Choice(spelled.strip("()"))
    match = _CHOICE.fullmatch(spelled)
    if match is None:
        return None
    letter, rest = match[1] or match[2] or match[4], (match[3] if match[4] is None else match[5]).strip()
    if not letter.isupper() or (match[4] and not (in_text or rest[0].isdigit())):
        return None
    if not rest:
        return Choice(letter)
    if _OPERATOR.match(rest) and not in_text:
        return None
    said = without_text(rest)
    if _OTHER_CHOICE.search(said) or (is_negative(said) and names.phrase(said).strip(" .") not in _OPTION_TEXTS):
        raise Unreadable("a second choice or a doubt")
    return Choice(letter, _value_or_words(rest, depth))


def _qualified(text: str, depth: int) -> Value | None:
    found = names.domain(text)
    value = _read(unwrapped(found[0]), depth + 1) if found else None
    if found is None or value is None or isinstance(value, Words):
        return None
    if found[2] not in ("", "R") and isinstance(value, Region):
        raise Unreadable("a set of whole numbers")
    return Qualified(value, *found[1:])


def _system_of_cases(text: str, depth: int) -> Value | None:
    match = _CASES.fullmatch(text)
    if match is None or not text.startswith((r"\begin{cases}", r"\begin{al", r"\{")):
        return None
    rows = [row.strip(" ,") for row in split(match[2], [r"\\"])]
    if not all(re.fullmatch(r"[^&]*&?\s*=[^&]*", row) for row in rows if row):
        return Pattern(re.sub(r"\s", "", text))  # a function with cases
    return _list(", ".join(row.replace("&", "") for row in rows if row), depth)


def _related(text: str, depth: int) -> Value | None:
    relations = [found for found in top_level(text) if found[3] == 0 and found[0] in _RELATIONS]
    if not relations or len(_parts(text)) > 1:
        return None
    signs = [token for token, _, _, _ in relations]
    cuts = [0, *(place for _, left, right, _ in relations for place in (left, right)), len(text)]
    sides = [text[left:right].strip() for left, right in zip(cuts[::2], cuts[1::2], strict=True)]
    if not all(sides):
        raise Unreadable("a side is missing")
    if signs == [r"\in"] and names.is_plain(sides[0]):
        inner = _part(sides[1], depth)
        return Named(names.name(sides[0]), inner, True) if isinstance(inner, (Region, Tuple, Set)) else None
    if len(signs) == 1 and signs[0] in ("<", ">", r"\le", r"\ge"):
        left, right = map(parse, sides if signs[0] in (">", r"\ge") else sides[::-1])
        return Relation(("+", left, ("neg", right)), signs[0] in ("<", ">"))
    if not set(signs) <= {"=", r"\approx"}:
        raise Unreadable("a relation")
    return _equal(sides, r"\approx" in signs, depth)


def _equal(sides: list[str], rounded: bool, depth: int) -> Value:
    left = sides[0]
    several = names.names(left)
    if several and len(sides) == 2:
        value = _part(sides[1], depth)
        if isinstance(value, (Tuple, Listing)) and len(value.items) == len(several):
            return System(tuple(zip(several, value.items, strict=True)))
    is_plain = names.is_plain(left)
    if is_plain and names.is_denied(left):
        raise Unreadable("a denial")
    is_power = r"\begin" in sides[-1] and re.fullmatch(r"[A-Z]\^\s*(?:\{[\w-]+\}|\w)", left)
    if is_plain or is_power or names.is_asked_for(left):
        rest = tuple(_part(side, depth) for side in sides[1:])
        value = rest[0] if len(rest) == 1 else Chain(rest, rounded)
        return Named(names.name(left), value, is_plain, _tree(left))
    trees = [_tree(side) for side in sides]
    if len(sides) == 2 and not rounded and trees[0] and trees[1] and letters(trees[0]) | letters(trees[1]):
        return Equation(trees[0], trees[1])
    values = tuple(_part(side, depth) for side in sides)
    if any(isinstance(value, (Words, Choice, Choices, Set, Listing)) for value in values):
        raise Unreadable("words that are equal")
    return Chain(values, rounded)


def _tree(text: str) -> Node | None:
    try:
        return parse(text)
    except Unreadable:
        return None


def _parts(text: str) -> list[str]:
    """The parts of a list without brackets around it."""
    marked = text if r"\begin" in text else _AND_WORD.sub(_AND, text)
    by = ";" if any(token == ";" and at == 0 for token, _, _, at in top_level(marked)) else ","
    if by == "," and re.search(r",\s", marked) and re.search(r"\d,\d{3}(?!\d)", marked):
        marked = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", marked)  # 1,000, 2,000
    parts = split(marked, [by, _AND.strip()])
    return [part for index, part in enumerate(parts) if part or index in (0, len(parts) - 1)]


def _list(text: str, depth: int) -> Value | None:
    text = re.sub(r"(?<=[A-J)}]) only$", "", text)
    options = _OPTIONS.match(text)
    parts = _parts(text[options.end() :] if options else text)
    has_signs = any(re.search(r"\\pm(?![A-Za-z])", part) for part in parts)
    if len(parts) < 2 and (not has_signs or re.match(r"[(\[]|\\[{\[]|\\begin", text)):
        return None
    if len(parts) > MOST_ITEMS or not all(parts):
        raise Unreadable("a list")
    return _gathered([item for part in parts for item in _with_signs(part, depth)])


def _with_signs(part: str, depth: int) -> list[Value]:
    if not re.search(r"\\pm(?![A-Za-z])", part) or re.match(r"[(\[]|\\\{", part) or part.count("=") > 1:
        return [_part(part, depth)]
    head, equal, tail = part.rpartition("=")
    return [_part(head + equal + one, depth) for one in plain.both_signs(tail)]


def _gathered(items: list[Value]) -> Value:
    """A list, a list of choices, or named values."""
    if all(isinstance(item, Choice) and item.text is None for item in items):
        return Choices(tuple(item.letter for item in items if isinstance(item, Choice)))
    named = [item for item in items if isinstance(item, Named)]
    different = {item.name for item in named}
    if not named:
        return Listing(tuple(items))
    if len(different) == len(items) > 1:
        return System(tuple((item.name, item.value) for item in _in_order(named)))
    if len(different) == 1 and items[0] is named[0]:
        if any(not isinstance(item, (Named, Scalar, Tuple)) for item in items):
            raise Unreadable("a list")
        values = (item.value if isinstance(item, Named) else item for item in items)
        return Named(named[0].name, Listing(tuple(values)), named[0].plain)
    if len(named) < len(items):
        raise Unreadable("names and values")
    return Listing(tuple(items))


def _in_order(named: list[Named]) -> list[Named]:
    """Neighbouring letters (y, x) in the order of the alphabet; other names as they are written."""
    ordered = sorted(named, key=lambda item: item.name)
    codes = [ord(item.name) for item in ordered if len(item.name) == 1]
    return ordered if codes == list(range(codes[0], codes[0] + len(named)) if codes else ()) else named


def _bracketed(text: str, depth: int) -> Value | None:
    turned = re.fullmatch(r"(.*[)\]])\s*\^\s*\{?\s*(?:T|\\top)\s*\}?", text, re.DOTALL)
    text = turned[1] if turned else text
    inner = re.fullmatch(r"\\\{(.*)\\\}|\{(.*)\}", text, re.DOTALL)
    if inner:
        return _set((inner[1] if inner[1] is not None else inner[2]).strip(), depth)
    brackets = next((pair for pair in _BRACKETS if _encloses(text, *pair)), None)
    if brackets is None:
        return None
    content = text[len(brackets[0]) : len(text) - len(brackets[1])].strip()
    by = ";" if any(token == ";" and at == 0 for token, _, _, at in top_level(content)) else ","
    parts = split(content, [by])
    if len(parts) < 2:
        is_relation = any(token in _RELATIONS for token, _, _, _ in top_level(content))
        return None if brackets[0] != "(" or is_relation or turned else scalar(content)
    if len(parts) > MOST_ITEMS:
        raise Unreadable("a long tuple")
    items = tuple(_part(re.sub(r"(?<=\d),(?=\d)", ".", part) if by == ";" else part, depth) for part in parts)
    if len(items) > 2 and all(isinstance(item, Choice) and item.text is None for item in items):
        return _gathered(list(items))
    if any(isinstance(item, (Listing, Equation, Relation, Named)) for item in items):
        raise Unreadable("a tuple of relations")
    return Tuple(items, {"(": "()", "[": "[]"}.get(brackets[0], "<>"))


def _set(content: str, depth: int) -> Value | None:
    if re.search(r"\\mid|\||:", content):
        return None
    value = _list(content, depth + 1) or _part(content, depth)
    if isinstance(value, (Named, System, Equation)):
        raise Unreadable("a set of equations")
    return value if isinstance(value, Choices) else Set(value.items if isinstance(value, Listing) else (value,))


def _encloses(text: str, left: str, right: str) -> bool:
    """Whether the text is one pair of brackets with something inside."""
    if not (text.startswith(left) and text.endswith(right)) or len(text) <= len(left) + len(right):
        return False
    if left == "<":
        return "<" not in text[1:] and ">" not in text[:-1]
    return [token for token, _, _, at in top_level(text) if at == 0] == [left, right]


def _matrix(text: str, depth: int) -> Value | None:
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin" in match["body"] or not (match["open"] or match["kind"] in ("bmatrix", "pmatrix")):
        return None
    rows = [row for row in split(match["body"], [r"\\"]) if row and row != r"\hline"]
    cells = [[_part(cell, depth) for cell in split(row, ["&"])] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MOST_ITEMS:
        raise Unreadable("a matrix")
    factor = match["factor"].strip().removesuffix(r"\cdot").strip()
    if factor:
        scale = ("n", Fraction(-1), 0) if factor == "-" else parse(factor)
        if not all(isinstance(cell, Scalar) for row in cells for cell in row):
            raise Unreadable("a factor")
        cells = [[Scalar(("*", scale, cell.node)) for cell in row if isinstance(cell, Scalar)] for row in cells]
    if match["turned"]:
        cells = [list(column) for column in zip(*cells, strict=True)]
    return Matrix(tuple(tuple(row) for row in cells))


def _alone(reader: Callable[[str], Value | None]) -> Callable[[str, int], Value | None]:
    return lambda text, depth: reader(text)


_READERS: tuple[Callable[[str, int], Value | None], ...] = (
    _alone(quantity), _in_words, _led, _choice,
    *map(_alone, (plain.pattern, plain.compound, plain.numeral, plain.day_or_time)),
    _qualified, _alone(plain.real_set), _system_of_cases, _related, _list, _bracketed, _matrix,
    *map(_alone, (plain.ratio, plain.number_range, plain.expression)),
)  # fmt: skip
