"""Tasks: rows become questions, and every row that cannot is named with its line, all at once."""

import csv
import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from motif.config import ArithmeticConfig, DataConfig
from motif.errors import DataError, RecipeError
from motif.grading import Grader
from motif.grading.code.sandbox import prepare
from motif.method.tree import Question
from motif.tasks import BadRow, BadRows, load, reject
from motif.tasks.table import is_missing

GOOD = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(1, 21)]


def write(path, rows):
    """Write rows (dicts, or for JSONL raw lines) by the file's suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def problems(**settings):
    with pytest.raises(BadRows) as caught:
        load(DataConfig(**settings))
    return {(row.line, row.problem) for row in caught.value.rows}, str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet"])
def test_every_kind_of_file(tmp_path, suffix):
    source = write(tmp_path / f"train{suffix}", GOOD)
    task = load(DataConfig(train=source))
    first = 2 if suffix == ".csv" else 1  # a CSV file's first line is its header
    assert task.train[0] == Question(f"train-{first}", "What is 1 + 1?", "2", first)
    assert [question.gold for question in task.train] == [row["answer"] for row in GOOD]
    assert (task.name, task.test, task.grader, task.skipped) == ("file", [], "exact", [])


def test_bad_jsonl_rows_are_all_reported_with_their_lines(tmp_path):
    rows = [
        GOOD[0],
        "{broken",
        '"text"',
        {"problem": "a", "answer": "b"},
        {"question": "q"},
        "",
        {"question": " ", "answer": "1"},
        {"question": "q1", "answer": None},
        {"question": "q2", "answer": "no number"},
        GOOD[0] | {"answer": "7"},
        {"question": "q3", "answer": ["1"]},
        '{"question": "half \\ud800", "answer": "1"}',
        "[" * 100_000,
        {"question": "q4", "answer": True},
        GOOD[1],
    ]
    source = write(tmp_path / "train.jsonl", rows)
    found, message = problems(train=source, grader="numeric")
    assert {line for line, _ in found} == {2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14}
    texts = dict(found)
    assert texts[2].startswith("not JSON: ")
    assert texts[3] == "not a JSON object"
    assert texts[4] == "no column 'question' (has: problem, answer)"
    assert texts[5] == "no column 'answer' (has: question)"
    assert texts[7] == "column 'question' is empty"
    assert texts[8] == "column 'answer' is empty"
    assert texts[9].startswith("gold answer 'no number' fails the numeric grader: ")
    assert texts[10] == "duplicate of line 1, with another answer"
    assert texts[11] == "column 'answer' holds a list, not text"
    assert "surrogate" in texts[12]
    assert "too deeply" in texts[13]
    assert texts[14].startswith("gold answer 'true' fails the numeric grader: ")
    lines = message.split("\n")
    assert lines[0].startswith(f"{source}:2: not JSON")
    assert lines[2] == f"{source}:4: no column 'question' (has: problem, answer)"
    assert len(lines) == 12 and lines[10] == "… and 2 more"
    assert lines[11].startswith("12 rows cannot be used.") and "data.skip_bad = true" in lines[11]

    task = load(DataConfig(train=source, grader="numeric", skip_bad=True))
    assert [question.line for question in task.train] == [1, 15]
    assert {(row.line, row.problem) for row in task.skipped} == found


def test_csv_lines_are_right_after_quoted_newlines(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(
        'question,answer\n"two\nlines, ""quoted""",1\nplain,2\n\nempty,\nshort\nlong,1,2\n'
        '"x"y,3\nlast,4\n"never closed,5\n',
        encoding="utf-8",
    )
    found, _ = problems(train=str(path))
    assert {line for line, _ in found} == {6, 7, 8, 9, 11}
    texts = dict(found)
    assert texts[6] == "column 'answer' is empty"
    assert texts[7] == "1 fields, but the header has 2"
    assert texts[8] == "3 fields, but the header has 2"
    assert texts[9].startswith("not CSV: ")
    assert texts[11].startswith("not CSV: ")
    task = load(DataConfig(train=str(path), skip_bad=True))
    assert [(question.text, question.line) for question in task.train] == [
        ('two\nlines, "quoted"', 2),
        ("plain", 4),
        ("last", 10),
    ]


