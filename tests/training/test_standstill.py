"""A run that learns nothing says why, while it can be helped, and stops where it can be resumed."""

import json
import re
import tomllib

import pytest

from motif.config import load_recipe
from motif.config.recipe import Recipe
from motif.display import Display
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.report import write_report
from motif.report.data import RunView
from motif.training.diagnosis import Seen, diagnose, of_dead_groups, remedy
from motif.training.loop import train
from support.scripted import WELL_FORMED, recipe_of_sums, script

CAUSES = ("ungraded", "cut off", "no form", "no answer", "all wrong", "all right", "alike")


def tree(**leaf):
    told = {"text": "", "truncated": False, "well_formed": True, "answer": "1"} | leaf
    return Tree(Question("q", "", ""), 1, [Node((0,), [], [1], [0.0], **told)])


@pytest.mark.parametrize(
    ("leaf", "cause", "because", "option"),
    [
        ({"well_formed": False, "verdict": "wrong"}, "no form", "none of the responses keeps", "warmstart.source=self"),
        (
            {"answer": None, "verdict": "wrong"},
            "no answer",
            "none of the final responses has an answer",
            "fallback=text",
        ),
        ({"verdict": "wrong"}, "all wrong", "all 3 graded answers are wrong", "'rollout.branching=[16, 4, 1]'"),
        ({"verdict": "right"}, "all right", "all 3 graded answers are right", "rollout.refill=4"),
        ({"verdict": "ungraded", "reason": "no"}, "ungraded", "could not be graded (no)", "data.grader=math"),
        (
            {"verdict": "ungraded", "reason": "timed out after 5 s, most of them waiting"},
            "ungraded",
            "timed out",
            "data.grader_seconds=20.0",
        ),
        (
            {"truncated": True, "text": "<reasoning> long", "well_formed": False},
            "cut off",
            "are cut off by the token limit",
            "rollout.tokens_first=2048 --set rollout.tokens_continue=2048",
        ),
        ({"truncated": True, "text": "rambles", "well_formed": False}, "no form", "run into the token limit", "=self"),
    ],
)
def test_each_cause_is_told_with_lines_that_may_mend_it(leaf, cause, because, option, tiny_tokenizer):
    recipe, seen = load_recipe({}), Seen()
    seen.add([tree(**leaf)] * 3, Rounds(recipe.rounds, tiny_tokenizer))
    found = of_dead_groups(seen, recipe)
    assert (found.cause, because in found.because, option in found.options) == (cause, True, True), found
    assert found.options in found.advice()


@pytest.mark.parametrize(
    ("cut", "cause", "because"),
    [
        (3, "cut off", "100 % of the final responses are cut off by the token limit before they answer"),
        (2, "cut off", "67 % of the final responses are cut off"),
        (1, "no answer", "none of the final responses has an answer"),
    ],
)
def test_where_the_end_is_carried_final_responses_that_are_cut_off_are_told(cut, cause, because, tiny_tokenizer):
    recipe = load_recipe({"rounds": {"carry": "tail"}, "data": {"grader": "math"}})
    rounds, seen = Rounds(recipe.rounds, tiny_tokenizer), Seen()
    grown = [tree(answer=None, verdict="wrong", truncated=number < cut) for number in range(3)]
    for one in grown:  # what is cut off before the final round is carried on
        [leaf] = one.roots
        one.roots = [Node((0,), [], [1], [0.0], "", truncated=True, children=[leaf])]
    seen.add(grown, rounds)
    found = of_dead_groups(seen, recipe)
    assert found.cause == cause and because in found.because
    first = "rollout.tokens_first=2048" if cause == "cut off" else "rounds.fallback=last_number"
    assert first in found.options


