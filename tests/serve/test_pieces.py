"""Long messages at the server and in the terminal: read in pieces, one a round, within limits that are told."""

from __future__ import annotations

import json
import re

import pytest

from motif.cli.conversation import Conversation
from motif.cli.solve import solve
from motif.config import load_recipe
from motif.errors import UsageError
from motif.evaluation.target import Target
from motif.method.rounds import Rounds
from motif.session import piece_limit
from support.serving import Scripted, ask, post, serving
from support.tiny import char_tokenizer

RECIPE = load_recipe("demo", ["data.task=ledger", "data.ledger.entries_per_piece=2", "rollout.most_rounds=4"])
ROUNDS = Rounds(RECIPE.rounds, char_tokenizer())
TEXT = "Ann had 3. Ben took 1. Ann found 2.\nHow many?"


def counting(asked):
    return f"<think>x</think> <note>\\boxed{{{len(asked.notes) + 1}}}</note>"


@pytest.fixture(scope="module")
def served():
    sampler = Scripted(counting)
    with serving(sampler, ROUNDS, RECIPE, window=200, piece_tokens=12, max_tokens=24) as (url, _):
        yield url, sampler


def test_a_long_message_is_read_a_piece_a_round(served):
    url, sampler = served
    sampler.asks.clear()
    choice = post(url, ask(TEXT)).json()["choices"][0]
    assert [one.question for one in sampler.asks] == [
        *("How many?\n\nAnn had 3.", "How many?\n\nBen took 1.", "How many?\n\nAnn found 2."),
    ]
    assert choice["motif"]["of"] == 3 and choice["motif"]["answer"] == "3"


def test_pieces_can_be_given(served):
    url, sampler = served
    sampler.asks.clear()
    answer = post(url, ask("Sum?", pieces=["one", "two " * 4])).json()
    assert [one.question for one in sampler.asks] == ["Sum?\n\none", "Sum?\n\n" + "two " * 4]
    assert answer["choices"][0]["motif"]["of"] == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (ask(TEXT * 4), r"the text has \d+ pieces, more than the 4 rounds that this server allows"),
        (ask("Sum?", pieces=["a", "b" * 150]), "the question makes a prompt of at least"),
        (ask("Sum?", pieces=["a", " "]), "pieces"),
        (ask("Sum?", pieces=[]), "pieces"),
        (ask("Sum?", pieces=["a", 3]), "pieces"),
        (ask(TEXT, rounds=2), "rounds = 2, but the text has 3 pieces, one a round"),
    ],
)
def test_what_cannot_be_read_is_refused(served, body, said):
    answer = post(served[0], body)
    assert answer.status_code == 400 and re.search(said, answer.json()["error"]["message"])


def test_a_model_of_whole_questions_reads_only_long_messages_in_pieces():
    sampler = Scripted(counting)
    recipe = load_recipe("demo")
    with serving(sampler, ROUNDS, recipe, piece_tokens=40) as (url, _):
        post(url, ask("What is 2 × 3?"))
        post(url, ask(TEXT))
    assert [one.question for one in sampler.asks] == [
        *["What is 2 × 3?"] * 3,
        *("How many?\n\nAnn had 3. Ben took 1. Ann found 2.",),
    ]


def test_the_length_of_a_piece_is_the_recipes():
    assert piece_limit(RECIPE, ROUNDS, 256) == len("A+3 B-9")
    assert piece_limit(load_recipe("demo"), ROUNDS, 256) == 0
    own = load_recipe("demo", ["data.train=a.jsonl", "data.pieces_column=parts", "data.task=file"])
    limit = piece_limit(own, ROUNDS, 256)
    assert 100 < limit < 256 - 24


def test_solve_reads_a_file_in_pieces(tiny_model, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    settings = [f"model.name={tiny_model}", "rollout.most_rounds=4"]
    solve(None, recipe="demo", pieces=12, file=tmp_path / "text.txt", as_json=True, settings=settings)
    record = json.loads(capsys.readouterr().out)
    assert record["pieces"] == ["Ann had 3.", "Ben took 1.", "Ann found 2."] and len(record["rounds"]) == 3
    target = Target("x", load_recipe("demo", settings), None, tmp_path)
    with Conversation(target, 2, None, False, True, pieces=12) as conversation:
        with pytest.raises(UsageError, match="3 pieces, one a round: leave --rounds out"):
            conversation.answer_all([TEXT])
        with pytest.raises(UsageError, match=r"more than rollout\.most_rounds = 4"):
            conversation.answer_all([TEXT * 4])
