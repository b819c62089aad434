"""`motif train --try` says what the first trees show, and writes nothing."""

import json
import os

import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import load_recipe
from motif.display import Display
from motif.training.loop import train
from motif.training.trial import told, try_out
from support.scripted import WELL_FORMED, recipe_of_sums, script


def first_right(question, path):
    if len(path) == 1:
        return WELL_FORMED.format(f"note {path[0]}")
    return WELL_FORMED.format(f"\\boxed{{{int(question.partition('+')[0]) + 1 if path[0] == 0 else 77}}}")


def look(recipe, *settings: str):
    trial = try_out(load_recipe(recipe, settings), Display(quiet=True))
    return trial, " ".join("\n".join(told(trial)).split())


def test_it_draws_rounds_as_the_first_step_does(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, first_right)
    recipe = recipe_of_sums(tmp_path, tiny_model, rollout={"questions_per_step": 2}, train={"steps": 1})
    trial, _ = look(recipe, "rollout.rounds_vary=[1,2,3]")
    train(load_recipe(recipe, ["rollout.rounds_vary=[1,2,3]"]), tmp_path / "run", display=Display(quiet=True))
    grown = [json.loads(line) for line in (tmp_path / "run/trees.jsonl").read_text().splitlines()]
    assert [tree.question.text for tree in trial.trees] == [tree["question"]["text"] for tree in grown]
    assert [len(tree.rounds()) for tree in trial.trees] == [depth(tree["responses"][0]) for tree in grown]


def depth(node) -> int:
    return 1 + max(map(depth, node.get("children", [])), default=0)


def test_it_grows_the_first_steps_trees_and_counts_them(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, first_right)
    recipe = recipe_of_sums(tmp_path, tiny_model, rollout={"questions_per_step": 2}, train={"steps": 1})
    trial, text = look(recipe)
    train(load_recipe(recipe), tmp_path / "run", display=Display(quiet=True))
    grown = [json.loads(line) for line in (tmp_path / "run/trees.jsonl").read_text().splitlines()]
    assert [tree.question.id for tree in trial.trees] == [tree["question"]["id"] for tree in grown]
    numbers = trial.to_dict()
    assert numbers["final"] | {"reason": ""} == {
        "responses": 4, "answered": 4, "right": 2, "wrong": 2, "ungraded": 0, "reason": "",
    }  # fmt: skip
    assert [one["responses"] for one in numbers["rounds"]] == [4, 4]
    assert numbers["groups"] == {"compared": 2, "dead": 0} and numbers["diagnosis"] is None
    generated = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["ledger/generated_tokens"]
    assert numbers["tokens"] == generated == pytest.approx(numbers["step"]["tokens"])
    assert numbers["step"]["update_seconds"] > 0
    sample = numbers["sample"]
    assert sample["rounds"][0]["note"] == "note 0" and sample["rounds"][1]["verdict"] == "right"
    for words in ("carried on: note 0", "4 with an answer", "2 right, 2 wrong", "in 2 of 2 groups rewards differ"):
        assert words in text


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (
            lambda question, path: "five",
            "nothing can be learnt from these responses, because none of the responses keeps",
        ),
        (lambda question, path: WELL_FORMED.format("n"), "between \\boxed{ and }. Try, in a new run:"),
        (lambda question, path: "<think>on and on…", "100 % cut off"),
    ],
)
def test_what_is_wrong_is_said_with_lines_to_paste(say, words, tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, say)
    trial, text = look(recipe_of_sums(tmp_path, tiny_model))
    assert words in text and "--set " in text and "there would be no update" in text
    assert load_recipe(recipe_of_sums(tmp_path, tiny_model), [trial.diagnosis().options.split("--set ")[1].strip(" '")])


def test_before_a_warm_start_missing_form_is_what_it_is_for(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, lambda question, path: "five")
    _, text = look(recipe_of_sums(tmp_path, tiny_model), "warmstart.source=self")
    assert "this is the model before its warm start" in text and "Try, in" not in text


def test_interrupted_it_tells_what_there_is(tmp_path, tiny_model, monkeypatch):
    asked = 0

    def interrupted(question, path):
        nonlocal asked
        asked += 1
        if asked > 5:
            raise KeyboardInterrupt
        return first_right(question, path)

    script(monkeypatch, interrupted)
    trial, text = look(recipe_of_sums(tmp_path, tiny_model))
    assert not trial.complete and trial.to_dict()["groups"] is None and trial.to_dict()["step"] is None
    assert "stopped after " in text and "100 % well formed" in text


def test_the_command_prints_or_gives_json_and_writes_nothing(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, first_right)
    recipe = load_recipe(recipe_of_sums(tmp_path, tiny_model))
    (tmp_path / "sums.toml").write_text(recipe.to_toml())
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    done = CliRunner().invoke(app, ["train", "sums.toml", "--try"])
    assert done.exit_code == 0 and "there is something to learn" in done.output
    done = CliRunner().invoke(app, ["train", "sums.toml", "--try", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["complete"] is True
    assert sorted(os.listdir()) == before
