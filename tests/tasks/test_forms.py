"""Forms of data that many sets share: what `motif init` makes of their rows, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motif import tasks
from motif.config import load_recipe
from motif.errors import DataError
from motif.tasks.look import look
from motif.training.scaffold import make

COUNT = 12
Row = dict[str, Any]


def file_of(folder: Path, row: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row(i)) + "\n" for i in range(COUNT)))
    return file


def human_eval(i: int) -> Row:
    check = f"METADATA = {{}}\n\n\ndef check(candidate):\n    assert candidate(1) == {i + 1}\n    assert True\n"
    return {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def more_{i}(x):\n    """Add {i}."""\n',
        "entry_point": f"more_{i}",
        "canonical_solution": f"    return x + {i}\n",
        "test": check,
    }


def mbpp(i: int) -> Row:
    program = f"def more(x):\n    return x + {i}"
    return {"task_id": i, "text": f"Add {i}.", "code": program, "test_list": [f"assert more(1) == {i + 1}"]}


def arc(i: int) -> Row:
    choices = {"text": ["none", str(i)], "label": ["A", "B"]}
    return {"id": f"q{i}", "question": f"Which is {i}?", "choices": choices, "answerKey": "AB"[i % 2]}


ASKED = "Which is 5?\n\nA. none\nB. 5"
CHOSEN = f"{ASKED}\n\nAnswer with the letter of the right choice."
FORMS: dict[str, tuple[Any, str, str, str]] = {
    "choices in a list, the place of the right one": (
        lambda i: {"question": f"Which is {i}?", "subject": "s", "choices": ["none", str(i)], "answer": i % 2},
        CHOSEN,
        "B",
        "exact",
    ),
    "choices below a column, a letter": (arc, CHOSEN, "B", "exact"),
    "endings and a label in text": (
        lambda i: {"ind": i, "ctx": f"Which is {i}?", "endings": ["none", str(i)], "label": str(i % 2)},
        CHOSEN,
        "B",
        "exact",
    ),
    "choices in columns of letters": (
        lambda i: {"question": f"Which is {i}?", "A": "none", "B": str(i), "answer": "AB"[i % 2]},
        CHOSEN,
        "B",
        "exact",
    ),
    "choices in columns with a prefix": (
        lambda i: {"question": f"Which is {i}?", "opa": "none", "opb": str(i), "cop": i % 2, "exp": None},
        CHOSEN,
        "B",
        "exact",
    ),
    "places counted from 1": (
        lambda i: {"question": f"Which is {i}?", "choices": ["none", str(i)], "answer": 1 + i % 2},
        CHOSEN,
        "B",
        "exact",
    ),
    "columns, places counted from 1": (
        lambda i: {"question": f"Which is {i}?", "option1": "none", "option2": str(i), "answer": str(1 + i % 2)},
        CHOSEN,
        "B",
        "exact",
    ),
    "letters, and places in some rows": (
        lambda i: {
            "question": f"Which is {i}?",
            "choices": ["none", str(i)],
            "answer": ("12" if i % 4 else "AB")[i % 2],
        },
        CHOSEN,
        "B",
        "exact",
    ),
    "the choices themselves": (
        lambda i: {"question": f"Which is {i}?", "choices": ["none", f"Rem the {i}th"], "answer": f"Rem the {i}th"},
        "Which is 5?\n\nA. none\nB. Rem the 5th\n\nAnswer with the text of the right choice.",
        "Rem the 5th",
        "exact",
    ),
    "true and false": (
        lambda i: {"statement": f"Is {i} odd?", "id": i, "label": i % 2 == 1},
        "Is 5 odd?\n\nAnswer with true or false.",
        "true",
        "exact",
    ),
    "a text, true and false": (
        lambda i: {"passage": "Every second number is odd.", "question": f"Is {i} odd?", "answer": i % 2 == 1},
        "Every second number is odd.\n\nIs 5 odd?\n\nAnswer with true or false.",
        "true",
        "exact",
    ),
    "labels": (
        lambda i: {"text": f"Film {i} was so.", "label": ["bad", "good", "so so"][i % 3]},
        "Film 5 was so.\n\nAnswer with one of: bad, good, so so.",
        "so so",
        "exact",
    ),
    "labels that the question names": (
        lambda i: {"question": f"Is {i} odd, yes or no?", "answer": "yes" if i % 2 else "no"},
        "Is 5 odd, yes or no?",
        "yes",
        "exact",
    ),
    "a text with a list of answers": (
        lambda i: {
            "id": f"q{i}",
            "title": "T",
            "context": f"Rome {i} was built by Rem {i}.",
            "question": f"Who built Rome {i}?",
            "answers": {"text": [f"Rem {i}", "Rem"], "answer_start": [1, 1]},
        },
        "Rome 5 was built by Rem 5.\n\nWho built Rome 5?",
        "Rem 5",
        "exact",
    ),
    "a chat with its answer": (
        lambda i: {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"What is {i} + 3?"},
                {"role": "assistant", "content": f"{i} + 3 = {i + 3}\n#### {i + 3}"},
            ]
        },
        "What is 5 + 3?",
        "8",
        "numeric",
    ),
    "a chat with other names": (
        lambda i: {
            "conversations": [{"from": "human", "value": f"{i} + 3?"}, {"from": "gpt", "value": str(i + 3)}],
        },
        "5 + 3?",
        "8",
        "numeric",
    ),
    "an instruction with an input": (
        lambda i: {"instruction": "Double it.", "input": str(i), "output": str(2 * i)},
        "Double it.\n\n5",
        "10",
        "numeric",
    ),
    "programs with assertions": (mbpp, "Add 5.", "assert more(1) == 6", "code"),
    "programs with a function that checks": (human_eval, "Add 5.", "assert more_5(1) == 6", "code"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_for_a_form_that_is_known(form, tmp_path):
    row, question, gold, grader = FORMS[form]
    source, out = file_of(tmp_path, row), tmp_path / "recipe.toml"
    out.write_text(make(str(source), out, "embedded").text)
    recipe = load_recipe(str(out))
    task = tasks.load(recipe.data)
    asked = [*task.train, *task.test]
    assert len(asked) == COUNT
    [fifth] = [one for one in asked if question in one.text]
    assert gold in fifth.gold and recipe.data.grader == grader
    assert grader == "code" or (fifth.text, fifth.gold) == (question, gold)


def test_worked_answers_of_a_chat_are_what_a_warm_start_imitates(tmp_path):
    row = FORMS["a chat with its answer"][0]
    found = look(str(file_of(tmp_path, row)))
    assert found.solution is found.answer and "####" in found.pattern


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lambda i: {"prompt": f"Say {i}.", "chosen": str(i), "rejected": "no"}, "pairs of a preferred and a rejected"),
        (lambda i: {"question": f"q{i}", "input_output": "{}", "difficulty": "easy"}, "read an input and print"),
        (
            lambda i: {"question": f"q{i}", "choices": ["a", "b"], "answer": i % 3},
            "neither counted from 0 nor from 1",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_said(row, said, tmp_path):
    with pytest.raises(DataError, match=said):
        look(str(file_of(tmp_path, row)))


def test_what_says_something_of_a_question_is_not_its_answer(tmp_path):
    rows = file_of(tmp_path, lambda i: {"question": f"{i} + 1?", "level": "easy" if i % 2 else "hard", "x": f"{i + 1}"})
    assert look(str(rows)).answer.name == "x"


def test_which_choice_is_counted_first_is_doubted_where_no_row_tells(tmp_path):
    rows = file_of(tmp_path, lambda i: {"question": f"q{i}", "choices": ["a", "b", "c", "d"], "answer": 1 + i % 2})
    found = look(str(rows))
    assert found.pattern == "place" and "from 0 or from 1 cannot be told" in found.unsure[0]