def test_some_right_and_some_wrong_are_no_cause_unless_all_groups_are_dead():
    seen = Seen(responses=8, well_formed=8, finals=8, answered=8, right=4)
    assert diagnose(seen, load_recipe({})) is None
    assert of_dead_groups(seen, load_recipe({})).cause == "alike"
    assert diagnose(Seen(), load_recipe({})) is None


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"data": {"task": "chain"}},
        {"data": {"task": "arithmetic", "arithmetic": {"largest": 12}}},
        {"data": {"task": "circuit"}},
        {"data": {"task": "gsm8k"}, "warmstart": {"source": "solutions"}},
        {"data": {"task": "gsm8k"}, "rollout": {"branching": [8], "refill": 3}},
        {"sampler": {"urls": ["http://localhost:1"], "overlap": True}},
    ],
)
@pytest.mark.parametrize("cause", CAUSES)
def test_what_is_suggested_is_another_recipe_that_is_accepted(recipe, cause):
    recipe = load_recipe(recipe)
    found = of_dead_groups(seen_of(cause), recipe, room=1500)
    assert found.cause == cause and found.changes
    plain = recipe.model_dump(mode="json")
    pasted = tomllib.loads("\n".join(found.lines))
    assert Recipe.model_validate(merged(plain, pasted)) != recipe
    options = [option for option in found.options.replace("'", "").split("--set ") if option]
    assert load_recipe(plain, [option.strip() for option in options]) == Recipe.model_validate(merged(plain, pasted))


def merged(settings: dict, changes: dict) -> dict:
    both = dict(settings)
    for key, value in changes.items():
        both[key] = merged(both.get(key, {}), value) if isinstance(value, dict) else value
    return both


def seen_of(cause: str) -> Seen:
    counts = {
        "ungraded": {"ungraded": 8, "reason": "no"},
        "cut off": {"cut_off": 8, "begun": 8},
        "no form": {"well_formed": 0},
        "no answer": {"answered": 0},
        "all wrong": {"right": 0},
        "all right": {"right": 8},
        "alike": {"right": 4},
    }[cause]
    return Seen(**({"responses": 8, "well_formed": 8, "finals": 8, "answered": 8} | counts))


def test_longer_responses_are_suggested_as_far_as_the_window_has_room():
    recipe = load_recipe({})
    assert remedy("cut off", recipe, room=1500) == {"rollout.tokens_first": 1500, "rollout.tokens_continue": 1500}
    assert remedy("cut off", recipe, room=1024) == {"warmstart.source": "self"}


def test_worked_solutions_are_looked_for_in_your_own_data(tmp_path):
    (tmp_path / "own.csv").write_text("question,answer,solution\nOne and one?,2,1+1=2\n")
    recipe = load_recipe({"data": {"train": str(tmp_path / "own.csv")}})
    assert remedy("no form", recipe) == {"warmstart.source": "solutions"}
    (tmp_path / "own.csv").write_text("question,answer\nOne and one?,2\n")
    assert remedy("no form", recipe) == {"warmstart.source": "self"}


# -- three moments, three places ---------------------------------------------------------------------------------------


def answered(note):
    return lambda question, path: WELL_FORMED.format(note(int(question.partition("+")[0])))


SCRIPTS = {
    "no form": (lambda question, path: "five", "to the form"),
    "no answer": (answered(lambda n: "n"), "an answer between"),
    "all wrong": (answered(lambda n: "\\boxed{77}"), "answers are wrong"),
    "all right": (answered(lambda n: f"\\boxed{{{n + 1}}}"), "answers are right"),
    "ungraded": (answered(lambda n: "\\boxed{5?}"), "could not be graded (ValueError: cannot read 5?)"),
}
GRADER = """
def grade(gold, answer):
    if not answer.isdecimal():
        raise ValueError(f"cannot read {answer}")
    return answer == gold
"""


