"""Equal circuits: an answer in Verilog is right if it is proved to equal the gold for all inputs.

A gold has one of three forms:

* `{"truth_table": {"inputs": ["a", "b"], "outputs": ["y"], "rows": {"00": "0", …}}}`, where the value of a row is one
  character 0, 1 or - for each output, and - means that the output does not matter;
* `{"verilog": "module …", "reset": {"rst_n": 0}}`, where `reset` is optional;
* a bare Verilog module.

An answer is the module in the text. For a table with one output it may also be an expression of the inputs.

A right answer meets three conditions. Every token is on the allow-list of `motif.grading.circuit.gate`. The ports are
those of the gold by name, direction and width. The circuits are equivalent: one-bit modules of up to eight inputs in a
small grammar are compared by their whole truth tables (`one_bit`), everything else by Yosys (`proof`). Resets are held
for the fewest cycles (0, 1, 2, 4 or 8) after which two copies of the gold that start differently are equal.

A counterexample makes an answer wrong and is given as the reason. It is looked for until the limit. An answer without a
proof and without a counterexample is ungraded. An answer that Yosys refuses, or cannot read in `READ_LIMIT` seconds, is
wrong.
"""

from __future__ import annotations

import atexit
import functools

from motif.grading.circuit import gate, one_bit, truth_table
from motif.grading.circuit.gold import GoldCircuit, answer_module, read_gold
from motif.grading.circuit.netlist import Netlist, Unusable, netlist
from motif.grading.circuit.proof import LONGEST_REASON, guessed_reset, prove
from motif.grading.circuit.yosys import Yosys
from motif.grading.rule import Rule
from motif.grading.verdict import GoldError, Grade

START_LIMIT = 900.0  # seconds: Yosys is compiled once, for a minute or more
LIMIT = 90.0  # seconds for one answer: reading the gold and the answer, settling, proving
MEMORY = 32 << 30  # bytes of address space, most of it only reserved: about 0.3 GB is used, 1.8 GB while compiling
READ_LIMIT = 5.0  # seconds for what takes milliseconds with a circuit of sensible size
PROVE_LIMIT = 20.0  # seconds
SETTLE_LIMIT = 5.0  # seconds for each number of cycles of reset that is tried
CYCLES = (0, 1, 2, 4, 8)


