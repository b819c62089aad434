"""Settings of one task: read in its own section and where earlier versions kept them, refused for another task."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from motif.config import TASKS, load_recipe
from motif.config.data import TASK_SECTIONS
from motif.errors import RecipeError

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
FLAT = {
    "operation": "multiply", "digits": 2, "smallest": 1, "largest": 0, "template": "What is {a} {op} {b}?",
    "shortest": 2, "longest": 9, "inputs": 4, "form": "table", "minterms": 0,
}  # fmt: skip
"""What the resolved recipes of earlier versions hold for every task, whichever is chosen."""


def refused(data: Any, *settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe({"data": data} if isinstance(data, dict) else data, settings)
    return str(caught.value)


def test_every_task_is_there_and_every_section_is_of_a_task():
    assert set(TASK_SECTIONS) <= set(TASKS)
    for task in TASKS:
        assert importlib.import_module(f"motif.tasks.{task}").TASK.grader


@pytest.mark.parametrize(
    ("place", "data"),
    [("data.digits", {"digits": 3}), ("data.arithmetic.digits", {"arithmetic": {"digits": 3}})],
)
def test_a_setting_is_read_in_its_section_and_where_it_used_to_be(place, data):
    assert load_recipe("demo", [f"{place}=3"]).data.arithmetic.digits == 3
    assert load_recipe({"data": {"task": "arithmetic", **data}}).data.arithmetic.digits == 3
    assert load_recipe({"data": {"task": "arithmetic", **data}}, ["data.digits=2"]).data.arithmetic.digits == 2


@pytest.mark.parametrize("place", ["data.digits", "data.arithmetic.digits"])
@pytest.mark.parametrize("recipe", ["paper", "circuit", {"task": "file"}])
def test_another_tasks_setting_is_refused_with_its_section_and_task(recipe, place):
    message = refused(recipe, f"{place}=3")
    task = {"paper": "gsm8k", "circuit": "circuit"}.get(str(recipe), "file")
    assert message == (
        f"data.arithmetic.digits is a setting of task 'arithmetic', but the questions come from task {task!r}"
    )


def test_another_tasks_section_is_refused_even_at_its_defaults():
    assert "data.chain.longest is a setting of task 'chain'" in refused({"task": "gsm8k", "chain": {"longest": 9}})
    assert "data.arithmetic.digits is a setting" in refused("paper", "data.digits=2")  # given, so somebody chose it


@pytest.mark.parametrize("task", ["gsm8k", "file", "code", "arithmetic", "chain", "circuit"])
def test_resolved_recipes_of_earlier_versions_load(task):
    recipe = load_recipe({"data": {"task": task, **FLAT}})
    assert recipe.data == load_recipe({"data": {"task": task}}).data


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("studies/*/results/**/recipe.toml")), ids=lambda file: file.parent.name
)
def test_recipes_that_earlier_versions_wrote_load(file):
    written = tomllib.loads(file.read_text(encoding="utf-8"))["data"]
    data = load_recipe(file).data
    section = data.active_section
    assert data.task == written["task"]
    assert section is None or {key: getattr(section, key) for key in type(section).model_fields} == {
        key: written[key] for key in type(section).model_fields
    }


def test_a_flat_setting_that_somebody_chose_is_refused_for_another_task():
    assert "data.arithmetic.digits is a setting of task 'arithmetic'" in refused({"task": "gsm8k", **FLAT, "digits": 3})
    assert "data.digits is also set in [data.arithmetic]" in refused(
        {"task": "arithmetic", "digits": 3, "arithmetic": {"digits": 4}}
    )


def test_a_resolved_recipe_holds_the_section_of_its_task_only():
    for name, section in {"demo": "arithmetic", "circuit": "circuit", "paper": None}.items():
        recipe = load_recipe(name)
        written = tomllib.loads(recipe.to_toml())
        assert [key for key in written["data"] if key in TASK_SECTIONS] == [section][: section is not None]
        assert not set(FLAT) & set(written["data"])
        assert load_recipe(written) == recipe


def test_a_section_goes_with_its_task_when_another_is_set():
    recipe = load_recipe("sums-smollm2", ["data.chain.longest=5", "data.task=chain"])
    assert recipe.data == load_recipe({"data": {"task": "chain", "chain": {"longest": 5}}}).data
    assert load_recipe("sums-smollm2", ["data.task=arithmetic"]).data.arithmetic.largest == 20
    assert "is a setting of task 'arithmetic'" in refused("demo", "data.digits=3", "data.task=chain")


def test_rows_of_ones_own_take_the_place_of_a_section():
    assert load_recipe("circuit", ["data.train=rows.jsonl"]).data.active_section is None
    assert load_recipe(tomllib.loads(load_recipe("circuit", ["data.test=rows.jsonl"]).to_toml())).data.test
    message = refused("circuit", "data.train=rows.jsonl", "data.inputs=3")
    assert message == "data.circuit.inputs is a setting of task 'circuit', but the questions come from data.train"


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        ({"task": "arithmetic", "train": "x.jsonl"}, "train", "does not apply to task 'arithmetic', which has its own"),
        ({"task": "arithmetic", "subset": "main"}, "subset", "does not apply to task 'arithmetic'"),
        ({"task": "chain", "answer_pattern": "(.)"}, "answer_pattern", "does not apply to task 'chain'"),
        ({"task": "chain", "question_column": "q"}, "question_column", "does not apply to task 'chain'"),
        ({"task": "circuit", "test_split": "dev"}, "test_split", "does not apply to task 'circuit'"),
        ({"task": "code", "question_column": "q"}, "question_column", "does not apply to task 'code'"),
        ({"task": "code", "train": "x", "answer_column": "a"}, "answer_column", "columns of their own"),
        ({"task": "circuit", "train": "x", "answer_pattern": "(.)"}, "answer_pattern", "columns of their own"),
        ({"task": "gsm8k", "subset": "socratic"}, "subset", "is read with data.train or data.test only"),
        ({"task": "gsm8k", "train": "x", "test_split": "dev"}, "test_split", "is read with data.test only"),
    ],
)
def test_what_a_task_or_its_source_does_not_use_is_refused(data, key, words):
    message = refused(data)
    assert message.startswith(f"data.{key} ") and words in message
    allowed = {name: value for name, value in data.items() if name != key}
    load_recipe({"data": allowed})


def test_what_a_source_does_use_is_not():
    load_recipe({"data": {"task": "gsm8k", "train": "owner/set", "subset": "main", "train_split": "dev"}})
    load_recipe({"data": {"task": "code", "train": "mine.jsonl", "question_column": "ask"}})
    load_recipe({"data": {"task": "math500", "test": "mine.jsonl", "answer_column": "a", "answer_pattern": "(.)"}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"task": "chain", "chain": {"shortest": 5, "longest": 4}}, "shortest = 5 is above longest = 4"),
        ({"task": "chain", "chain": {"longest": 99}}, "data.chain.longest"),
        ({"task": "circuit", "circuit": {"inputs": 2, "minterms": 4}}, "minterms must be 0 (any) to 3"),
        ({"task": "circuit", "circuit": {"inputs": 5}}, "data.circuit.inputs"),
        ({"task": "arithmetic", "arithmetic": {"smallest": 5, "largest": 4}}, "smallest = 5 is above largest = 4"),
        ({"task": "arithmetic", "arithmetic": {"smallest": 5}}, "applies only together with largest"),
        ({"task": "arithmetic", "arithmetic": {"digits": 3, "largest": 9}}, "digits = 3 does not apply when largest"),
        ({"task": "gsm9k"}, "'gsm8k'"),
        ({"task": "chain", "chain": 3}, "data.chain"),
    ],
)
def test_values_that_do_not_go_together_are_refused(data, words):
    assert words in refused(data)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("data.digit=3", "did you mean 'arithmetic.digits'?"),
        ("data.arithmetic.digit=3", "did you mean 'digits'?"),
        ("data.arithmetics.digits=3", "did you mean 'arithmetic'?"),
    ],
)
def test_a_misspelt_setting_of_a_task_is_refused_with_the_nearest(setting, hint):
    message = refused("demo", setting)
    assert message.startswith("unknown key data.") and message.endswith(hint)
