"""The shipped programming questions: every solution passes its tests, and rows of one's own are read or refused."""

import json

import pytest

from motif.grading.code import sandbox
from motif.grading.code.rule import Code
from motif.grading.code.unit_tests import read_gold
from motif.grading.verdict import GoldError
from motif.tasks import rows
from motif.tasks.code import gold_from_row, questions
from motif.tasks.splits import SPLITS

CODE = Code()


@pytest.mark.parametrize("split", SPLITS)
def test_every_shipped_solution_passes_and_a_stub_does_not(split):
    try:
        sandbox.prepare()  # CI has one from `apt-get install bubblewrap`
    except sandbox.SandboxError as error:
        pytest.skip(f"no sandbox: {error}")
    for question in questions(split):
        assert CODE.check_gold(question.gold).verdict == "right", question.id
        assert CODE.grade(question.gold, "").verdict == "wrong"


def test_the_sides():
    train, test = questions("train"), questions("test")
    assert (len(train), len(test)) == (60, 20)
    assert len({question.text for question in train + test}) == 80
    assert len({question.id for question in train + test}) == 80
    assert train == questions("train")


def test_a_question_says_all_that_is_needed():
    for question in questions("train") + questions("test"):
        gold = read_gold(question.gold)
        assert f"`{gold.entry_point}(" in question.text
        assert gold.solution.startswith(f"def {gold.entry_point}(")
        assert len(gold.tests) >= 4
        # At least two tests are not among the examples, so that repeating these is not enough.
        assert sum(f"\n{test.call} ==" not in question.text for test in gold.tests) >= 2


def test_rows_of_ones_own(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = [
        {"question": "q", "tests": ["assert f(2) == 3", "assert f(0.5) == 1.5"], "solution": "def f(x): return x + 1"},
        {"question": "q", "tests": [{"call": "f(2)", "expected": 3}], "entry_point": "f"},  # numbers arrive as text
        {"text": "q", "test_list": ["assert f(2) == 3"], "code": "def f(x): return x + 1", "task_id": 7},
        {"question": "q", "tests": "assert f(2) == 3\n\nassert f(3) == 4\n", "solution": None},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    golds = [read_gold(gold_from_row(row.columns)) for row in rows.read(str(path)).rows]
    assert [len(gold.tests) for gold in golds] == [2, 1, 1, 2]
    assert {gold.tests[0].call for gold in golds} == {"f(2)"}
    assert [gold.solution[:5] for gold in golds] == ["def f", "", "def f", ""]
    assert all(gold.tests[0].passes(["int", "0x3"]) for gold in golds)


@pytest.mark.parametrize(
    "row, problem",
    [
        ({"question": "q"}, r"no column 'tests' \(has: question\)"),
        ({"tests": 3}, "holds a int"),
        ({"tests": []}, "there are no tests"),
        ({"tests": ["assert f(2)"]}, "test 1 does not compare"),
        ({"tests": [{"call": "f(2)", "expected": [1]}]}, "test 1 needs both as text"),
        ({"tests": ["assert f(2) == 3"], "solution": 3}, "solution is a int"),
    ],
)
def test_rows_that_cannot_be_used(row, problem):
    with pytest.raises(GoldError, match=problem):
        gold_from_row(row)
