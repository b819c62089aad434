"""What a circuit is graded against, and the answer as a module: golds and answers as text, nothing run yet."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from motif.grading.circuit import gate, one_bit, truth_table

LONGEST = 200_000  # characters of an answer; what is taken for Verilog may have gate.LONGEST
MOST_ROWS = 1 << 12
MOST_OUTPUTS = 32

_ASSIGNED = re.compile(r"(?:assign\s+)?(?P<name>[A-Za-z_]\w*)\s*=(?!=)(?P<rest>.*)", re.DOTALL)


class BadGold(ValueError):
    """A gold answer that cannot be used; the message says why."""


@dataclass(frozen=True)
class Gold:
    """A gold answer as a module, and as truth tables where it is small enough to have them."""

    text: str
    top: str
    reset: dict[str, int] = field(default_factory=dict, hash=False)
    table: one_bit.Module | None = field(default=None, hash=False)
    care: dict[str, int] = field(default_factory=dict, hash=False)
    """For each output the rows that count, as a bit mask like a table; empty for a gold in Verilog."""
    open_outputs: bool = False
    """Whether an x in the text leaves an output open (a table's -)."""
    expression: bool = False
    """Whether a bare expression is an answer."""


@functools.lru_cache(maxsize=4096)
def read_gold(gold: str) -> Gold:
    """Read a gold answer.

    Raises:
        BadGold: neither form, or one that says nothing or contradicts itself.
    """
    if not gold.lstrip().startswith("{"):
        return _verilog_gold(gold, None)
    try:
        data = json.loads(gold)
    except (ValueError, RecursionError) as error:
        raise BadGold(f"not JSON: {error}") from None
    if set(data) == {"truth_table"} and isinstance(data["truth_table"], dict):
        return _table_gold(data["truth_table"])
    if "verilog" in data and set(data) <= {"verilog", "reset"} and isinstance(data["verilog"], str):
        return _verilog_gold(data["verilog"], data.get("reset"))
    raise BadGold('needs "truth_table": {…} or "verilog": "…" (with "reset": {…} if you like), and nothing else')


def _verilog_gold(text: str, reset: Any) -> Gold:
    try:
        cleaned = gate.clean(gate.extract(text))
        names = gate.module_names(cleaned)
    except gate.Refused as error:
        raise BadGold(str(error)) from None
    held = {} if reset is None else reset
    # Data files may spell the value as text.
    if not isinstance(held, dict) or not all(
        gate.is_identifier(str(name)) and str(value) in ("0", "1") for name, value in held.items()
    ):
        raise BadGold(f'"reset" must give each reset input its active value, 0 or 1, not {reset!r}')
    try:
        table = one_bit.module(cleaned)
    except truth_table.Unsupported:
        table = None
    return Gold(cleaned, names[-1], {str(name): int(value) for name, value in held.items()}, table)


def _table_gold(data: dict[str, Any]) -> Gold:
    inputs, outputs, rows = data.get("inputs"), data.get("outputs"), data.get("rows")
    for names in (inputs, outputs):
        if not isinstance(names, list) or not names or not all(gate.is_identifier(str(name)) for name in names):
            raise BadGold("inputs and outputs must be lists of Verilog names")
    if set(data) - {"inputs", "outputs", "rows"} or not isinstance(rows, dict):
        raise BadGold("a truth table has inputs, outputs and rows, and nothing else")
    assert isinstance(inputs, list) and isinstance(outputs, list)
    if len(set(inputs + outputs)) < len(inputs + outputs):
        raise BadGold("a name occurs twice")
    count = 1 << len(inputs)
    if count > MOST_ROWS or len(outputs) > MOST_OUTPUTS:
        raise BadGold(f"too large: at most {MOST_ROWS} rows and {MOST_OUTPUTS} outputs")
    keys = [f"{row:0{len(inputs)}b}" for row in range(count)]
    if set(rows) != set(keys):
        raise BadGold(f"needs {count} rows, {keys[0]} to {keys[-1]}, one value each")
    values = [str(rows[key]) for key in keys]
    if any(len(value) != len(outputs) or set(value) - set("01-") for value in values):
        raise BadGold(f"each row needs {len(outputs)} characters of 0, 1 and -, one for each output")
    tables, care = {}, {}
    for place, name in enumerate(outputs):
        tables[name] = sum(1 << row for row, value in enumerate(values) if value[place] == "1")
        care[name] = sum(1 << row for row, value in enumerate(values) if value[place] != "-")
    small = len(inputs) <= truth_table.MOST_INPUTS
    return Gold(
        text=_table_module(inputs, outputs, keys, values),
        top="top",
        table=one_bit.Module("top", tuple(inputs), tuple(outputs), tables) if small else None,
        care=care,
        open_outputs=any("-" in value for value in values),
        expression=len(outputs) == 1,
    )


def _table_module(inputs: list[str], outputs: list[str], keys: list[str], values: list[str]) -> str:
    ports = [f"input {name}" for name in inputs] + [f"output reg {name}" for name in outputs]
    chosen = f"{{{', '.join(outputs)}}}"
    rows = [
        f"{len(inputs)}'b{key}: {chosen} = {len(outputs)}'b{value.replace('-', 'x')};"
        for key, value in zip(keys, values, strict=True)
    ]
    body = "\n".join(rows)
    return f"module top({', '.join(ports)});\nalways @* case ({{{', '.join(inputs)}}})\n{body}\nendcase\nendmodule"


def answer_module(gold: Gold, prediction: str) -> str:
    """The answer as cleaned Verilog.

    Raises:
        gate.Refused: there is none, or it has a token that is not allowed.
    """
    if not prediction.strip():
        raise gate.Refused("empty")
    if len(prediction) > LONGEST:
        raise gate.Refused(f"too long: {len(prediction)} characters")
    text = gate.extract(prediction)
    if not gate.is_module(text):
        if not gold.expression:
            raise gate.Refused("no module")
        text = _expression_module(gold, text)
    cleaned = gate.clean(text)
    gate.module_names(cleaned)
    return cleaned


def _expression_module(gold: Gold, text: str) -> str:
    cleaned = gate.clean(text).strip().removesuffix(";")
    inputs, outputs = _ports(gold)
    output = outputs[0]
    assigned = _ASSIGNED.fullmatch(cleaned)
    if assigned and assigned["name"] != output:
        raise gate.Refused(f"assigns {assigned['name']}, not {output}")
    if assigned:
        cleaned = assigned["rest"]
    if ";" in cleaned or not cleaned.strip():
        raise gate.Refused("neither a module nor an expression")
    if gold.table is not None:
        _refuse_malformed(cleaned, inputs)
    ports = ", ".join(f"input {name}" for name in inputs)
    return f"module top({ports}, output {output});\nassign {output} = {cleaned};\nendmodule"


def _refuse_malformed(text: str, inputs: list[str]) -> None:
    # What a model in training gets wrong is mostly this, and needs no Yosys to be found.
    try:
        truth_table.expression(text, inputs)
    except truth_table.Malformed as error:
        raise gate.Refused(f"not an expression of {', '.join(inputs)}: {error}") from None
    except truth_table.Unsupported:
        pass  # Yosys will say


def _ports(gold: Gold) -> tuple[list[str], list[str]]:
    """The ports of a table's own module, as `_table_module` writes them."""
    header = gold.text.partition(");")[0]
    return re.findall(r"input (\w+)", header), re.findall(r"output reg (\w+)", header)
