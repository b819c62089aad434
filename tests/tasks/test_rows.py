"""What rows may look like: separators, chats, nested columns, boxes, whole documents, compressed files."""

import gzip
import json

import pytest

from motif.config import DataConfig
from motif.errors import DataError
from motif.tasks import load, solutions


def write(path, rows):
    """Write rows (dicts, or for JSONL raw lines) by the file's suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "text", "pair"),
    [
        ("rows.csv", "question;answer\na, b;1\n", ("a, b", "1")),
        ("rows.csv", "\ufeffquestion;answer\r\na, b;1, 2\r\n", ("a, b", "1, 2")),
        ("rows.csv", "question\tanswer\na\t1\n", ("a", "1")),
        ("rows.csv", "question|answer\na|1\n", ("a", "1")),
        ("rows.tsv", "question,answer\na,1\n", ("a", "1")),
        ("rows.tsv", 'question;answer\n"a;\nb";1\n', ("a;\nb", "1")),
        ("rows.csv", "id;question;answer, in words\n1;a, b, c;x\n", None),
        ("rows.csv", 'question,answer\n"a; b; c",1\n', ("a; b; c", "1")),
        ("rows.csv", "question;answer\na;1\nb;1;2\n", None),
    ],
)
def test_the_separator_is_found_out(tmp_path, name, text, pair):
    (tmp_path / name).write_text(text, encoding="utf-8")
    data = DataConfig(train=str(tmp_path / name), skip_bad=True)
    if pair is None:
        data = data.model_copy(update={"answer_column": "answer, in words" if "words" in text else "answer"})
        pair = ("a, b, c", "x") if "words" in text else ("a", "1")
    [question] = load(data).train
    assert (question.text, question.gold) == pair


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}]


@pytest.mark.parametrize("prompt", [CHAT, PARTS, CHAT[1:]])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_chats_and_nested_columns(tmp_path, prompt, suffix):
    row = {"prompt": prompt, "reward_model": {"style": "rule", "ground_truth": "2"}, "extra": {"cot": "1+1=2"}}
    source = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        source.write_text(json.dumps([row]))
    else:
        write(source, [row])
    data = DataConfig(train=str(source), question_column="prompt", answer_column="reward_model.ground_truth")
    assert [(question.text, question.gold) for question in load(data).train] == [("1 + 1?", "2")]
    assert solutions(data, "extra.cot")[1] == {1: "1+1=2"}


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "system", "content": "a"}],
        ["a"],
    ],
)
def test_other_lists_are_not_questions(tmp_path, prompt):
    source = write(tmp_path / "rows.jsonl", [{"question": prompt, "answer": "2"}])
    with pytest.raises(DataError, match="not one user's message"):
        load(DataConfig(train=source))


def test_boxed_answers_of_any_column(tmp_path):
    source = write(tmp_path / "rows.jsonl", [{"question": "a", "proof": "\\boxed{1}, so \\boxed{\\frac{1}{2}}."}])
    data = DataConfig(train=source, answer_column="proof", answer_pattern="boxed", grader="math")
    assert load(data).train[0].gold == "\\frac{1}{2}"
    bad = write(tmp_path / "bad.jsonl", [{"question": "a", "answer": "1"}])
    with pytest.raises(DataError, match=r"has no .*boxed"):
        load(DataConfig(train=bad, answer_pattern="boxed"))


ROWS = [{"question": "a", "answer": True}, {"question": "b", "answer": 2}]
PAIRS = [("a", "true"), ("b", "2")]


@pytest.mark.parametrize(
    "document",
    [
        ROWS,
        {"version": 1, "Data": ROWS},
        {"question": ["a", "b"], "answer": [True, 2]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_document(tmp_path, document, indent):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(document, indent=indent))
    assert [(question.text, question.gold) for question in load(DataConfig(train=str(source))).train] == PAIRS


def test_a_json_document_with_several_lists_or_one_row(tmp_path):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({"train": ROWS, "test": ROWS}, indent=1))
    with pytest.raises(DataError, match=r"several lists of rows \('train', 'test'\): write each into a file"):
        load(DataConfig(train=str(source)))
    source.write_text(json.dumps({"question": "a", "answer": 1, "notes": [{"x": 1}, {"x": 2}]}, indent=1))
    assert [question.gold for question in load(DataConfig(train=str(source))).train] == ["1"]


def test_compressed_files(tmp_path):
    content = gzip.compress(b"question,answer\na,true\nb,2\n")
    for name in ("rows.csv.gz", "ROWS.CSV.GZ", "named_otherwise.csv"):
        (tmp_path / name).write_bytes(content)
        read = load(DataConfig(train=str(tmp_path / name))).train
        assert [(question.text, question.gold) for question in read] == PAIRS
    (tmp_path / "cut.csv.gz").write_bytes(content[:-9])
    with pytest.raises(DataError, match="a damaged gzip file"):
        load(DataConfig(train=str(tmp_path / "cut.csv.gz")))
    with pytest.raises(DataError, match=r"missing\.csv\.gz: no such file"):
        load(DataConfig(train="missing.csv.gz"))
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(DataError, match="its name does not say what it holds"):
        load(DataConfig(train=str(tmp_path / "rows")))


@pytest.mark.parametrize(("pattern", "places"), [("place", (0, 25)), ("place_from_1", (1, 26))])
def test_places_of_choices(tmp_path, pattern, places):
    rows = [{"question": str(place), "answer": place} for place in (*places, "C")]
    data = DataConfig(train=write(tmp_path / "rows.jsonl", rows), answer_pattern=pattern)
    assert [question.gold for question in load(data).train] == ["A", "Z", "C"]
    bad = write(tmp_path / "bad.jsonl", [{"question": "a", "answer": places[0] - 1}, {"question": "b", "answer": 99}])
    with pytest.raises(DataError, match=f"is not the place of a choice, counted from {places[0]}"):
        load(DataConfig(train=bad, answer_pattern=pattern))
