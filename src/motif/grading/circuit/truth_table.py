"""Truth tables of one-bit Verilog, exactly and without Yosys: the fast path of the circuit grader.

A table is an integer of 2^n bits: bit r is the value in row r, where the first of the n inputs is the most significant
bit of r. The grammar is strict on purpose: one-bit nets and the operators below. Whatever is outside of it raises
`Unsupported` and is left to Yosys, so this file never has to guess the meaning of Verilog.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_INPUTS = 8
OTHERS = frozenset("+-=;,.")  # tokens of modules, or of Verilog that is not read here
DEEPEST = 60  # nesting; Python's own stack is the limit
LONGEST = 4_000  # tokens

NEGATED = ("~^", "^~", "~&", "~|")
REDUCTIONS = ("&", "|", "^", *NEGATED)  # of one bit: the bit itself or its opposite
# Verilog's binary operators on one bit, loosest first (IEEE 1364-2005, table 5-4).
LEVELS = (("||",), ("&&",), ("|",), ("^", "~^", "^~"), ("&",), ("==", "!="))
_TOKEN = re.compile(
    r"\s+|&&|\|\||==|!=|~\^|\^~|~&|~\||1'[bB][01](?![\w?])|[A-Za-z_][A-Za-z0-9_$]*|[01](?![\w'])|[-+~!&|^?:()=;,.]"
)
_LONGER = re.compile(r"&&&|[=!]=[=?]")  # these are one token each, not two of the above


class Unsupported(Exception):
    """The text is outside the grammar. It may be good Verilog or not."""


class Malformed(Unsupported):
    """As an expression of these inputs, the text is not Verilog, whatever stands around it."""


@dataclass(frozen=True)
class _Value:
    # `wide` marks an expression that contains a bare 0 or 1. Those are 32-bit numbers, and so is all they are combined
    # with. Here only the lowest bit of a wide value is known, but `&&`, `==` and conditions depend on all bits.
    table: int
    wide: bool = False


def tokens(text: str) -> list[str]:
    """Split into tokens.

    Raises:
        Unsupported: a character or word that the grammar does not have, or too many tokens.
    """
    if _LONGER.search(text):
        raise Unsupported("an operator of SystemVerilog")
    words: list[str] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unsupported(f"character {text[place]!r}")
        place = match.end()
        if not match.group().isspace():
            words.append(match.group())
    if len(words) > LONGEST:
        raise Unsupported("too long")
    return words


def columns(names: Sequence[str]) -> dict[str, int]:
    """The tables of the inputs themselves.

    Raises:
        Unsupported: more than eight inputs, or a name twice.
    """
    if len(names) > MOST_INPUTS or len(set(names)) < len(names):
        raise Unsupported("the inputs")
    rows = 1 << len(names)
    bits = {name: len(names) - 1 - place for place, name in enumerate(names)}
    return {name: sum(1 << row for row in range(rows) if row >> bit & 1) for name, bit in bits.items()}


def expression(text: str, names: Sequence[str]) -> int:
    """The table of an expression over these inputs.

    Raises:
        Unsupported: it is outside the grammar.
    """
    return table(tokens(text), columns(names), 1 << len(names))


def table(words: Sequence[str], nets: Mapping[str, int], rows: int) -> int:
    """The table of an expression given as tokens, over nets with tables of so many rows.

    Raises:
        Unsupported: it is outside the grammar.
    """
    parser = _Parser(words, nets, rows)
    value = parser.conditional()
    if parser.token:
        raise parser.problem(f"{parser.token!r} after the expression")
    return value.table


class _Parser:
    """Recursive descent over the tokens of one expression; `nets` are the tables of the nets that it may name."""

    def __init__(self, words: Sequence[str], nets: Mapping[str, int], rows: int) -> None:
        self.words, self.nets = words, nets
        self.ones = (1 << rows) - 1
        self.place = self.depth = 0

    @property
    def token(self) -> str:
        return self.words[self.place] if self.place < len(self.words) else ""

    def take(self, wanted: str) -> bool:
        if self.token != wanted:
            return False
        self.place += 1
        return True

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.problem(f"{self.token or 'the end'!r} where {wanted!r} should be")

    def problem(self, message: str) -> Unsupported:
        """The error at a token that does not fit: with operators of `OTHERS` the text may still be Verilog."""
        return Unsupported(message) if self.token in OTHERS else Malformed(message)

    def conditional(self) -> _Value:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsupported("nested too deeply")
        value = self.binary(0)
        if self.take("?"):
            chosen = _narrow(value).table
            first = self.conditional()
            self.need(":")
            second = self.conditional()
            value = _Value(chosen & first.table | ~chosen & self.ones & second.table, first.wide or second.wide)
        self.depth -= 1
        return value

    def binary(self, level: int) -> _Value:
        if level == len(LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.token in LEVELS[level]:
            operator = self.token
            self.place += 1
            left = self.combined(operator, left, self.binary(level + 1))
        return left

    def combined(self, operator: str, left: _Value, right: _Value) -> _Value:
        if operator in ("&&", "||", "==", "!="):
            left, right = _narrow(left), _narrow(right)
        first, second, wide = left.table, right.table, left.wide or right.wide
        if operator in ("&", "&&"):
            return _Value(first & second, wide)
        if operator in ("|", "||"):
            return _Value(first | second, wide)
        differ = first ^ second
        return _Value(differ if operator in ("^", "!=") else differ ^ self.ones, wide)

    def unary(self) -> _Value:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsupported("nested too deeply")
        if self.take("~"):
            value = self.unary()
            value = _Value(value.table ^ self.ones, value.wide)
        elif self.take("!"):
            value = _Value(_narrow(self.unary()).table ^ self.ones)
        elif self.token in REDUCTIONS:
            negated = self.token in NEGATED
            self.place += 1
            value = _Value(_narrow(self.unary()).table ^ (self.ones if negated else 0))
        else:
            value = self.primary()
        self.depth -= 1
        return value

    def primary(self) -> _Value:
        token = self.token
        self.place += 1
        if token == "(":
            value = self.conditional()
            self.need(")")
            return value
        if token in ("0", "1") or token[:2] == "1'":
            return _Value(self.ones if token.endswith("1") else 0, wide=len(token) == 1)
        if token in self.nets:
            return _Value(self.nets[token])
        self.place -= 1
        raise self.problem(f"{token or 'the end'!r} where an input should be")


def _narrow(value: _Value) -> _Value:
    if value.wide:
        raise Unsupported("a bare 0 or 1 where its width matters")
    return value
