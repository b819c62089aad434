"""From Verilog to a checked netlist: what Yosys makes of a module, and whether that circuit can be compared."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from motif.grading.circuit.yosys import Yosys, YosysResult

_STATE_WORDS = """
$adff $adffe $adlatch $aldff $aldffe $dff $dffe $dffsr $dffsre $dlatch $dlatchsr $sdff $sdffce $sdffe $sr
"""
STATE = frozenset(_STATE_WORDS.split())
_GATES_WORDS = """
$add $and $bmux $demux $div $divfloor $eq $ge $gt $le $logic_and $logic_not $logic_or $lt $mod $modfloor
$mul $mux $ne $neg $not $or $pmux $pos $reduce_and $reduce_bool $reduce_or $reduce_xnor $reduce_xor $shift $shiftx
$shl $shr $sshl $sshr $sub $xnor $xor
"""
GATES = frozenset(_GATES_WORDS.split())
# `check` finds loops, and nets with two drivers or none; `proc` runs without the passes that read x as don't care.
SCRIPT = """\
read_verilog -sv -nopp /box/module.v
hierarchy -check -top {top}
proc -norom -noopt
flatten -noscopeinfo
hierarchy -check -top {top}
memory_collect
memory_map
check -assert
rename -top {name}
write_json /box/net.json
write_rtlil /box/net.il
"""


class Unusable(Exception):
    """A circuit that cannot be compared; the message says why."""


@dataclass(frozen=True)
class Netlist:
    """A flat module in Yosys's own language, its ports as (name, direction, width), and its memory elements."""

    name: str
    rtlil: str
    all_ports: tuple[tuple[str, str, int], ...]
    clocks: tuple[str, ...]
    """The one-bit inputs that clock a register directly."""
    state: tuple[str, ...]
    """The kinds of its registers and latches."""

    @property
    def has_state(self) -> bool:
        """Whether it has registers or latches."""
        return bool(self.state)

    def ports(self, direction: str) -> list[tuple[str, int]]:
        """Names and widths of the inputs or outputs."""
        return [(name, width) for name, kind, width in self.all_ports if kind == direction]

    def renamed(self, name: str) -> Netlist:
        """The same netlist under another module name."""
        return replace(self, name=name, rtlil=re.sub(rf"(?m)^module \\{self.name}$", rf"module \\{name}", self.rtlil))

    def difference(self, answer: Netlist) -> str:
        """Why the answer cannot equal this circuit, whatever it computes; empty if it may."""
        ours, theirs = set(self.all_ports), set(answer.all_ports)
        if ours != theirs:
            listed = [", ".join(_port(port) for port in sorted(ports)) for ports in (theirs - ours, ours - theirs)]
            return f"the ports differ: has {listed[0] or 'nothing else'}, should have {listed[1] or 'nothing else'}"
        if answer.has_state and not self.has_state:
            latch = any("latch" in kind for kind in answer.state)
            return f"{'a latch is inferred' if latch else 'has a register'}, but the requested circuit has no memory"
        return ""


def netlist(yosys: Yosys, text: str, top: str, name: str, limit: float) -> Netlist:
    """Read cleaned Verilog and check it.

    Raises:
        Unusable: Yosys refuses it, exceeds `limit` seconds or its memory, or finds a part that cannot be compared.
    """
    run = yosys.run(SCRIPT.format(top=top, name=name), {"module.v": text + "\n"}, ("net.json", "net.il"), limit)
    if run.ended != "ok":
        raise Unusable(_message(run, limit))
    try:
        module = json.loads(run.files["net.json"])["modules"][name]
    except (ValueError, KeyError):
        raise Unusable("too large to compare") from None
    kinds = {cell["type"] for cell in module["cells"].values()}
    unknown = sorted(kinds - STATE - GATES)
    if unknown or module.get("memories"):
        raise Unusable(f"has parts that cannot be compared: {', '.join(unknown) or 'a memory'}")
    ports = tuple((port, entry["direction"], len(entry["bits"])) for port, entry in module["ports"].items())
    return Netlist(name, run.files["net.il"], ports, _clocks(module), tuple(sorted(kinds & STATE)))


def _clocks(module: dict[str, Any]) -> tuple[str, ...]:
    used = {bit for cell in module["cells"].values() for bit in cell["connections"].get("CLK", [])}
    return tuple(
        name
        for name, entry in module["ports"].items()
        if entry["direction"] == "input" and len(entry["bits"]) == 1 and entry["bits"][0] in used
    )


def _message(run: YosysResult, limit: float) -> str:
    if run.ended == "time":
        return f"too costly: not read in {limit:g} s"
    if run.ended != "error":
        return "too costly: Yosys ran out of memory or stack"
    error = next((line for line in run.problems.splitlines() if "ERROR" in line), "Yosys refused it")
    if "check -assert" in error:
        # The error only counts the problems; the log has the first of them.
        error = next((line for line in run.log.splitlines() if line.startswith("Warning:")), error)
    if "No top module found" in error:
        error = "an empty module"
    return re.sub(r"^(?:\S*:(\d+):\s*)?(?:ERROR|Warning):\s*", r"\1 ", error).strip()


def _port(port: tuple[str, str, int]) -> str:
    name, direction, width = port
    return f"{direction} {name}" + (f"[{width}]" if width > 1 else "")
