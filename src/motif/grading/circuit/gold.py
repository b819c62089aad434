"""Gold circuits and answers, read from text into modules. Nothing is run yet."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from motif.grading.circuit import gate, one_bit, truth_table
from motif.grading.verdict import GoldError

LONGEST = 200_000  # characters of an answer; the Verilog in it may have gate.LONGEST
MOST_ROWS = 1 << 12
MOST_OUTPUTS = 32

_ASSIGNED = re.compile(r"(?:assign\s+)?(?P<name>[A-Za-z_]\w*)\s*=(?!=)(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class GoldCircuit:
    """A gold answer as a module, and as truth tables where it is small enough to have them."""

    text: str
    top: str
    reset: dict[str, int] = field(default_factory=dict, hash=False)
    table: one_bit.Module | None = field(default=None, hash=False)
    care: dict[str, int] = field(default_factory=dict, hash=False)
    """For each output, a bit mask of the rows that count, in the order of a table; empty for a gold in Verilog."""
    open_outputs: bool = False
    """Whether an x in the text leaves an output open (as - does in a table)."""
    expression: bool = False
    """Whether a bare expression is an answer."""


@functools.lru_cache(maxsize=4096)
def read_gold(gold: str) -> GoldCircuit:
    """Read a gold answer.

    Raises:
        GoldError: it has neither form, or it says nothing, or it contradicts itself.
    """
    if not gold.lstrip().startswith("{"):
        return _verilog_gold(gold, None)
    try:
        data = json.loads(gold)
    except (ValueError, RecursionError) as error:
        raise GoldError(f"not JSON: {error}") from None
    if set(data) == {"truth_table"} and isinstance(data["truth_table"], dict):
        return _table_gold(data["truth_table"])
    if "verilog" in data and set(data) <= {"verilog", "reset"} and isinstance(data["verilog"], str):
        return _verilog_gold(data["verilog"], data.get("reset"))
    raise GoldError('needs "truth_table": {…} or "verilog": "…" (with "reset": {…} if you like), and nothing else')


def _verilog_gold(text: str, reset: Any) -> GoldCircuit:
    try:
        cleaned = gate.clean(gate.extract(text))
        names = gate.module_names(cleaned)
    except gate.Refused as error:
        raise GoldError(str(error)) from None
    levels = {} if reset is None else reset
    # Data files may give the value as text.
    if not isinstance(levels, dict) or not all(
        gate.is_identifier(str(name)) and str(value) in ("0", "1") for name, value in levels.items()
    ):
        raise GoldError(f'"reset" must give each reset input its active value, 0 or 1, not {reset!r}')
    try:
        table = one_bit.module(cleaned)
    except truth_table.Unsupported:
        table = None
    return GoldCircuit(cleaned, names[-1], {str(name): int(value) for name, value in levels.items()}, table)


def _table_gold(data: dict[str, Any]) -> GoldCircuit:
    inputs, outputs, rows = data.get("inputs"), data.get("outputs"), data.get("rows")
    for names in (inputs, outputs):
        if not isinstance(names, list) or not names or not all(gate.is_identifier(str(name)) for name in names):
            raise GoldError("inputs and outputs must be lists of Verilog names")
    if set(data) - {"inputs", "outputs", "rows"} or not isinstance(rows, dict):
        raise GoldError("a truth table has inputs, outputs and rows, and nothing else")
    assert isinstance(inputs, list) and isinstance(outputs, list)
    if len(set(inputs + outputs)) < len(inputs + outputs):
        raise GoldError("a name occurs twice")
    count = 1 << len(inputs)
    if count > MOST_ROWS or len(outputs) > MOST_OUTPUTS:
        raise GoldError(f"too large: at most {MOST_ROWS} rows and {MOST_OUTPUTS} outputs")
    keys = [f"{row:0{len(inputs)}b}" for row in range(count)]
    if set(rows) != set(keys):
        raise GoldError(f"needs {count} rows, {keys[0]} to {keys[-1]}, one value each")
    values = [str(rows[key]) for key in keys]
    if any(len(value) != len(outputs) or set(value) - set("01-") for value in values):
        raise GoldError(f"each row needs {len(outputs)} characters of 0, 1 and -, one for each output")
    tables, care = {}, {}
    for place, name in enumerate(outputs):
        tables[name] = sum(1 << row for row, value in enumerate(values) if value[place] == "1")
        care[name] = sum(1 << row for row, value in enumerate(values) if value[place] != "-")
    small = len(inputs) <= truth_table.MOST_INPUTS
    return GoldCircuit(
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


def answer_module(gold: GoldCircuit, prediction: str) -> str:
    """The answer as cleaned Verilog.

    Raises:
        gate.Refused: there is no answer, or it has a token that is not allowed.
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


def _expression_module(gold: GoldCircuit, text: str) -> str:
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
    # Most mistakes of a model in training are of this kind; they are found without Yosys.
    try:
        truth_table.expression(text, inputs)
    except truth_table.Malformed as error:
        raise gate.Refused(f"not an expression of {', '.join(inputs)}: {error}") from None
    except truth_table.Unsupported:
        pass  # Yosys decides


def _ports(gold: GoldCircuit) -> tuple[list[str], list[str]]:
    """The ports of the module that `_table_module` writes for a table."""
    header = gold.text.partition(");")[0]
    return re.findall(r"input (\w+)", header), re.findall(r"output reg (\w+)", header)
