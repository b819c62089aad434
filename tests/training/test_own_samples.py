"""The source `self`: what the model answers is recorded as it comes, and an interrupted run samples nothing twice."""

import contextlib
import json

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.errors import RunFolderError
from motif.session import open_session
from motif.training.loop import train
from motif.training.own_samples import sample_demonstrations
from support.scripted import WELL_FORMED, recipe_of_sums, script

QUIET = Display(quiet=True)
STAGE = {"source": "self", "samples": 2, "keep": 1, "tokens": 40, "steps": 2, "look_questions": 1, "iterations": 2}


def added(message, path):
    """The sum in one long round, which is cut into two; or, in the second iteration, in two rounds."""
    number = int(message.partition("+")[0])
    if "?" not in message:
        return f"{number}+1={number + 1}"
    return WELL_FORMED.format(f"\\boxed{{{number + 1}}}" if len(path) == 2 else "n")


@pytest.fixture
def recipe(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("motif.training.own_samples.ROWS_ON_CPU", 4)  # two questions
    sections = {"rollout": {"window": 400}, "train": {"steps": 0}, "rounds": {"question": "{question}?"}}
    return load_recipe(recipe_of_sums(tmp_path, tiny_model, 6, warmstart=STAGE, **sections))


def ids(own):
    return [[node.token_ids for node in tree.walk()] for tree in own.found.trees]


def test_what_was_sampled_is_not_sampled_again(recipe, tmp_path, monkeypatch):
    samplers = script(monkeypatch, added)
    record = tmp_path / "samples.jsonl"
    with contextlib.closing(open_session(recipe)) as session:
        whole = sample_demonstrations(session, 0, QUIET, tmp_path / "whole.jsonl")
        assert len(whole.found.trees) == samplers[0].asked == 6
        parts = (session, 0, QUIET, record)
        assert not sample_demonstrations(*parts, lambda: samplers[0].asked >= 8).complete
        assert samplers[0].asked == 8 and len(record.read_text().splitlines()) == 1
        with record.open("a") as file:
            file.write('{"key": "torn')
        resumed = sample_demonstrations(*parts)
        assert samplers[0].asked == 12 and ids(resumed) == ids(whole)
        assert resumed.sampled.usage == whole.sampled.usage
        with torch.no_grad():
            next(iter(session.policy.trainable())).add_(1.0)
        sample_demonstrations(*parts)
        assert samplers[0].asked == 18  # other weights have other answers


@pytest.mark.parametrize(
    ("line", "why"),
    [("{broken", "not a JSON object"), ("[1]", "not a JSON object"), ('{"a": 1}', "'key' is missing")],
)
def test_a_broken_line_is_named_with_what_to_do(recipe, tmp_path, monkeypatch, line, why):
    script(monkeypatch, added)
    record = tmp_path / "samples.jsonl"
    with contextlib.closing(open_session(recipe)) as session:
        sample_demonstrations(session, 0, QUIET, record)
        lines = record.read_text().splitlines()
        key = json.loads(lines[1])["key"]
        for broken, problem in ((line, why), (json.dumps({"key": key}), "is missing")):
            record.write_text("\n".join([lines[0], broken, *lines[2:]]) + "\n")
            with pytest.raises(
                RunFolderError, match=rf"samples.jsonl, line 2 cannot be used .*{problem}.*: delete the"
            ):
                sample_demonstrations(session, 0, QUIET, record)


def test_a_run_that_is_killed_while_it_samples_ends_as_one_that_was_not(recipe, tmp_path, monkeypatch):
    samplers = script(monkeypatch, added)
    train(recipe, tmp_path / "whole", display=QUIET)
    asked = 0

    def killed(message, path):
        nonlocal asked
        asked += 1
        if asked == 9:  # in the third chunk, after two answers a question
            raise KeyboardInterrupt
        return added(message, path)

    script(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", display=QUIET)
    again = script(monkeypatch, added)
    train(recipe, tmp_path / "cut", display=QUIET, resume=True)
    assert again[0].asked == samplers[0].asked - 4
    one, two = (tmp_path / name / "model/model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == two.read_bytes()
    spent = [json.loads((tmp_path / name / "summary.json").read_text())["ledger"] for name in ("whole", "cut")]
    assert spent[0]["generated_tokens"] == spent[1]["generated_tokens"]
