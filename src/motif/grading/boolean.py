"""Truth tables of one-bit Verilog, exactly and without Yosys: the fast path of the circuit grader.

A table is an integer of 2^n bits: bit r is the value in row r, where the first of the n inputs is the most significant
bit of r. The grammar is strict on purpose (one-bit nets, `assign`, the operators below); whatever is outside of it
raises `Unsupported` and is left to Yosys, so this file never has to guess what Verilog means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from motif.grading.verilog import is_identifier

MOST_INPUTS = 8
DEEPEST = 60  # nesting; Python's own stack is the limit
LONGEST = 4_000  # tokens

# Verilog's binary operators on one bit, loosest first (IEEE 1364-2005, table 5-4).
LEVELS = (("||",), ("&&",), ("|",), ("^", "~^", "^~"), ("&",), ("==", "!="))
_TOKEN = re.compile(r"\s+|&&|\|\||==|!=|~\^|\^~|1'[bB][01]|[A-Za-z_][A-Za-z0-9_$]*|[01](?![\w'])|[-+~!&|^?:()=;,.]")


class Unsupported(Exception):
    """The text is outside the grammar; nothing is said about whether it is good Verilog."""


@dataclass
class Module:
    """A one-bit combinational module: its ports, and the table of each output over `inputs`."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Value:
    # `wide` marks an expression that holds a bare 0 or 1. Those are 32-bit numbers, and so is everything they are
    # combined with; only the lowest bit of a wide value is known here, which `&&`, `==` or a condition do not stop at.
    table: int
    wide: bool = False


def tokens(text: str) -> list[str]:
    """Split into tokens.

    Raises:
        Unsupported: a character or word that the grammar does not have, or too many tokens.
    """
    found: list[str] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unsupported(f"character {text[place]!r}")
        place = match.end()
        if not match.group().isspace():
            found.append(match.group())
    if len(found) > LONGEST:
        raise Unsupported("too long")
    return found


