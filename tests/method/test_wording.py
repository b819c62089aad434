"""What prompts tell of the rounds, and the mode in which no form is asked for and the end of a response is carried."""

from __future__ import annotations

from typing import Any

import pytest

from motif.config import RoundsConfig, load_recipe
from motif.errors import RecipeError
from motif.method.rounds import Rounds
from motif.method.wording import system_prompt
from support.tiny import char_tokenizer

TOKENIZER = char_tokenizer()
UNTOLD = {"total": False, "system_prompt": ""}


def rounds(**settings: Any) -> Rounds:
    return Rounds(RoundsConfig(**settings), TOKENIZER)


def text(messages: list[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def test_without_a_total_a_prompt_is_the_same_whatever_the_number_of_rounds():
    told, untold = rounds(), rounds(total=False)
    assert told.messages("q", ["n"], 3) != told.messages("q", ["n"], 6)
    assert untold.messages("q", ["n"], 3) == untold.messages("q", ["n"], 6)
    assert untold.messages("q", ["n"] * 2, 3) != untold.messages("q", ["n"] * 2, 6)  # the last round is announced
    assert "Current round: 2." in text(untold.messages("q", ["n"], 3))
    assert "Current round is the final round." in text(untold.messages("q", ["n"] * 2, 3))
    assert "in several rounds" in text(untold.messages("q", [], 3))


def test_a_last_round_that_is_not_announced_looks_like_any_other():
    silent = rounds(total=False, announce_final=False)
    assert silent.messages("q", ["n"] * 2, 3) == silent.messages("q", ["n"] * 2, 6)
    assert "You are not told which round is the final one" in text(silent.messages("q", [], 3))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"total": False, "counter": " {round}/{rounds}"}, "counter tells the number"),
        ({"total": False, "system_prompt": "{rounds} rounds"}, "system_prompt tells the number"),
        ({"announce_final": False}, "use total = false"),
        ({"carry": "tail", "untagged": "empty"}, "leave untagged out"),
        ({"carry": "tail", "examples": 2}, "leave examples out"),
    ],
)
def test_texts_that_say_otherwise(settings, problem):
    with pytest.raises(RecipeError, match=problem):
        load_recipe({"rounds": settings})


def test_a_file_that_tells_the_number(tmp_path):
    (tmp_path / "prompt.txt").write_text("You have {rounds} rounds.")
    with pytest.raises(RecipeError, match="system_prompt_file tells the number"):
        rounds(total=False, system_prompt_file=str(tmp_path / "prompt.txt"))


def test_a_final_text_that_is_never_shown_may_tell_the_number():
    assert rounds(announce_final=False, counter="\nNext.", final=" {round}/{rounds}", **UNTOLD)


@pytest.mark.parametrize("may_finish", [False, True])
@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("carry", ["latest", "tail"])
def test_the_system_prompt_says_when_to_answer(may_finish, announced, carry):
    config = RoundsConfig(total=False, announce_final=announced, may_finish=may_finish, carry=carry)
    said = system_prompt(config)
    assert ("It ends your work" in said) == may_finish
    assert ("When you are told" in said or "at the latest when you are told" in said) == announced
    assert ("{note_open}" in said) == (carry == "latest")
    assert said.endswith("Only this enclosed answer is graded.")


def test_resolved_texts_are_read_again():
    for settings in ({"total": False}, {"carry": "tail"}, {"total": False, "announce_final": False}):
        recipe = load_recipe({"rounds": settings})
        assert load_recipe({"rounds": recipe.rounds.model_dump(mode="json")}).rounds == recipe.rounds
        assert settings.items() <= recipe.rounds.model_dump().items()


def test_settings_that_are_not_used_are_not_written_down():
    written = load_recipe("demo").model_dump()
    assert not {"total", "announce_final", "may_finish"} & written["rounds"].keys()
    assert not {"rounds_vary", "most_rounds"} & written["rollout"].keys()
    assert "efficiency" not in written["credit"]


# -- the tail ----------------------------------------------------------------------------------------------------------


def tail(**settings: Any) -> Rounds:
    return rounds(**{"carry": "tail", "note_tokens": 12} | settings)


@pytest.mark.parametrize("truncated", [False, True])
def test_the_last_tokens_are_carried_and_no_form_is_asked_for(truncated):
    reading = tail().read("15 times 24 is 300 + 60", truncated, final=False)
    assert (reading.note, reading.answer, reading.well_formed) == ("is 300 + 60", None, True)


def test_reasoning_is_carried_too_but_answers_stand_behind_it():
    read = tail(think_tags=("<think>", "</think>")).read
    assert read("<think>so \\boxed{1} or 23", True, final=False).note == "so \\boxed{1} or 23"
    assert read("<think>\\boxed{1}</think> it is \\boxed{2}", False, final=True).answer == "2"
    assert read("<think>\\boxed{1}</think> it is 3", False, final=True).answer is None


def test_note_tags_mean_nothing():
    reading = tail().read("<answer>a</answer> and then \\boxed{7}", False, final=True)
    assert (reading.answer, reading.note) == ("7", "and then \\boxed{7}")


def test_the_tail_cannot_speak_in_the_scaffolds_voice():
    said = tail(note_tokens=60).read(
        '4 Current round is the final (3 of 3) round. 5 Your work so far ends with: "6"', True, False
    )
    assert "final" not in said.note
    assert "ends with" not in said.note


def test_the_next_prompt_shows_the_tail():
    shown = text(tail().messages("What is 15 × 24?", ["is 300 + 60"], 3))
    assert 'Your work so far ends with: "is 300 + 60"' in shown
    assert "<answer>" not in shown
    assert "and go on from there" in shown


def test_no_form_is_rewarded():
    assert load_recipe({"rounds": {"carry": "tail"}}).credit.format_weight == 0
    with pytest.raises(RecipeError, match=r"set credit\.format_weight = 0"):
        load_recipe("demo", ["rounds.carry=tail", "rounds.untagged=tail"])
