"""What rows may look like: separators, chats, nested columns, boxes."""

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
