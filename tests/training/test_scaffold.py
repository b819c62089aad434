"""`motif init`: strange files become recipes that a run accepts."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import load_recipe


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The tiny model with a window that holds prompts of single characters."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return str(folder)


ROWS = [(a, b) for a in range(2, 8) for b in range(2, 6)]


def call(*arguments, status=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output + repr(done.exception)
    return done.output


def semicolons(file):
    lines = ["\ufeffNr;Aufgabe;Antwort"]
    lines += [
        f'{n};{a}+{b}?;"{a} und {b} sind\nzusammen: {a}+{b}={a + b}\n#### {a + b}"' for n, (a, b) in enumerate(ROWS)
    ]
    file.write_text("\r\n".join(lines), encoding="utf-8")


def chats(file):
    rows = [
        {"prompt": [{"role": "user", "content": f"{a}+{b}?"}], "reward_model": {"ground_truth": str(a + b)}}
        for a, b in ROWS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": []}\n')


def boxes(file):
    rows = [{"problem": f"{a}+{b}?", "solution": f"{a}+{b}={a + b}.\nSo \\boxed{{{a + b}}}."} for a, b in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


CASES = {
    "rows.csv": (semicolons, {"answer_pattern": "#### *(.+)", "question_column": "Aufgabe"}, "solutions"),
    "rows.jsonl": (chats, {"answer_column": "reward_model.ground_truth", "skip_bad": True}, "self"),
    "rows.parquet": (boxes, {"answer_pattern": "boxed", "question_column": "problem"}, "solutions"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_strange_file_becomes_a_recipe_that_runs(tmp_path, monkeypatch, model, name):
    write, data, source = CASES[name]
    (tmp_path / "own").mkdir()
    write(tmp_path / "own" / name)
    monkeypatch.chdir(tmp_path)
    text = call("init", f"own/{name}", "--model", model)
    assert "written: recipe.toml" in text and ("cannot be used" in text) == (name == "rows.jsonl")
    recipe = load_recipe("recipe.toml")
    assert {key: getattr(recipe.data, key) for key in data} == data
    assert recipe.data.train == str(tmp_path / "own" / name) and recipe.data.grader == "numeric"
    assert (recipe.rollout.branching, recipe.credit.train_rounds) == ([4, 2, 1], "all")
    assert (recipe.warmstart.source, recipe.data.held_out) == (source, 4)
    lines = (tmp_path / "recipe.toml").read_text().splitlines()
    assert len([line for line in lines if line and line[0] not in "#["]) <= 24
    assert "20 questions to train on, 4 held out" in call("train", "recipe.toml", "--dry-run")


def test_a_window_that_is_too_small_is_said(tmp_path, monkeypatch, tiny_model):
    boxes(tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    assert "window of 512 tokens" in call("init", "rows.parquet", "--model", tiny_model)


def test_the_paper_is_a_choice(tmp_path, monkeypatch, model):
    boxes(tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    call("init", "rows.parquet", "--model", model, "--method", "paper", "--out", "paper.toml")
    recipe = load_recipe("paper.toml")
    assert (recipe.rollout.branching, recipe.credit.train_rounds, recipe.loss.kind) == ([8, 4, 1], "first", "grpo")


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("way", "reason"), [("own/train.jsonl", "no column 'answer'"), ("own", "column 'answer' is empty")]
)
def test_rows_are_held_out_where_the_test_rows_cannot_be_used(tmp_path, monkeypatch, model, way, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.jsonl").write_text(lines({"question": f"{a}+{b}?", "answer": a + b} for a, b in ROWS))
    (tmp_path / "own" / "test.jsonl").write_text(lines({"question": f"{a}+{b}=?"} for a, b in ROWS))
    text = call("init", way, "--model", model)
    assert "What lies beside these rows cannot be tested on, so some of them are held out" in text
    assert reason in text
    recipe = load_recipe("recipe.toml")
    assert (recipe.data.test, recipe.data.held_out, recipe.eval.questions) == ("", 4, 4)
    assert "20 questions to train on, 4 held out" in call("train", "recipe.toml", "--dry-run")


@pytest.mark.parametrize(("way", "reason"), [("own/train.jsonl", "a file of that name"), ("own", "a split of their")])
def test_test_rows_are_used_and_the_recipe_says_where_they_lie(tmp_path, monkeypatch, model, way, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for name, rows in (("train", ROWS[:20]), ("test", ROWS[20:])):
        (tmp_path / "own" / f"{name}.jsonl").write_text(
            lines({"question": f"{a}+{b}?", "answer": a + b} for a, b in rows)
        )
    call("init", way, "--model", model)
    assert reason in (tmp_path / "recipe.toml").read_text()
    assert "20 questions to train on, 4 held out" in call("train", "recipe.toml", "--dry-run")


def test_long_questions_are_told(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{'a b ' * 1000}{a}+{b}?", "answer": a + b} for a, b in ROWS]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    assert "Questions are long" in call("init", "rows.jsonl", "--model", model)