class Circuit(Rule):
    """Circuits that are proved to equal the gold."""

    name = "circuit"
    reads_responses = True
    wrong_answers = ()  # a gold may be constant 0; `check_gold` has better ones
    seconds = LIMIT
    start_seconds = START_LIMIT
    memory = MEMORY

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict where Yosys is not needed: nothing to read, a refused token, or a small one-bit circuit."""
        try:
            wanted = read_gold(gold)
        except GoldError as error:
            return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
        try:
            text = answer_module(wanted, prediction)
        except gate.Refused as error:
            return _wrong(str(error))
        if wanted.table is None:
            return None
        try:
            answer = one_bit.module(text, wanted.table.inputs)
        except truth_table.Unsupported:
            return None
        return _compare_tables(wanted.table, wanted.care, answer)

    def thorough(self, gold: str, prediction: str) -> Grade:
        """The verdict of Yosys alone, whatever `quick` would say.

        Raises:
            DataError: Yosys is not installed.
        """
        try:
            wanted = read_gold(gold)
            gold_net = _gold_netlist(gold)
        except GoldError as error:
            return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
        try:
            text = answer_module(wanted, prediction)
            names = gate.module_names(text)
            answer = netlist(_yosys(), text, wanted.top if wanted.top in names else names[-1], "gate", READ_LIMIT)
        except (gate.Refused, Unusable) as error:
            return _wrong(str(error))
        problem = gold_net.difference(answer)
        if problem:
            return _wrong(problem)
        cycles = _cycles(gold) if gold_net.has_state else 0
        if cycles < 0:
            most = CYCLES[-1]
            problem = f'not determined by its inputs after {most} cycles of reset; name its resets in "reset"'
            return Grade("ungraded", f"the gold answer: {problem}")
        return _proved(wanted, gold_net, answer, cycles, PROVE_LIMIT)

    def quick_check(self, gold: str) -> Grade | None:
        """`check_gold` where Yosys is not needed, else None."""
        try:
            wanted = read_gold(gold)
        except GoldError as error:
            return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
        return None if wanted.table is None else self._checked(gold, wanted)

    def check_gold(self, gold: str) -> Grade:
        """Right if the gold passes as an answer to itself, while an empty answer and constants fail.

        A gold may be a constant circuit. But if constant 0 and constant 1 both pass, its proofs prove nothing.

        Raises:
            DataError: Yosys is needed and not installed.
        """
        return self.quick_check(gold) or self._checked(gold, read_gold(gold))

    def prepare(self) -> None:
        """Load Yosys, compiling it on first use (a minute or more).

        Raises:
            DataError: it is not installed; the message says how to install it.
        """
        _yosys()

    def _checked(self, gold: str, wanted: GoldCircuit) -> Grade:
        # A truth table cannot fail to equal itself, and as an answer the x of its open outputs would be refused.
        itself = Grade("right") if wanted.care else self.grade(gold, wanted.text)
        if itself.verdict != "right":
            return Grade("ungraded", f"the gold answer does not pass as an answer: {itself.reason}"[:LONGEST_REASON])
        if self.grade(gold, "").verdict == "right":
            return Grade("ungraded", "no answer at all passes for this gold")
        if all(self.grade(gold, _constant(gold, wanted, bit)).verdict == "right" for bit in "01"):
            return Grade("ungraded", "constant 0 and constant 1 both pass for this gold")
        return itself


@functools.cache
def _yosys() -> Yosys:
    atexit.register(_yosys.cache_clear)  # its parts cannot be freed while the interpreter shuts down
    return Yosys()


def _wrong(reason: str) -> Grade:
    return Grade("wrong", " ".join(reason.split())[:LONGEST_REASON])


def _compare_tables(wanted: one_bit.Module, care: dict[str, int], answer: one_bit.Module) -> Grade:
    for kind, ours, theirs in (("input", wanted.inputs, answer.inputs), ("output", wanted.outputs, answer.outputs)):
        if set(ours) != set(theirs):
            return _wrong(f"the {kind}s are {', '.join(theirs) or 'none'}, should be {', '.join(ours)}")
    for name, table in wanted.tables.items():
        differ = (table ^ answer.tables[name]) & care.get(name, -1)
        if differ:
            row = (differ & -differ).bit_length() - 1
            place = f"{row:0{len(wanted.inputs)}b}" if wanted.inputs else ""
            given = " ".join(f"{port}={bit}" for port, bit in zip(wanted.inputs, place, strict=True))
            return _wrong(f"{given}: {name} is {answer.tables[name] >> row & 1}, should be {table >> row & 1}")
    return Grade("right")


@functools.lru_cache(maxsize=256)
def _gold_netlist(gold: str) -> Netlist:
    wanted = read_gold(gold)
    try:
        return netlist(_yosys(), wanted.text, wanted.top, "gold", READ_LIMIT)
    except Unusable as error:
        raise GoldError(str(error)) from None


@functools.lru_cache(maxsize=256)
def _cycles(gold: str) -> int:
    """Cycles of reset after which two copies of the gold that start differently stay equal; -1 if unknown."""
    wanted, net = read_gold(gold), _gold_netlist(gold)
    for cycles in CYCLES:
        if _proved(wanted, net, net.renamed("gate"), cycles, SETTLE_LIMIT).verdict == "right":
            return cycles
    return -1


def _proved(wanted: GoldCircuit, gold: Netlist, answer: Netlist, cycles: int, limit: float) -> Grade:
    reset = wanted.reset or guessed_reset(gold)
    return prove(_yosys(), gold, answer, reset, cycles, wanted.open_outputs, limit)


def _constant(gold: str, wanted: GoldCircuit, bit: str) -> str:
    """A module with the ports of the gold and constant outputs."""
    if wanted.table is not None:
        inputs = [(name, 1) for name in wanted.table.inputs]
        outputs = [(name, 1) for name in wanted.table.outputs]
    else:
        net = _gold_netlist(gold)
        inputs, outputs = net.ports("input"), net.ports("output")
    ports = [f"input [{width - 1}:0] {name}" if width > 1 else f"input {name}" for name, width in inputs]
    ports += [f"output [{width - 1}:0] {name}" if width > 1 else f"output {name}" for name, width in outputs]
    body = "\n".join(f"assign {name} = {width}'b{bit * width};" for name, width in outputs)
    return f"module {wanted.top}({', '.join(ports)});\n{body}\nendmodule"
