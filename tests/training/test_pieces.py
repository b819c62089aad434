"""Runs on texts in pieces: read, checked by line, trained, evaluated by number of pieces, resumed, and refused."""

from __future__ import annotations

import json
import re

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.errors import RecipeError
from motif.integrations.branch import refuse
from motif.models.hub import load_tokenizer
from motif.report.trees import Forest
from motif.session import open_task, piece_limit
from motif.tasks import BadRows, load
from motif.training.loop import train

QUIET = Display(quiet=True)
ROUNDS = {"system_prompt": "", "piece": "{question} {piece}", "progress": " [{note}]", "counter": "", "final": " !"}
TAGS = {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"], "note_tokens": 6}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(number, *pieces):
    return {"question": "sum?", "answer": str(number), "pieces": list(pieces)}


def recipe(model, train_file, **data):
    return load_recipe(
        {
            "method": "paper",
            "model": {"name": model, "adapter": "full", "device": "cpu"},
            "data": {"train": train_file, "held_out": 4, "grader": "numeric", "pieces_column": "pieces"} | data,
            "rounds": ROUNDS | TAGS,
            "rollout": {"branching": [2, 2], "tokens_first": 8, "tokens_continue": 8, "window": 64, "most_rounds": 5},
            "credit": {"train_rounds": "all"},
            "train": {"steps": 2, "save_every": 1, "threads": 1},
            "eval": {"questions": 4},
        }
    )


@pytest.fixture
def rows():
    return [row(n, *(f"{n}.{part}" for part in range(1 + n % 3))) for n in range(12)]


def test_a_run_reads_a_piece_a_round_and_is_measured_by_their_number(tmp_path, tiny_model, rows):
    made = recipe(tiny_model, write(tmp_path / "a.jsonl", rows))
    result = train(made, tmp_path / "run", display=QUIET)
    trees = [json.loads(line) for line in (tmp_path / "run/trees.jsonl").open()]
    for tree in trees:
        pieces = tree["question"]["pieces"]
        assert tree["question"]["rounds"] == len(pieces)
        node, depth = tree["responses"][0], 1
        assert len(tree["responses"]) == 2
        while "children" in node:
            node, depth = node["children"][0], depth + 1
        assert depth == len(pieces)
    [accuracy] = result.after.values()
    assert list(result.after) == ["pieces"] and accuracy["n"] == 4
    assert sum(part["n"] for part in accuracy["by_pieces"].values()) == 4
    shown = Forest(tmp_path / "run/trees.jsonl")
    shown.refresh()
    assert shown.tree(0)["question"]["pieces"] == trees[0]["question"]["pieces"]
    assert shown.containing(trees[0]["question"]["pieces"][0])
    assert load_recipe(tmp_path / "run/recipe.toml") == made.with_microbatch(4096).with_recomputing(False)


def test_the_same_run_stopped_and_resumed_ends_the_same(tmp_path, tiny_model, rows):
    made = recipe(tiny_model, write(tmp_path / "a.jsonl", rows))
    train(made, tmp_path / "whole", display=QUIET)
    half = made.model_copy(update={"train": made.train.model_copy(update={"steps": 1})})
    train(half, tmp_path / "run", display=QUIET)
    train(made, tmp_path / "run", display=QUIET, resume=True, allow_changes=True)
    one, two = ((tmp_path / name / "trees.jsonl").read_text() for name in ("whole", "run"))
    assert one == two


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"question": "q", "answer": "1", "pieces": []}, "has no pieces"),
        ({"question": "q", "answer": "1", "pieces": ["a", " "]}, "piece 2 is empty"),
        ({"question": "q", "answer": "1", "pieces": ["a", 3]}, "piece 2 is a number, not text"),
        ({"question": "q", "answer": "1", "pieces": ["a", ["b"]]}, "piece 2 is a list, not text"),
        ({"question": "q", "answer": "1", "pieces": "one. two."}, "to cut one text, set data.piece_tokens"),
        ({"question": "q", "answer": "1"}, "no column 'pieces'"),
    ],
)
def test_pieces_that_are_none_are_named_by_line(tmp_path, rows, bad, problem):
    made = recipe("embedded", write(tmp_path / "a.jsonl", [*rows, bad]))
    with pytest.raises(BadRows, match=f"a.jsonl:13: .*{re.escape(problem)}"):
        load(made.data)


def test_too_many_and_too_long_pieces_are_named_by_line(tmp_path, tiny_model, rows):
    long = [row(50, *"abcdef"), row(51, "a", "b" * 60)]
    made = recipe(
        tiny_model,
        write(tmp_path / "a.jsonl", [*rows, *long]),
        held_out=0,
        test=write(tmp_path / "b.jsonl", [row(9, "x")]),
    )
    with pytest.raises(BadRows) as caught:
        open_task(made, load_tokenizer(tiny_model), 64)
    assert "13: 6 pieces are more rounds than rollout.most_rounds = 5" in str(caught.value)
    assert re.search(
        r"14: piece 2: prompt of up to \d+ tokens leaves no room for a response in the window of 64", str(caught.value)
    )
    skipping = made.model_copy(update={"data": made.data.model_copy(update={"skip_bad": True})})
    task = open_task(skipping, load_tokenizer(tiny_model), 64)
    assert len(task.train) == 12 and [bad.line for bad in task.skipped] == [13, 14]


def test_a_long_text_is_cut_to_the_limit(tmp_path, tiny_model):
    texts = [{"question": "who?", "answer": str(n), "pieces": f"Ann is {n}. Ben is two. No more."} for n in range(8)]
    made = recipe(tiny_model, write(tmp_path / "a.jsonl", texts), piece_tokens=12)
    task = open_task(made, load_tokenizer(tiny_model), 64)
    assert all(question.pieces[1:] == ("Ben is two.", "No more.") for question in task.train)
    assert piece_limit(made, None, 64) == 12


def test_the_same_question_about_other_pieces_is_another_question(tmp_path, rows):
    twice = write(tmp_path / "a.jsonl", [*rows, row(99, "0.0", "x"), row(7, "7.0", "7.1")])
    with pytest.raises(BadRows, match="14: duplicate of line 8"):
        load(recipe("embedded", twice).data)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("eval", {"rounds": [2]}),
        ("eval", {"matched": True}),
        ("rollout", {"rounds_vary": [1, 2]}),
        ("probe", {"questions": 2}),
    ],
)
def test_settings_of_the_number_of_rounds_do_not_apply(section, setting):
    data = {"task": "ledger", "ledger": {"entries_per_piece": 4}}
    [name] = setting
    with pytest.raises(RecipeError, match=f"{section}.{name} does not apply to texts in pieces"):
        load_recipe({"data": data, section: setting})


def test_hosts_refuse_texts_in_pieces():
    made = load_recipe({"data": {"task": "stories", "stories": {"events_per_piece": 1}}})
    with pytest.raises(RecipeError, match="texts in pieces"):
        refuse("verl", made)


def test_piece_tokens_alone_is_refused():
    with pytest.raises(RecipeError, match=r"data\.piece_tokens is read with"):
        load_recipe({"data": {"train": "a.jsonl", "piece_tokens": 9}})
