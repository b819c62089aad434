"""Equal circuits: an answer in Verilog is right if it is proved to do what the gold does, for all inputs.

A gold is a JSON object, `{"truth_table": {"inputs": ["a", "b"], "outputs": ["y"], "rows": {"00": "0", …}}}` (the value
of a row is one character 0, 1 or - for each output, - where the output does not matter) or
`{"verilog": "module …", "reset": {"rst_n": 0}}` (`reset` may be left out), or a bare Verilog module. An answer is the
module in the text, or, for a table with one output, an expression of its inputs.

Right takes three things. Every token is on the allow-list of `motif.grading.verilog`. The ports are the gold's by name,
direction and width. And it is equivalent:

* One-bit modules of up to eight inputs in a small grammar are compared by their whole truth tables (`boolean`).
* Combinational circuits: no input makes the outputs of a miter differ, by SAT, where a bit that is x equals only x.
* Circuits with registers or latches: the clock is made an input like others (`clk2fflogic`), so that another edge or
  another clock is another circuit. Registers start in any state that their initial values allow; the resets are held
  for the fewest cycles (0, 1, 2, 4 or 8) after which the gold is determined by its inputs; from then on all inputs are
  free and the outputs must be equal for ever, by temporal induction of at most `INDUCTION` half cycles.

A counterexample makes an answer wrong and is the reason given. An answer that has not been proved and has no known
counterexample either is ungraded. One that Yosys refuses, or cannot read in `READ_LIMIT` seconds, is wrong.
"""

from __future__ import annotations

import atexit
import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from motif.grading import boolean, verilog
from motif.grading.netlist import Netlist, Unusable, netlist
from motif.grading.verdict import Grade
from motif.grading.yosys import Yosys

TIME_LIMIT = 90.0  # seconds for one answer: reading the gold and the answer, settling, proving
MEMORY = 32 << 30  # bytes of address space, most of it only reserved: about 0.3 GB is used, 1.8 GB while compiling
READ_LIMIT = 5.0  # seconds for what takes milliseconds with a circuit of sensible size
PROVE_LIMIT = 20.0  # seconds
SETTLE_LIMIT = 5.0  # seconds for each number of cycles of reset that is tried
INDUCTION = 24  # steps, two to a clock cycle
CYCLES = (0, 1, 2, 4, 8)
LONGEST = 200_000  # characters of an answer; what is taken for Verilog may have verilog.LONGEST
LONGEST_REASON = 200
MOST_ROWS = 1 << 12
MOST_OUTPUTS = 32

_RESET_NAME = re.compile(r"(?:i_)?(?:a|s|sys_?|async_?|sync_?)?(?:rst|reset|clr|clear)(?P<low>_?[nb])?(?:_i)?", re.I)
_ASSIGNED = re.compile(r"(?:assign\s+)?(?P<name>[A-Za-z_]\w*)\s*=(?!=)(?P<rest>.*)", re.DOTALL)


class BadGold(ValueError):
    """A gold answer that cannot be used; the message says why."""


@dataclass(frozen=True)
class Gold:
    """A gold answer as a module, and as truth tables where it is small enough to have them."""

    text: str
    top: str
    reset: dict[str, int] = field(default_factory=dict, hash=False)
    table: boolean.Module | None = field(default=None, hash=False)
    care: dict[str, int] = field(default_factory=dict, hash=False)
    """For each output the rows that count, as a bit mask like a table; empty: all."""
    open_outputs: bool = False
    """Whether an x in the text leaves an output open (a table's -)."""
    expression: bool = False
    """Whether a bare expression is an answer."""


# --- the grader --------------------------------------------------------------------------------------------------


def grade(gold: str, prediction: str) -> Grade:
    """Right, wrong with a reason, or ungraded with a reason. May take `TIME_LIMIT` seconds.

    Raises:
        RuntimeError: Yosys is needed and not installed.
    """
    return quick(gold, prediction) or by_yosys(gold, prediction)