def test_bad_parquet_rows(tmp_path):
    rows = [*GOOD[:3], {"question": "q", "answer": None}, {"question": None, "answer": "1"}, GOOD[0]]
    found, _ = problems(train=write(tmp_path / "train.parquet", rows))
    assert found == {
        (4, "column 'answer' is empty"),
        (5, "column 'question' is empty"),
        (6, "duplicate of line 1"),
    }


def test_numbers_in_columns_keep_their_spelling(tmp_path):
    source = write(tmp_path / "train.jsonl", ['{"question": "a", "answer": 0.10}', '{"question": "b", "answer": 7}'])
    assert [question.gold for question in load(DataConfig(train=source)).train] == ["0.10", "7"]
    parquet = write(tmp_path / "train.parquet", [{"question": "a", "answer": 7}])
    assert load(DataConfig(train=parquet)).train[0].gold == "7"


def test_a_byte_order_mark_and_a_line_separator_inside_a_string(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('\ufeff{"question": "a\u2028b", "answer": "1"}\r\n', encoding="utf-8")
    assert load(DataConfig(train=str(path))).train == [Question("train-1", "a\u2028b", "1", 1)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_wrong_encoding_names_the_line(tmp_path, suffix):
    path = tmp_path / f"train{suffix}"
    path.write_bytes(b"question,answer\nok,1\ncaf\xe9,2\n")
    with pytest.raises(ValueError, match=rf"{suffix}:3: not UTF-8 \(byte 0xe9, 'é' in Windows-1252\): .*iconv"):
        load(DataConfig(train=str(path)))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train.jsonl", b"", "has no rows"),
        ("train.csv", b"question,answer\n", "has no rows"),
        ("train.csv", b"question,question\n1,2\n", "occurs twice"),
        ("train.json", b'[{"question": "a"}', "starts a JSON array, and is not JSON"),
        ("train.json", b"[]", "has no rows"),
        ("train.parquet", b"not parquet", "cannot be read as Parquet"),
        ("train.txt", b"text", "cannot read a .txt file"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(DataConfig(train=str(path)))


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(ValueError, match=r"data\.train: .*trian\.jsonl: no such file"):
        load(DataConfig(train=str(tmp_path / "trian.jsonl")))


def test_an_unreachable_data_set_says_what_to_do(monkeypatch):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("no network\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ValueError, match=r"no-such-owner/data:train: neither a file nor a data set .*no network\)\. Give"
    ):
        load(DataConfig(train="no-such-owner/data"))
    with pytest.raises(ValueError, match=r"data\.train: openai/gsm8k:main:train: "):
        load(DataConfig(task="gsm8k"))


def test_a_data_set_folder_with_splits(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder / "train.jsonl", GOOD[:4])
    write(folder / "test.jsonl", GOOD[4:6])
    task = load(DataConfig(train=str(folder), test=str(folder)))
    assert [len(task.train), len(task.test)] == [4, 2]
    assert task.test[0].id == "test-1"
    with pytest.raises(ValueError, match="neither a file nor a data set"):
        load(DataConfig(train=str(folder), train_split="nope"))


def test_a_saved_data_set(tmp_path):
    import datasets

    whole = datasets.Dataset.from_list(GOOD)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "dev": whole.select([0])}).save_to_disk(tmp_path / "several")
    assert len(load(DataConfig(train=str(tmp_path / "one"))).train) == 20
    found, _ = problems(train=str(tmp_path / "several"), test=str(tmp_path / "several"), test_split="dev")
    assert [line for line, _ in found] == [1]


