r"""An answer, read whole into a typed value. What cannot be read whole is words, and only equal words are equal.

`read` tries one type after another; each reader takes all of the text or nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from motif.grading.math import calendar, region
from motif.grading.math.expression import Node, Unreadable, letters, parse
from motif.grading.math.latex import split, top_level, unwrapped
from motif.grading.math.quantity import quantity, scalar
from motif.grading.math.values import (
    Chain, Choice, Choices, Equation, Listing, Matrix, Named, Numeral, Pattern, Qualified, Range, Ratio, Region,
    Relation, Scalar, Set, System, Tuple, Value, Words,
)  # fmt: skip
from motif.grading.math.words import NEGATIVE, is_negative, is_value, normal_words, spelled_number, statement

LONGEST = 2_000  # characters
MOST_ITEMS = 200
MOST_SIGNS = 3

_LEAD = re.compile(
    r"(?:\\therefore|\\implies|\\approx|\\simeq|\\text\s*\{\s*(?:approximately|approx\.?|about|roughly|around|so|thus|hence|"
    r"therefore|answer|final answer)[:,]?\s*\}|(?:approximately|approx\.?|about|roughly|around|so|thus|hence|therefore)"
    r"(?=[,\s])|(?:final )?answer\s*:|=|:)[,\s]*(?=\S)",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"(?:\\text\s*\{\s*(?P<subject>[^{}]*?)\b(?:is|are|equals|be)\s*:?\s*\}|(?P<bare>(?:[A-Za-z]{2,}|[aA]|I|[xyzn](?= is))"
    r"(?: [A-Za-z]{2,}| [a-zA-Z](?= ))*?) (?:is|are|equals)(?: equal to)?:?)\s*(?P<rest>\S.*)",
    re.DOTALL,
)
_CHANGED = frozenset(
    "twice thrice half double triple minus plus less more than times squared cubed root reciprocal inverse over divided "
    "and or multiplied factorial modulo mod negative percent fraction part square-of cube-of before after until".split()
)
_WRAPPED = re.compile(r"[({]?\\text\s*\{([^{}]*)\}[)}]?")
_SET_NAMES = re.compile(r"\\mathbb\{[RZNQC]\}")
_RELATION = (r"\le", r"\ge", r"\ne", "<", ">", "=", r"\approx", r"\in")
_BASED = re.compile(r"(-?)\(?\s*(?:\\text\s*\{)?([0-9A-Za-z.]+)\}?\s*\)?_\s*\{?\s*\(?(?:\\text\s*\{)?\s*(\w+)\s*\}?\s*\)?\s*\}?")
_BASED_IN_WORDS = re.compile(r"(-?)([0-9A-Za-z]+)(?: in)? \(?base[ -](\w+)\)?")
_CHOICE = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? )?(?:\(([A-J])\)|([A-J])(?=[.):]|$))[.):]?(?:\s+|$)(.*)|\(([A-J])\)(-?[^\W_]+.*)",
    re.DOTALL | re.IGNORECASE,
)
_OPTIONS = re.compile(r"(?:(?:options|choices|answers|statements|only) )+(?=[(A-J])", re.IGNORECASE)
_OPERATOR = re.compile(r"[+*/^=<>_|,!]|-\s|\\(?:cdot|times|le|ge|ne|cup|cap|in|pm|frac|sqrt|to|implies)(?![A-Za-z])|\(")
_NAME = re.compile(
    r"(?:\\(?:vec|hat|bar|overline|tilde|overrightarrow|widehat)\s*\{?\s*[A-Za-z]{1,3}\s*\}?|\\?(?:angle|triangle)\s*[A-Z]{1,4}|m\s*\\angle\s*[A-Z]{1,3}|"
    r"\|?[A-Z]{2,3}\|?|[A-Za-z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|omega|Delta|Omega|Gamma|Phi|kappa|eta|zeta|xi|psi|ell))"
    r"(?:_\s*(?:\{[^{}]*\}|\w))?(?:\^\s*\{?-1\}?|'{1,2})?(?:\s*\([^()]*\))?"
)
_SUMMED = re.compile(
    r"(?:[A-Za-z](?:_\{?\w\}?)?)(?:\s*(?:[-+]|\\cdot|\\times|/|:)?\s*[A-Za-z](?:_\{?\w\}?)?)+|\\frac\s*\{?[A-Za-z]\}?\s*\{?[A-Za-z]\}?"
    r"|\\frac\s*\{d[A-Za-z]?\}\{d[A-Za-z]\}|[PE]\s*\(.*\)|\|(?:[zwvu]|[A-Z]{1,3}|\\vec\s*\{?\w\}?)\|"
)
_FACTS = re.compile(
    r"(?:,|;)?\s*(?:\\text\s*\{\s*,?\s*(?P<word>for|where|with)\b|(?P<bare>(?<=[\s,])(?:for (?:all|any|every|each|some)|where)\b|\(?\s*\\forall|"
    r"(?<=[\s,;])\(?\s*[A-Za-z]\s*\\in\s*\\mathbb\{[RZNQC]\}))(?P<rest>.*)$",
    re.DOTALL,
)
_FACT_WORDS = frozenset(
    "for all any every each some real integer integers number numbers value values of where with is are an a arbitrary "
    "constant constants in the natural".split()
)
_DOMAINS = {"integer": "Z", "integers": "Z", "real": "R", "natural": "N", "constant": "C0", "constants": "C0"}


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
    inside = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    said = statement(inside)
    return Words(normal_words(inside), normal_words(said) if said else ())


def _read(text: str, depth: int) -> Value | None:
    if depth > 12:
        raise Unreadable("too deep")
    readers: tuple[Callable[[str, int], Value | None], ...] = (
        _number, _in_words, _led, _choice, _dotted, _numeral, _day, _qualified, _region, _system_of_cases, _related,
        _list, _bracketed, _matrix, _ratio, _range, _scalar,
    )  # fmt: skip
    for reader in readers:
        value = reader(text, depth)
        if value is not None:
            return value
    return None


def _need(text: str, depth: int) -> Value:
    """A part of a value: a part that cannot be read makes the whole unreadable, unless it is a word or two."""
    text = unwrapped(text)
    if not text:
        raise Unreadable("an empty part")
    value = _read(text, depth + 1)
    if value is not None:
        return value
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    if re.fullmatch(r"[^\W_][\w\s'-]*", plain.strip()) and not is_negative(plain):
        return _words(text)
    raise Unreadable(text)


def _number(text: str, depth: int) -> Value | None:
    return quantity(text)


def _in_words(text: str, depth: int) -> Value | None:
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped and text.startswith(("(", "{")) == text.endswith((")", "}}")):
        inner = wrapped[1].strip()
        if text.startswith("(") and re.fullmatch("[A-J]", inner):
            return Choice(inner)
        return _read(inner, depth + 1) or _words(inner) if inner else None
    named = region.in_words(re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text))
    if named is not None:
        return named
    if re.fullmatch(r"[A-Za-z]{2,}", text):  # a word, not a product of letters
        letters_ = tuple(text)
        if re.fullmatch(r"[A-J]+", text) and len(set(text)) == len(text) and (len(text) == 2 or sorted(text) == [*text]):
            return Choices(letters_)
        return Words(normal_words(text))
    return None


def _led(text: str, depth: int) -> Value | None:
    lead = _LEAD.match(text)
    if lead and lead.end() < len(text):
        return _read(unwrapped(text[lead.end() :]), depth + 1)
    said = _SAID.fullmatch(text)
    if said is None:
        return None
    subject = (said["subject"] if said["subject"] is not None else said["bare"]).casefold()
    words = re.findall(r"[^\W\d_]+", subject)
    changed = any(word in NEGATIVE or word in _CHANGED or (is_value(word) and word != "one") for word in words)
    if changed or re.search(r"\d|(?:square|cube|one) of|one (?:less|more)", subject) or len(words) > 10:
        return None
    return _read(unwrapped(said["rest"]), depth + 1)


def _choice(text: str, depth: int) -> Value | None:
    in_text = text.startswith(r"\text")
    plain = re.sub(r"\s+", " ", re.sub(r"^\\text\s*\{([^{}]*)\}", r"\1 ", text)).strip()
    if re.fullmatch(r"\(?[A-J]\)?|[A-J]\)", plain) and plain != "(A" :
        return Choice(plain.strip("()"))
    match = _CHOICE.fullmatch(plain)
    if match is None:
        return None
    letter, rest = match[1] or match[2] or match[4], (match[3] if match[4] is None else match[5]).strip()
    if not letter.isupper() or (match[4] and not in_text):
        return None
    if not rest:
        return Choice(letter)
    if _OPERATOR.match(rest) and not in_text and not re.match(r"-\S|\\(?:frac|sqrt|pm)|\(", rest):
        return None
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", rest)
    if re.search(r"\([A-J]\)|\b[B-HJ]\b(?![_^])", inner) or rest == "A" or _is_open(inner):
        raise Unreadable("a second choice or a doubt")
    return Choice(letter, _read(unwrapped(rest), depth + 1) or _words(rest))


def _is_open(text: str) -> bool:
    return is_negative(text)


def _dotted(text: str, depth: int) -> Value | None:
    if r"\ldots" not in text:
        return None
    return Pattern(re.sub(r"[\s{}]|\\text", "", text))


def _numeral(text: str, depth: int) -> Value | None:
    match = _BASED.fullmatch(text) or _BASED_IN_WORDS.fullmatch(re.sub(r"\\text\s*\{([^{}]*)\}", r" \1", text).strip())
    if match is None:
        return None
    spelled = spelled_number(match[3])
    names = {"binary": 2, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16}
    base = int(match[3]) if match[3].isdecimal() else int(spelled) if spelled is not None else names.get(match[3], 0)
    digits = match[2].upper()
    if not (digits[0].isdigit() or (base > 10 and len(digits) > 1 and digits == match[2])):
        return None  # x_1 is a variable
    if not 1 <= base <= 36 or not re.fullmatch(r"[0-9A-Z]+(?:\.[0-9A-Z]+)?", digits):
        raise Unreadable("a base")
    return Numeral(match[1] + (digits.lstrip("0") or "0"), base)


def _day(text: str, depth: int) -> Value | None:
    return calendar.read(re.sub(r"\s+", " ", re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)).strip())


def _qualified(text: str, depth: int) -> Value | None:
    match = _FACTS.search(text)
    if match is None or not match.start():
        return None
    tail = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text[match.start() :].replace(r"\text{", r"\text {"))
    tail = re.sub(r"\\text\s*\{|[{}]", " ", tail)
    domain = re.search(r"\\mathbb\s*([RZNQC])", tail)
    words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", re.sub(r"\\(?:mathbb\s*[RZNQC]|in|forall)(?![A-Za-z])", " ", tail))
    names = {word for word in words if len(word) == 1 and word.isalpha() and word != "a"}
    if any(word not in _FACT_WORDS and word not in names and word not in ",()" for word in words):
        return None
    found = domain[1] if domain else next((_DOMAINS[word] for word in words if word in _DOMAINS), "")
    value = _read(unwrapped(text[: match.start()].strip()), depth + 1)
    return None if value is None or isinstance(value, Words) else Qualified(value, frozenset(names), found)


def _nodes(text: str) -> list[Node]:
    """The expressions of a list."""
    return [node for part in split(text, [",", ";", r"\text{and}", r"\text{or}"]) for node in _signs(part)]


def _signs(text: str) -> list[Node]:
    r"""The expressions that one with `\pm` and `\mp` stands for."""
    count = len(re.findall(r"\\pm(?![A-Za-z])", text))
    if not count and r"\mp" not in text:
        return [parse(text)]
    return [parse(one) for one in _both_signs(text, count)]


def _both_signs(text: str, count: int) -> list[str]:
    if not 1 <= count <= MOST_SIGNS:
        raise Unreadable("signs")
    texts = []
    for chosen in range(1 << count):
        signs = iter("+-"[chosen >> index & 1] for index in range(count))
        first = "+-"[chosen & 1]
        one = re.sub(r"\\pm(?![A-Za-z])", lambda _, signs=signs: next(signs), text)  # type: ignore[misc]
        texts.append(re.sub(r"\\mp(?![A-Za-z])", "-" if first == "+" else "+", one))
    return [re.sub(r"^\s*\+|(?<=[({,=])\s*\+", "", one) for one in texts]


def _region(text: str, depth: int) -> Value | None:
    if not re.search(r"\\[lgn]e(?![A-Za-z])|[<>\[\]]|\\c[ua]p|\\setminus|\\infty|\\mathbb|\\emptyset|\\\{", text):
        return None
    if text == r"\emptyset" or re.fullmatch(r"\\\{\s*\\?\s*\\\}|\{\s*\}", text):
        return Region(region.EMPTY)
    spelled = re.sub(r"\\text\s*\{\s*,?\s*(and|or|except)\s*,?\s*\}|(?<=[\s\d)\]])(and|or|except)(?=\s)",
                     lambda m: rf"\text{{{m[1] or m[2]}}}", text)  # fmt: skip
    builder = re.fullmatch(
        r"\\\{\s*([A-Za-z])\s*(?:\\in\s*(\\mathbb\{[RZNQC]\}))?\s*(?:\\mid|\||:|;|\\text\{\s*such that\s*\})\s*(.*)\\\}", spelled, re.DOTALL
    )
    if builder:
        if builder[2] not in (None, r"\mathbb{R}"):
            return None
        found = region.region(builder[3].strip(), _nodes)
        if found is None or found.variable not in ("", builder[1]):
            raise Unreadable("a set-builder")
        return Region(found.condition)
    found = None
    if _looks_like_a_set(spelled):
        found = region.region(spelled, _nodes)
    return found


def _looks_like_a_set(text: str) -> bool:
    """Whether a text is an interval with an open, an infinite or a mixed end, an inequality, or made of sets."""
    if re.search(r"\\[lgn]e(?![A-Za-z])|[<>]|\\c[ua]p(?![A-Za-z])|\\setminus|\\mathbb\{R\}|\\text\{except\}", text):
        return not re.fullmatch(r"<[^<>]*,[^<>]*>", text)
    mixed = {text[:1], text[-1:]} <= set("([])") and (text[0] + text[-1]) not in ("()", "[]")
    member = re.match(r"(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*[\[(\]\\]", text)
    return mixed or bool(member) or (r"\infty" in text and text[:1] in tuple("([]") and text[-1:] in tuple(")[]"))


def _system_of_cases(text: str, depth: int) -> Value | None:
    match = re.fullmatch(r"(?:\\?\{?\s*)\\begin\{(?:cases|aligned|align\*?|array)\}(?:\{[clr|]*\})?(.*)\\end\{(?:cases|aligned|align\*?|array)\}", text, re.DOTALL)  # fmt: skip
    if match is None or not text.startswith((r"\begin{cases}", r"\begin{al", r"\{")):
        return None
    rows = [row.replace("&", "").strip(" ,") for row in split(match[1], [r"\\"])]
    return _list(", ".join(row for row in rows if row), depth)


def _top_relations(text: str) -> list[tuple[str, int, int]]:
    return [(token, left, right) for token, left, right, at in top_level(text) if at == 0 and token in _RELATION]


def _related(text: str, depth: int) -> Value | None:
    relations = _top_relations(text)
    if not relations or len(_parts(text)) > 1:
        return None
    signs = {token for token, _, _ in relations}
    cuts = [0, *(place for _, left, right in relations for place in (left, right)), len(text)]
    sides = [text[left:right].strip() for left, right in zip(cuts[::2], cuts[1::2], strict=True)]
    if signs == {r"\in"} and len(sides) == 2 and _NAME.fullmatch(sides[0]):
        inner = _need(sides[1], depth)
        return Named(_name(sides[0]), inner, True) if isinstance(inner, (Region, Tuple, Set)) else None
    if not all(sides):
        raise Unreadable("a side is missing")
    if signs & {"<", ">", r"\le", r"\ge"}:
        return _inequality(sides, [token for token, _, _ in relations])
    if not signs <= {"=", r"\approx"}:
        raise Unreadable("a relation")
    return _equal(sides, r"\approx" in signs, depth)


def _inequality(sides: list[str], signs: list[str]) -> Value:
    if len(sides) != 2 or signs[0] == r"\ne":
        raise Unreadable("a relation")
    left, right = map(parse, sides)
    if signs[0] in ("<", r"\le"):
        left, right = right, left
    return Relation(("+", left, ("neg", right)), signs[0] in ("<", ">"))


def _equal(sides: list[str], rounded: bool, depth: int) -> Value:
    left = sides[0]
    names = _names(left)
    if names:
        value = _need(sides[-1], depth)
        if isinstance(value, (Tuple, Listing)) and len(value.items) == len(names) and len(sides) == 2:
            return System(tuple(zip(names, value.items, strict=True)))
    plain = bool(_NAME.fullmatch(left)) or bool(re.fullmatch(r"\\text\s*\{[^{}]*\}|[A-Z]?[a-z]{2,}(?: [A-Za-z]+){0,4}", left))
    if plain and is_negative(left):
        raise Unreadable("a denial")
    is_power = r"\begin" in sides[-1] and re.fullmatch(r"[A-Z]\^\s*(?:\{[\w-]+\}|\w)", left)
    if plain or is_power or _SUMMED.fullmatch(left):
        rest = [_need(side, depth) for side in sides[1:]]
        value = rest[0] if len(rest) == 1 else Chain(tuple(rest), rounded)
        return Named(_name(left), value, plain, _expression(left))
    if len(sides) == 2 and not rounded:
        trees = [_expression(side) for side in sides]
        if trees[0] is not None and trees[1] is not None and letters(trees[0]) | letters(trees[1]):
            return Equation(trees[0], trees[1])
    values = tuple(_need(side, depth) for side in sides)
    if any(isinstance(value, (Words, Choice, Choices, Set, Listing)) for value in values):
        raise Unreadable("words that are equal")
    return Chain(values, rounded)


def _expression(text: str) -> Node | None:
    try:
        return parse(text)
    except Unreadable:
        return None


def _name(text: str) -> str:
    return re.sub(r"[\s{}|]|\\text|\([^()]*\)$|\\(?:vec|hat|bar|overline)", "", text)


def _names(text: str) -> list[str]:
    """The names in a bracket, such as `(x, y)`."""
    if not re.fullmatch(r"\(.*,.*\)", text):
        return []
    names = [part.strip() for part in split(text[1:-1], [","])]
    return [_name(name) for name in names] if all(_NAME.fullmatch(name) for name in names) else []


_AND_WORD = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![^\s\d)}\],A-Z])\s*(?<=[\s,)}])(?:and|or)(?=[\s(\\])")


def _parts(text: str) -> list[str]:
    """The parts of a list without brackets around it."""
    marked = _AND_WORD.sub(" \N{SYMBOL FOR GROUP SEPARATOR} ", text)
    marked = re.sub(r"(?<=[A-Za-z])\s+(?:and|or)\s+(?=\S)", " \N{SYMBOL FOR GROUP SEPARATOR} ", marked) if " and " in marked or " or " in marked else marked
    by = [";"] if any(token == ";" and at == 0 for token, _, _, at in top_level(marked)) else [","]
    if by == [","] and re.search(r",\s", marked) and re.search(r"\d,\d{3}(?!\d)", marked):
        marked = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", marked)  # 1,000, 2,000
    parts = split(marked, [*by, "\N{SYMBOL FOR GROUP SEPARATOR}"])
    return [part for index, part in enumerate(parts) if part or index in (0, len(parts) - 1)]


def _list(text: str, depth: int) -> Value | None:
    options = _OPTIONS.match(text)
    parts = _parts(text[options.end() :] if options else text)
    signs = [part for part in parts if re.search(r"\\pm(?![A-Za-z])", part)]
    if len(parts) < 2 and (not signs or re.match(r"[(\[]|\\[{\[]|\\begin", text)):
        return None
    if len(parts) > MOST_ITEMS or not all(parts):
        raise Unreadable("a list")
    items: list[Value] = []
    for part in parts:
        items += _with_signs(part, depth)
    return _gathered(items)


def _with_signs(part: str, depth: int) -> list[Value]:
    count = len(re.findall(r"\\pm(?![A-Za-z])", part))
    if not count:
        return [_need(part, depth)]
    if re.match(r"^[(\[]|^\\\{", part) or part.count("=") > 1:
        value = _read(part, depth + 1)
        if value is None:
            raise Unreadable("signs")
        return [value]
    head, equal, tail = part.rpartition("=")
    return [_need(head + equal + one, depth) for one in _both_signs(tail, count)]


def _gathered(items: list[Value]) -> Value:
    """A list, a list of choices, or named values."""
    if all(isinstance(item, Choice) and item.text is None for item in items):
        return Choices(tuple(item.letter for item in items if isinstance(item, Choice)))
    named = [item for item in items if isinstance(item, Named)]
    names = [item.name for item in named]
    if named and len(set(names)) == len(names) == len(items) > 1:
        return System(tuple((item.name, item.value) for item in _in_order(named)))
    if named and len(set(names)) == 1 and isinstance(items[0], Named):
        if any(not isinstance(item, (Named, Scalar, Tuple)) for item in items):
            raise Unreadable("a list")
        return Named(names[0], Listing(tuple(item.value if isinstance(item, Named) else item for item in items)), named[0].plain)
    if named and len(set(names)) > 1 and len(named) == len(items):
        return Listing(tuple(items))
    if named:
        raise Unreadable("names and values")
    return Listing(tuple(items))


def _in_order(named: list[Named]) -> list[Named]:
    """Neighbouring letters (y, x) in the order of the alphabet; other names as they are written."""
    names = sorted(item.name for item in named)
    neighbours = all(len(name) == 1 for name in names) and all(ord(b) - ord(a) == 1 for a, b in zip(names, names[1:], strict=False))
    return sorted(named, key=lambda item: item.name) if neighbours else named


def _bracketed(text: str, depth: int) -> Value | None:
    inner = re.fullmatch(r"\\\{(.*)\\\}|\{(.*)\}", text, re.DOTALL)
    if inner:
        content = (inner[1] if inner[1] is not None else inner[2]).strip()
        if re.search(r"\\mid|\||:", content):
            return None
        value = _list(content, depth + 1) or _need(content, depth)
        if isinstance(value, (Named, System, Equation)):
            raise Unreadable("a set of equations")
        return Set(value.items if isinstance(value, Listing) else tuple(map(Choice, value.letters)) if isinstance(value, Choices) else (value,))
    brackets = next((pair for pair in (("(", ")"), ("[", "]"), (r"\langle", r"\rangle"), ("<", ">")) if _encloses(text, *pair)), None)
    if brackets is None:
        return None
    content = text[len(brackets[0]) : len(text) - len(brackets[1])].strip()
    by = ";" if any(token == ";" and at == 0 for token, _, _, at in top_level(content)) else ","
    parts = split(content, [by])
    if by == ";":
        parts = [re.sub(r"(?<=\d),(?=\d)", ".", part) for part in parts]
    if len(parts) < 2:
        if brackets[0] == "(" and not any(token in _RELATION for token, _, _, _ in top_level(content)):
            value = scalar(content)
            return value if value is not None and not _has_top_sum(text) else None
        return None
    if len(parts) > MOST_ITEMS:
        raise Unreadable("a long tuple")
    items = tuple(_need(part, depth) for part in parts)
    if all(isinstance(item, Choice) and item.text is None for item in items) and brackets[0] == "(" and len(items) > 2:
        return Choices(tuple(item.letter for item in items if isinstance(item, Choice)))
    if any(isinstance(item, (Listing, Equation, Relation, Named)) for item in items):
        raise Unreadable("a tuple of relations")
    return Tuple(items, "()" if brackets[0] == "(" else "[]" if brackets[0] == "[" else "<>")


def _has_top_sum(text: str) -> bool:
    return False


def _encloses(text: str, left: str, right: str) -> bool:
    """Whether the text is one pair of brackets with something inside."""
    if not (text.startswith(left) and text.endswith(right)) or len(text) <= len(left) + len(right):
        return False
    if left == "<":
        return "<" not in text[1:] and ">" not in text[:-1]
    outside = [token for token, _, _, at in top_level(text) if at == 0]
    return outside[:1] == [left] and outside[1:] == [right]


def _matrix(text: str, depth: int) -> Value | None:
    match = re.fullmatch(
        r"(?P<factor>[^&]*?)(?P<open>[(\[]?)\s*\\begin\{(?P<kind>[bp]?matrix|array|smallmatrix)\}(?:\{[clr|]*\})?(?P<body>.*)\\end\{(?P=kind)\}\s*[)\]]?\s*(?P<turned>\^\s*\{?\s*(?:T|\\top|\\text\s*\{\s*T\s*\})\s*\}?)?",
        text,
        re.DOTALL,
    )
    if match is None or r"\begin" in match["body"] or (match["kind"] in ("array", "matrix", "smallmatrix") and not match["open"]):
        return None
    rows = [row for row in split(match["body"], [r"\\"]) if row and row != r"\hline"]
    cells = [[_need(cell, depth) for cell in split(row, ["&"])] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MOST_ITEMS:
        raise Unreadable("a matrix")
    factor = match["factor"].strip().removesuffix(r"\cdot").strip()
    if factor:
        scale = parse(factor) if factor != "-" else ("neg", ("n", quantity("1").node[1], 0))  # type: ignore[union-attr]
        if not all(isinstance(cell, Scalar) for row in cells for cell in row):
            raise Unreadable("a factor")
        cells = [[Scalar(("*", scale, cell.node)) for cell in row if isinstance(cell, Scalar)] for row in cells]
    if match["turned"]:
        cells = [list(column) for column in zip(*cells, strict=True)]
    return Matrix(tuple(tuple(row) for row in cells))


def _ratio(text: str, depth: int) -> Value | None:
    with_to = bool(re.search(r"\\text\s*\{\s*to\s*\}|(?<=[\d)}])\s+to\s+(?=[\d(\\])", text))
    spelled = re.sub(r"\\text\s*\{\s*to\s*\}|(?<=[\d)}])\s+to\s+(?=[\d(\\])", ":", text)
    parts = split(spelled, [":"])
    if not 2 <= len(parts) <= 6 or not all(parts):
        return None
    return Ratio(tuple(parse(part) for part in parts), with_to)


def _range(text: str, depth: int) -> Value | None:
    match = re.fullmatch(
        r"(?:\\text\s*\{\s*(?:from|between)\s*\}|from |between )?\s*\$?([\d,.]+)\s*(?:[-–]|\\text\s*\{\s*(?:to|and)\s*\}| to | and |\\sim)\s*\$?([\d,.]+)(.*)", text, re.DOTALL
    )
    ends = match and [quantity(match[1]), quantity(match[2] + match[3])]
    if not ends or ends[0] is None or ends[1] is None:
        return None
    low, high = ends[0].node[1], ends[1].node[1]
    return Range(low, high) if low < high else None


def _scalar(text: str, depth: int) -> Value | None:
    if "–" in text:
        text = text.replace("–", "-")
    if re.fullmatch(r"\d+(?:-\d+){2,}", text) or _SET_NAMES.search(text):
        raise Unreadable("a code")
    return scalar(text)
