"""`rollout.refill`: a dead question is replaced by another, the same one whatever else happens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from motif.config import DataConfig, load_recipe
from motif.display import Display
from motif.distributed import Processes
from motif.errors import RecipeError
from motif.method.credit import assign
from motif.method.tree import Node, Question, Tree
from motif.session import open_session
from motif.tasks import load
from motif.training.loop import train
from motif.training.progress import Clock, Progress
from motif.training.rollouts import Rollouts
from motif.training.schedule import Course, draw_questions
from support.runs import metric_lines
from support.scripted import WELL_FORMED, recipe_of_sums, script


def one_of_two_right(live):
    """Of live questions the first response is right and the second wrong; of the others all are wrong."""

    def say(question, path):
        first, _, _ = question.partition("+1")
        if len(path) == 1:
            return WELL_FORMED.format("n")
        right = int(first) in live and path[0] == 0
        return WELL_FORMED.format(f"\\boxed{{{int(first) + 1 if right else 77}}}")

    return say


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def steps(run: Path) -> list[dict]:
    return [line for line in metric_lines(run) if "reward" in line]


def go(recipe: dict, out: Path, *settings: str, **options):
    return train(load_recipe(recipe, settings), out, display=Display(quiet=True), **options)


def draw_places(questions, step, count, seed, tries):
    return Course(questions, DataConfig()).places(0, step, count, seed, tries)


# -- which questions ---------------------------------------------------------------------------------------------------


def test_replacements_are_other_questions_of_the_step_and_come_in_turn():
    questions = [Question(f"q{n}", f"text {n}", "") for n in range(30)]
    seen = set()
    for step in range(1, 11):
        places = draw_places(questions, step, 2, seed=5, tries=4)
        assert [place[0] for place in places] == draw_questions(questions, step, 2, seed=5)
        assert [len(place) for place in places] == [4, 4]
        tried = [question.id for place in places for question in place]
        assert len(set(tried)) == 8
        seen |= {question.id for place in places for question in place[1:]}
        assert places == draw_places(questions, step, 2, seed=5, tries=4)
    assert len(seen) == 30


def test_in_small_data_there_are_as_many_replacements_as_other_questions():
    questions = [Question(f"q{n}", f"text {n}", "") for n in range(3)]
    places = draw_places(questions, 1, 2, seed=0, tries=9)
    assert sorted(question.id for place in places for question in place) == ["q0", "q1", "q2"]
    places = draw_places(questions, 1, 4, seed=0, tries=9)  # one question comes twice already
    assert [len(place) for place in places] == [1, 1, 1, 1]


# -- which are dead ----------------------------------------------------------------------------------------------------


def grown(*outcomes, branching=(2, 2)):
    roots = [Node((i,), [], [1], [0.0], "", truncated=False, well_formed=True) for i in range(branching[0])]
    verdicts = iter(outcomes)
    for root in roots:
        root.children = [
            Node((*root.path, j), [], [1], [0.0], "", truncated=False, well_formed=True, verdict=next(verdicts))
            for j in range(branching[1])
        ]
    return Tree(Question("q", "", ""), 1, roots)


@pytest.mark.parametrize(
    ("outcomes", "rounds", "dead"),
    [
        (("wrong", "wrong", "wrong", "wrong"), "all", True),
        (("right", "right", "right", "right"), "first", True),
        (("right", "wrong", "wrong", "right"), "first", True),  # both responses are worth one half
        (("right", "wrong", "wrong", "right"), "all", False),  # and their continuations differ
        (("right", "right", "wrong", "wrong"), "first", False),
        (("ungraded", "ungraded", "ungraded", "ungraded"), "all", True),
    ],
)
def test_a_question_is_dead_if_every_group_of_it_is(outcomes, rounds, dead):
    credit = load_recipe({"credit": {"train_rounds": rounds}}).credit
    assert assign(grown(*outcomes), credit).dead is dead


# -- in a run ----------------------------------------------------------------------------------------------------------


def test_only_live_questions_are_trained_on_and_all_are_counted(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, one_of_two_right({2, 5}))
    recipe = recipe_of_sums(tmp_path, tiny_model, rollout={"questions_per_step": 2, "refill": 4})
    result = go(recipe, tmp_path / "run")
    trees, metrics = lines(tmp_path / "run", "trees"), steps(tmp_path / "run")
    live = {"2+1", "5+1"}
    assert all(tree.get("dropped", False) == (tree["question"]["text"] not in live) for tree in trees)
    for line in metrics:
        here = [tree for tree in trees if tree["step"] == line["step"]]
        kept = sum(not tree.get("dropped", False) for tree in here)
        assert (line["refill/tried"], line["refill/kept"], line["refill/short"]) == (len(here), kept, 2 - kept)
        assert line["refill/dropped"] + kept == len(here) <= 8
        assert line["outcome/mean"] == pytest.approx(kept / (2 * len(here)))  # of all that were tried
    assert result.ledger.questions == len(trees)
    assert result.ledger.dropped_questions == sum("dropped" in tree for tree in trees)
    assert result.ledger.updates == 3
    assert "Questions tried and kept" in (tmp_path / "run/report.html").read_text()


def test_the_update_is_that_of_the_kept_questions_alone(tmp_path, tiny_model, monkeypatch):
    """A run that draws the live question at once ends with the same weights as one that finds it by replacing."""
    recipe = recipe_of_sums(tmp_path, tiny_model, count=3, train={"steps": 1})
    [tried] = draw_places(load(load_recipe(recipe).data).train, 1, 1, seed=0, tries=3)
    live = int(tried[-1].text.partition("+")[0])
    script(monkeypatch, one_of_two_right({live}))
    found = go(recipe, tmp_path / "found", "rollout.refill=3")
    assert found.ledger.questions == 3 and found.ledger.updates == 1
    file = tmp_path / "sums.jsonl"
    file.write_text(file.read_text().splitlines()[live] + "\n")
    assert go(recipe, tmp_path / "alone").ledger.questions == 1
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("found", "alone"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_step_without_a_live_question_makes_no_update_and_says_so(tmp_path, tiny_model, monkeypatch, capsys):
    script(monkeypatch, one_of_two_right(set()))
    recipe = recipe_of_sums(tmp_path, tiny_model)
    result = train(load_recipe(recipe, ["rollout.refill=2", "train.steps=1"]), tmp_path / "run")
    assert (result.ledger.questions, result.ledger.dropped_questions, result.ledger.updates) == (2, 2, 0)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 questions tried, 0 of 1 kept" in said
    assert "up to 2 tried for each" in said


def test_killed_in_the_middle_of_replacing_and_resumed_equals_uninterrupted(tmp_path, tiny_model, monkeypatch):
    recipe = recipe_of_sums(tmp_path, tiny_model)
    settings = ["rollout.questions_per_step=2", "rollout.refill=3", "train.steps=4"]
    say = one_of_two_right({1, 4, 6})
    script(monkeypatch, say)
    go(recipe, tmp_path / "whole", *settings)
    asked = 0

    def killed(question, path):
        nonlocal asked
        asked += 1
        if asked == kill_at:
            raise KeyboardInterrupt
        return say(question, path)

    trees = lines(tmp_path / "whole", "trees")
    begun = sum(4 for tree in trees if tree["step"] < 3)
    replaced = [tree for tree in trees if tree["step"] == 3][2:]
    assert replaced, "nothing is replaced in step 3"
    kill_at = begun + 2 * 4 + 1  # the first response to a question that replaces another
    script(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        go(recipe, tmp_path / "cut", *settings)
    assert len(steps(tmp_path / "cut")) == 2
    script(monkeypatch, say)
    assert go(recipe, tmp_path / "cut", *settings, resume=True).finished
    for name in ("trees.jsonl", "model/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")


def test_every_process_finds_what_one_alone_finds(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, one_of_two_right({0, 3}))
    settings = ["rollout.questions_per_step=3", "rollout.refill=3"]

    def sampled(processes: Processes):
        session = open_session(load_recipe(recipe_of_sums(tmp_path, tiny_model, count=20), settings))
        session.processes = processes
        try:
            return Rollouts(session, Progress(1), Display(quiet=True))._sample(2, 0, Clock()).by_place()
        finally:
            session.close()

    alone = sampled(Processes())
    shares = [sampled(Processes(rank, 2, 2)) for rank in range(2)]
    together = [shares[place % 2][place // 2] for place in range(3)]
    assert [[tree.to_dict() for tree in place] for place in together] == [
        [tree.to_dict() for tree in place] for place in alone
    ]


def test_what_replaces_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"rollout.refill.*at least 2"):
        load_recipe({}, ["rollout.refill=1"])
