"""Grading programs: the right ones pass, the others are wrong and say why.

The tests that run programs are skipped where there is no sandbox. CI has one from `apt-get install bubblewrap`.
"""

import json
import math
import statistics
import time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import pytest

from motif.grading.code import inside, rule, sandbox, unit_tests
from motif.grading.verdict import Grade
from support.programs import CODE, SUCCESSOR, gold, judged, reported

# -- ordinary programs -------------------------------------------------------------------------------------------------


def test_right_and_wrong(boxed):
    assert judged(SUCCESSOR) == Grade("right")
    assert judged(f"I think\n```python\n{SUCCESSOR}```\nworks.") == Grade("right")
    assert judged("def f(x): return x + 2") == Grade("wrong", "f(2): returned 4")
    assert judged("def f(x): return x + 1 if x > 0 else 9") == Grade("wrong", "f(-1): returned 9")
    assert judged("def f(x): raise ValueError('no')") == Grade("wrong", "f(2): ValueError: no")
    assert judged("def g(x): return x") == Grade("wrong", "f(2): NameError: name 'f' is not defined")
    assert judged("def f(x) return").reason.startswith("f(2): SyntaxError: expected ':'")
    assert judged("def f(x): return (y for y in [x])").reason == "f(2): TypeError: a generator is not plain data"


def test_reasons_hold_no_wanted_value(boxed):
    grade = judged("def f(x): return 0", "assert f(2) == 31415", "assert f(3) == 27182")
    assert grade.reason == "f(2): returned 0"


def test_what_a_program_may_use(boxed):
    program = """
        import collections, dataclasses, functools, heapq, itertools, json, math, re, string, typing, decimal, fractions

        @dataclasses.dataclass(order=True)
        class Point:
            x: int

        @functools.cache
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        def f(text):
            print("a note to myself")
            points = sorted([Point(2), Point(1)])
            return collections.Counter(text), {fibonacci(80)}, [point.x for point in points], (math.pi, None)

        class Stack:
            def __init__(self, items): self.items = items
            def top(self): return self.items[-1]

        if __name__ == "__main__":
            raise SystemExit(input())
    """
    tests = [
        "assert f('aab') == ({'b': 1, 'a': 2}, {23416728348467685}, [1, 2], (3.14159265, None))",
        "assert Stack([1, 2]).top() == 2",
        "assert len(f('b')) == 4",
    ]
    assert judged(program, *tests) == Grade("right")


def test_files_in_the_scratch_folder(boxed):
    program = """
        import os, tempfile
        def f():
            with open("a.txt", "w") as file: file.write("kept")
            with tempfile.TemporaryFile() as file: file.write(b"x")
            return open("a.txt").read(), os.listdir(".")
        def g():
            written = 0
            try:
                for n in range(100):
                    with open(f"big{n}", "wb") as file: written += file.write(bytes(1 << 20))
            except OSError as error:
                return written <= 16 << 20, error.errno
    """
    assert judged(program, "assert f() == ('kept', ['a.txt'])", "assert g() == (True, 28)") == Grade("right")  # ENOSPC
    assert reported("import os\ndef f(): return os.listdir('.')") == "[]"  # a new folder each time


def test_sets_come_in_the_same_order_every_time(boxed):
    program = "def f(): return ''.join({'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta'})"
    assert len({reported(program) for _ in range(4)}) == 1


def processor_time() -> float:
    """Seconds of this process and of those that it has waited for, whatever else the machine does."""
    return sum(time for who in (RUSAGE_SELF, RUSAGE_CHILDREN) for time in getrusage(who)[:2])


def test_it_is_quick(boxed, capsys):
    seconds = []
    for _ in range(7):
        started = processor_time()
        assert judged(SUCCESSOR).verdict == "right"
        seconds.append(processor_time() - started)
    with capsys.disabled():
        print(f" [a trivial program takes {statistics.median(seconds) * 1000:.0f} ms] ", end="")
    assert statistics.median(seconds) < 0.5


# -- what is run, and against what -------------------------------------------------------------------------------------


def test_quick_needs_no_process(monkeypatch):
    monkeypatch.setattr(sandbox, "run", lambda *_: pytest.fail("ran something"))
    assert CODE.quick(gold(), SUCCESSOR) is None
    assert CODE.grade(gold(), " \n ") == Grade("wrong", "empty")
    assert CODE.grade(gold(), "```python\n```") == Grade("wrong", "empty")
    assert CODE.grade(gold(), "x" * 30_000) == Grade("wrong", "too long: 30000 characters")
    assert CODE.grade(gold(), "x" * 3_000_000) == Grade("wrong", "too long: 3000000 characters")
    assert CODE.grade(gold(entry_point="f"), "g = 1") == Grade("wrong", "does not define f")


@pytest.mark.parametrize(
    "text, found",
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb", "x = 1"),
        ("```py\nx = 1\n```\n```Python\nx = 2\n```", "x = 2"),
        ("```python\nx = 1\n```\nwhich prints\n```\n1\n```", "x = 1"),
        ("```\nx = 1\n```\n```json\n{}\n```", "x = 1"),
        ("1. so\n   ```python\n   if a:\n       b\n   ```", "if a:\n    b"),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1"),
        ("so\n```python\nx = 2", "x = 2"),
        ("```python\nx = 1\n```python\nx = 2\n```", "x = 2"),
    ],
)
def test_the_last_block_counts(text, found):
    assert rule.program(text) == found


