"""What is found out about a file: its columns, answers, grader."""

import json

import datasets
import pytest

from motif.errors import DataError
from motif.tasks.look import common_ending, grader_for, held_out_beside, look

STEPS = "First {n} + 1 = {m}, as everybody knows.\nThat is all there is to do here."


def rows(make, count=20):
    return [make(n) for n in range(2, 2 + count)]


def found(tmp_path, records):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    seen = look(str(file))
    solution = seen.solution.name if seen.solution else None
    return seen, (seen.question.name, seen.answer.name, seen.pattern, solution, seen.grader)


def chat(text):
    return [{"role": "user", "content": text}]


MARK, WORK = r"#### *(.+)", STEPS.format
CASES = {
    "plain": (lambda n: {"question": f"{n}?", "answer": str(n)}, ("question", "answer", "", None, "numeric")),
    "hashes": (
        lambda n: {"Question": f"{n}?", "Answer": f"{WORK(n=n, m=n + 1)}\n#### {n + 1}"},
        ("Question", "Answer", MARK, "Answer", "numeric"),
    ),
    "answer and solution": (
        lambda n: {"problem": f"{n}?", "solution": WORK(n=n, m=n + 1), "answer": f"\\sqrt{{{n}}}"},
        ("problem", "answer", "", "solution", "math"),
    ),
    "boxed": (
        lambda n: {"problem": f"{n}?", "solution": WORK(n=n, m=n) + f" \\boxed{{{n}}}"},
        ("problem", "solution", "boxed", "solution", "numeric"),
    ),
    "verl": (
        lambda n: {"data_source": "x", "prompt": chat(f"{n}?"), "reward_model": {"ground_truth": str(n), "style": "r"}},
        ("prompt", "reward_model.ground_truth", "", None, "numeric"),
    ),
    "verl with what it was made from": (
        lambda n: {
            "prompt": chat(f"What is {n}? Write the answer behind four hashes."),
            "reward_model": {"ground_truth": str(n)},
            "extra_info": {"question": f"What is {n}?", "answer": f"{WORK(n=n, m=n)}\n#### {n}"},
        },
        ("extra_info.question", "extra_info.answer", MARK, "extra_info.answer", "numeric"),
    ),
    "letters": (lambda n: {"question": f"{n}?", "label": "ABCD"[n % 4]}, ("question", "label", "", None, "exact")),
    "a number of the row before names that say nothing": (
        lambda n: {"nr": n - 1, "level": n % 3, "x": f"How much is {n} and one more?", "y": str(n + 1 - n % 2)},
        ("x", "y", "", None, "numeric"),
    ),
    "names that say nothing": (
        lambda n: {"id": n, "x": f"How much is {n} and one more?", "y": str(n + 1)},
        ("x", "y", "", None, "numeric"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_columns_marks_and_graders(tmp_path, case):
    make, expected = CASES[case]
    seen, facts = found(tmp_path, rows(make))
    assert facts == expected
    assert bool(seen.unsure) == case.endswith("names that say nothing")


@pytest.mark.parametrize("make", [lambda n: {"question": f"{n}?"}, lambda n: {"a": {"b": [n]}}])
def test_what_cannot_be_told_is_said(tmp_path, make):
    with pytest.raises(DataError, match=r"no column looks like answers .*data.question_column"):
        found(tmp_path, rows(make))


def test_long_answers_without_a_mark_are_doubted(tmp_path):
    seen, _ = found(tmp_path, rows(lambda n: {"question": f"{n}?", "answer": f"{WORK(n=n, m=n)} So {n}, clearly."}))
    assert "data.answer_pattern" in seen.unsure[0]


def test_an_instruction_that_ends_all_questions():
    texts = [f"What is {n}? Put the answer in a box." for n in range(9)]
    assert common_ending(texts) == "Put the answer in a box."
    assert common_ending([f"{n} apples. How many are there in all?" for n in range(9)]) == ""


def test_graders_by_answers():
    assert grader_for(["1,234", "0.5", "3/4", "-7"]) == "numeric"
    assert grader_for(["x^2 + 1", "\\frac{1}{2}", "2 x"]) == "math"
    assert grader_for(["Paris", "the Nile"]) == "exact"
    assert grader_for([]) == "exact"
    assert grader_for(["2024-03-05", "2024-12-31"]) == grader_for(["5/3/2024", "6:30"]) == "exact"
    assert grader_for(["A", "C", "3:15"]) == "exact"


def test_a_test_file_beside(tmp_path):
    for name in ("train.csv", "test.csv", "own.csv"):
        (tmp_path / name).write_text("")
    assert held_out_beside(str(tmp_path / "train.csv")) == (str(tmp_path / "test.csv"), "")
    assert held_out_beside(str(tmp_path / "own.csv")) == ("", "")


@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_split_beside_in_a_folder_and_in_a_saved_data_set(tmp_path, name):
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(8)]
    (tmp_path / "files").mkdir()
    for file, part in (("train", rows[:6]), (name, rows[6:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / "files" / f"{file}.jsonl").write_text(lines)
    splits = {"train": datasets.Dataset.from_list(rows[:6]), name: datasets.Dataset.from_list(rows[6:])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    splits["train"].save_to_disk(tmp_path / "alone")
    for source in (str(tmp_path / "files"), str(tmp_path / "saved")):
        assert held_out_beside(source) == (source, name)
        assert held_out_beside(source, split=name) == ("", "")
    assert held_out_beside(str(tmp_path / "alone")) == ("", "")


def written(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("rows.json", '[{"version": 1, "data": [{"q": "1+1?", "a": 2}]}]', "its rows lie in 'data'"),
        (
            "chat.jsonl",
            '{"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, '
            '{"role": "user", "content": "And?"}, {"role": "assistant", "content": "3"}]}',
            r"answers in messages \('messages'\) are not read",
        ),
        ("holes.csv", "question,answer\n" + "1+1?,\n" * 9, "column 'answer' is empty in all rows"),
        ("one.csv", "text\nhello\nworld\n", r"\(has: text\): write a recipe with data.question_column"),
    ],
)
def test_what_cannot_be_told_is_said_with_a_way_out(tmp_path, name, content, advice):
    with pytest.raises(DataError, match=advice):
        look(written(tmp_path, name, content))


def test_usual_names_are_found_although_most_of_their_cells_are_empty(tmp_path):
    found = look(
        written(tmp_path, "holes.csv", "question,answer\n" + "".join(f"{i}+1?,{i + 1}\n,\n,7\n" for i in range(9)))
    )
    assert (found.question.name, found.answer.name, found.grader) == ("question", "answer", "numeric")


@pytest.mark.parametrize(
    ("content", "doubt"),
    [
        (
            "table,question,answer\n" + "".join(f"A table {i},Who?{i},Ann {i}\n" for i in range(9)),
            "Not read: table.",
        ),
        ("".join(f"{i}+1?,{i + 1}\n" for i in range(9)), "looks like a row ('0+1?', '1'): add a line of names"),
        ("frage;antwort\n" + "".join(f"{i}/2?;{i},5\n" for i in range(9)), "decimal comma"),
        ("frage;antwort\n" + "".join(f"{i} T?;{i}.000\n" for i in range(1, 9)), "if it parts thousands"),
        ("question,answer\n" + "".join(f"After {i}:15?,{i}:16\n" for i in range(9)), "dates or times (0:16)"),
        ("text,label\n" + "".join(f"Film {i}.,{i % 2}\n" for i in range(9)), "All answers are 0 and 1"),
        ("question,answer\n" + "".join(f"q{i}?,{('Yes', 'yes', 'no')[i % 3]}\n" for i in range(9)), "in capitals only"),
    ],
)
def test_doubts_are_told(tmp_path, content, doubt):
    assert any(doubt in sentence for sentence in look(written(tmp_path, "rows.csv", content)).unsure)


def test_a_file_without_names_of_columns_has_one_doubt(tmp_path):
    doubts = look(written(tmp_path, "rows.tsv", "".join(f"{i}+1?\t{i + 1}\n" for i in range(9)))).unsure
    assert len(doubts) == 1 and "looks like a row" in doubts[0]


def test_words_with_numbers_are_not_formulas():
    assert grader_for([f"Person {i}" for i in range(9)]) == grader_for([f"add{i}" for i in range(9)]) == "exact"
    assert grader_for(["x^2", "2x + 1", "3a"]) == "math"
