"""Training on trees whose number of rounds varies, and whose trajectories may end early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.errors import RecipeError
from motif.integrations.branch import refuse
from motif.integrations.trl_arguments import refuse as refuse_for_trl
from motif.planning.memory import longest_sequence
from motif.training.loop import train

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=3",
    "rollout.branching=[3,2,1]",
    "rollout.rounds_vary=1-4",
    "train.save_every=1",
    "eval.questions=0",
]
FINISHING = ["rounds.may_finish=true", "credit.efficiency=0.3", "credit.train_rounds=all"]


def run(out: Path, *settings: str, steps: int = 2, resume: bool = False) -> Path:
    train("demo", out, settings=[*SMALL, *settings, f"train.steps={steps}"], resume=resume, display=Display(quiet=True))
    return out


def trees(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "trees.jsonl").read_text().splitlines()]


def depth(nodes: list[dict[str, Any]]) -> int:
    return 1 + max((depth(node["children"]) for node in nodes if "children" in node), default=0)


def test_numbers_of_rounds_are_drawn_and_the_same_after_a_resume(tmp_path, tiny_model):
    model = f"model.name={tiny_model}"
    straight = run(tmp_path / "straight", model, steps=3)
    resumed = run(tmp_path / "resumed", model, steps=1)
    run(resumed, model, steps=3, resume=True)
    assert (straight / "trees.jsonl").read_bytes() == (resumed / "trees.jsonl").read_bytes()
    found = trees(straight)
    assert all(depth(tree["responses"]) == tree["question"]["rounds"] for tree in found)
    assert len({tree["question"]["rounds"] for tree in found}) > 1
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    first = [tree["question"]["rounds"] for tree in found if tree["step"] == 1]
    assert next(line for line in lines if line["step"] == 1 and "reward" in line)["rounds/mean"] == pytest.approx(
        sum(rounds * len(leaves(tree)) for rounds, tree in zip(first, found, strict=False))
        / sum(len(leaves(tree)) for tree in found[: len(first)])
    )


def leaves(tree: dict[str, Any]) -> list[dict[str, Any]]:
    def below(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [leaf for child in node["children"] for leaf in below(child)] if "children" in node else [node]

    return [leaf for root in tree["responses"] for leaf in below(root)]


def test_a_run_whose_trajectories_may_end_early(tmp_path, tiny_model):
    """The tiny model boxes whatever it says: every closing brace of its vocabulary may follow."""
    marks = ['rounds.answer_marks=["e", "a"]', "rounds.untagged=tail"]  # any text has these letters
    out = run(tmp_path, f"model.name={tiny_model}", *FINISHING, *marks)
    ended = [leaf for tree in trees(out) for leaf in leaves(tree)]
    early = [leaf for leaf in ended if "unused" in leaf]
    assert early
    assert all(leaf["verdict"] in ("right", "wrong", "ungraded") for leaf in ended)
    assert all(leaf["answer"] is not None for leaf in early)
    assert "Rounds" in (out / "report.html").read_text()


def test_the_plan_counts_the_most_rounds():
    recipe = load_recipe("demo", ["rollout.branching=[4,2]", "rounds.carry=all", "eval.rounds=[1]"])
    longer = load_recipe(
        "demo", ["rollout.branching=[4,2]", "rounds.carry=all", "eval.rounds=[1]", "rollout.rounds_vary=[2,6]"]
    )
    assert longest_sequence(longer, 50) == longest_sequence(recipe, 50) + 4 * recipe.rounds.note_tokens


@pytest.mark.parametrize("host", ["verl", "verifiers"])
def test_hosts_that_draw_no_numbers_say_so(host):
    with pytest.raises(RecipeError, match=r"rollout\.rounds_vary"):
        refuse(host, load_recipe("demo", ["model.adapter=lora", "rollout.rounds_vary=[2,3]"]))
    refuse(host, load_recipe("demo", ["model.adapter=lora", *FINISHING]))


def test_trl_takes_early_ends_of_trajectories_but_not_of_rows():
    refuse_for_trl(load_recipe("demo", ["rounds.may_finish=true", "credit.efficiency=0.3"]))
    with pytest.raises(RecipeError, match=r"may_finish with credit\.train_rounds"):
        refuse_for_trl(load_recipe("demo", FINISHING))
    with pytest.raises(RecipeError, match=r"rollout\.rounds_vary"):
        refuse_for_trl(load_recipe("demo", ["rollout.rounds_vary=[2,3]"]))