def quick(gold: str, prediction: str) -> Grade | None:
    """The verdict where Yosys is not needed: nothing to read, something refused, or a small one-bit circuit."""
    try:
        wanted = read_gold(gold)
    except BadGold as error:
        return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
    try:
        text = _answer(wanted, prediction)
    except verilog.Refused as error:
        return _wrong(str(error))
    if wanted.table is None:
        return None
    try:
        found = boolean.module(text, wanted.table.inputs)
    except boolean.Unsupported:
        return None
    return _compare_tables(wanted.table, wanted.care, found)


def by_yosys(gold: str, prediction: str) -> Grade:
    """The verdict of Yosys alone, whatever `quick` would say.

    Raises:
        RuntimeError: Yosys is not installed.
    """
    try:
        wanted = read_gold(gold)
        wanted_net = _gold_netlist(gold)
    except BadGold as error:
        return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
    try:
        text = _answer(wanted, prediction)
        names = verilog.module_names(text)
        found = netlist(_yosys(), text, wanted.top if wanted.top in names else names[-1], "gate", READ_LIMIT)
    except (verilog.Refused, Unusable) as error:
        return _wrong(str(error))
    problem = wanted_net.difference(found)
    if problem:
        return _wrong(problem)
    return _prove(wanted_net, found, wanted, _cycles(gold) if wanted_net.has_state else 0, PROVE_LIMIT)


def prepare() -> None:
    """Load Yosys, compiling it on first use (a minute or more).

    Raises:
        RuntimeError: it is not installed; the message says how to install it.
    """
    _yosys()


def check_gold(gold: str) -> Grade:
    """Right if the gold is a usable answer to itself, and not everything is: no answer fails, and so do constants.

    A gold may be a constant circuit, but not 0 and 1 at once, which would show that its proofs prove nothing.

    Raises:
        RuntimeError: Yosys is needed and not installed.
    """
    try:
        wanted = read_gold(gold)
    except BadGold as error:
        return Grade("ungraded", f"the gold answer: {error}"[:LONGEST_REASON])
    if wanted.open_outputs:
        # The x of its own open outputs would be refused as an answer; a table cannot fail to equal itself.
        own = Grade("right")
    else:
        own = grade(gold, wanted.text)
    if own.verdict != "right":
        return Grade("ungraded", f"the gold answer does not pass as an answer: {own.reason}"[:LONGEST_REASON])
    if grade(gold, "").verdict == "right":
        return Grade("ungraded", "no answer at all passes for this gold")
    if all(grade(gold, _constant(gold, wanted, bit)).verdict == "right" for bit in "01"):
        return Grade("ungraded", "constant 0 and constant 1 both pass for this gold")
    return own


@functools.cache
def _yosys() -> Yosys:
    atexit.register(_yosys.cache_clear)  # its parts cannot be freed once the interpreter is going down
    return Yosys()


def _wrong(reason: str) -> Grade:
    return Grade("wrong", " ".join(reason.split())[:LONGEST_REASON])


# --- golds and answers as text -----------------------------------------------------------------------------------


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
        cleaned = verilog.clean(verilog.extract(text))
        names = verilog.module_names(cleaned)
    except verilog.Refused as error:
        raise BadGold(str(error)) from None
    good = isinstance(reset or {}, dict) and all(
        verilog.is_identifier(str(name)) and value in (0, 1) for name, value in (reset or {}).items()
    )
    if not good:
        raise BadGold(f'"reset" must give each reset input its active value, 0 or 1, not {reset!r}')
    try:
        table = boolean.module(cleaned)
    except boolean.Unsupported:
        table = None
    return Gold(cleaned, names[-1], dict(reset or {}), table)


