"""Circuits from truth tables: procedural questions whose answers are checked by proof, and golds for your own circuits.

A question gives the truth table of a function of two to four inputs; any Verilog expression or module that computes it
is right. Train and test never share a truth table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from motif.method.tree import Question
from motif.tasks.table import TableTask

FORMS = ("table", "minterms")
TEMPLATES = {"table": "y({names}) = {bits}", "minterms": "y({names}) = 1 at {minterms}"}
SPLITS = ("train", "test")
TEST_ONE_IN = 8
DRAWN = 8_000
"""Functions kept, drawn by hash, where there are more: all of two or three inputs, an eighth of those of four."""
LARGEST_INPUTS = 4
NAMES = "abcd"
OUTPUT = "y"
GOLD_COLUMNS = ("truth_table", "verilog", "reset")


def questions(
    inputs: int, split: str, form: str = "table", minterms: int = 0, template: str = "", count: int = DRAWN
) -> list[Question]:
    """Return one side of the questions "which circuit has this truth table?", the constants left out.

    Args:
        inputs: 2 to 4, named a (the most significant) to d.
        split: `train` or `test`; which side a function is on depends on its truth table alone.
        form: `table` gives the output bits from inputs 0…0 to 1…1, `minterms` the rows in which the output is 1.
        minterms: only functions with this many ones (0: any), which makes questions easier or harder.
        template: the wording; `{names}`, `{bits}` and `{minterms}` in it are replaced. Empty: the form's own.
        count: at most this many functions, both sides together, drawn by hash.

    The order is a fixed shuffle, so a prefix is a random sample.

    Raises:
        ValueError: a value that is not allowed, or a template that does not say what the function is.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if isinstance(inputs, bool) or inputs not in range(2, LARGEST_INPUTS + 1):
        raise ValueError(f"inputs must be 2 to {LARGEST_INPUTS}, not {inputs!r}")
    if not 0 <= minterms < 2**inputs:
        raise ValueError(f"minterms must be 0 (any) to {2**inputs - 1}, not {minterms!r}")
    template = template or TEMPLATES[form]
    if "{bits}" not in template and "{minterms}" not in template:
        raise ValueError("the template needs {bits} or {minterms}: it must say what the function is")
    wanted = [bits for bits in _drawn(inputs, minterms, count) if split_of(bits) == split]
    return [_question(bits, form, template) for bits in wanted]


def split_of(bits: str) -> str:
    """The side of the function with these output bits."""
    return "test" if _hash(f"split {bits}") % TEST_ONE_IN == 0 else "train"


def gold_from_bits(bits: str) -> str:
    """The gold answer for the output bits of one output `y`, inputs 0…0 first.

    Raises:
        ValueError: not 4, 8 or 16 characters of 0, 1 and - (don't care).
    """
    inputs = len(bits).bit_length() - 1
    if len(bits) not in (4, 8, 16) or set(bits) - set("01-"):
        raise ValueError(f"needs 4, 8 or 16 characters of 0, 1 and -, got {bits!r}")
    rows = {f"{row:0{inputs}b}": bit for row, bit in enumerate(bits)}
    return json.dumps({"truth_table": {"inputs": list(NAMES[:inputs]), "outputs": [OUTPUT], "rows": rows}})


def gold_from_row(row: Mapping[str, Any]) -> str:
    """The gold answer in a row of your own data.

    One of the columns `truth_table` (an object with `inputs`, `outputs` and `rows`), `verilog` (a module), or `answer`
    (either of them as text); `reset` beside `verilog`, where given, names the reset inputs and their active values,
    e.g. {"rst_n": 0}. The text of it is what `motif.grading.circuit.rule` grades against.

    Raises:
        ValueError: none of these columns, more than one of them, or a value of another kind.
    """
    given = [name for name in ("truth_table", "verilog", "answer") if row.get(name) not in (None, "")]
    if len(given) != 1:
        problem = "has none of" if not given else "has more than one of"
        raise ValueError(f"the row {problem} the columns truth_table, verilog and answer")
    name, value = given[0], row[given[0]]
    if name == "truth_table":
        value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping):
            raise ValueError("column 'truth_table' must hold an object with inputs, outputs and rows")
        return json.dumps({"truth_table": value})
    if not isinstance(value, str):
        raise ValueError(f"column {name!r} holds a {type(value).__name__}, not text")
    reset = row.get("reset")
    if reset is None or name == "answer":
        return value
    return json.dumps({"verilog": value, "reset": reset})


def _drawn(inputs: int, minterms: int, count: int) -> list[str]:
    rows = 2**inputs
    functions = [f"{number:0{rows}b}" for number in range(1, 2**rows - 1)]
    if minterms:
        functions = [bits for bits in functions if bits.count("1") == minterms]
    return sorted(functions, key=lambda bits: _hash(f"order {bits}"))[:count]


def _question(bits: str, form: str, template: str) -> Question:
    inputs = len(bits).bit_length() - 1
    ones = ",".join(str(row) for row, bit in enumerate(bits) if bit == "1")
    text = template.replace("{names}", NAMES[:inputs]).replace("{bits}", bits).replace("{minterms}", ones)
    return Question(id=f"circuit-{form}-{bits}", text=text, gold=gold_from_bits(bits))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big")


TASK = TableTask(grader="circuit", questions=("specification", "question"), answers=(), gold=gold_from_row)
