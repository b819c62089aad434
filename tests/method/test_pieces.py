"""Texts in pieces: how they are cut, what each round is shown, and how a message is taken apart."""

from __future__ import annotations

import random

import pytest

from motif.config import load_recipe
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.pieces import cut, question_and_text, read_in_pieces
from motif.method.rounds import Rounds
from motif.method.solutions import Cutting
from motif.method.tree import Question

TEXT = "Ann had 3 nuts. Ben took one!\nWas she sad? No.\n\nShe found two more, and went home."
RECIPE = {
    "rounds": {"system_prompt": "", "think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"]},
    "rollout": {"branching": [4, 2], "tokens_first": 60, "tokens_continue": 60, "window": 256},
}


def bare(text):
    return "".join(text.split())


@pytest.mark.parametrize("limit", [1, 5, 16, 30, 1000])
def test_pieces_are_within_the_limit_and_leave_nothing_out(tiny_tokenizer, limit):
    pieces = cut(TEXT, limit, tiny_tokenizer)
    assert bare("".join(pieces)) == bare(TEXT)
    assert all(0 < len(tiny_tokenizer(piece)["input_ids"]) <= limit for piece in pieces)
    assert len(pieces) >= len(tiny_tokenizer(bare(TEXT))["input_ids"]) / limit


def test_texts_are_cut_at_sentences_and_pieces_are_filled_up(tiny_tokenizer):
    assert cut(TEXT, 30, tiny_tokenizer) == [
        *("Ann had 3 nuts. Ben took one!", "Was she sad? No.", "She found two more, and went", "home."),
    ]
    assert cut(" \n ", 8, tiny_tokenizer) == []
    assert cut("one two three", 4, tiny_tokenizer) == ["one", "two", "thre", "e"]


def test_long_texts_of_random_words_are_cut_right(tiny_tokenizer):
    rng = random.Random(0)
    for _ in range(20):
        text = "".join(rng.choice(["a", "bcd", " ", ". ", "\n", "? ", "é", "12 "]) for _ in range(400))
        pieces = cut(text, 24, tiny_tokenizer)
        assert bare("".join(pieces)) == bare(text)
        assert max(len(tiny_tokenizer(piece)["input_ids"]) for piece in pieces) <= 24


def test_a_round_shows_the_question_its_piece_and_the_note_alone(tiny_tokenizer):
    rounds = Rounds(load_recipe(RECIPE).rounds, tiny_tokenizer)
    question = Question("q", "How many?", "4", pieces=("one", "two", "three"))
    assert question.rounds == 3
    shown = [rounds.messages(rounds.asked(question, t), ["note"] * (t - 1), 3)[-1]["content"] for t in (1, 2, 3)]
    assert shown[0] == "How many?\n\none Current round: 1 of 3."
    assert shown[1] == 'How many?\n\ntwo Progress in round 1: "note" Current round: 2 of 3.'
    assert "three" in shown[2] and "final" in shown[2] and "one" not in shown[2] and "two" not in shown[2]


def test_braces_in_a_piece_are_not_filled_in(tiny_tokenizer):
    rounds = Rounds(load_recipe(RECIPE).rounds, tiny_tokenizer)
    asked = rounds.asked(Question("q", "{piece}?", "4", pieces=("{question} {round}",)), 1)
    assert asked == "{piece}?\n\n{question} {round}"


def test_a_demonstration_has_a_round_for_each_piece(tiny_tokenizer):
    recipe = load_recipe(RECIPE)
    build = Demonstrator(Rounds(recipe.rounds, tiny_tokenizer), recipe.rollout, 256)
    question = Question("q", "How many?", "3", pieces=("1 and 1", "1 more", "none"))
    tree = build.from_solution(question, "1+1=2<<2>>\n2+1=3<<3>>\n3<<3>>", Cutting(latest=True))
    nodes = list(tree.walk())
    assert [node.note for node in nodes][:2] == ["2", "3"] and nodes[-1].answer == "3"
    assert ["1 more" in tiny_tokenizer.decode(node.prompt_ids) for node in nodes] == [False, True, False]
    with pytest.raises(UnfitDemonstration, match="2 parts and the text 3 pieces"):
        build.from_solution(question, "1+1=2\n2+1=3", Cutting())
    with pytest.raises(UnfitDemonstration, match="1 round and 3 pieces"):
        build.from_responses(question, ["<think>x</think><note>\\boxed{3}</note>"])


@pytest.mark.parametrize(
    ("message", "question", "text"),
    [
        ("The text.\n\nMore.\n\nWhat now?", "What now?", "The text.\n\nMore."),
        ("What now?\nThe text.\nMore.", "What now?", "The text.\nMore."),
        ("Ann had 3. Ben took 1. How many has Ann?", "How many has Ann?", "Ann had 3. Ben took 1."),
        ("The text. More. Sum it up.", "Sum it up.", "The text. More."),
        ("How many?", "How many?", ""),
    ],
)
def test_a_message_is_its_question_and_what_that_is_about(message, question, text):
    assert question_and_text(message) == (question, text)


def test_only_long_messages_are_read_in_pieces_unless_the_model_knows_nothing_else(tiny_tokenizer):
    rounds = Rounds(load_recipe(RECIPE).rounds, tiny_tokenizer)
    message = "Ann had 3. Ben took 1. How many?"
    assert read_in_pieces(message, 0, True, rounds) == (message, ())
    assert read_in_pieces(message, 40, False, rounds) == (message, ())
    assert read_in_pieces(message, 40, True, rounds) == ("How many?", ("Ann had 3. Ben took 1.",))
    assert read_in_pieces(message, 12, False, rounds) == ("How many?", ("Ann had 3.", "Ben took 1."))
