"""Circuits from truth tables, whose answers are checked by proof, and gold answers for your own circuits.

A question is the truth table of a function of two to four inputs; any Verilog expression or module that computes it is
right. The train and test sides never share a truth table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from motif.config import CircuitConfig
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import Split, hashed, split_of
from motif.tasks.table import TableTask

TEMPLATES = {"table": "y({names}) = {bits}", "minterms": "y({names}) = 1 at {minterms}"}
TEST_ONE_IN = 8
MAX_FUNCTIONS = 8_000
"""Limit of functions, chosen by hash: all of two or three inputs, an eighth of those of four inputs."""
NAMES = "abcd"
OUTPUT = "y"


def questions(settings: CircuitConfig, split: Split) -> list[Question]:
    """The questions of one side, in a fixed random order, without the constant functions.

    Inputs are named a (the most significant) to d, and a table lists the output for inputs 0…0 to 1…1.
    """
    functions = _drawn(settings.inputs, settings.minterms)
    return [_question(bits, settings.form) for bits in functions if side_of(bits) == split]


def side_of(bits: str) -> Split:
    """The side of the function with these output bits, which alone decide it."""
    return split_of(bits, TEST_ONE_IN)


def gold_from_bits(bits: str) -> str:
    """Return the gold answer for the output bits of one output `y`, inputs 0…0 first.

    Raises:
        ValueError: not 4, 8 or 16 characters of 0, 1 and - (don't care).
    """
    inputs = len(bits).bit_length() - 1
    if len(bits) not in (4, 8, 16) or set(bits) - set("01-"):
        raise ValueError(f"needs 4, 8 or 16 characters of 0, 1 and -, got {bits!r}")
    rows = {f"{row:0{inputs}b}": bit for row, bit in enumerate(bits)}
    return json.dumps({"truth_table": {"inputs": list(NAMES[:inputs]), "outputs": [OUTPUT], "rows": rows}})


def gold_from_row(row: Mapping[str, Any]) -> str:
    """Return the gold answer of a row of your own data, as `motif.grading.circuit.rule` reads it.

    The row has one of the columns `truth_table` (an object with `inputs`, `outputs` and `rows`), `verilog` (a module),
    or `answer` (either of them as text). A column `reset` beside `verilog` names the reset inputs and their active
    values, e.g. {"rst_n": 0}.

    Raises:
        ValueError: none of these columns, more than one of them, or a value of the wrong type.
    """
    columns = [name for name in ("truth_table", "verilog", "answer") if row.get(name) not in (None, "")]
    if len(columns) != 1:
        problem = "has none of" if not columns else "has more than one of"
        raise ValueError(f"the row {problem} the columns truth_table, verilog and answer")
    name, value = columns[0], row[columns[0]]
    if name == "truth_table":
        try:
            value = json.loads(value) if isinstance(value, str) else value
        except RecursionError:
            raise ValueError("column 'truth_table' is nested too deeply") from None
        if not isinstance(value, Mapping):
            raise ValueError("column 'truth_table' must hold an object with inputs, outputs and rows")
        return json.dumps({"truth_table": value})
    if not isinstance(value, str):
        raise ValueError(f"column {name!r} holds a {type(value).__name__}, not text")
    reset = row.get("reset")
    if reset is None or name == "answer":
        return value
    return json.dumps({"verilog": value, "reset": reset})


def _drawn(inputs: int, minterms: int) -> list[str]:
    rows = 2**inputs
    functions = [f"{number:0{rows}b}" for number in range(1, 2**rows - 1)]
    if minterms:
        functions = [bits for bits in functions if bits.count("1") == minterms]
    return sorted(functions, key=lambda bits: hashed(f"order {bits}"))[:MAX_FUNCTIONS]


def _question(bits: str, form: str) -> Question:
    inputs = len(bits).bit_length() - 1
    ones = ",".join(str(row) for row, bit in enumerate(bits) if bit == "1")
    text = TEMPLATES[form].format(names=NAMES[:inputs], bits=bits, minterms=ones)
    return Question(id=f"circuit-{form}-{bits}", text=text, gold=gold_from_bits(bits))


ROWS = TableTask(grader="circuit", questions=("specification", "question"), answers=(), gold=gold_from_row)
TASK = ProceduralTask("circuit", lambda data, split: questions(data.circuit, split), ROWS)
