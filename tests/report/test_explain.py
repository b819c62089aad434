"""What the page adds to a recorded tree: rewards and advantages as sums, prompts as the model saw them."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from motif.config import CreditConfig, Recipe, load_recipe
from motif.method.credit import assign
from motif.method.tree import Node, Question, Tree
from motif.report.charts import eval_points
from motif.report.data import RunView
from motif.report.explain import Explainer, nodes_of
from motif.report.now import numbers_now
from motif.report.trees import Cutter
from motif.runs.read import Evaluation, read_metrics
from support.runs import fake_run


def node(path: tuple[int, ...], *children: Node, right: bool = False, formed: bool = True) -> Node:
    leaf: dict[str, Any] = {} if children else {"verdict": "right" if right else "wrong"}
    note = f"note {path}" if children else ""
    return Node(path, [1], [1], [0.0], "text", False, note, well_formed=formed, children=list(children), **leaf)


def grown(outcomes: list[list[bool]]) -> Tree:
    """Two rounds: a first-round response for each list, and a final one for each outcome; the last lacks the form."""
    roots = [
        node((at,), *(node((at, to), right=right) for to, right in enumerate(row)), formed=at < len(outcomes) - 1)
        for at, row in enumerate(outcomes)
    ]
    return Tree(Question("q", "What is 2 × 3?", "6"), 1, roots)


def told(tree: Tree, **credit: Any) -> dict[tuple[int, ...], dict[str, Any]]:
    settings = CreditConfig(**credit)
    assign(tree, settings)
    recipe = {"credit": settings.model_dump(), "rollout": {"branching": [3, 2]}}
    copy = Cutter(10_000).tree(tree.to_dict())
    assert copy
    Explainer(recipe).explain(copy)
    return dict(nodes_of(copy["responses"]))


OUTCOMES = [[True, True], [True, False], [False, False]]


@pytest.mark.parametrize(
    ("credit", "path", "words"),
    [
        (
            {"format_weight": 0.2, "divide_by_std": False},
            (1,),
            "0.50 (1 of 2 right) + 0.2 × form = 0.70; mean of 3 responses 0.63; advantage +0.07",
        ),
        (
            {"format_weight": 0.2},
            (0,),
            "1.00 (2 of 2 right) + 0.2 × form = 1.20; mean of 3 responses 0.63, standard deviation 0.60; "
            "advantage +0.94",
        ),
        (
            {"divide_by_std": False, "baseline": "leave_one_out"},
            (2,),
            "0.00 (0 of 2 right) + 1 × form (broken: 0) = 0.00; mean of the 2 other responses 1.75; advantage −1.75",
        ),
        (
            {"train_rounds": "all", "divide_by_std": False},
            (1, 0),
            "1.00 + 1 × form = 2.00; mean of 2 responses 1.50; advantage +0.50",
        ),
        (
            {"train_rounds": "all", "group": "round", "divide_by_std": False},
            (1, 0),
            "1.00 + 1 × form = 2.00; mean of 6 responses 1.50; advantage +0.50",
        ),
        ({}, (1, 0), "1.00 + 1 × form = 2.00; not compared, not trained"),
    ],
)
def test_rewards_are_spelled_out(credit: dict[str, Any], path: tuple[int, ...], words: str) -> None:
    assert told(grown(OUTCOMES), **credit)[path]["why"] == words


def test_an_only_child_is_compared_with_its_round() -> None:
    nodes = told(grown([[True], [False], [False]]), train_rounds="all", divide_by_std=False)
    assert nodes[0, 0]["why"] == "1.00 + 1 × form = 2.00; mean of 2 other responses of its round 1.00; advantage +1.00"


def test_a_sum_that_does_not_hold_is_not_claimed() -> None:
    tree = grown(OUTCOMES)
    assign(tree, CreditConfig(format_weight=0.5))
    copy = Cutter(1000).tree(tree.to_dict()) or {}
    Explainer({"credit": {"format_weight": 0.2}, "rollout": {"branching": [3, 2]}}).explain(copy)
    assert copy["responses"][0]["why"].startswith("1.50; mean of 3 responses 0.83, standard deviation")
    Explainer({"credit": {"unknown": 1}}).explain(other := Cutter(1000).tree(tree.to_dict()) or {})
    assert "why" not in other["responses"][0] and "prompts" not in other


def resolved(*settings: str) -> Recipe:
    return load_recipe("demo", ["rollout.branching=[2,2,1]", *settings])


def test_prompts_are_those_of_the_rounds() -> None:
    from motif.demo import MODELS  # noqa: F401  (the tokenizer comes with the package)
    from motif.method.rounds import Rounds
    from motif.models.hub import load_tokenizer

    for settings in ((), ("rounds.carry=all",), ("rounds.system_prompt=You have {rounds} rounds.",)):
        recipe = resolved(*settings)
        rounds = Rounds(recipe.rounds, load_tokenizer("embedded"))
        leaf = node((0, 0, 0), right=True)
        tree = Tree(Question("q", "What is 2 × 3?", "6"), 1, [node((0,), node((0, 0), leaf))])
        copy = Cutter(1000).tree(tree.to_dict()) or {}
        Explainer(recipe.model_dump(mode="json")).explain(copy)
        notes, at = list[str](), copy
        for number in range(3):
            messages = rounds.messages("What is 2 × 3?", notes, 3)
            shown = copy["prompts"]["asked"][number] + at["next"]["earlier"] + at["next"]["new"]
            assert messages[-1]["content"] == shown
            assert copy["prompts"]["system"] == (messages[0]["content"] if len(messages) > 1 else "")
            at = (at.get("children") or copy["responses"])[0]
            notes.append(at["note"])


def test_no_file_of_a_stranger_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    settings = {"system_prompt_file": str(tmp_path / "secret")}
    copy = Cutter(1000).tree(grown(OUTCOMES).to_dict()) or {}
    Explainer({"rounds": settings, "rollout": {"branching": [3, 2]}}).explain(copy)
    assert copy["prompts"]["system"] == "(the text of secret)"


def test_the_state_comes_from_the_lock(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "first", steps=12, after=None)
    (run / "summary.json").unlink()

    def state() -> dict[str, Any]:
        view = RunView(run)
        view.refresh()
        return view.data("first")

    assert state()["state"] == {"word": "stopped", "activity": "", "reason": "", "step": 12, "steps": 60}
    assert "To go on" in state()["notices"][0]
    with (run / ".writer").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = state()
        assert data["state"]["word"] == "running" and data["notices"] == []
        now = {one["name"]: (one["value"], one["change"]) for one in data["now"]}
        assert now["Time left"] == ("≈ 16 min 48 s", "21 s a step")
        assert now["Speed"] == ("4,571 tokens/s", "")
        assert now["Held out"][0] == "41.0 %"
        assert "no comparison" not in data["result"]["reading"]
        (run / "metrics.jsonl").unlink()
        assert state()["state"]["word"] == "running"
        assert state()["state"]["activity"] == "evaluating before training"
    assert state()["state"]["word"] == "not started"
    assert not read_metrics(run).steps


def row(accuracy, n, **more):
    return {"rounds_3": {"accuracy": accuracy, "low": 0.1, "high": 0.9, "n": n} | more}


def test_evaluations_on_few_questions_are_compared_with_the_same_ones():
    at_first, at_last = ({"accuracy": accuracy, "low": 0.0, "high": 1.0, "n": 100} for accuracy in (0.5, 0.9))
    results = (row(0.4, 500, first=at_first), row(0.8, 100), row(0.7, 500, first=at_last))
    made = [Evaluation(step, "", rows) for step, rows in zip((0, 5, 10), results, strict=True)]

    def held(evaluations):
        [entry] = numbers_now([], evaluations, 3, None)
        return entry["value"], entry["change"]

    assert held(made[:1]) == ("40.0 %", "")
    assert held(made[:2]) == ("80.0 %", "from 50.0 %")
    assert held(made) == ("70.0 %", "from 40.0 %")
    lines = {line["name"]: [point["value"] for point in line["points"]] for line in eval_points(made)["series"]}
    assert lines == {"3 rounds, the first questions": [0.5, 0.8, 0.9], "3 rounds": [0.4, 0.7]}
