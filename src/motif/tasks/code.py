"""Python functions to write, graded by unit tests: 60 small ones to train on, 20 others to test on, or your own.

The questions are in `code_train.jsonl` and `code_test.jsonl` beside this file. Your own data has the same form: one
JSON object a line, with

* `question`: the task, with the function's name and arguments, and optionally examples;
* `tests`: a list of `assert f(2) == 3` lines, or of `{"call": "f(2)", "expected": "3"}` with both in Python syntax
  (`motif.grading.code.unit_tests` says what is allowed);
* `solution` (optional): a program that passes. It is run before training, so that no test asks the impossible;
* `entry_point` (optional): the function's name. A response without it is wrong without being run.

The columns of MBPP, `test_list` and `code`, are read as `tests` and `solution`; so are those of HumanEval, `test`, a
function `check(candidate)` of assertions, and `canonical_solution`, which goes on with the prompt.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from motif.grading.code.unit_tests import read_gold
from motif.grading.verdict import GoldError
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import Split
from motif.tasks.table import TableTask

_COLUMNS = {"tests": ("tests", "test_list"), "entry_point": ("entry_point",), "solution": ("solution", "code")}


def questions(split: Split) -> list[Question]:
    """The shipped questions of one side, in a fixed order, with gold answers for the code grader."""
    text = resources.files("motif.tasks").joinpath(f"code_{split}.jsonl").read_text(encoding="utf-8")
    rows = enumerate(map(json.loads, text.splitlines()), start=1)
    return [Question(row["id"], row["question"], gold_from_row(row), line) for line, row in rows]


def gold_from_row(row: Mapping[str, Any]) -> str:
    """Return the code grader's gold answer for a row, after checking the form of all its tests.

    Tests in one text (as in a CSV file) are one assertion a line.

    Raises:
        GoldError: there are no tests, or a test or a column cannot be used; the message says what to change.
    """
    row = _with_tests(row)
    gold: dict[str, Any] = {}
    for key, names in _COLUMNS.items():
        name = next((name for name in names if row.get(name) is not None), None)
        if name is not None:
            gold[key] = row[name]
    if "tests" not in gold:
        raise GoldError(f"no column 'tests' (has: {', '.join(map(str, row)) or 'none'})")
    tests = gold["tests"]
    if isinstance(tests, str):
        tests = [line for line in tests.splitlines() if line.strip()]
    elif not isinstance(tests, list):
        raise GoldError(f"column 'tests' holds a {type(tests).__name__}, not a list of tests")
    text = json.dumps(gold | {"tests": tests})
    read_gold(text)
    return text


def _with_tests(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of HumanEval with the assertions of its `check` as tests, and a whole program as its solution."""
    check, name = row.get("test"), row.get("entry_point")
    if "tests" in row or not isinstance(check, str) or not isinstance(name, str) or "def check(" not in check:
        return row
    try:
        defined = [node for node in ast.parse(check).body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise GoldError(f"column 'test' is not Python: {error}") from None
    tests = [_called(ast.unparse(line), name) for line in defined[0].body if not _says_nothing(line)] if defined else []
    begun, rest = row.get("prompt"), row.get("canonical_solution")
    whole = {"solution": begun + rest} if isinstance(begun, str) and isinstance(rest, str) else {}
    return {**row, "tests": tests, **whole}


def _says_nothing(line: ast.stmt) -> bool:
    """Whether a line of a `check` tests nothing: a docstring, or `assert True`."""
    checked = line.test if isinstance(line, ast.Assert) else line.value if isinstance(line, ast.Expr) else None
    return isinstance(checked, ast.Constant)


def _called(test: str, name: str) -> str:
    """An assertion on `candidate` as one on the function of this name; a tolerance is that of `math.isclose`."""
    test = re.sub(r"\bcandidate\b", name, test)
    near = re.fullmatch(r"assert abs\((.+) - ([-\d.e]+)\) <=? ([-\d.e]+)(?:, .*)?", test, re.DOTALL)
    return f"assert math.isclose({near[1]}, {near[2]}, rel_tol=0.0, abs_tol={near[3]})" if near else test


ROWS = TableTask(grader="code", questions=("question", "prompt", "text"), answers=(), gold=gold_from_row)
TASK = ProceduralTask("code", lambda data, split: questions(split), ROWS)
