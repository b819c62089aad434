"""The ledger counts what the trees say, over interruptions too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from motif.display import Display
from motif.errors import RunFolderError
from motif.runs import checkpoint
from motif.runs.ledger import Ledger
from motif.training.loop import train
from motif.training.progress import Progress

SMALL = [
    "model.adapter=full",
    "data.limit=5",
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2,1]",
    "eval.questions=0",
    "train.save_every=1",
]


def run(folder: Path, steps: int, *more: str, resume: bool = False) -> Path:
    settings = [*SMALL, f"train.steps={steps}", *more]
    train("demo", folder, settings=settings, resume=resume, display=Display(quiet=True))
    return folder


def ledgers(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key.removeprefix("ledger/"): value for key, value in line.items() if key.startswith("ledger/")}
        for line in lines
        if "reward" in line
    ]


def walk(responses: list[dict[str, Any]]):
    for response in responses:
        yield response
        yield from walk(response.get("children", []))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("ledger") / "whole", 4)


def test_counts_what_the_trees_hold(whole):
    trees = [json.loads(line) for line in (whole / "trees.jsonl").read_text().splitlines()]
    nodes = [node for tree in trees for node in walk(tree["responses"])]
    ledger = ledgers(whole)[-1]
    assert ledger == json.loads((whole / "summary.json").read_text())["ledger"]
    assert ledger["questions"] == len(trees) == 8
    assert ledger["generated_tokens"] == sum(node["tokens"] for node in nodes)
    assert ledger["prefill_tokens"] + ledger["prefill_saved"] == sum(node["prompt_tokens"] for node in nodes)
    assert ledger["prefill_saved"] > ledger["prefill_tokens"]
    assert ledger["trained_tokens"] == sum(node["tokens"] for node in nodes if node["advantage"])


def test_seconds_are_those_of_the_parts(whole):
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    ledger = ledgers(whole)[-1]
    for part, lap in (("sampling", "sample"), ("grading", "grade"), ("training", "update")):
        assert ledger[f"{part}_seconds"] == pytest.approx(sum(line[f"time/{lap}"] for line in lines))
    parts = ledger["sampling_seconds"] + ledger["grading_seconds"] + ledger["training_seconds"]
    assert 0 < parts <= ledger["seconds"]


def test_distinct_questions_are_exact_over_epochs_and_interruptions(whole, tmp_path):
    broken = run(tmp_path / "broken", 1)
    run(broken, 2, resume=True)
    run(broken, 4, resume=True)
    # Five questions, two a step: the third step ends the first epoch and begins the second.
    assert [ledger["distinct_questions"] for ledger in ledgers(whole)] == [2, 4, 5, 5]
    assert [ledger["questions"] for ledger in ledgers(whole)] == [2, 4, 6, 8]
    for one, two in zip(ledgers(whole), ledgers(broken), strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in two.items() if "seconds" not in k
        }


def test_two_passes_train_twice_as_many_tokens(whole, tmp_path):
    twice = ledgers(run(tmp_path / "twice", 1, "loss.inner_epochs=2"))[0]
    once = ledgers(whole)[0]
    assert twice["trained_tokens"] == 2 * once["trained_tokens"] > 0
    assert twice["flops"] > once["flops"]


def test_a_checkpoint_of_an_older_version_is_refused_with_a_reason(tmp_path):
    folder = run(tmp_path / "old", 1)
    file = checkpoint.all_checkpoints(folder)[-1] / "state.pt"
    state = torch.load(file, weights_only=True)
    del state["extra"]["drawn"]
    for name in ("distinct_questions", "prefill_saved", "sampling_seconds", "grading_seconds", "training_seconds"):
        del state["extra"]["ledger"][name]
    torch.save(state, file)
    with pytest.raises(RunFolderError, match="older version, which did not count distinct_questions, prefill_saved"):
        run(folder, 2, resume=True)


def test_progress_survives_a_checkpoint():
    state = Progress(microbatch_tokens=4096)
    state.step, state.ledger, state.drawn = 3, Ledger(questions=7, flops=1.5), {1, 2**64 - 1}
    state.skips.add(2)
    state.budget.fits = 512
    loaded = Progress(microbatch_tokens=4096)
    loaded.load(3, state.extra())
    assert (loaded.step, loaded.extra()) == (3, state.extra())
    assert (loaded.drawn, loaded.skips.count, loaded.budget.tokens) == (state.drawn, 2, 512)
    assert Ledger.from_dict(state.ledger.to_dict()) == state.ledger


def test_the_end_of_a_run_says_where_its_time_went(tmp_path, capsys):
    settings = [*SMALL, "train.steps=1"]
    train("demo", tmp_path / "run", settings=settings)
    text = " ".join(capsys.readouterr().out.split())
    assert "spent: 2 questions (2 distinct), 1 update, " in text
    assert "more saved by sharing)" in text
    assert "next: motif view " in text
    assert "(sampling " in text
    assert "% training" not in text
