"""Random simulation of two sequential circuits side by side, many runs at a time as the bits of Python's integers.

It finds late differences, of a counter say, that are too deep for a proof. Yosys writes the circuits as an
and-inverter graph in AIGER's text format (Biere, "The AIGER And-Inverter Graph Format", 2007).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from motif.grading.circuit.netlist import Netlist

LANES = 256  # runs at a time
ALL = (1 << LANES) - 1
EPOCHS = range(3, 16)  # binary logarithms of the steps for which an input keeps its habits

SCRIPT = ("techmap -map /box/techmap.v", "simplemap", "opt_clean", "aigmap", "opt_clean")
WRITE = "write_aiger -ascii -symbols /box/miter.aag"

_OPEN = re.compile(r"'[01]*[xz]|cell \$(?:div|mod)")


@dataclass(frozen=True)
class Graph:
    """An and-inverter graph. A literal is twice a variable, plus one where it is inverted."""

    inputs: list[int]
    latches: list[tuple[int, int, int]]  # literal, next, value at the start (its own literal: any)
    outputs: list[int]
    gates: list[tuple[int, int, int]]
    names: dict[str, str]  # i0, o3, …


def has_open_values(*netlists: Netlist) -> bool:
    """Whether a circuit may give x, which runs with 0 and 1 only cannot tell apart."""
    return any(_OPEN.search(net.rtlil) for net in netlists)


def read_graph(text: str) -> Graph:
    """Read AIGER's text format.

    Raises:
        ValueError: it is something else.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("aag "):
        raise ValueError("not an and-inverter graph")
    inputs, latches, outputs, gates = map(int, lines[0].split()[2:6])
    rows = [list(map(int, line.split())) for line in lines[1 : 1 + inputs + latches + outputs + gates]]
    ends = [inputs, inputs + latches, inputs + latches + outputs]
    names = dict(line.split(" ", 1) for line in lines[1 + len(rows) :] if line[:1] in "io" and " " in line)
    return Graph(
        [row[0] for row in rows[: ends[0]]],
        [(row[0], row[1], row[2] if len(row) > 2 else 0) for row in rows[ends[0] : ends[1]]],
        [row[0] for row in rows[ends[1] : ends[2]]],
        [(row[0], row[1], row[2]) for row in rows[ends[2] :]],
        names,
    )


def find_difference(graph: Graph, clocks: Collection[str], reset: Mapping[str, int], held: int, seconds: float) -> str:
    """Run both circuits with random inputs until the output `trigger` is 1; empty if it never was.

    Args:
        clocks: one-bit inputs that change in every step.
        reset: inputs that are held at these values for the first `held` steps, in which nothing is compared.
    """
    draw = random.Random(0)
    names = [graph.names[f"i{place}"].removeprefix("in_") for place in range(len(graph.inputs))]
    trigger = next(place for place in range(len(graph.outputs)) if graph.names[f"o{place}"] == "trigger")
    values = [0] * (2 + max([0, *graph.inputs, *(latch[0] for latch in graph.latches), *(g[0] for g in graph.gates)]))
    for literal, _, start in graph.latches:
        _put(values, literal, draw.getrandbits(LANES) if start == literal else ALL * start)
    values[1] = ALL
    habits: list[tuple[int, int]] = []
    end, step, left = time.thread_time() + seconds, 0, 0
    while time.thread_time() < end:
        step, left = step + 1, left - 1
        if left < 0:
            left = 1 << draw.choice(EPOCHS)
            habits = [(draw.getrandbits(LANES), draw.getrandbits(LANES)) for _ in names]
        for literal, name, (kept, high) in zip(graph.inputs, names, habits, strict=True):
            if name in clocks:
                value = ALL * (1 - step % 2)
            elif step <= held and name in reset:
                value = ALL * reset[name]
            else:
                value = (draw.getrandbits(LANES) & ~kept) | (kept & high)
            _put(values, literal, value & ALL)
        for literal, one, other in graph.gates:
            _put(values, literal, values[one] & values[other])
        if step > held and (differ := values[graph.outputs[trigger]]):
            return _told(graph, values, differ & -differ, step)
        for latch, value in [(latch[0], values[latch[1]]) for latch in graph.latches]:
            _put(values, latch, value)
    return ""


def _put(values: list[int], literal: int, value: int) -> None:
    values[literal], values[literal ^ 1] = value, value ^ ALL


def _told(graph: Graph, values: list[int], lane: int, step: int) -> str:
    def bits(kind: str, literals: list[int]) -> dict[str, int]:
        return {graph.names[f"{kind}{place}"]: int(bool(values[one] & lane)) for place, one in enumerate(literals)}

    given, outputs = bits("i", graph.inputs), bits("o", graph.outputs)
    differ = [
        f"{name[5:]} is {outputs['gate_' + name[5:]]}, should be {value}"
        for name, value in outputs.items()
        if name.startswith("gold_") and outputs["gate_" + name[5:]] != value
    ]
    shown = " ".join(f"{name[3:]}={value}" for name, value in given.items())
    return f"in half cycle {step}, {shown}: {'; '.join(differ)}"
