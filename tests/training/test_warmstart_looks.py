"""A warm start stops while the model is undecided, and looks at it wherever it is sampled."""

import json

import pytest

from motif.config import WarmstartConfig, load_recipe
from motif.display import Display
from motif.training.loop import train
from motif.training.warmstart import why_enough
from support.fake_vllm import FakeVLLM


def look(well_formed, undecided, right=0.3, entropy=0.5):
    return {"well_formed": well_formed, "undecided": undecided, "right": right, "entropy": entropy}


@pytest.mark.parametrize(
    ("looks", "why"),
    [
        ([look(0.5, 0.9)], ""),
        ([look(0.95, 0.2)], ""),
        ([look(0.95, None)], ""),
        ([look(0.95, 0.3)], "30 % of groups tell responses apart"),
        ([look(0.95, 0.1, right=0.97)], "there is nothing left to tell apart"),
        ([look(0.95, 0.2, entropy=0.02)], "too sure: 0.020 nats a token"),
        ([look(0.5, 0.2, entropy=0.02)], ""),
        ([look(0.6, 0.5), look(0.95, 0.2)], "fell from 50 % to 20 %"),
        ([look(0.6, 0.5), look(0.95, 0.26)], ""),
        ([look(0.6, 0.2), look(0.95, 0.0)], ""),
    ],
)
def test_it_ends_while_groups_tell_responses_apart_or_when_imitation_only_makes_sure(looks, why):
    assert why in why_enough(looks, WarmstartConfig(source="self"))
    assert bool(why) == bool(why_enough(looks, WarmstartConfig(source="self")))
    assert not why_enough(looks, WarmstartConfig(source="self", until=0))


CONTENT = {
    "rounds": {"system_prompt": "", "question": "{question}", "progress": "{note}", "counter": "", "final": "!"}
    | {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"], "note_tokens": 12},
    "rollout": {"branching": [4, 1], "tokens_first": 24, "tokens_continue": 24, "window": 400},
    "eval": {"questions": 0},
}


def recipe(tmp_path, tiny_model, model, **warmstart):
    rows = [{"question": f"{n}", "solution": f"{n}", "answer": f"{n}"} for n in range(2, 8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = CONTENT | {
        "method": "paper",
        "model": {"name": tiny_model, "device": "cpu"} | model,
        "data": {"train": str(tmp_path / "rows.jsonl"), "grader": "numeric"},
        "warmstart": {"source": "solutions", "look_every": 5, "look_questions": 6} | warmstart,
        "train": {"steps": 1, "threads": 1},
    }
    return load_recipe(content)


def looks(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["warmstart"]["look"] for line in lines if "look" in line.get("warmstart", {})]


def test_a_model_that_becomes_sure_is_stopped_in_time(tmp_path, tiny_model):
    settings = recipe(tmp_path, tiny_model, {"adapter": "full"}, steps=300, learning_rate=5e-3)
    train(settings, tmp_path / "run", display=Display(quiet=True))
    summary = json.loads((tmp_path / "run/summary.json").read_text())["warmstart"]
    assert summary["steps"] < 300 and summary["reason"].startswith(("9", "100"))
    last = looks(tmp_path / "run")[-1]
    assert last["well_formed"] >= 0.9 and (last["undecided"] >= 0.3 or "nothing left" in summary["reason"])
    page = (tmp_path / "run/report.html").read_text()
    assert "groups that tell responses apart" in page and "warm-entropy" in page


@pytest.mark.parametrize("source", ["solutions", "self"])
def test_servers_get_the_adapter_before_they_are_looked_at_with(tmp_path, tiny_model, source, monkeypatch):
    if source == "self":  # a random model is never right
        monkeypatch.setattr("motif.training.own_samples._ends_right", lambda root: True)
        kept = lambda tree, build, cut, *_, **__: ([build.from_solution(tree.question, tree.question.text, cut)], "")  # noqa: E731
        monkeypatch.setattr("motif.training.own_samples._kept", kept)
    own = {"iterations": 2, "samples": 2, "tokens": 8, "questions": 3} if source == "self" else {}
    stage = {"source": source, "steps": 2, "look_every": 1, "look_questions": 1, "learning_rate": 5e-3} | own
    here = recipe(tmp_path, tiny_model, {"lora_rank": 4}, **stage)
    train(here, tmp_path / "here", display=Display(quiet=True))
    server = FakeVLLM(here.model)
    try:
        there = load_recipe(here.model_dump(mode="json") | {"sampler": {"urls": [server.url]}})
        train(there, tmp_path / "there", display=Display(quiet=True))
    finally:
        server.stop()
    steps = 4 if source == "self" else 2
    assert len(server.history) == steps + 2  # to check the server, before, and after each step
    entropies = [look["entropy"] for look in looks(tmp_path / "there")]
    assert len(set(entropies)) == len(entropies) == len(looks(tmp_path / "here"))
    one, two = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("here", "there"))
    assert one["warmstart"]["trained_tokens"] == two["warmstart"]["trained_tokens"]
    lines = [json.loads(line) for line in (tmp_path / "there/metrics.jsonl").read_text().splitlines()]
    lags = [line["sampler/lag"] for line in lines if "sampler/lag" in line]
    assert lags == [0]  # the first step samples with what the stage has left