def test_columns_pattern_and_ids(tmp_path):
    rows = [{"q": "a", "sol": "so #### 1,000", "id": 7}, {"q": "b", "sol": "#### 2", "id": 7}, {"q": "c", "sol": "3"}]
    settings = {
        "train": write(tmp_path / "train.jsonl", rows),
        "question_column": "q",
        "answer_column": "sol",
        "answer_pattern": "#### (.+)",
        "grader": "numeric",
    }
    found, _ = problems(**settings)
    assert found == {(3, "the answer does not match '#### (.+)': '3'")}
    task = load(DataConfig(**settings, skip_bad=True))
    assert [(question.id, question.gold) for question in task.train] == [("7", "1,000"), ("train-2", "2")]


def test_the_last_match_of_the_pattern_counts_wherever_it_is(tmp_path):
    long = "x" * 30_000
    answers = [
        f"{long}#### 1",
        f"#### Step 2\n{long}\n#### 2",
        "#### 3\n#### ",
        "#### Step 1\n#### Step 2\n#### 4\nDone.",
    ]
    rows = [{"question": f"q{index}", "answer": answer} for index, answer in enumerate(answers)]
    settings = {"train": write(tmp_path / "train.jsonl", rows), "answer_pattern": "#### ?(.*)", "grader": "math"}
    assert [question.gold for question in load(DataConfig(**settings)).train] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "gold",
    [
        "1 plus 1 is <<1+1=2>>2.\n#### 2",
        "#### 2",
        "First add them. Then the sum of all three of the numbers is 12, so we have 4. Hence x = 4.",
        r"Adding gives \boxed{4}.",
        "# Solution",
        "Step 2",
        "nan",
        "NaN",
        "N/A",
        "?",
        r"\frac{1}{2",
        "}{",
        "---",
        "the number of apples that Tom has left over after lunch in the big garden on Sunday",
    ],
)
@pytest.mark.parametrize("grader", ["math", "numeric"])
def test_a_gold_answer_that_no_response_would_give_is_refused(grader, gold):
    with Grader(grader) as one:
        assert one.check([gold])[0].verdict in ("wrong", "ungraded")


def test_golds_that_responses_give_pass_the_check():
    golds = [
        "4",
        r"\boxed{4}",
        r"\frac{1}{2}",
        r"\{1, 2\}",
        r"\text{Evelyn}",
        "1 and all odd prime numbers",
        "(A) 42",
        "x=1, y=2",
    ]
    with Grader("math") as grader:
        assert {grade.verdict for grade in grader.check(golds)} == {"right"}
        assert {grade.verdict for grade in grader.check([r"\frac{1}{2^{30}}", "e^{-20}", "10^{-8}", "0"])} == {"right"}


def test_test_questions_in_train_are_leaks(tmp_path):
    train = write(tmp_path / "train.jsonl", GOOD[:5])
    test = write(tmp_path / "test.jsonl", [GOOD[9], {"question": " What  is 2 + 1?\n", "answer": "3"}])
    found, _ = problems(train=train, test=test)
    assert found == {(2, f"also a test question ({test} line 2)")}
    task = load(DataConfig(train=train, test=test, skip_bad=True))
    assert [question.line for question in task.train] == [1, 3, 4, 5] and len(task.test) == 2


def test_bad_test_rows_are_reported_too(tmp_path):
    test = write(tmp_path / "test.jsonl", [GOOD[9], {"question": "q"}])
    with pytest.raises(BadRows, match=r"test\.jsonl:2: no column 'answer'"):
        load(DataConfig(train=write(tmp_path / "train.jsonl", GOOD[:5]), test=test))


def test_held_out_rows_do_not_depend_on_order_or_seed(tmp_path):
    forward = load(DataConfig(train=write(tmp_path / "a.jsonl", GOOD), held_out=5))
    backward = load(DataConfig(train=write(tmp_path / "b.jsonl", GOOD[::-1]), held_out=5), seed=3)
    assert len(forward.test) == 5 and len(forward.train) == 15
    assert {q.text for q in forward.test} == {q.text for q in backward.test}
    assert not {q.text for q in forward.test} & {q.text for q in forward.train}
    assert [q.line for q in forward.train] == sorted(q.line for q in forward.train)
    with pytest.raises(ValueError, match="leaves nothing"):
        load(DataConfig(train=str(tmp_path / "a.jsonl"), held_out=20))