@pytest.mark.parametrize("cause", SCRIPTS)
def test_it_is_told_before_after_three_steps_and_at_the_end(cause, tmp_path, tiny_model, monkeypatch, capsys):
    say, words = SCRIPTS[cause]
    script(monkeypatch, say)
    data = {"held_out": 12}
    if cause == "ungraded":
        (tmp_path / "own.py").write_text(GRADER)
        data["grader"] = f"{tmp_path / 'own.py'}:grade"
    evaluated = {"questions": 12, "rounds": [2]}
    recipe = recipe_of_sums(tmp_path, tiny_model, count=24, data=data, eval=evaluated, train={"steps": 4})
    out = tmp_path / "run"
    train(load_recipe(recipe, ["credit.format_weight=0"]), out)
    said = " ".join(capsys.readouterr().out.split())
    before, rest = said.split("step 1/4")
    during, end = rest.split("step 4/4")
    intros = ("before training, ", "no update in 3 steps", "no update in 4 steps")
    for moment, intro in zip((before, during, end), intros, strict=True):
        _, _, told = moment.partition(intro)
        assert words in told and "Try, in a new run" in told and "--set " in told
    summary = json.loads((out / "summary.json").read_text())
    assert [(record["when"], record["cause"]) for record in summary["diagnoses"]] == [
        ("before training", cause),
        ("after step 3", cause),
    ]
    assert summary["standstill"]["cause"] == cause and summary["standstill"]["steps"] == 4
    assert all(words in record["text"] for record in [*summary["diagnoses"], summary["standstill"]])
    titles = shown(out, words)
    assert titles == ["Before training", "Nothing was learnt in the last steps"]
    (out / "summary.json").unlink()  # as while it runs
    assert shown(out, words) == ["Before training", "No update"]
    write_report(out)
    assert "--set " in (out / "report.html").read_text()


def shown(run, words: str) -> list[str]:
    view = RunView(run)
    view.refresh()
    titles = ("Before training", "No update", "Nothing was learnt in the last steps")
    warnings = [warning for warning in view.data("run")["warnings"] if warning["title"] in titles]
    assert all(words in warning["text"] and "efore training" not in warning["text"] for warning in warnings)
    return [warning["title"] for warning in warnings]


def test_without_an_evaluation_the_first_step_tells(tmp_path, tiny_model, monkeypatch, capsys):
    script(monkeypatch, SCRIPTS["no form"][0])
    train(load_recipe(recipe_of_sums(tmp_path, tiny_model, train={"steps": 2})), tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "no update in 1 step: " in said.split("step 2/2")[0]
    assert "no update in 2 steps: " in said.split("step 2/2")[1]


def word_on_page(run) -> str:
    """The state on the page that the run itself has written, while the folder was still its own."""
    return re.search(r'"word":\s*"([^"]*)"', (run / "report.html").read_text())[1]


def test_a_run_that_learns_is_told_nothing(tmp_path, tiny_model, monkeypatch, capsys):
    script(monkeypatch, lambda question, path: WELL_FORMED.format(f"\\boxed{{{path[0]}}}"))
    result = train(load_recipe(recipe_of_sums(tmp_path, tiny_model, count=1, train={"steps": 1})), tmp_path / "run")
    assert result.ledger.updates == 1 and "Try, in" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert "diagnoses" not in summary and "standstill" not in summary
    assert word_on_page(tmp_path / "run") == "finished"


def test_a_dead_run_stops_and_goes_on_when_it_is_resumed(tmp_path, tiny_model, monkeypatch):
    script(monkeypatch, SCRIPTS["all wrong"][0])
    recipe = load_recipe(recipe_of_sums(tmp_path, tiny_model, train={"steps": 9, "stop_when_dead": 4}))
    result = train(recipe, tmp_path / "run", display=Display(quiet=True))
    assert (result.steps, result.finished, result.stopped_dead, result.ledger.updates) == (4, False, True, 0)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["standstill"]["steps"] == 4 and summary["standstill"]["text"] == result.standstill
    assert "Nothing was learnt in the last steps" in (tmp_path / "run/report.html").read_text()
    assert word_on_page(tmp_path / "run") == "stopped"
    again = train(recipe, tmp_path / "run", resume=True, display=Display(quiet=True))
    assert again.steps == 8
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert [record["when"] for record in summary["diagnoses"]] == ["after step 1", "after step 3"]
