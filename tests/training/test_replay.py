"""Notes replayed to a stem: what is kept, what is drawn of it, and a run that is resumed as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from motif.config import Recipe, in_rounds, load_recipe
from motif.display import Display
from motif.method.credit import assign
from motif.method.tree import Question, Tree
from motif.sampling.grow import TreeShape
from motif.training.loop import train
from motif.training.replay import KEPT, Replay
from support.trees import make_node, make_tree


def recipe(**rollout) -> Recipe:
    settings = {"branching": [1, 1, 4], "replay": 1.0, **rollout}
    return Recipe.model_validate({"rollout": settings, "credit": {"train_rounds": "all"}})


def stem(question: Question, *notes: str) -> Tree:
    nodes = [make_node((0,) * (len(notes) + 1), verdict="right")]
    for depth in range(len(notes), 0, -1):
        node = make_node((0,) * depth, nodes)
        node.note = notes[depth - 1]
        nodes = [node]
    return Tree(question, 1, nodes)


Q = Question("q", "what?", "1")


def notes(tree: Tree) -> list[str]:
    return [node.note for node in tree.walk()]


def test_a_stem_keeps_its_last_round_in_any_number_of_rounds():
    assert [in_rounds([1, 1, 8], count) for count in (1, 2, 3, 4)] == [[8], [1, 8], [1, 1, 8], [1, 1, 1, 8]]
    assert [in_rounds([4, 2, 1], count) for count in (1, 2, 4)] == [[4], [4, 2], [4, 2, 1, 1]]
    assert in_rounds([8], 3) == [8, 1, 1]
    shape = TreeShape.of(recipe().rollout).in_rounds(2)
    assert shape.branching == [1, 4] and len(shape.limits) == 2
    assert recipe(rounds_vary=[1, 2, 3]).rollout.generations == round((4 + 5 + 6) / 3)


def test_only_the_last_round_of_a_stem_is_trained():
    tree = make_tree([[[1, 0, 0, 1]]])
    assign(tree, recipe().credit)
    assert [node.advantage is None for node in tree.walk()] == [True, True, False, False, False, False]


def test_notes_are_given_back_as_far_as_they_go_and_never_for_the_last_round():
    kept = Replay()
    assert notes(kept.begin(Q, 1, recipe())) == []
    assert kept.add([stem(Q, "a", "b")], recipe().rollout) == {"replay/notes": 0, "replay/questions": 0}
    begun = kept.begin(Q, 2, recipe())
    assert notes(begun) == ["a", "b"] and [node.path for node in begun.walk()] == [(0,), (0, 0)]
    assert all(node.policy == "replayed" and not node.token_ids for node in begun.walk())
    assert notes(kept.begin(Question("q", "what?", "1", rounds=2), 2, recipe())) == ["a"]
    assert notes(kept.begin(Question("q", "what?", "1", rounds=1), 2, recipe())) == []
    assert notes(kept.begin(Question("p", "another?", "1"), 2, recipe())) == []
    assert kept.add([begun], recipe().rollout) == {"replay/notes": 2, "replay/questions": 1}


def test_a_longer_stem_replaces_its_beginning_and_only_the_newest_are_kept():
    kept = Replay()
    kept.add([stem(Q, "a"), stem(Q, "a", "b"), stem(Q, "a")], recipe().rollout)
    assert list(kept.stems.values()) == [[["a", "b"]]]
    kept.add([stem(Q, str(number)) for number in range(KEPT)], recipe().rollout)
    assert list(kept.stems.values()) == [[[str(number)] for number in range(KEPT)]]


def test_the_chance_of_a_replay():
    kept = Replay()
    kept.add([stem(Q, "a")], recipe().rollout)
    often = sum(bool(kept.begin(Q, step, recipe(replay=0.3)).roots) for step in range(400))
    assert 80 < often < 160


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rollout": {"branching": [4, 2, 1], "replay": 0.5}}, "gives notes to a stem"),
        ({"rollout": {"branching": [4], "replay": 0.5}}, "gives notes"),
        (
            {
                "rollout": {"branching": [1, 1, 4], "replay": 0.5},
                "credit": {"train_rounds": "all"},
                "sampler": {"urls": ["http://localhost:1"], "overlap": True},
                "loss": {"importance_cap": 2.0},
            },
            "overlap = false",
        ),
    ],
)
def test_where_nothing_can_be_replayed(sections, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(sections)


SETTINGS = [
    "rollout.branching=[1,1,3]",
    "rollout.rounds_vary=[1,2,3]",
    "rollout.replay=0.7",
    "rollout.questions_per_step=2",
    "credit.train_rounds=all",
    "data.arithmetic.smallest=97",
    "data.arithmetic.largest=99",
    "data.limit=3",
    "train.save_every=1",
    "train.stop_when_dead=0",
    "eval.questions=0",
]


def nodes(responses: list[dict]) -> list[dict]:
    return [node for response in responses for node in [response, *nodes(response.get("children", []))]]


def trees(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]


def go(out: Path, steps: int, **more) -> None:
    train(load_recipe("demo", [*SETTINGS, f"train.steps={steps}"]), out, display=Display(quiet=True), **more)


def test_a_run_replays_notes_and_is_resumed_as_if_nothing_had_been(tmp_path):
    go(tmp_path / "whole", 6)
    go(tmp_path / "parts", 3)
    go(tmp_path / "parts", 6, resume=True)
    whole = trees(tmp_path / "whole")
    assert whole == trees(tmp_path / "parts")
    replayed = [node for tree in whole for node in nodes(tree["responses"]) if node.get("policy") == "replayed"]
    assert replayed and all(not node["tokens"] and node["advantage"] is None for node in replayed)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["replay/notes"] for line in lines) == len(replayed)
    sampled = sum(node["tokens"] for tree in whole for node in nodes(tree["responses"]))
    assert lines[-1]["ledger/generated_tokens"] == sampled