def columns(names: Sequence[str]) -> dict[str, int]:
    """The table of each input by itself.

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
    return _table(tokens(text), columns(names), 1 << len(names))


def _table(found: Sequence[str], known: Mapping[str, int], rows: int) -> int:
    parser = _Parser(found, known, rows)
    value = parser.conditional()
    if parser.token:
        raise Unsupported(f"{parser.token!r} after the expression")
    return value.table


class _Parser:
    """Recursive descent over the tokens of one expression; `known` are the tables of the nets it may name."""

    def __init__(self, found: Sequence[str], known: Mapping[str, int], rows: int) -> None:
        self.found, self.known = found, known
        self.ones = (1 << rows) - 1
        self.place = self.depth = 0

    @property
    def token(self) -> str:
        return self.found[self.place] if self.place < len(self.found) else ""

    def take(self, wanted: str) -> bool:
        if self.token != wanted:
            return False
        self.place += 1
        return True

    def conditional(self) -> _Value:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsupported("nested too deeply")
        value = self.binary(0)
        if self.take("?"):
            chosen = _narrow(value).table
            first = self.conditional()
            if not self.take(":"):
                raise Unsupported("a ? without its :")
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
        else:
            value = self.primary()
        self.depth -= 1
        return value

    def primary(self) -> _Value:
        token = self.token
        self.place += 1
        if token == "(":
            value = self.conditional()
            if not self.take(")"):
                raise Unsupported("a ( without its )")
            return value
        if token in ("0", "1") or token[:2] == "1'":
            return _Value(self.ones if token.endswith("1") else 0, wide=len(token) == 1)
        if token in self.known:
            return _Value(self.known[token])
        raise Unsupported(f"{token!r}")


def _narrow(value: _Value) -> _Value:
    if value.wide:
        raise Unsupported("a bare 0 or 1 where its width matters")
    return value


# --- modules -----------------------------------------------------------------------------------------------------


def module(text: str, order: Sequence[str] = ()) -> Module:
    """Read a module of one-bit ports, wires and assigns (comments already taken out) and compute its outputs.

    The tables are over the inputs in the given order; if that is not an order of these very inputs, over its own.

    Raises:
        Unsupported: it is outside the grammar: another construct, a loop, a net with two drivers or none, …
    """
    found = tokens(text)
    if not found or found.count("module") != 1 or found.count("endmodule") != 1 or found[-1] != "endmodule":
        raise Unsupported("not exactly one module")
    statements = _split(found[1:-1], ";")
    header, *rest = statements
    if found[0] != "module" or not rest or rest[-1]:
        raise Unsupported("no module header or end")
    directions: dict[str, str] = {}
    drivers: dict[str, list[str]] = {}
    ports = _header(header, directions)
    for statement in rest[:-1]:
        _statement(statement, directions, drivers)
    if any(directions.get(port) not in ("input", "output") for port in ports):
        raise Unsupported("a port without a direction")
    inputs = tuple(port for port in ports if directions[port] == "input")
    outputs = tuple(port for port in ports if directions[port] == "output")
    if {name for name, kind in directions.items() if kind != "wire"} != set(ports):
        raise Unsupported("a direction for what is no port")
    read = Module(header[0], inputs, outputs)
    inputs = tuple(order) if set(order) == set(inputs) else inputs
    known = columns(inputs)
    if set(inputs) & set(drivers) or not set(outputs) <= set(drivers):
        raise Unsupported("a driven input or an undriven output")
    pending = dict(drivers)
    while pending:
        ready = [name for name, body in pending.items() if not set(body) & set(pending)]
        if not ready:
            raise Unsupported("a loop")
        for name in ready:
            known[name] = _table(pending.pop(name), known, 1 << len(inputs))
    read.tables = {name: known[name] for name in outputs}
    return read


def _split(found: Sequence[str], mark: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for token in found:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _header(header: list[str], directions: dict[str, str]) -> list[str]:
    if len(header) < 4 or header[1] != "(" or header[-1] != ")" or not _is_name(header[0]):
        raise Unsupported("the header")
    ports = []
    direction = ""
    for part in _split(header[2:-1], ","):
        words = part[:-1]
        if words and words[0] in ("input", "output"):
            direction = words[0]
            words = words[1:]
        if words not in ([], ["wire"], ["logic"]) or not part or not _is_name(part[-1]):
            raise Unsupported("a port")
        ports.append(part[-1])
        if direction:
            _declare(part[-1], direction, directions)
    if len(set(ports)) < len(ports):
        raise Unsupported("a port twice")
    return ports


def _statement(statement: list[str], directions: dict[str, str], drivers: dict[str, list[str]]) -> None:
    word = statement[0] if statement else ""
    if word == "assign":
        _drive(statement[1:], directions, drivers)
    elif word in ("input", "output"):
        names = statement[2:] if statement[1:2] in (["wire"], ["logic"]) else statement[1:]
        for part in _split(names, ","):
            if len(part) != 1:
                raise Unsupported("a port declaration")
            _declare(part[0], word, directions)
    elif word == "wire":
        for part in _split(statement[1:], ","):
            if not part:
                raise Unsupported("a declaration")
            _declare(part[0], "wire", directions)
            if len(part) > 1:
                _drive(part, directions, drivers)
    else:
        raise Unsupported(f"{word!r}")


def _declare(name: str, kind: str, directions: dict[str, str]) -> None:
    if not _is_name(name) or name in directions:
        raise Unsupported(f"the declaration of {name!r}")
    directions[name] = kind


def _drive(part: list[str], directions: dict[str, str], drivers: dict[str, list[str]]) -> None:
    name = part[0] if part else ""
    # A name declared only later is an error in Verilog, or an implicit net.
    if part[1:2] != ["="] or name not in directions or name in drivers or "," in part:
        raise Unsupported(f"the assignment to {name!r}")
    body = part[2:]
    if any(_is_name(token) and token not in directions for token in body):
        raise Unsupported("a name that is not declared before")
    drivers[name] = body


def _is_name(token: str) -> bool:
    return is_identifier(token)
