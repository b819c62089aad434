r"""Expressions, read whole: numbers, letters, operators and functions in LaTeX become a tree, or there is none.

The grammar is that of school and university mathematics as it is written down. What it does not know (an unknown
command, two numbers side by side, a word) is refused, never skipped. Multiplication may be left out, except before a
number. `\sin 2x` is the sine of all of `2x`; `1/2x` is a half of x.

A node is a tuple: ("n", Fraction, decimals) for a number, ("s", name) for a letter, or an operator or function with its
arguments.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Any

Node = tuple[Any, ...]

DEEPEST = 60  # nested brackets
MOST_FACTORS = 100
LONGEST_NUMBER = 400  # digits

_TOKEN = re.compile(
    r"(?P<repeating>\d*\.\d*\\(?:overline|bar)\s*(?:\{\d+\}|\d)|\d*\.\d*(?:\\dot\s*\{?\d\}?\d*)+(?!\w)"
    r"|\d+\.\d*\(\d+\)(?![\d(]))"
    r"|(?P<number>\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<mark>\\(?:overline|bar|vec|hat|tilde|overrightarrow|dot)\s*\{\s*\\?[A-Za-z]{1,3}\s*\}"
    r"|\\(?:vec|hat|bar|tilde)\s+[A-Za-z](?![A-Za-z]))"
    r"|(?P<text>\\text\s*\{\s*[^{}]*\})"
    r"|(?P<command>\\[A-Za-z]+|\\[{}|])"
    r"|(?P<letter>[A-Za-z])"
    r"|(?P<other>[-+*/^_!()\[\]{}|'])"
    r"|(?P<space>\s+)"
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "  # noqa: SIM905
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar nabla odot".split()
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arccot arcsec arccsc ln log lg exp".split()  # noqa: SIM905
)
_ROUND = frozenset(name for name in FUNCTIONS if name not in ("ln", "log", "lg", "exp"))
_BARE_WORDS = re.compile(
    r"(?<![^\s(\[{,}])(?:or|and|not|no|nor|if|is|in|it|to|of|at|an|as|by|so|on|the|but|for|are|was|mod|per|yes|all|any|via|"
    r"than|then)(?![^\s)\]},{])(?<!\{it)|(?<![\\A-Za-z])(?:[A-Z]?[a-z]{4,}|[A-Z]{4,})(?![A-Za-z])"
)
_APPLIED = frozenset("fghFGHOP")


class Unreadable(ValueError):
    """The text is not an expression."""


@functools.lru_cache(maxsize=8192)
def parse(text: str) -> Node:
    """The tree of an expression in the spelling of `motif.grading.math.latex`.

    Raises:
        Unreadable: the text is something else, or only partly an expression.
    """
    if _BARE_WORDS.search(re.sub(r"\\text\s*\{[^{}]*\}", "", text)):
        raise Unreadable("words")
    reader = _Reader(_tokens(text))
    node = reader.sum()
    if reader.token in (r"\over", r"\choose"):
        node = ("/" if reader.next() == r"\over" else "binom", node, reader.sum())
    if reader.kind != "end":
        raise Unreadable(f"a left-over {reader.token}")
    return node


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Unreadable(f"the character {text[position]!r}")
        if len(match[0]) > LONGEST_NUMBER and match.lastgroup == "number":
            raise Unreadable("a long number")
        tokens.append((match.lastgroup, match[0]))
        position = match.end()
    return tokens


def repeating(text: str) -> Fraction:
    r"""The value of a repeating decimal: `0.1\overline{6}`, `0.1\dot{6}`, `0.\dot{1}4285\dot{7}` or `0.1(6)`."""
    whole, _, rest = text.partition(".")
    start = re.search(r"\\|\(", rest)
    assert start is not None
    fixed = rest[: start.start()]
    dots = list(re.finditer(r"\\dot\s*\{?(\d)\}?", rest))
    if dots:
        again = re.sub(r"\\dot|[{}\s]", "", rest[start.start() :])
        if len(dots) > 2 or (len(dots) == 2 and dots[1].end() != len(rest)) or (len(dots) == 1 and len(again) != 1):
            raise Unreadable("dots over digits")
    else:
        again = re.sub(r"\D", "", rest[start.start() :])
    if len(whole + fixed + again) > LONGEST_NUMBER:
        raise Unreadable("a long number")
    unit = Fraction(1, 10 ** len(fixed))
    return Fraction(int(whole + fixed or 0)) * unit + Fraction(int(again), 10 ** len(again) - 1) * unit


class _Reader:
    """A recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.place, self.depth, self.in_bars = tokens, 0, 0, False
        self.spaced = False
        self._skip()

    def _skip(self) -> None:
        self.spaced = False
        while self.place < len(self.tokens) and self.tokens[self.place][0] == "space":
            self.place, self.spaced = self.place + 1, True
        self.kind, self.token = self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def next(self) -> str:
        token = self.token
        self.place += 1
        self._skip()
        return token

    def expect(self, token: str) -> None:
        if self.token != token:
            raise Unreadable(f"no {token}")
        self.next()

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("too deep")
        terms = [self.product()]
        while self.token in ("+", "-"):
            sign = self.next()
            if self.token in ("+", "-"):  # 14.0 + -1.0i, as programs print it
                sign = "-" if self.next() == "-" and sign == "+" else str(self._refuse("two signs"))
            term = self.product()
            terms.append(term if sign == "+" else ("neg", term))
        self.depth -= 1
        return ("+", *terms) if len(terms) > 1 else terms[0]

    def product(self) -> Node:
        if self.token in ("+", "-"):
            sign = self.next()
            if self.token == "+" or (sign == "-" and self.token == "-"):
                raise Unreadable("two signs")
            node = self.product()
            return ("neg", node) if sign == "-" else node
        node = self.power()
        for _ in range(MOST_FACTORS):
            if self.token in (r"\cdot", r"\times", "/", r"\div"):
                sign = self.next()
                negative = self.token == "-" and bool(self.next())
                right = self.power()
                right = ("neg", right) if negative else right
                node = ("*" if sign in (r"\cdot", r"\times") else "/", node, right)
            elif self._starts_factor():
                node = ("*", node, self.power())
            else:
                return node
        raise Unreadable("a long product")

    def _starts_factor(self) -> bool:
        if self.kind in ("letter", "mark"):
            return True
        if self.kind == "text":
            return self._text_name() is not None
        if self.kind == "command":
            name = self.token[1:]
            return (
                name in GREEK
                or name in FUNCTIONS
                or name in ("pi", "frac", "sqrt", "binom", "infty", "lfloor", "lceil")
            )
        return self.token in ("(", "{", "[") or (self.token == "|" and not self.in_bars)

    def _text_name(self) -> str | None:
        content = self.token[self.token.index("{") + 1 : -1].strip()
        return content if content in FUNCTIONS or re.fullmatch(r"[A-Za-z]", content) else None

    def power(self) -> Node:
        node = self._degrees(self.postfix(self.atom()))
        if self.token == "^":
            self.next()
            if self.token in ("-", "+"):  # x^-1, as programs print it
                sign = self.next()
                exponent = self.atom()
                exponent = ("neg", exponent) if sign == "-" else exponent
            else:
                # x^10, as programs print it
                is_number = self.kind == "number" and self.token.isdigit()
                exponent = ("n", Fraction(self.next()), 0) if is_number else self.argument()
            if self.token == "^":
                raise Unreadable("two powers")
            node = self.postfix(("^", node, exponent))
        return node

    def postfix(self, node: Node) -> Node:
        while self.token == "!":
            self.next()
            if self.token == "!":
                raise Unreadable("a double factorial")
            node = ("!", node)
        return node

    def argument(self) -> Node:
        """What a command such as `\\frac` takes: a group in braces, or one character."""
        if self.token == "{":
            return self.group("{", "}")
        if self.kind == "number" and self.token.isdigit():
            first, rest = self.token[0], self.token[1:]
            self.tokens[self.place : self.place + 1] = [("number", first), *([("number", rest)] if rest else [])]
            self.next()
            return ("n", Fraction(first), 0)
        return self.atom()

    def group(self, opening: str, closing: str) -> Node:
        self.expect(opening)
        outside, self.in_bars = self.in_bars, opening == "|"
        node = self.sum()
        if closing == "}" and self.token in (r"\over", r"\choose"):
            command = self.next()
            node = ("/" if command == r"\over" else "binom", node, self.sum())
        self.in_bars = outside
        self.expect(closing)
        return node

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("too deep")
        node = self._atom()
        self.depth -= 1
        return node

    def _atom(self) -> Node:
        kind, token = self.kind, self.token
        if kind == "number":
            return self._number()
        if kind == "repeating":
            return ("n", repeating(self.next()), 0)
        if kind in ("letter", "mark"):
            return self._letter(re.sub(r"\s", "", self.next()))
        if kind == "text" and (name := self._text_name()) is not None:
            self.next()
            return self.function(name) if name in FUNCTIONS else self._letter(name)
        if kind == "command":
            return self._command(token[1:])
        if token in ("(", "["):
            return self.group(token, ")" if token == "(" else "]")
        if token == "{":
            return self.group("{", "}")
        if token == "|":
            return ("abs", self.group("|", "|"))
        raise Unreadable(f"an unexpected {token or 'end'}")

    def _number(self) -> Node:
        spelling = self.next()
        value = ("n", Fraction(spelling), len(spelling.partition(".")[2]))
        if self.kind == "number":
            # 1 1/4: a whole number and a proper fraction of whole numbers.
            place = self.place
            top = self.next()
            slash = self.token == "/" and bool(self.next())
            if not (slash and self.kind == "number" and spelling.isdigit() and top.isdigit() and self.token.isdigit()):
                raise Unreadable("two numbers side by side")
            under = self.next()
            if not 0 < int(top) < int(under) or self.place - place < 3:
                raise Unreadable("not a mixed number")
            return ("n", Fraction(spelling) + Fraction(int(top), int(under)), 0)
        if self.token == r"\frac" and spelling.isdigit():
            place = self.place
            part = self.atom()
            if part[0] == "/" and all(one[0] == "n" and one[1].denominator == 1 and not one[2] for one in part[1:]):
                top, under = part[1][1], part[2][1]
                if not 0 < top < under:
                    raise Unreadable("not a mixed number")
                return ("n", value[1] + top / under, 0)
            self.place = place
            self._skip()
        return value

    def _letter(self, name: str) -> Node:
        while self.token in ("_", "'"):
            if self.next() == "'":
                name += "'"
                continue
            name += "_" + self._subscript()
        if self.token == "(" and not self.spaced:
            inside = self._applied_to(name)
            if inside is not None:
                return inside
        return ("s", name)

    def _subscript(self) -> str:
        if self.token != "{":
            if self.kind == "number" and len(self.token) > 1:
                raise Unreadable("a subscript without braces")
            return self.next().replace(" ", "")
        depth, parts = 0, []
        while True:
            token = self.next()
            depth += (token == "{") - (token == "}")
            if token not in "{}":
                parts.append(re.sub(r"\\text\s*\{\s*([^{}]*?)\s*\}", r"\1", token))
            if depth == 0:
                return "".join(parts)
            if self.kind == "end":
                raise Unreadable("an open subscript")

    def _applied_to(self, name: str) -> Node | None:
        """`f(x)` or `I(0)`; None where a bracket after a letter is a factor."""
        place = self.place
        argument = self.group("(", ")")
        if name[0] in _APPLIED or argument[0] == "n" or name.startswith("Theta"):
            return ("call", name, argument)
        self.place = place
        self._skip()
        return None

    def _command(self, name: str) -> Node:
        self.next()
        if name == "pi":
            return ("s", "pi")
        if name == "infty":
            return ("inf",)
        if name in GREEK:
            return self._letter(name)
        if name == "frac":
            return ("/", self.argument(), self.argument())
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            index = self.group("[", "]") if self.token == "[" else None
            inside = self.argument()
            return ("sqrt", inside) if index is None else ("root", index, inside)
        if name in ("lfloor", "lceil"):
            inside = self.sum()
            self.expect("\\r" + name[1:])
            return ("floor" if name == "lfloor" else "ceil", inside)
        if name in FUNCTIONS:
            return self.function(name)
        raise Unreadable(f"the command \\{name}")

    def function(self, name: str) -> Node:
        base, exponent = None, None
        while self.token in ("_", "^"):
            if self.next() == "_":
                base = self.argument()
            elif self.token == "-":
                self.next()
                exponent = ("neg", self.argument())
            else:
                exponent = self.argument()
        inside = self._function_argument(name in _ROUND)
        if base is not None:
            if name != "log":
                raise Unreadable("an index of a function")
            node: Node = ("logb", base, inside)
        else:
            node = ("^", ("s", "e"), inside) if name == "exp" else (name, inside)
        if exponent == ("neg", ("n", Fraction(1), 0)):
            return (f"arc{name}", inside) if f"arc{name}" in FUNCTIONS else self._refuse("an inverse function")
        return node if exponent is None else ("^", node, exponent)

    def _refuse(self, what: str) -> Any:
        raise Unreadable(what)

    def _function_argument(self, is_round: bool) -> Node:
        if self.token in ("(", "[", "{", "|"):
            return self._degrees(self._atom())  # sin(x)^2 is the square of the sine
        node = self.power() if self.token not in ("-", "+") else self.product()
        while self._starts_factor() and not self._starts_function() and self.token not in ("(", "["):
            node = ("*", node, self.power())
        if self.token == "/" and is_round and "pi" in _letters(node):
            self.next()  # the sine of pi/6, but a third of ln 2
            node = ("/", node, self.power())
        return node

    def _starts_function(self) -> bool:
        return self.token[1:] in FUNCTIONS or (self.kind == "text" and self._text_name() in FUNCTIONS)

    def _degrees(self, node: Node) -> Node:
        rest = [token for kind, token in self.tokens[self.place + 1 : self.place + 3] if kind != "space"]
        if self.token != "^" or rest[:1] != [r"\circ"]:
            return node
        self.next()
        self.next()
        return ("/", ("*", node, ("s", "pi")), ("n", Fraction(180), 0))


def letters(node: Node) -> frozenset[str]:
    """The names of all letters in a tree, without those of constants."""
    return _letters(node) - {"pi", "e", "i"}


def _letters(node: Node) -> frozenset[str]:
    if node[0] == "s":
        return frozenset([node[1]])
    return frozenset().union(*(_letters(part) for part in node[1:] if isinstance(part, tuple)))
