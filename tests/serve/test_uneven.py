"""Serving models that end with their first answer, and models whose responses have no form."""

from __future__ import annotations

from typing import Any

from motif.config import Recipe, load_recipe
from motif.method.rounds import Rounds
from support.serving import Scripted, ask, post, serving
from support.tiny import char_tokenizer

SAYS = ("<think>a</think><note>half</note>", "<think>b</think><note>\\boxed{7}</note>", "<note>\\boxed{8}</note>")


def recipe(*settings: str) -> Recipe:
    return load_recipe("demo", list(settings))


def reply(of: Recipe, says: tuple[str, ...] = SAYS, **parameters: Any) -> tuple[int, dict[str, Any]]:
    sampler = Scripted(lambda asked: says[len(asked.notes)])
    with serving(sampler, Rounds(of.rounds, char_tokenizer()), of) as (url, _):
        response = post(url, ask(**parameters))
    return response.status_code, response.json()


def test_a_model_that_may_finish_ends_with_its_first_answer():
    status, body = reply(recipe("rounds.may_finish=true"))
    [choice] = body["choices"]
    assert status == 200
    assert (choice["motif"]["answer"], len(choice["motif"]["rounds"]), choice["motif"]["of"]) == ("7", 2, 3)
    assert choice["message"]["content"] == "\\boxed{7}"
    assert reply(recipe())[1]["choices"][0]["motif"]["answer"] == "8"


def test_it_cannot_be_asked_not_to():
    status, body = reply(recipe("rounds.may_finish=true"), early_finish=False)
    assert status == 400
    assert body["error"]["param"] == "early_finish"
    assert reply(recipe("rounds.may_finish=true"), early_finish=True)[0] == 200


def test_the_tail_is_what_the_next_round_is_told():
    of = recipe("rounds.carry=tail", "rounds.untagged=tail", "credit.format_weight=0", "rounds.note_tokens=12")
    body = reply(of, ("15 times 24 is 300 + 60", "and that is 360", "\\boxed{360}"))[1]
    [choice] = body["choices"]
    assert choice["motif"]["answer"] == "360"
    assert [card["note"] for card in choice["motif"]["rounds"]][:2] == ["is 300 + 60", "that is 360"]
