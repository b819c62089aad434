"""Python functions to write, judged by unit tests: 60 small ones to train on, 20 others to test on, or your own.

The questions lie beside this file as `code_train.jsonl` and `code_test.jsonl`, which are also the example to follow for
data of your own: a JSON object a line with

* `question`: what is asked, with the function's name and arguments, and examples if you like;
* `tests`: a list of `assert f(2) == 3` lines, or of `{"call": "f(2)", "expected": "3"}` where both are text as Python
  writes it (`motif.grading.code.unit_tests` says which can be used);
* `solution`, if there is one: a program that passes. It is run before training, so that no test asks the impossible;
* `entry_point`, if you like: the function's name. A response without it is wrong without being run.

MBPP's names `test_list` and `code` are read as `tests` and `solution`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from motif.grading.code.unit_tests import GoldError, read_gold
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import Split
from motif.tasks.table import TableTask

_COLUMNS = {"tests": ("tests", "test_list"), "entry_point": ("entry_point",), "solution": ("solution", "code")}


def questions(split: Split) -> list[Question]:
    """The shipped questions of one side, in a fixed order; the gold answer is the code grader's."""
    text = resources.files("motif.tasks").joinpath(f"code_{split}.jsonl").read_text(encoding="utf-8")
    rows = enumerate(map(json.loads, text.splitlines()), start=1)
    return [Question(row["id"], row["question"], gold_from_row(row), line) for line, row in rows]


def gold_from_row(row: Mapping[str, Any]) -> str:
    """The code grader's gold answer from a row's columns, with all of its tests checked for their form.

    Tests in one text (a CSV file's, say) are one assertion a line.

    Raises:
        GoldError: no tests, or a test or a column that cannot be used; a ValueError that says what to change.
    """
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


ROWS = TableTask(grader="code", questions=("question", "prompt", "text"), answers=(), gold=gold_from_row)
TASK = ProceduralTask("code", lambda data, split: questions(split), ROWS)