def test_blocks_are_found_in_linear_time():
    started = time.process_time()
    for unit in ("```python\n", "```", "``` ```\n", "\n"):
        rule.program(unit * (200_000 // len(unit)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "line, call, expected",
    [
        ("assert f(2) == 3", "f(2)", 3),
        ("assert 3 == f(2)", "f(2)", 3),
        ("assert f(2) == 3, 'should be three'", "f(2)", 3),
        ("assert f([1, -2], key={'a': (1,)}) is None", "f([1, -2], key={'a': (1,)})", None),
        ("assert set(f((1, 2))) == set((2, 1))", "set(f((1, 2)))", {1, 2}),
        ("assert sorted(f('a'), reverse=True) == [1]", "sorted(f('a'), reverse=True)", [1]),
        ("assert Stack([1]).pop() == 1", "Stack([1]).pop()", 1),
        ("assert solution.f(1) == 1.5", "solution.f(1)", 1.5),
        ("assert f(float('inf')) == float('-inf')", "f(float('inf'))", -math.inf),
        ("assert math.isclose(f(1), 2.0)", "f(1)", 2.0),
        ("assert f() == set()", "f()", set()),
    ],
)
def test_assertions_are_taken_apart(line, call, expected):
    test = unit_tests.read_gold(gold(line)).tests[0]
    assert test.call == call
    assert test.expected == inside.encode(expected)
    assert "expected" not in repr(test)  # reprs end up in messages


@pytest.mark.parametrize(
    "test, problem",
    [
        ("assert f(2)", "test 1 does not compare a call with a value by =="),
        ("assert f(2) != 3", "test 1 does not compare a call with a value by =="),
        ("assert f(2) == 3 == 3", "test 1 does not compare a call with a value by =="),
        ("assert abs(f(2) - 3.5) < 1", "test 1 does not compare a call with a value by =="),
        ("assert (f(2) == 3) == True", "test 1 does not call a function with literal arguments"),
        ("assert abs(f(2) - 3) == 0", "test 1 does not call a function with literal arguments"),
        ("assert f(2, 3 == 3) == 0", "test 1 does not call a function with literal arguments"),
        ("assert f(x) == 3", "test 1 does not call a function with literal arguments"),
        ("assert f(lambda: 3) == 3", "test 1 does not call a function with literal arguments"),
        ("assert 2 == 3", "test 1 does not call a function with literal arguments"),
        ("assert f(2) == g(3)", "test 1 needs a literal instead of 'g(3)'"),
        ("assert f(2) == object", "test 1 needs a literal instead of 'object'"),
        ("for x in [1]: assert f(x) == 3", "test 1 is not one assert statement"),
        ("assert f(1) == 1; assert f(2) == 2", "test 1 is not one assert statement"),
        ("assert f(2 == 3", "test 1 cannot be read (SyntaxError"),
        ("assert f(1) == " + "9" * 5000, "test 1 cannot be read (SyntaxError"),
        ({"call": "f(1)"}, "test 1 has the keys call, not call and expected"),
        ({"call": "f(1)", "expected": 1}, "test 1 needs both as text"),
        ({"call": "f(1)", "expected": "word"}, "test 1 needs a literal instead of 'word'"),
        ({"call": "1 + 1", "expected": "2"}, "test 1 does not call a function"),
        (5, "test 1 is a int, not text or an object"),
    ],
)
def test_a_test_that_cannot_be_used_is_ungraded(test, problem):
    grade = CODE.grade(gold(test, "assert f(2) == 3"), SUCCESSOR)
    assert grade.verdict == "ungraded"
    assert grade.reason.startswith(problem)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "there are no tests"),
        ('{"tests": []}', "there are no tests"),
        ('{"tests": "assert f(2) == 3"}', "there are no tests"),
        ('{"tests": ["assert f(2) == 3"], "test": 1}', "unknown key 'test'"),
        ('{"tests": ["assert f(2) == 3"], "solution": 1}', "solution is a int"),
        (json.dumps({"tests": ["assert f(2) == 3"] * 201}), "201 tests"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_gold_answer_that_is_none_is_ungraded(text, problem):
    grade = CODE.grade(text, SUCCESSOR)
    assert grade.verdict == "ungraded"
    assert problem in grade.reason


def test_a_gold_answer_is_checked_by_its_solution(boxed):
    assert CODE.check_gold(gold(solution=SUCCESSOR)).verdict == "right"
    assert CODE.check_gold(gold()).verdict == "right"
    wrong = CODE.check_gold(gold(solution="def f(x): return 3"))
    assert wrong == Grade("wrong", "its own solution fails: f(-1): returned 3")
    weak = CODE.check_gold(gold("assert f(2) == None", solution="def f(x): return None"))
    assert weak == Grade("wrong", "a function that returns None passes all tests")
    assert CODE.check_gold("{}").verdict == "ungraded"
