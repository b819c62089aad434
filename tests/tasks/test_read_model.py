"""The model of the recipe `read`: made from training texts alone, in the recipe's wording, and small."""

from __future__ import annotations

import pytest

import make_read_model as maker
from make_demo_model import IGNORED, make_tokenizer
from motif.config import LedgerConfig, load_recipe
from motif.demo import MODELS
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.models.hub import load_tokenizer
from motif.tasks import ledger

RECIPE = load_recipe("read")


def test_its_rounds_are_worded_as_the_recipe_asks():
    rounds = Rounds(RECIPE.rounds, load_tokenizer("embedded-read"))
    question = Question("q", "B?", "4", pieces=("A=1 B=4", "C=2"))
    for number, notes in ((1, []), (2, ["B=4"])):
        [message] = rounds.messages(rounds.asked(question, number), notes, 2)
        told = 4 if notes else None
        assert message["content"] == maker.prompt_text("B", question.pieces[number - 1], told, last=number == 2)
    assert maker.response("B", ["A=1", "B=4"], 0, False) == "<think>B=4</think><note>B=4</note>"
    assert maker.response("B", ["C=2"], 4, True) == "<think>none</think><note>\\boxed{4}</note>"


def test_the_recipe_has_the_texts_that_the_model_was_made_for():
    settings = RECIPE.data.ledger
    assert {name: getattr(settings, name) for name in maker.SETTINGS} == maker.SETTINGS
    assert settings.entries_per_piece == maker.PIECE


@pytest.mark.parametrize("undecided", [False, True])
def test_it_learns_responses_alone_which_fit_the_window(undecided):
    tokenizer = make_tokenizer()
    for row in maker.Corpus(tokenizer, 1, undecided).rows(200):
        learnt = sum(label != IGNORED for label in row.labels)
        assert 0 < learnt <= RECIPE.rollout.tokens_first
        assert tokenizer.unk_token_id not in row.token_ids


def test_the_shipped_files_are_small():
    assert sum(file.stat().st_size for file in MODELS["embedded-read"].iterdir()) < 1_000_000


@pytest.mark.slow
def test_the_shipped_model_reads_a_piece_and_seldom_carries_on():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = MODELS["embedded-read"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert maker.measure(model, tokenizer, 1, sampled=False) > 0.98
    assert maker.measure(model, tokenizer, 4, sampled=False) < 0.65
    texts = ledger.outlines(LedgerConfig(**maker.SETTINGS), "train")
    assert len(texts) > 1000
