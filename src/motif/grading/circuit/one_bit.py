"""The truth tables of small modules, without Yosys: one-bit ports, wires and `assign`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from motif.grading.circuit.gate import is_identifier
from motif.grading.circuit.truth_table import Unsupported, columns, table, tokens


@dataclass
class Module:
    """A one-bit combinational module: its ports, and the table of each output over `inputs`."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: dict[str, int] = field(default_factory=dict)


def module(text: str, order: Sequence[str] = ()) -> Module:
    """Read a module of one-bit ports, wires and assigns (comments already taken out) and compute its outputs.

    The tables are over the inputs in the given order, or in the module's own if `order` has other names.

    Raises:
        Unsupported: it is outside the grammar: another construct, a loop, a net with two drivers or none, …
    """
    words = tokens(text)
    if not words or words.count("module") != 1 or words.count("endmodule") != 1 or words[-1] != "endmodule":
        raise Unsupported("not exactly one module")
    header, *rest = _split(words[1:-1], ";")
    if words[0] != "module" or not rest or rest[-1]:
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
        raise Unsupported("a direction for what is not a port")
    result = Module(header[0], inputs, outputs)
    inputs = tuple(order) if set(order) == set(inputs) else inputs
    tables = columns(inputs)
    if set(inputs) & set(drivers) or not set(outputs) <= set(drivers):
        raise Unsupported("a driven input or an undriven output")
    pending = dict(drivers)
    while pending:
        ready = [name for name, body in pending.items() if not set(body) & set(pending)]
        if not ready:
            raise Unsupported("a loop")
        for name in ready:
            tables[name] = table(pending.pop(name), tables, 1 << len(inputs))
    result.tables = {name: tables[name] for name in outputs}
    return result


def _split(words: Sequence[str], mark: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for token in words:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _header(header: list[str], directions: dict[str, str]) -> list[str]:
    if len(header) < 4 or header[1] != "(" or header[-1] != ")" or not is_identifier(header[0]):
        raise Unsupported("the header")
    ports = []
    direction = ""
    for part in _split(header[2:-1], ","):
        words = part[:-1]
        if words and words[0] in ("input", "output"):
            direction = words[0]
            words = words[1:]
        if words not in ([], ["wire"], ["logic"]) or not part or not is_identifier(part[-1]):
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
    if not is_identifier(name) or name in directions:
        raise Unsupported(f"the declaration of {name!r}")
    directions[name] = kind


def _drive(part: list[str], directions: dict[str, str], drivers: dict[str, list[str]]) -> None:
    name = part[0] if part else ""
    # In Verilog, a name that is declared only later is an error or an implicit net.
    if part[1:2] != ["="] or name not in directions or name in drivers or "," in part:
        raise Unsupported(f"the assignment to {name!r}")
    body = part[2:]
    if any(is_identifier(token) and token not in directions for token in body):
        raise Unsupported("a name that is not declared before")
    drivers[name] = body
