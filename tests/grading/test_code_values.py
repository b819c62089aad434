"""The values that programs return, and when two of them are equal."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.grading.code import inside, rule, seccomp, unit_tests, values
from support.programs import gold, judged

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False)
    | st.binary(max_size=5),
    lambda below: (
        st.lists(below, max_size=4)
        | st.lists(below, max_size=4).map(tuple)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.none(), below, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.frozensets(st.frozensets(st.integers(), max_size=3), max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(PLAIN, PLAIN)
def test_values_equal_themselves_and_little_else(one, two):
    first, second = (json.loads(json.dumps(inside.encode(value))) for value in (one, two))
    assert values.well_formed(first)
    assert values.same(first, first)
    if values.same(first, second):
        assert values.same(second, first)
    assert len(values.show(first)) <= values.SHOWN


@pytest.mark.parametrize(
    "wanted, found, equal",
    [
        (3, 3.0, True),
        (0.3, 0.1 + 0.2, True),
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.00001, False),
        (0.0, 1e-10, True),
        (1, True, False),
        (True, 1, False),
        (None, False, False),
        ([1, 2], (1, 2), False),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ("a", b"a", False),
        ({1, 2}, {2, 1}, True),
        ({1, 2}, frozenset([1, 2]), True),
        ({1, 2}, [1, 2], False),
        ({1.0}, {1}, False),
        ({"a": 1, "b": [0.3]}, {"b": [0.1 + 0.2], "a": 1.0}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({1: 1}, {1.0: 1}, False),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (math.nan, math.nan, False),
        (10**400, 1e308, False),
        (10**400, 10**400, True),
        (1 + 2j, 1 + 2j, True),
        (1 + 2j, 1 - 2j, False),
        ("", None, False),
        ([], (), False),
        ([[]], [[]], True),
    ],
)
def test_equality(wanted, found, equal):
    assert values.same(inside.encode(wanted), inside.encode(found)) is equal


def test_a_tolerance_of_its_own():
    loose = unit_tests.read_gold(gold("assert math.isclose(f(1), 100, rel_tol=0.01)")).tests[0]
    assert loose.passes(inside.encode(100.9))
    assert not loose.passes(inside.encode(102.0))


def test_a_solution_is_judged_within_a_tolerance(boxed):
    assert judged("def f(): return 0.1 + 0.2", "assert f() == 0.3").verdict == "right"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "null",
        "[]",
        "[1, 2, 3]",
        '["value"]',
        '["value", ["int", 3]]',
        '["value", 3]',
        '["value", ["int", "3"]]',
        '["value", ["int", "0x3 "]]',
        '["value", ["int", "0x_3"]]',
        '["value", ["float", "3"]]',
        '["value", ["float", "' + "1" * 900_000 + '"]]',
        '["value", ["list"]]',
        '["value", []]',
        '["value", {"a": 1}]',
        '["value", ["dict", 1]]',
        '["value", ["dict", ["a"]]]',
        '["value", ["set", ["set", ["odd", []]]]]',
        '["error", 3]',
        '["value", ' + "[" * 100_000,
        '["value", ' + '["list", ' * 900 + "1" + "]" * 901,
        '["value", ["list"' + ', ["int", "0x1"]' * 30_000 + "]]",
        '["value", ' + "9" * 900_000 + "]",
        '["value", ["int", "0x' + "9" * 900_000 + '"]]',
        '["value", ["set"' + "".join(f', ["int", "{hex(n * (2**61 - 1))}"]' for n in range(20_000)) + "]]",
    ],
    ids=lambda reply: reply[:24],
)
def test_hostile_replies_are_wrong_at_once(reply):
    test = unit_tests.read_gold(gold("assert f(2) == 3")).tests[0]
    started = time.process_time()
    assert rule._problem(test, reply)
    assert time.process_time() - started < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["0x1", "1.0"]),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.text(max_size=3), below, max_size=2)
        | st.tuples(st.sampled_from(["int", "float", "complex", "bytes", "list", "tuple", "set", "dict"]), below).map(
            list
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(JSON, PLAIN)
def test_any_reply_is_judged_without_error(content, wanted):
    test = unit_tests.UnitTest("f()", inside.encode(wanted))
    for reply in (json.dumps(["value", content]), json.dumps(["error", content]), json.dumps(content)):
        assert isinstance(rule._problem(test, reply), str)
    if values.well_formed(content):
        values.same(content, test.expected)
        assert len(values.show(content)) <= values.SHOWN


def test_a_reason_is_one_line_that_can_be_written(boxed):
    reason = judged("def f(x): raise ValueError('a\\n\\nb \\ud800 \\x00')").reason
    assert reason.encode().decode() == reason
    assert reason.startswith("f(2): ValueError: a b \\ud800")


def test_the_filter_is_the_kernels_format():
    for machine in seccomp.MACHINES:
        assert len(seccomp.program(machine)) % 8 == 0
        assert len(seccomp.program(machine)) < 4096  # fits a pipe
    with pytest.raises(KeyError):
        seccomp.program("vax")
