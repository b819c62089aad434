"""Methods: what a recipe for own data has where it says nothing."""

import pytest

from motif.config import load_recipe
from motif.errors import RecipeError


def facts(recipe):
    return recipe.rollout.branching, recipe.credit.train_rounds, recipe.credit.divide_by_std, recipe.loss.kind


RECOMMENDED, PAPER = ([4, 2, 1], "all", False, "dr_grpo"), ([8, 4, 1], "first", True, "grpo")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"data": {"train": "own.csv"}}, RECOMMENDED),
        ({"data": {"train": "own.csv"}, "method": "paper"}, PAPER),
        ({"data": {"task": "arithmetic"}}, PAPER),
        ({"data": {"task": "arithmetic"}, "method": "recommended"}, RECOMMENDED),
        ({"data": {"train": "own.csv"}, "rollout": {"branching": [2, 2]}}, ([2, 2], *RECOMMENDED[1:])),
    ],
)
def test_the_method_fills_in_what_is_not_said(content, expected):
    recipe = load_recipe(content)
    assert facts(recipe) == expected
    assert facts(load_recipe(recipe.model_dump(mode="json"))) == expected  # a resolved recipe says everything


def test_a_method_from_the_command_line(tmp_path):
    (tmp_path / "own.toml").write_text('[data]\ntrain = "own.csv"\n')
    assert facts(load_recipe(tmp_path / "own.toml")) == RECOMMENDED
    assert facts(load_recipe(tmp_path / "own.toml", ["method=paper"])) == PAPER
    assert load_recipe(tmp_path / "own.toml", ["rounds.carry=tail"]).credit.format_weight == 0
    with pytest.raises(RecipeError, match="did you mean 'paper'"):
        load_recipe(tmp_path / "own.toml", ["method=papper"])
