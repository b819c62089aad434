"""Recipes: what is shipped loads, what is wrong is refused with a sentence that helps."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motif.config import Recipe, RolloutConfig, load_recipe, shipped_recipes
from motif.errors import RecipeError


def refused(source: Any, *settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, settings)
    return str(caught.value)


# -- shipped recipes ---------------------------------------------------------------------------------------------------


def test_the_recipes_of_the_documentation_are_shipped():
    wanted = {"demo", "paper", "recommended", "original-code", "vanilla-grpo", "multi-round-grpo"}
    assert wanted <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_round_trips(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    file = tmp_path / "resolved.toml"
    file.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert load_recipe(tomllib.loads(recipe.to_toml())) == recipe


def test_the_two_rivals_spend_the_same_number_of_generations():
    assert load_recipe("paper").rollout.generations == load_recipe("multi-round-grpo").rollout.generations == 72


def test_the_paper_recipe_is_the_papers():
    recipe = load_recipe("paper")
    assert recipe.rollout.branching == [8, 4, 1]
    assert (recipe.credit.group, recipe.credit.train_rounds, recipe.credit.divide_by_std) == ("siblings", "first", True)
    assert (recipe.credit.reward, recipe.credit.format_weight) == ("indicator", 1.0)
    assert (recipe.rollout.continuation_policy, recipe.train.steps, recipe.loss.kind) == ("current", 300, "grpo")
    assert (recipe.model.name, recipe.model.lora_rank) == ("Qwen/Qwen2.5-3B-Instruct", 64)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, TEXT.filter(str.strip), st.floats(1e-12, 1e12), st.lists(st.integers(1, 10**6), min_size=2), st.booleans())
def test_any_recipe_round_trips(about, mark, rate, branching, flag):
    recipe = load_recipe(
        {
            "about": about,
            "rounds": {"note_tags": [mark, "</note>"], "question": about.replace("{", "") + "{question}"},
            "train": {"learning_rate": rate, "activation_checkpointing": flag},
            "rollout": {"branching": [2, *branching]},
        }
    )
    assert load_recipe(tomllib.loads(recipe.to_toml())) == recipe


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.learningrate", "learning_rate"),
        ("train.lr_warmup", "warmup"),
        ("rollout.branchin", "branching"),
        ("rounds.note_token", "note_tokens"),
        ("trian.steps", "train"),
        ("modle", "model"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key, nearest):
    message = refused({}, f"{key}=1")
    assert "unknown key" in message
    assert f"did you mean {nearest!r}" in message


def test_an_unknown_key_like_no_other_lists_what_is_known():
    message = refused({}, "loss.qqqqqqqq=1")
    assert "loss.qqqqqqqq" in message
    assert "clip_low" in message and "kl_beta" in message


def test_an_unknown_recipe_is_refused_with_the_nearest():
    message = refused("recomended")
    assert "Did you mean 'recommended'?" in message
    assert all(name in message for name in shipped_recipes())
    assert "Did you mean" not in refused("zzzzzz")
    assert "no recipe" in refused("../recipes/paper")


def test_malformed_files(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("[train\nsteps = 1")
    assert "not valid TOML" in refused(file) and str(file) in refused(file)
    file.write_text("[data.chain]\nlongest = 3\n[data.chain]\nshortest = 2\n")
    assert "[data.chain] stands there twice (at line 3): keep one, with the lines of both" in refused(file)
    file.write_bytes(b'about = "\xff"')
    assert "not valid TOML" in refused(file)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.steps=-1", "train.steps"),
        ("train.steps=lots", "train.steps"),
        ("train.learning_rate=0", "train.learning_rate"),
        ("train.warmup=1.5", "train.warmup"),
        ("rollout.branching=[]", "rollout.branching"),
        ("rollout.branching=[8,0]", "rollout.branching"),
        ("rollout.top_p_first=0", "rollout.top_p_first"),
        ("rollout.temperature_first=0", "rollout.temperature_first"),
        ("loss.clip_low=1", "loss.clip_low"),
        ("loss.kind=ppo", "loss.kind"),
        ("model.adapter=half", "model.adapter"),
        ("eval.rounds=[0]", "eval.rounds"),
        ("train=3", "train"),
        ("data.answer_pattern='('", "not a regular expression"),
        ("data.answer_pattern='a'", "exactly one group"),
        ("data.answer_pattern='(a)(b)'", "exactly one group"),
        ("rounds.question='no place'", "must contain {question}"),
        ("rounds.progress='no place'", "must contain {note}"),
        ("rounds.counter='{note}'", "unknown placeholder {note}"),
        ("rounds.final='{turn}'", "unknown placeholder {turn}"),
        ("rounds.note_tags=['<a>', ' ']", "two non-empty strings"),
        ("rounds.note_tags=['<a>']", "rounds.note_tags"),
    ],
)
def test_bad_values_are_refused_by_name(setting, words):
    assert words in refused({}, setting)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["loss.kl_beta=0.1", "model.adapter=full"], "loss.kl_beta needs"),
        (["rollout.continuation_policy=base", "model.adapter=full"], "continuation_policy = 'base' needs"),
        (["rollout.continuation_policy=base", "credit.train_rounds=all"], "cannot be trained"),
        (["rollout.top_p_first=0.9"], "top_p < 1 in a trained round"),
        (["rollout.top_p_continue=0.9", "credit.train_rounds=all"], "top_p < 1 in a trained round"),
        (["rollout.branching=[1]"], "nothing to compare"),
        (["rollout.branching=[1,4]", "credit.group=round"], "nothing to compare"),
        (["rollout.branching=[1,4]"], "nothing to compare"),
        (["rollout.branching=[1,1,1]", "credit.train_rounds=all"], "nothing to compare"),
        (["credit.reward=original_code", "credit.train_rounds=all"], "original_code"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    assert words in refused({}, *settings)


@pytest.mark.parametrize(
    "settings",
    [
        ["loss.kl_beta=0.1"],
        ["rollout.continuation_policy=base"],
        ["rollout.continuation_policy=base", "credit.train_rounds=all", "rollout.branching=[8]"],
        ["rollout.top_p_continue=0.9"],
        ["rollout.top_p_continue=0.9", "credit.train_rounds=all", "rollout.branching=[8]"],
        ["rollout.branching=[1,4]", "credit.train_rounds=all"],
        ["rollout.branching=[2,1,1]", "credit.group=round", "credit.train_rounds=all"],
        ["credit.reward=original_code"],
        ["model.adapter=full"],
    ],
)
def test_their_neighbours_are_not(settings):
    load_recipe({}, settings)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "section", "key", "value"),
    [
        ("train.steps=7", "train", "steps", 7),
        (" train.steps = 7 ", "train", "steps", 7),
        ("train.learning_rate=3e-4", "train", "learning_rate", 3e-4),
        ("train.activation_checkpointing=true", "train", "activation_checkpointing", True),
        ("rollout.branching=[4, 2, 1]", "rollout", "branching", [4, 2, 1]),
        ("data.train=my data/q.jsonl", "data", "train", "my data/q.jsonl"),
        ("data.train='q=1.jsonl'", "data", "train", "q=1.jsonl"),
        ('data.subset=""', "data", "subset", ""),
        ("data.task=gsm8k", "data", "task", "gsm8k"),
        ("rounds.carry=all", "rounds", "carry", "all"),
        ("model=some/model-1.5B", "model", "name", "some/model-1.5B"),
        ("model.name=embedded", "model", "name", "embedded"),
        ("model.lora_targets=['q_proj','v_proj']", "model", "lora_targets", ["q_proj", "v_proj"]),
    ],
)
def test_settings_are_parsed(setting, section, key, value):
    assert getattr(getattr(load_recipe({}, [setting]), section), key) == value


def test_settings_override_the_recipe_and_keep_the_rest():
    recipe = load_recipe("paper", ["model=embedded", "train.steps=3"])
    assert (recipe.model.name, recipe.model.lora_alpha, recipe.train.steps) == ("embedded", 64, 3)
    assert recipe.train.weight_decay == load_recipe("paper").train.weight_decay
    assert load_recipe("paper", ["train.steps=3", "train.steps=4"]).train.steps == 4


def test_a_model_may_be_given_by_name_alone():
    recipe = load_recipe({"model": "some/model"}, ["model.lora_rank=4"])
    assert (recipe.model.name, recipe.model.lora_rank) == ("some/model", 4)


@pytest.mark.parametrize("setting", ["train.steps", "=3", " =3", ""])
def test_a_setting_needs_a_key_and_a_value(setting):
    assert "section.key=value" in refused({}, setting)


def test_a_setting_below_a_value_is_refused():
    assert "about is a value, not a section" in refused({"about": "x"}, "about.more=1")


def test_the_mapping_given_is_not_changed():
    given = {"train": {"steps": 3}}
    load_recipe(given, ["train.steps=4"])
    assert given == {"train": {"steps": 3}}


# -- paths -------------------------------------------------------------------------------------------------------------


def test_relative_paths_are_anchored_at_the_recipe_where_they_exist(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    (folder / "data").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("data/train.jsonl", "system.txt"):
        (folder / name).write_text("x")
    (folder / "weights").mkdir()
    (folder / "mine.toml").write_text(
        'model = { name = "weights" }\n[data]\ntrain = "data/train.jsonl"\ntest = "openai/gsm8k"\n'
        '[rounds]\nsystem_prompt_file = "system.txt"\n'
    )
    recipe = load_recipe("../recipes/mine.toml")
    assert recipe.name == "mine"
    assert recipe.data.train == str(folder / "data/train.jsonl")
    assert recipe.data.test == "openai/gsm8k"
    assert recipe.rounds.system_prompt_file == str(folder / "system.txt")
    assert recipe.model.name == str(folder / "weights")


# -- derived numbers ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 6))
def test_generations_of_motif(m, k, n):
    rollout = RolloutConfig(branching=[m, k, *[1] * (n - 2)] if n > 1 else [m])
    assert (rollout.responses, rollout.rounds) == (m, n)
    assert rollout.trajectories == (k if n > 1 else 1)
    assert rollout.generations == (m + m * k * (n - 1) if n > 1 else m)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_generations_of_any_tree(branching):
    rollout = RolloutConfig(branching=branching)
    assert rollout.generations == sum(math.prod(branching[: i + 1]) for i in range(len(branching)))
    assert rollout.responses * rollout.trajectories == math.prod(branching)


def test_evaluation_rounds_are_without_repeats():
    assert load_recipe({}, ["rollout.branching=[8,4,1]"]).eval_rounds == [1, 3]
    assert load_recipe({}, ["rollout.branching=[8]"]).eval_rounds == [1]
    assert load_recipe({}, ["eval.rounds=[5,2,5]"]).eval_rounds == [5, 2]


def test_a_recipe_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.steps = 3


def test_paths_in_settings_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    beside, here = tmp_path / "recipes", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        for name in ("rows.jsonl", "mine.py", "prompt.txt", "other.jsonl"):
            (folder / name).touch()
    (beside / "own.toml").write_text('[data]\ntrain = "rows.jsonl"\ntest = "other.jsonl"\n')
    monkeypatch.chdir(here)
    settings = ["data.train=rows.jsonl", "data.grader=mine.py:judge", 'rounds={system_prompt_file="prompt.txt"}']
    recipe = load_recipe("../recipes/own.toml", settings)
    assert recipe.data.train == str(here / "rows.jsonl")
    assert recipe.data.test == str(beside / "other.jsonl")
    assert recipe.data.grader == f"{here / 'mine.py'}:judge"
    assert recipe.rounds.system_prompt_file == str(here / "prompt.txt")
    (here / "rows.jsonl").unlink()
    assert load_recipe("../recipes/own.toml", settings).data.train == "rows.jsonl"
    assert load_recipe("../recipes/own.toml", settings, beside).data.train == str(beside / "rows.jsonl")


@pytest.mark.parametrize("home", ["~", "$HOME", "${HOME}"])
def test_home_folders_are_expanded(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "own.toml").write_text(f'model = "{home}/model"\n[data]\ntrain = "{home}/rows.jsonl"\n')
    recipe = load_recipe(f"{home}/own.toml", [f"data.test={home}/test.csv", f"data.grader={home}/my.py:f"])
    assert recipe.model.name == str(tmp_path / "model")
    assert (recipe.data.train, recipe.data.test) == (str(tmp_path / "rows.jsonl"), str(tmp_path / "test.csv"))
    assert recipe.data.grader == f"{tmp_path / 'my.py'}:f"
    assert load_recipe({"data": {"train": home}}).data.train == str(tmp_path)
    # Another variable could be a secret that a stranger's recipe sends away.
    assert load_recipe({"model": {"name": "x/$SECRET"}}).model.name == "x/$SECRET"
    assert load_recipe({"model": {"name": "$HOMER"}}).model.name == "$HOMER"


def test_a_folder_does_not_take_the_name_of_an_embedded_model(tmp_path, monkeypatch):
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text('model = "embedded"\n')
    assert load_recipe("own.toml").model.name == load_recipe("own.toml", ["model=embedded"]).model.name == "embedded"


def test_recipes_of_other_editors(tmp_path):
    file = tmp_path / "own.toml"
    file.write_bytes(b'\xef\xbb\xbfabout = "caf\xc3\xa9"\r\n')
    assert load_recipe(file).about == "café"
    file.write_text('about = "a"\n', encoding="utf-16")
    assert load_recipe(file).about == "a"
    file.write_text('about = "a"\n', encoding="utf-16-le")
    assert "save the file as UTF-8" in refused(file)


def test_a_recipe_without_its_warm_start_leaves_out_the_section():
    with pytest.raises(RecipeError, match=r"notes needs a source: .*leave out the section, warmstart = \{\}"):
        load_recipe("stories-smollm2", ["warmstart.source="])
    assert load_recipe("stories-smollm2", ["warmstart={}"]).warmstart == Recipe().warmstart


@pytest.mark.parametrize("value", ["many", "0", "1.5"])
def test_a_value_that_may_be_a_number_or_a_word_has_one_problem(value):
    with pytest.raises(RecipeError) as refused:
        load_recipe("demo", [f"train.microbatch_tokens={value}"])
    [line] = str(refused.value).splitlines()
    assert line.startswith("train.microbatch_tokens: must be a") and " or 'auto' (got " in line


PLAIN = {
    "train.steps=ten": "train.steps: must be a whole number (got 'ten')",
    "train.steps=2.5": "train.steps: must be a whole number (got 2.5)",
    "train.steps=[1]": "train.steps: must be a whole number (got [1])",
    "train.steps=1979-05-27": "train.steps: must be a whole number (got 1979-05-27)",
    "train.steps=true": "train.steps: must not be true or false (got true)",
    "rollout.branching=[true]": "rollout.branching: must not be true or false (got [True])",
    "train.learning_rate=fast": "train.learning_rate: must be a number (got 'fast')",
    "train.learning_rate=inf": "train.learning_rate: must be a finite number (got inf)",
    "train.learning_rate=0": "train.learning_rate: must be above 0 (got 0)",
    "rollout.top_p_first=2": "rollout.top_p_first: must be at most 1 (got 2)",
    "rollout.branching=8": "rollout.branching: must be a list, in brackets (got 8)",
    "rollout.branching=[]": "rollout.branching: must have at least 1 item (got [])",
    "rollout.branching=[2, 0]": "rollout.branching: item 2 must be at least 1 (got 0)",
    "rounds.think_tags=['<t>']": "rounds.think_tags: item 2 is missing",
    "rounds.think_tags=['a', 'b', 'c']": "rounds.think_tags: must have at most 2 items (got ['a', 'b', 'c'])",
    "model.four_bit=perhaps": "model.four_bit: must be true or false (got 'perhaps')",
    "model.name=3": "model.name: must be text (got 3)",
    "model.adapter=loro": "model.adapter: must be 'lora' or 'full': did you mean 'lora'? (got 'loro')",
    "eval=3": "eval: must be a section with settings of its own (got 3)",
}


@pytest.mark.parametrize("setting", PLAIN)
def test_wrong_kinds_of_values_are_told_in_plain_words(setting):
    with pytest.raises(RecipeError) as refused:
        load_recipe("demo", [setting])
    assert str(refused.value).splitlines() == [PLAIN[setting]]


def test_a_setting_of_another_source_is_refused_with_the_line_that_takes_it_back():
    content = {"warmstart": {"source": "file", "file": "rounds.jsonl", "solution_column": "answer"}}
    with pytest.raises(RecipeError) as refused:
        load_recipe(content)
    assert "leave it out" in str(refused.value)
    line = re.search(r"\(--set (.+)\)$", str(refused.value))
    assert line and load_recipe(content, shlex.split(line[1])).warmstart.solution_column == ""
