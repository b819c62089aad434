"""Unit tests as data: a call to run in the sandbox, and its expected value, which never goes in there.

A test is one line of Python, `assert f(2) == 3`, or an object, `{"call": "f(2)", "expected": "3"}`. These forms of an
assertion can be read, with E for a literal:

    assert CALL == E        assert E == CALL        assert CALL is None (or True, False)
    assert math.isclose(CALL, E)  with rel_tol=… and abs_tol=… of the test's own

CALL is a call of a name or of a method (`f(2)`, `Stack([1]).top()`) with literal arguments, alone or inside calls of
sorted, set, list, tuple, dict, len, sum, min, max, str, round and the like. E may also be set(…), tuple(…), list(…) or
frozenset(…) of a literal, and may contain float("inf"). Everything else is refused, above all loops and comparisons:
the program could read the answer from what it is asked to evaluate.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from motif.grading.code import values
from motif.grading.code.inside import Encoded, encode
from motif.grading.verdict import GoldError

LONGEST_CALL = 5_000  # characters
MOST_TESTS = 200
LARGEST = 500_000  # characters of all calls

# Functions that may stand around the tested call.
_KINDS = ("set", "frozenset", "list", "tuple", "dict", "str", "bool", "int", "float")
_AROUND = frozenset((*_KINDS, "sorted", "len", "sum", "min", "max", "repr", "round", "abs"))
_INFINITIES = ("float('inf')", "float('-inf')")
_MADE_OF: dict[str, Callable[[Any], Any]] = {"set": set, "frozenset": frozenset, "tuple": tuple, "list": list}


@dataclass(frozen=True)
class UnitTest:
    """A call as Python source, its expected value (encoded), and the tolerances of numbers."""

    call: str
    expected: Encoded = field(repr=False)
    relative: float = values.RELATIVE
    absolute: float = values.ABSOLUTE

    def passes(self, value: Encoded) -> bool:
        """Whether this (well-formed) value is the expected one."""
        return values.same(self.expected, value, self.relative, self.absolute)


@dataclass(frozen=True)
class UnitTests:
    """The tests of a question, the function that they test (empty: unknown) and a program that passes (empty: none)."""

    tests: tuple[UnitTest, ...]
    entry_point: str
    solution: str


def read_gold(text: str) -> UnitTests:
    """Read `{"tests": […], "entry_point": …, "solution": …}`; only the tests are required.

    Raises:
        GoldError: not such an object, no test, or a test that cannot be used; the message names the test.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GoldError(f"the gold answer is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise GoldError("the gold answer is not a JSON object")
    unknown = set(data) - {"tests", "entry_point", "solution"}
    if unknown:
        raise GoldError(f"unknown key {sorted(unknown)[0]!r}: known are tests, entry_point and solution")
    given = data.get("tests")
    if not isinstance(given, list) or not given:
        raise GoldError("there are no tests: `tests` is a list of assert lines or of objects with call and expected")
    if len(given) > MOST_TESTS:
        raise GoldError(f"{len(given)} tests, and at most {MOST_TESTS} are run")
    tests = tuple(_read(number, test) for number, test in enumerate(given, start=1))
    if sum(len(test.call) for test in tests) > LARGEST:
        raise GoldError(f"the calls are longer than {LARGEST} characters together")
    return UnitTests(tests, _text(data, "entry_point"), _text(data, "solution"))


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise GoldError(f"{key} is a {type(value).__name__}, not text")
    return value or ""


def _read(number: int, test: Any) -> UnitTest:
    try:
        if isinstance(test, str):
            return _from_assertion(test)
        if isinstance(test, dict):
            return _from_parts(test)
        raise GoldError(f"is a {type(test).__name__}, not text or an object")
    except GoldError as error:
        shown = test if isinstance(test, str) else json.dumps(test, ensure_ascii=False)
        raise GoldError(f"test {number} {error}: {shown[:80]}") from None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise GoldError(f"test {number} cannot be read ({type(error).__name__}: {error})") from None


def _from_parts(test: Mapping[str, Any]) -> UnitTest:
    if set(test) != {"call", "expected"}:
        raise GoldError(f"has the keys {', '.join(sorted(test)) or '(none)'}, not call and expected")
    if not all(isinstance(text, str) for text in test.values()):
        raise GoldError('needs both as text, a value as Python writes it ("[1, 2]", "True", "\'word\'")')
    call, expected = (ast.parse(test[key].strip(), mode="eval").body for key in ("call", "expected"))
    if not _is_tested(call):
        raise GoldError("does not call a function with literal arguments")
    return _unit_test(call, expected)


def _from_assertion(line: str) -> UnitTest:
    body = ast.parse(line.strip()).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise GoldError("is not one assert statement")
    condition = body[0].test
    if isinstance(condition, ast.Call) and ast.unparse(condition.func) in ("math.isclose", "isclose"):
        return _from_isclose(condition)
    if not isinstance(condition, ast.Compare) or len(condition.ops) != 1:
        raise GoldError("does not compare a call with a value by ==")
    left, right = condition.left, condition.comparators[0]
    singleton = isinstance(right, ast.Constant) and (right.value is None or isinstance(right.value, bool))
    if not (isinstance(condition.ops[0], ast.Eq) or (isinstance(condition.ops[0], ast.Is) and singleton)):
        raise GoldError("does not compare a call with a value by ==")
    if not _is_tested(left):
        left, right = right, left
    if not _is_tested(left):
        raise GoldError("does not call a function with literal arguments")
    return _unit_test(left, right)


def _from_isclose(condition: ast.Call) -> UnitTest:
    tolerances = {keyword.arg: _literal(keyword.value) for keyword in condition.keywords}
    if len(condition.args) != 2 or not set(tolerances) <= {"rel_tol", "abs_tol"}:
        raise GoldError("has an isclose without two values and tolerances by name")
    call, expected = condition.args if _is_tested(condition.args[0]) else reversed(condition.args)
    if not _is_tested(call):
        raise GoldError("does not call a function with literal arguments")
    # math.isclose's own defaults
    return _unit_test(call, expected, float(tolerances.get("rel_tol", 1e-9)), float(tolerances.get("abs_tol", 0.0)))


def _unit_test(
    call: ast.expr, expected: ast.expr, relative: float = values.RELATIVE, absolute: float = values.ABSOLUTE
) -> UnitTest:
    source = ast.unparse(call)
    if len(source) > LONGEST_CALL:
        raise GoldError(f"has a call of more than {LONGEST_CALL} characters")
    return UnitTest(source, encode(_expected(expected)), relative, absolute)


def _expected(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MADE_OF:
        return _MADE_OF[node.func.id](*map(_literal, node.args))
    return _literal(node)


def tested_names(source: str) -> set[str]:
    """The names that the call of a test needs from the program: {"f"} for `sorted(f(2))`."""
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return names - _AROUND or names


def _is_tested(node: ast.expr) -> bool:
    """Whether this calls a function of the program, and does nothing else but what `_AROUND` does."""
    if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
        return False
    rest = [*node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node.func, ast.Name) and node.func.id in _AROUND:
        return bool(rest) and _is_tested(rest[0]) and all(_is_literal(argument) for argument in rest[1:])
    function = node.func
    while isinstance(function, ast.Attribute):
        function = function.value
    return (isinstance(function, ast.Name) or _is_tested(function)) and all(map(_is_literal, rest))


def _is_literal(node: ast.expr) -> bool:
    try:
        _literal(node)
    except (GoldError, ValueError, TypeError):
        return False
    return True


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(_Infinities().visit(ast.parse(ast.unparse(node), mode="eval")).body)
    except ValueError:
        raise GoldError(f"needs a literal instead of {ast.unparse(node)[:40]!r}") from None


class _Infinities(ast.NodeTransformer):
    # float("inf") is the usual way to write it, but not a literal for literal_eval.
    def visit_Call(self, node: ast.Call) -> ast.AST:
        text = ast.unparse(node)
        return ast.Constant(float(text[7:-2])) if text in _INFINITIES else node