def test_a_test_file_goes_before_held_out(tmp_path):
    train, test = write(tmp_path / "a.jsonl", GOOD[:10]), write(tmp_path / "b.jsonl", GOOD[10:])
    task = load(DataConfig(train=train, test=test, held_out=5))
    assert [len(task.train), len(task.test)] == [10, 10]


def test_limit_draws_by_the_seed(tmp_path):
    source = write(tmp_path / "train.jsonl", GOOD)
    drawn = [{q.line for q in load(DataConfig(train=source, limit=5), seed).train} for seed in (0, 0, 1)]
    assert len(drawn[0]) == 5 and drawn[0] == drawn[1] != drawn[2]
    assert len(load(DataConfig(train=source, limit=99)).train) == 20


def test_nothing_left_is_an_error(tmp_path):
    source = write(tmp_path / "train.jsonl", [{"a": "1"}])
    with pytest.raises(ValueError, match=r"no row can be used; the first: .*:1: no column 'question'"):
        load(DataConfig(train=source, skip_bad=True))


def test_settings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs data\.train"):
        load(DataConfig())
    with pytest.raises(ValueError, match=r"split off data\.train, which is empty"):
        load(DataConfig(test=write(tmp_path / "test.jsonl", GOOD), held_out=3))


def test_reject():
    reject([], skip=False)
    bad = [BadRow("f", 3, "too long")]
    reject(bad, skip=True)
    with pytest.raises(BadRows, match="f:3: too long\n1 row cannot be used"):
        reject(bad, skip=False)


def test_arithmetic():
    task = load(DataConfig(task="arithmetic", arithmetic=ArithmeticConfig(digits=1, template="{a} {op} {b} =")))
    assert task.grader == "numeric" and task.train and task.test
    assert task.train[0].text.endswith(" =")
    assert not {q.text for q in task.train} & {q.text for q in task.test}
    held = load(DataConfig(task="arithmetic", arithmetic=ArithmeticConfig(digits=1), held_out=10))
    assert len(held.test) == 10


@pytest.mark.parametrize("task", ["chain", "circuit"])
def test_held_out_questions_of_a_task_that_makes_them(task):
    made = load(DataConfig(task=task, grader="exact", held_out=10))
    assert len(made.test) == 10 and not {q.id for q in made.test} & {q.id for q in made.train}


def test_settings_that_leave_a_side_empty_are_refused():
    with pytest.raises(RecipeError, match=r"data\.arithmetic leaves no (train|test) questions"):
        load(DataConfig(task="arithmetic", arithmetic=ArithmeticConfig(largest=1)))


def test_gsm8k_form(tmp_path):
    rows = [{"question": "a", "answer": "<<1+1=2>> so\n#### 1,000"}, {"question": "b", "answer": "no mark"}]
    test = write(tmp_path / "test.jsonl", [{"question": "c", "answer": "#### -5"}])
    task = load(DataConfig(task="gsm8k", train=write(tmp_path / "a.jsonl", rows), test=test, skip_bad=True))
    assert task.train == [Question("train-1", "a", "1000", 1)]
    assert task.test[0].gold == "-5" and task.grader == "numeric"


def test_math_form(tmp_path):
    rows = [
        {"problem": "a", "solution": r"\boxed{1} or \boxed{\frac{1}{2}}", "answer": r"\frac{1}{2}"},
        {"problem": "b", "solution": r"\boxed{1} or \boxed{\frac{3}{4}}"},
        {"problem": "c", "solution": "none"},
        {"problem": "d", "solution": "x", "answer": ""},
    ]
    test = write(tmp_path / "test.jsonl", [{"problem": "e", "answer": "(1, 2)", "unique_id": "test/1.json"}])
    settings = {"task": "math", "train": write(tmp_path / "a.jsonl", rows), "test": test}
    found, _ = problems(**settings)
    assert found == {(3, r"the solution has no \boxed{...} answer"), (4, "column 'answer' is empty")}
    task = load(DataConfig(**settings, skip_bad=True))
    assert [question.gold for question in task.train] == [r"\frac{1}{2}", r"\frac{3}{4}"]
    assert task.test[0].id == "test/1.json" and task.grader == "math"


