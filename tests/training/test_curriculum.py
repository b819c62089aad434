"""`data.curriculum`: lengths begin short and grow as they are learnt, the same ones after a resume."""

import json

import pytest

from motif.config import DataConfig, load_recipe
from motif.display import Display
from motif.errors import RecipeError
from motif.method.tree import Question
from motif.planning.plan import make_plan
from motif.session import open_session
from motif.training.loop import train
from motif.training.progress import Clock, Progress
from motif.training.rollouts import Rollouts
from motif.training.schedule import Course
from support.scripted import WELL_FORMED, recipe_of_sums, script

GROWING = load_recipe({"data": {"task": "chain", "curriculum": 0.5}}).data
SETTINGS = ["data.pieces_column=pieces", "rollout.questions_per_step=2", "train.steps=6", "data.curriculum=0.75"]
SETTINGS += ["data.curriculum_questions=2"]


def recipe(folder, model, lengths=(1, 2, 3)):
    made = recipe_of_sums(folder, model, rounds={"piece": "{question} {piece}"})
    rows = [
        {"question": f"{number}:{length}?", "answer": str(number), "pieces": ["x"] * length}
        for length in lengths
        for number in range(length, 30, 3)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def right_up_to(known):
    """Responses that are right for texts of up to so many pieces, and one of two right for longer ones."""

    def say(message, path):
        number, length = message.partition("?")[0].split(":")
        right = int(length) <= known or path[0] == 0
        return WELL_FORMED.format(f"\\boxed{{{number if right else 99}}}" if len(path) == int(length) else "n")

    return say


def lines(run, name):
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def test_the_next_length_joins_when_the_longest_is_right_often_enough(tmp_path, tiny_model, monkeypatch, capsys):
    script(monkeypatch, right_up_to(1))
    train(load_recipe(recipe(tmp_path, tiny_model), SETTINGS), tmp_path / "run")
    metrics = [line for line in lines(tmp_path / "run", "metrics") if "reward" in line]
    trees = lines(tmp_path / "run", "trees")
    drawn = [sorted(len(tree["question"]["pieces"]) for tree in trees if tree["step"] == step) for step in range(1, 7)]
    assert drawn == [[1, 1], *[[1, 2]] * 5]  # half of the answers to two pieces are right, and 75 % would be needed
    assert [line["curriculum/length"] for line in metrics] == [1, 2, 2, 2, 2, 2]
    assert [line["curriculum/right"] for line in metrics] == [1.0, *[0.5] * 5]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["curriculum"] == {"lengths": [1, 2, 3], "passed": 1, "joined": [[1, 0], [2, 1]]}
    said = " ".join(capsys.readouterr().out.split())
    assert "lengths 1 to 3 (3 of them) join one by one: the next when 75 % is right" in said
    assert "100 % right in the last 2 questions of length 1: length 2 joins" in said
    assert "the curriculum has come to length 2 of 3: longer questions were not trained on" in said
    assert "Lengths in training" in (tmp_path / "run/report.html").read_text()


def test_a_resumed_run_draws_the_same_questions(tmp_path, tiny_model, monkeypatch):
    made, say = load_recipe(recipe(tmp_path, tiny_model), SETTINGS), right_up_to(3)
    samplers = script(monkeypatch, say)
    train(made, tmp_path / "whole", display=Display(quiet=True))
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert summary["curriculum"]["passed"] == 3  # in the end questions come as they lie in the data
    asked, kill_at = 0, samplers[0].asked * 2 // 3

    def killed(message, path):
        nonlocal asked
        asked += 1
        if asked == kill_at:
            raise KeyboardInterrupt
        return say(message, path)

    script(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "cut", display=Display(quiet=True))
    script(monkeypatch, say)
    assert train(made, tmp_path / "cut", display=Display(quiet=True), resume=True).finished
    assert (tmp_path / "cut/trees.jsonl").read_bytes() == (tmp_path / "whole/trees.jsonl").read_bytes()


def test_what_is_sampled_ahead_keeps_its_lengths_after_a_resume(tmp_path, tiny_model, monkeypatch):
    """With overlap, step 2 was begun before step 1 let the second length join."""
    script(monkeypatch, right_up_to(3))
    session = open_session(load_recipe(recipe(tmp_path, tiny_model), SETTINGS))
    state = Progress(1)
    state.step, state.weights_before = 2, session.policy.state()
    state.curriculum.stage, state.curriculum.ahead = 1, 0
    trees = Rollouts(session, state, Display(quiet=True))._sample_now(Clock()).trees
    session.close()
    assert {len(tree.question.pieces) for tree in trees} == {1}


@pytest.mark.parametrize(("count", "tries"), [(1, 1), (3, 2), (4, 3)])
def test_every_other_question_is_of_the_longest_length(count, tries):
    questions = [Question(f"q{n}", f"text {n}", "", steps=1 + n % 3) for n in range(60)]
    course, plain = Course(questions, GROWING), Course(questions, DataConfig())
    for step in range(1, 9):
        for stage in range(3):
            places = course.places(stage, step, count, 0, tries)
            longest = [[question.length == stage + 1 for question in place] for place in places]
            first = (step - 1) * count
            assert longest == [[stage == 0 or (first + place) % 2 == 0] * tries for place in range(count)]
            assert all(question.length <= stage + 1 for place in places for question in place)
        assert course.places(3, step, count, 0, tries) == plain.places(0, step, count, 0, tries)
    seen = [course.places(2, step, count, 0)[0][0].id for step in range(1, 21)]
    assert len(set(seen)) > 10  # each list is gone through in turn


def test_without_a_curriculum_nothing_is_written_down():
    made = load_recipe({"data": {"task": "chain"}})
    assert "curriculum" not in made.to_toml()
    again = load_recipe({"data": {"task": "chain", "curriculum": 0.5}})
    assert "curriculum = 0.5" in again.to_toml() and "curriculum_questions = 8" in again.to_toml()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"task": "gsm8k", "curriculum": 0.5}, "those of task 'gsm8k' have none: use it with chain, stories, ledger"),
        ({"task": "arithmetic", "curriculum": 0.5}, "those of task 'arithmetic' have none"),
        ({"task": "chain", "curriculum": 0.5, "chain": {"shortest": 3, "longest": 3}}, "shortest = longest = 3"),
        ({"task": "chain", "curriculum": 1.5}, "data.curriculum"),
        ({"task": "chain", "curriculum_questions": 4}, "is read with data.curriculum only"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(data, problem):
    with pytest.raises(RecipeError, match=problem):
        load_recipe({"data": data})


def test_texts_that_all_have_one_length_are_refused_before_anything_is_spent(tmp_path, tiny_model):
    with pytest.raises(RecipeError, match="needs questions of several lengths, and all 10 training questions"):
        make_plan(load_recipe(recipe(tmp_path, tiny_model, lengths=(2,)), SETTINGS))
