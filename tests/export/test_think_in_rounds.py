"""The exported script makes the prompts of motif and reads responses like it, whatever the chat template."""

from __future__ import annotations

from typing import Any

import pytest

from motif.config import Recipe, load_recipe
from motif.export import think_in_rounds as script
from motif.export.card import scaffold
from motif.method.rounds import Rounds
from motif.method.tree import Question
from support.templates import FAMILIES, QWEN3, R1, tokenizer_of
from support.tiny import CHATML

NOTES = ["300", """print("it's")""", '"""doc""" and "x"', '"', "word " * 60, '"' * 40, "5! is 120"]
TAGS = {"think_tags": ["<think>", "</think>"]}


def opened(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, **rounds: Any) -> tuple[Rounds, Recipe]:
    settings = {"note_tokens": 40} | rounds
    recipe = load_recipe({"rounds": settings, "rollout": {"branching": [2, 1, 1]}, "data": {"task": "arithmetic"}})
    protocol = Rounds(recipe.rounds, tokenizer)
    monkeypatch.setattr(script, "SCAFFOLD", scaffold(recipe, protocol, sorted(protocol.end_ids)))
    return protocol, recipe


@pytest.mark.parametrize("family", [*FAMILIES, "no template"])
def test_prompts_are_those_of_motif(family, monkeypatch):
    template = FAMILIES[family][0] if family in FAMILIES else None
    tokenizer = tokenizer_of(template, ends_texts=True)
    protocol, _ = opened(monkeypatch, tokenizer, date="2026-02-03")
    for notes in ([], [NOTES[1]], [NOTES[2], NOTES[5]]):
        assert script.prompt(tokenizer, "Is 5! = 120?", notes) == protocol.prompt("Is 5! = 120?", notes, 3)


@pytest.mark.parametrize("family", [*FAMILIES, "no template"])
@pytest.mark.parametrize("system", ["default", ""])
def test_prompts_with_examples_are_those_of_motif(family, system, monkeypatch):
    tokenizer = tokenizer_of(FAMILIES[family][0] if family in FAMILIES else None)
    example = {"question": "1+2", "answer": "3", "rounds": [["1+2", "1+2 in {rounds}"], ["3", "\\boxed{3}"]]}
    protocol, _ = opened(monkeypatch, tokenizer, examples=[example], system_prompt=system)
    for notes in ([], ["300", "4"]):
        assert script.prompt(tokenizer, "Is 5! = 120?", notes) == protocol.prompt("Is 5! = 120?", notes, 3)
    assert "1+2" in protocol.messages("Is 5! = 120?", [], 3)[0]["content"]


def test_a_text_in_pieces_is_shown_as_motif_does(monkeypatch):
    tokenizer = tokenizer_of(CHATML)
    protocol, recipe = opened(monkeypatch, tokenizer, piece="{question} [{piece}]")
    data = load_recipe({"data": {"task": "stories", "stories": {"events_per_piece": 1}}}).data
    made = scaffold(recipe.model_copy(update={"data": data}), protocol, sorted(protocol.end_ids))
    monkeypatch.setattr(script, "SCAFFOLD", made)
    question = Question("q", "Sum?", "3", pieces=("1 {round}", "2"))
    for notes in ([], ["1"]):
        asked = protocol.asked(question, len(notes) + 1)
        assert script.prompt(tokenizer, "Sum?", notes, question.pieces) == protocol.prompt(asked, notes, 2)


@pytest.mark.parametrize("note", NOTES)
def test_notes_are_those_of_motif(note, monkeypatch):
    tokenizer = tokenizer_of(CHATML, pad="!")
    protocol, _ = opened(monkeypatch, tokenizer)
    for text in (f"<answer>{note}</answer>", f"<answer>{note}", note):
        assert script.note_of(tokenizer, text) == protocol.read(text, False, False).note


def test_variables_and_openings_are_those_of_motif(monkeypatch):
    off = {"template_variables": {"enable_thinking": False}}
    for template, settings, opening in (
        (R1, {}, "<think>\n"),
        (QWEN3, off, "<think>\n\n</think>\n\n"),
        (QWEN3, {}, ""),
    ):
        tokenizer = tokenizer_of(template)
        protocol, _ = opened(monkeypatch, tokenizer, **TAGS, **settings)
        assert script.SCAFFOLD["opening"] == protocol.opening == opening
        assert script.prompt(tokenizer, "2+2?", ["3"]) == protocol.prompt("2+2?", ["3"], 3)


@pytest.mark.parametrize(
    "settings",
    [{"carry": "tail"}, {"total": False}, {"total": False, "announce_final": False}, {"may_finish": True}],
)
def test_prompts_and_notes_of_rounds_that_go_on_are_those_of_motif(settings, monkeypatch):
    tokenizer = tokenizer_of(CHATML, pad="!")
    protocol, _ = opened(monkeypatch, tokenizer, **settings)
    for notes in ([], ["3"], ["3", "4"]):
        assert script.prompt(tokenizer, "2+2?", notes) == protocol.prompt("2+2?", notes, 3)
    for text in ("word " * 60, "<answer>note</answer> and more", "</reasoning> 4"):
        assert script.note_of(tokenizer, text) == protocol.read(text, False, False).note
        assert (
            script.answer_of(text + "\\boxed{4}", final=False)
            == protocol.read(text + "\\boxed{4}", False, False).answer
        )


@pytest.mark.parametrize(("may_finish", "rounds"), [(False, 3), (True, 2)])
def test_an_early_answer_ends_the_script_where_it_may(may_finish, rounds, monkeypatch, capsys):
    tokenizer = tokenizer_of(CHATML, pad="!")
    opened(monkeypatch, tokenizer, may_finish=may_finish)
    said = iter(["<answer>a</answer>", "<answer>\\boxed{5}</answer>", "<answer>\\boxed{6}</answer>"])
    monkeypatch.setattr(script, "load", lambda: (None, tokenizer))
    monkeypatch.setattr(script, "respond", lambda *_: next(said))
    assert script.think("2+3?") == ("5" if may_finish else "6")
    assert capsys.readouterr().out.count("round") == rounds
