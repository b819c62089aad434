"""A model's own reasoning marks, as its chat template shows them, are the think tags of a round."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from motif.config import RoundsConfig, load_recipe
from motif.errors import ModelError, RecipeError
from motif.export import think_in_rounds as script
from motif.export.card import scaffold
from motif.method.rounds import Rounds
from support.templates import FAMILIES, REASONING, tokenizer_of
from support.tiny import CHATML

NOTE = "<answer>\\boxed{4}</answer>"
OFF = {"enable_thinking": False}


def opened(template: str | None, variables: dict[str, Any] | None = None, **settings: Any) -> Rounds:
    config = RoundsConfig(think="model", template_variables=variables or {}, **settings)
    return Rounds(config, tokenizer_of(template))


@pytest.mark.parametrize("family", REASONING)
def test_the_marks_are_those_of_the_template(family):
    template, marks, opening, _ = REASONING[family]
    rounds = opened(template)
    assert (rounds.config.think_tags, rounds.opening) == (marks, opening)
    rest = f"{marks[0]}two and two{marks[1]}".removeprefix(opening.strip()) if marks[1] not in opening else ""
    reading = rounds.read(rest + NOTE, truncated=False, final=True)
    assert reading.well_formed and reading.answer == "4" and reading.note == "\\boxed{4}"
    assert not rounds.read(f"{rest}{NOTE}{marks[1]}", truncated=False, final=True).well_formed
    assert rounds.final_part(f"{rest}It is 4.") == "It is 4."


@pytest.mark.parametrize("family", [name for name, (*_, off) in REASONING.items() if off])
def test_reasoning_that_is_switched_off_is_read_as_an_empty_block(family):
    template, marks, _, off = REASONING[family]
    rounds = opened(template, OFF)
    assert (rounds.config.think_tags, rounds.opening) == (marks, off)
    assert rounds.read(NOTE, truncated=False, final=False).well_formed
    text = rounds.tokenizer.decode(rounds.prompt("What is 2+2?", ["3"], 3))
    assert text.endswith(off) and text.count(marks[1]) == 1


def test_the_prompt_does_not_spell_the_marks():
    template, marks, *_ = REASONING["gpt-oss"]
    text = opened(template, {"reasoning_effort": "low"}).tokenizer.decode(opened(template).prompt("2+2?", [], 3))
    assert not any(mark in text for mark in marks) and "<answer>" in text
    with pytest.raises(RecipeError, match=r"control tokens such as .* leave {think_open}"):
        opened(template, system_prompt="Think in {think_open}.")
    assert "in <think>." in opened(REASONING["qwen3"][0], system_prompt="Think in {think_open}.").system_prompt


def test_a_note_cannot_hold_the_marks():
    rounds = opened(REASONING["gpt-oss"][0])
    assert rounds.clean("a" + rounds.config.think_tags[1] + "b" + rounds.config.think_tags[0]) == "ab"


def test_a_mark_of_several_tokens_does_not_end_a_response():
    rounds = opened(REASONING["gpt-oss"][0])
    ids = rounds.tokenizer("x<|end|>", add_special_tokens=False)["input_ids"]
    assert not rounds.ends(ids) and rounds.spell(ids) == "x<|end|>"


def test_marks_that_only_the_tokenizer_has():
    tokenizer = tokenizer_of(CHATML, added=["[THINK]", "[/THINK]", "<tool>", "</tool>"])
    assert Rounds(RoundsConfig(think="model"), tokenizer).config.think_tags == ("[THINK]", "[/THINK]")
    tokenizer.chat_template = None
    assert Rounds(RoundsConfig(think="model"), tokenizer).config.think_tags == ("[THINK]", "[/THINK]")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in REASONING] + [None])
def test_a_model_without_marks_gets_one_sentence(family):
    with pytest.raises(ModelError, match="neither the chat template nor the tokens") as caught:
        opened(family and FAMILIES[family][0])
    assert "\n" not in str(caught.value)


def test_tags_of_ones_own_are_not_taken_beside_the_models():
    with pytest.raises(ValidationError, match="leave think_tags out"):
        RoundsConfig(think="model", think_tags=("<think>", "</think>"))


@pytest.mark.parametrize("variables", [{}, OFF])
@pytest.mark.parametrize("family", ["qwen3", "qwen3.5", "gpt-oss"])
def test_the_exported_script_reads_the_same(family, variables, monkeypatch):
    template, marks, *_, off = REASONING[family]
    rounds = opened(template, variables if off else {})
    recipe = load_recipe({"rounds": {"think": "model"}, "data": {"task": "arithmetic"}})
    monkeypatch.setattr(script, "SCAFFOLD", scaffold(recipe, rounds, sorted(rounds.end_ids)))
    assert script.prompt(rounds.tokenizer, "2+2?", ["3"]) == rounds.prompt("2+2?", ["3"], 3)
    said = f"{marks[0]}\\boxed{{5}}{marks[1]}so {marks[0]}\\boxed{{4}}"
    assert script.answer_of(said) == rounds.read(said, truncated=False, final=True).answer == "4"
    assert script.clean(said) == rounds.clean(said)