def _table_gold(data: dict[str, Any]) -> Gold:
    inputs, outputs, rows = data.get("inputs"), data.get("outputs"), data.get("rows")
    for names in (inputs, outputs):
        if not isinstance(names, list) or not names or not all(verilog.is_identifier(str(name)) for name in names):
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
    small = len(inputs) <= boolean.MOST_INPUTS
    return Gold(
        text=_table_module(inputs, outputs, keys, values),
        top="top",
        table=boolean.Module("top", tuple(inputs), tuple(outputs), tables) if small else None,
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


def _answer(gold: Gold, prediction: str) -> str:
    """The answer as cleaned Verilog.

    Raises:
        verilog.Refused: there is none, or it has a token that is not allowed.
    """
    if not prediction.strip():
        raise verilog.Refused("empty")
    if len(prediction) > LONGEST:
        raise verilog.Refused(f"too long: {len(prediction)} characters")
    text = verilog.extract(prediction)
    if not verilog.is_module(text):
        if not gold.expression:
            raise verilog.Refused("no module")
        text = _expression_module(gold, text)
    cleaned = verilog.clean(text)
    verilog.module_names(cleaned)
    return cleaned


def _expression_module(gold: Gold, text: str) -> str:
    cleaned = verilog.clean(text).strip().removesuffix(";")
    inputs, outputs = _ports(gold)
    output = outputs[0]
    assigned = _ASSIGNED.fullmatch(cleaned)
    if assigned and assigned["name"] != output:
        raise verilog.Refused(f"assigns {assigned['name']}, not {output}")
    if assigned:
        cleaned = assigned["rest"]
    if ";" in cleaned or not cleaned.strip():
        raise verilog.Refused("neither a module nor an expression")
    ports = ", ".join(f"input {name}" for name in inputs)
    return f"module top({ports}, output {output});\nassign {output} = {cleaned};\nendmodule"


def _ports(gold: Gold) -> tuple[list[str], list[str]]:
    """The ports of a table's own module, as `_table_module` writes them."""
    header = gold.text.partition(");")[0]
    return re.findall(r"input (\w+)", header), re.findall(r"output reg (\w+)", header)


def _constant(gold: str, wanted: Gold, bit: str) -> str:
    """A module with the gold's ports whose outputs are constant."""
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


# --- the verdict -------------------------------------------------------------------------------------------------


def _compare_tables(wanted: boolean.Module, care: dict[str, int], found: boolean.Module) -> Grade:
    for kind, ours, theirs in (("input", wanted.inputs, found.inputs), ("output", wanted.outputs, found.outputs)):
        if set(ours) != set(theirs):
            return _wrong(f"the {kind}s are {', '.join(theirs) or 'none'}, should be {', '.join(ours)}")
    for name, table in wanted.tables.items():
        differ = (table ^ found.tables[name]) & care.get(name, -1)
        if differ:
            row = (differ & -differ).bit_length() - 1
            place = f"{row:0{len(wanted.inputs)}b}" if wanted.inputs else ""
            given = " ".join(f"{port}={bit}" for port, bit in zip(wanted.inputs, place, strict=True))
            return _wrong(f"{given}: {name} is {found.tables[name] >> row & 1}, should be {table >> row & 1}")
    return Grade("right")


@functools.lru_cache(maxsize=256)
def _gold_netlist(gold: str) -> Netlist:
    wanted = read_gold(gold)
    try:
        return netlist(_yosys(), wanted.text, wanted.top, "gold", READ_LIMIT)
    except Unusable as error:
        raise BadGold(str(error)) from None


@functools.lru_cache(maxsize=256)
def _cycles(gold: str) -> int:
    """Cycles of reset after which two copies of the gold that start differently are equal for ever; -1: not known."""
    wanted, net = read_gold(gold), _gold_netlist(gold)
    for cycles in CYCLES:
        if _prove(net, net.renamed("gate"), wanted, cycles, SETTLE_LIMIT).verdict == "right":
            return cycles
    return -1


def _prove(gold: Netlist, answer: Netlist, wanted: Gold, cycles: int, limit: float) -> Grade:
    if cycles < 0:
        return Grade(
            "ungraded",
            f"the gold answer: not determined by its inputs after {CYCLES[-1]} cycles of reset; "
            'name its resets in "reset"',
        )
    sequential = gold.has_state or answer.has_state
    options = "-enable_undef -set-def-inputs"
    if sequential:
        options += " -set-init-def" + _held(gold, wanted.reset or guessed_reset(gold), cycles)
        possible = f"sat {options} -seq {max(1, 2 * cycles)} miter"
        proof = f"sat {options} -tempinduct-def -seq {2 * cycles} -maxsteps {INDUCTION}"
    else:
        possible = f"sat {options} miter"
        proof = f"sat {options}"
    script = [
        "read_rtlil /work/gold.il",
        "read_rtlil /work/gate.il",
        f"miter -equiv -make_outputs -flatten {'-ignore_gold_x ' if wanted.open_outputs else ''}gold gate miter",
        "hierarchy -top miter",
        *(["clk2fflogic"] if sequential else []),
        # Were the constraints impossible, everything would follow from them.
        f"tee -o /work/possible {possible}",
        f"tee -o /work/proof {proof} -timeout {limit:.0f} -show-inputs -show-outputs -prove trigger 0 miter",
    ]
    files = {"gold.il": gold.rtlil, "gate.il": answer.rtlil}
    run = _yosys().run("\n".join(script) + "\n", files, ("possible", "proof"), limit)
    proof_log = run.files["proof"]
    if "- model found: FAIL!" in proof_log or "model found for base case: FAIL!" in proof_log:
        return _wrong(_counterexample(proof_log))
    if run.ended == "time" or "TIMEOUT" in proof_log:
        return Grade("ungraded", f"neither proved nor refuted in {limit:g} s")
    proved = "no model found: SUCCESS!" in proof_log or "Induction step proven: SUCCESS!" in proof_log
    if run.ended == "ok" and proved and "- model found:" in run.files["possible"]:
        return Grade("right")
    if "Reached maximum number of time steps" in proof_log:
        return Grade("ungraded", f"neither proved nor refuted by induction over {INDUCTION // 2} cycles")
    return Grade("ungraded", f"Yosys ended with: {run.problems.strip() or run.ended}"[:LONGEST_REASON])


def guessed_reset(gold: Netlist) -> dict[str, int]:
    """The one-bit inputs named like a reset, with the active value that the name says (rst_n is active at 0)."""
    named = [(name, _RESET_NAME.fullmatch(name)) for name, width in gold.ports("input") if width == 1]
    return {name: int(not match["low"]) for name, match in named if match}


def _held(gold: Netlist, reset: dict[str, int], cycles: int) -> str:
    held = ""
    for step in range(1, 2 * cycles + 1):
        for clock in gold.clocks:
            held += f" -set-at {step} in_{clock} {1 - step % 2}"
        for name, value in reset.items():
            held += f" -set-at {step} in_{name} {value}"
    return held


def _counterexample(log: str) -> str:
    """The inputs, and both values of the outputs that differ, in the last time step of the model in a log."""
    values: dict[str, str] = {}
    step = ""
    for line in log.splitlines():
        match = re.match(r"\s+(?:(\d+)\s+)?\\(\S+)\s+\S+\s+\S+\s+([01x]+)\s*$", line)
        if match:
            step = match[1] or ""
            values[match[2]] = match[3]
    given = [f"{name[3:]}={value}" for name, value in values.items() if name.startswith("in_")]
    differ = [
        f"{name[5:]} is {values.get('gate_' + name[5:], '?')}, should be {value}"
        for name, value in values.items()
        if name.startswith("gold_") and value != values.get("gate_" + name[5:])
    ]
    return f"{f'in half cycle {step}, ' if step else ''}{' '.join(given)}: {'; '.join(differ)}"