DATA = Path(os.environ.get("MOTIF_DATA", "/nonexistent"))


@pytest.mark.skipif(not DATA.is_dir(), reason="MOTIF_DATA names no folder")
@pytest.mark.parametrize(
    "name, train, test, counts, bad",
    [
        ("gsm8k", "gsm8k/train.jsonl", "gsm8k/test.jsonl", (7473, 1319), 0),
        ("math500", "", "math500/test.jsonl", (0, 500), 0),
        ("aime24", "", "aime24/test.jsonl", (0, 30), 0),
        pytest.param("math", "math_train/train.jsonl", "math500/test.jsonl", (7497, 500), 3, marks=pytest.mark.slow),
    ],
)
def test_the_official_sets(name, train, test, counts, bad):
    task = load(DataConfig(task=name, train=train and str(DATA / train), test=str(DATA / test), skip_bad=True))
    assert (len(task.train), len(task.test)) == counts
    assert len(task.skipped) == bad


def test_svamp_form(tmp_path):
    rows = [{"Body": "There are 8 apples .", "Question": "How many are left ?", "Answer": 5.0, "ID": "chal-1"}]
    train, test = (
        write(tmp_path / "train.jsonl", rows),
        write(tmp_path / "test.jsonl", [rows[0] | {"Question": "Why ?"}]),
    )
    (question,) = load(DataConfig(task="svamp", train=train, test=test)).train
    assert (question.id, question.text, question.gold) == ("chal-1", "There are 8 apples . How many are left ?", "5.0")


def test_a_hub_set_of_another_size_is_refused(monkeypatch):
    monkeypatch.setattr("motif.tasks.rows._dataset", lambda *_: [{"question": "q", "answer": "#### 1"}])
    with pytest.raises(ValueError, match="openai/gsm8k has 1 row, not 7473"):
        load(DataConfig(task="gsm8k"))


def test_circuits_of_your_own(tmp_path):
    module = "module inverter(input a, output y); assign y = {}; endmodule"
    table = {"inputs": ["a", "b"], "outputs": ["y"], "rows": {"00": "0", "01": "1", "10": "1", "11": "-"}}
    rows = [
        {"specification": "an inverter", "verilog": module.format("~a")},
        {"specification": "one or the other", "truth_table": table},
        {"specification": "nothing to go by"},
    ]
    source = write(tmp_path / "circuits.jsonl", rows)
    found, _ = problems(task="circuit", train=source)
    assert [line for line, _ in found] == [3]
    task = load(DataConfig(task="circuit", train=source, skip_bad=True))
    assert task.grader == "circuit" and len(task.train) == 2
    with Grader("circuit") as grader:
        verdicts = [grader.grade(task.train[0].gold, module.format(y)).verdict for y in ("~a", "!a", "a")]
        assert verdicts == ["right", "right", "wrong"]
        assert grader.grade(task.train[1].gold, "a | b").verdict == "right"


def test_programs_of_your_own(tmp_path):
    pytest.importorskip("resource")
    try:
        prepare()
    except RuntimeError as error:
        pytest.skip(str(error))
    solution = "def double(x):\n    return 2 * x\n"
    rows = [
        {"question": "double it", "tests": ["assert double(2) == 4"], "solution": solution},
        {"question": "double them", "tests": ["assert double(2) == 5"], "solution": solution},
        {"question": "anything goes", "tests": ["assert f(1) == None"]},
        {"question": "no tests"},
    ]
    found, _ = problems(task="code", train=write(tmp_path / "code.jsonl", rows))
    assert {line for line, _ in found} == {2, 3, 4}
    assert any("its own solution fails" in problem for _, problem in found)


def test_the_shipped_programs():
    try:
        prepare()
    except RuntimeError as error:
        pytest.skip(str(error))
    task = load(DataConfig(task="code"))
    assert (len(task.train), len(task.test), task.grader) == (60, 20, "code")


# -- what other programs write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "string", "int64", "timestamp[ns]", "decimal"])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_what_parquet_has_no_value_for_is_empty(tmp_path, column, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing = float("nan") if kind.startswith("float") else None
    columns = {"question": pa.array(["a", "b"]), "answer": pa.array(["1", "2"])}
    columns[column] = pa.array([None, missing], type=pa.decimal128(9, 2) if kind == "decimal" else kind)
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    found, _ = problems(train=str(tmp_path / "rows.parquet"))
    assert found == {(1, f"column {column!r} is empty"), (2, f"column {column!r} is empty")}


def test_every_kind_of_missing_value_is_missing():
    pandas = pytest.importorskip("pandas")
    values = [None, float("nan"), Decimal("nan"), np.float16("nan"), np.datetime64("NaT"), pandas.NaT, pandas.NA]
    assert all(map(is_missing, values))
    assert not any(map(is_missing, ["nan", 0, 0.0, False, "", np.float32(0)]))


def test_cells_of_any_length(tmp_path):
    source = write(tmp_path / "train.csv", [{"question": "long " * 60_000, "answer": "1"}])
    assert len(load(DataConfig(train=source)).train[0].text) == 5 * 60_000 - 1


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, mark, separator):
    encoding = f"utf-{16 if len(mark) == 2 else 32}-{'le' if mark[0] == 0xFF else 'be'}"
    text = f"question{separator}answer\r\nWo liegt Köln? 𝄞{separator}Rhein\r\n"
    (tmp_path / "train.csv").write_bytes(mark + text.encode(encoding))
    question = load(DataConfig(train=str(tmp_path / "train.csv"))).train[0]
    assert (question.text, question.gold) == ("Wo liegt Köln? 𝄞", "Rhein")
    (tmp_path / "train.csv").write_bytes((mark + text.encode(encoding))[:-1])
    with pytest.raises(DataError, match=rf"train\.csv:1: damaged UTF-{encoding[4:6]} text"):
        load(DataConfig(train=str(tmp_path / "train.csv")))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_utf16_without_a_mark_is_refused_by_name(tmp_path, suffix, encoding):
    (tmp_path / f"train{suffix}").write_text("question,answer\nok,1\n", encoding=encoding)
    with pytest.raises(DataError, match="UTF-16 or UTF-32 text without a byte order mark: save the file as UTF-8"):
        load(DataConfig(train=str(tmp_path / f"train{suffix}")))


def test_tabs_are_read_in_a_tsv(tmp_path):
    (tmp_path / "train.tsv").write_text('\ufeffquestion\tanswer\nWhat, then?\t"1"\n', encoding="utf-8")
    assert load(DataConfig(train=str(tmp_path / "train.tsv"))).train == [Question("train-2", "What, then?", "1", 2)]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"Question": "q", "target": "1"}], {}, 'data.question_column = "Question" and data.answer_column = "target"'),
        ([{"question": "q", "Answer": "1"}], {}, 'set data.answer_column = "Answer"'),
        (
            [{"prompt": "q", "answer": "1"}],
            {},
            "no column 'question' (has: prompt, answer): set data.question_column = \"prompt\"",
        ),
        ([{"question": "q", "answer": "1"}], {"question_column": "questoin"}, 'set data.question_column = "question"'),
        ([{"x": "q", "y": "1"}], {}, 'set data.question_column = "…" and data.answer_column = "…"'),
    ],
)
@pytest.mark.parametrize("side", ["train", "test"])
def test_wrong_columns_are_one_error_that_names_the_setting(tmp_path, rows, settings, message, side):
    source = write(tmp_path / "rows.jsonl", rows * 50)
    with pytest.raises(DataError) as caught:
        load(DataConfig(**{"train": write(tmp_path / "good.csv", GOOD), side: source}, **settings))
    assert settings or f"data.{side}: " in str(caught.value)
    assert message in str(caught.value) and "\n" not in str(caught.value)
