"""One question in rounds: who is told what, budgets, early finish; the local sampler while callers come and go."""

from __future__ import annotations

import asyncio

import pytest
import torch

from motif.config import ModelConfig, RoundsConfig, load_recipe
from motif.errors import SamplerError
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.models.path import FAST, GENERAL
from motif.models.policy import Policy
from motif.sampling.answer import AnswerPlan, RoundEnded, RoundStarted, RoundText, answer
from motif.sampling.base import Completion, Request
from motif.sampling.grow import RoundLimits, allowance
from motif.sampling.local.engine import Engine, Spelling
from motif.session import open_session, solve
from motif.tasks import Task
from support.paths import taken
from support.serving import Scripted
from support.tiny import char_tokenizer
from support.waiting import until

DEMO = load_recipe("demo")
ROUNDS = Rounds(DEMO.rounds, char_tokenizer())
SAYS = {0: "<answer>a</answer> <note>half</note>", 1: "<answer>b</answer> <note>\\boxed{7} nearly</note>"}


def said(ask) -> str:
    return SAYS.get(len(ask.notes), "<answer>c</answer> <note>it is \\boxed{8}</note>")


def thought(plan: AnswerPlan, sampler: Scripted, on_event=None):
    return asyncio.run(answer(plan, ROUNDS, sampler, on_event))


THREE = (RoundLimits(24, 0.0), RoundLimits(20, 0.0), RoundLimits(20, 0.0))


def test_each_round_is_told_the_notes_of_those_before():
    sampler = Scripted(said)
    found = thought(AnswerPlan("q", THREE), sampler)
    assert [list(ask.notes) for ask in sampler.asks] == [[], ["half"], ["half", "\\boxed{7} nearly"]]
    assert [ask.request.max_tokens for ask in sampler.asks] == [24, 20, 20]
    assert (found.answer, found.content, found.completion_tokens) == ("8", "it is \\boxed{8}", 9)
    assert found.usage["completion_tokens_details"] == {"reasoning_tokens": 5}
    assert found.usage["total_tokens"] == 39


def test_events_tell_the_whole_story():
    events = []

    async def on_event(event):
        events.append(event)

    found = thought(AnswerPlan("q", THREE), Scripted(said), on_event)
    assert [event for event in events if isinstance(event, RoundEnded)] == found.rounds
    for number in (1, 2, 3):
        mine = [event for event in events if event.round == number]
        assert isinstance(mine[0], RoundStarted) and isinstance(mine[-1], RoundEnded)
        pieces = [event.text for event in mine if isinstance(event, RoundText)]
        assert "".join(pieces) == found.rounds[number - 1].text


def test_early_finish_ends_with_the_first_answer():
    found = thought(AnswerPlan("q", THREE, early_finish=True), Scripted(said))
    assert (len(found.rounds), found.answer, found.content) == (2, "7", "\\boxed{7} nearly")
    assert found.rounds[-1].last


@pytest.mark.parametrize(
    ("left", "limits", "allowed"),
    [
        (None, [24, 20], 24),
        (44, [24, 20], 24),  # enough for all: as if there were no budget
        (100, [24, 20], 24),
        (22, [24, 20], 12),
        (3, [24, 20, 20], 1),
        (2, [1, 1000], 1),
        (5, [1000, 1, 1], 3),  # the later rounds keep one token each
        (7, [20], 7),
    ],
)
def test_a_budget_is_shared_in_proportion(left, limits, allowed):
    assert allowance(left, limits) == allowed


def test_no_budget_is_overdrawn_and_no_round_falls_out():
    for budget in range(4, 120):
        for used in (0.0, 0.5, 1.0):
            left, limits = budget, [24, 10, 1, 60]
            for number in range(4):
                allowed = allowance(left, limits[number:])
                assert 1 <= allowed <= limits[number]
                left -= max(1, int(used * allowed))
            assert left >= 0


def test_pieces_never_hold_half_a_character():
    class Bytes:
        def decode(self, ids, skip_special_tokens):
            return bytes(ids).decode("utf-8", "replace")

    text = "naïve 数学 🧮 ✓é"
    spelling = Spelling(Bytes(), {256})
    ids = [*text.encode(), 256]
    pieces = [piece for index in ids if (piece := spelling.push([index]))]
    assert "".join(pieces) + spelling.rest(ids) == text
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) == len(text)
    cut = Spelling(Bytes(), {256})
    half = text.encode()[:8]  # ends inside a character
    told = "".join(cut.push([index]) for index in half)
    assert told + cut.rest(half) == half.decode("utf-8", "replace")


# -- the engine --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session():
    session = open_session(DEMO, task=Task("solve", [], [], "exact", []))
    yield session
    session.close()


@pytest.fixture(scope="module", params=[FAST, GENERAL], ids=["fast", "general"])
def live(session, request):
    with taken(request.param):
        live = Engine(session.policy, max_rows=8)
    assert live.sampler.path.general == request.param.general
    yield live
    live.close()


def rounds_of(live: Engine) -> Rounds:
    return Rounds(DEMO.rounds, live.policy.tokenizer)


def plan(text: str, temperature: float = 0.0, **options) -> AnswerPlan:
    return AnswerPlan(text, (RoundLimits(24, temperature),) * 3, **options)


async def texts(live: Engine, plans: list[AnswerPlan]) -> list[list[str]]:
    found = await asyncio.gather(*(answer(plan, rounds_of(live), live) for plan in plans))
    return [[ended.text for ended in thought.rounds] for thought in found]


@pytest.mark.parametrize("way", [FAST, GENERAL], ids=["fast", "general"])
def test_the_engine_answers_what_solve_answers(session, way):
    questions = ["What is 15 × 24?", "What is 31 × 47?", "What is 99 × 12?"]
    with_seed = [(question, greedy, seed) for question in questions for greedy, seed in ((True, 0), (False, 3))]
    expected = []
    for question, greedy, seed in with_seed:
        first = solve(question, session, greedy=greedy, seed=seed)
        expected.append([node.text for node in first.walk()])
    with taken(way):
        live = Engine(session.policy, max_rows=4)
    try:
        plans = [plan(question, 0.0 if greedy else 1.0, seed=seed) for question, greedy, seed in with_seed]
        assert asyncio.run(texts(live, plans)) == expected
        alone = [asyncio.run(texts(live, [one]))[0] for one in plans]
        assert alone == expected
    finally:
        live.close()


def test_more_questions_than_rows_are_all_answered(live):
    plans = [plan(f"What is {a} × {b}?") for a in (11, 25, 38) for b in range(12, 20)]
    assert len(plans) == 3 * live.sampler.max_rows
    together = asyncio.run(texts(live, plans))
    assert all(len(rounds) == 3 for rounds in together)
    assert together[5] == asyncio.run(texts(live, plans[5:6]))[0]


def test_a_cancelled_caller_frees_its_row_and_disturbs_nobody(live):
    async def main() -> None:
        expected = await texts(live, [plan("What is 15 × 24?")])
        gone = [asyncio.create_task(answer(plan(f"What is 77 × {b}?"), rounds_of(live), live)) for b in range(11, 40)]
        kept = asyncio.create_task(texts(live, [plan("What is 15 × 24?")]))
        while not live.decoding:
            await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        results = await asyncio.gather(*gone, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert await kept == expected

    asyncio.run(main())
    until(lambda: live.decoding == 0)
    assert not live._open and not live._orders


def test_a_failing_step_fails_its_callers_and_no_others(live, monkeypatch):
    from motif.sampling.local.batch import DecodingBatch

    async def main() -> None:
        step = DecodingBatch.step

        def fail(*arguments, **options):
            monkeypatch.setattr(DecodingBatch, "step", step)
            raise torch.OutOfMemoryError("no memory left")

        monkeypatch.setattr(DecodingBatch, "step", fail)
        with pytest.raises(SamplerError, match="no memory left"):
            await answer(plan("What is 15 × 24?"), rounds_of(live), live)
        assert (await answer(plan("What is 15 × 24?"), rounds_of(live), live)).answer is not None

    asyncio.run(main())
    assert live.alive


def test_a_closed_engine_refuses(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, device="cpu"))
    rounds = Rounds(RoundsConfig(system_prompt=""), policy.tokenizer)
    live = Engine(policy, 2)
    live.close()
    assert asyncio.run(live.ready()) == "decoding has ended"
    with pytest.raises(SamplerError, match="has ended"):
        asyncio.run(answer(AnswerPlan("2+2", (RoundLimits(2, 0.0),)), rounds, live))


def test_the_engine_takes_more_responses_to_one_prompt_than_rows(live):
    prompt = rounds_of(live).prompt("What is 15 × 24?", [], 3)
    keys = [sampling_key("many", place) for place in range(20)]

    async def main() -> list[Completion]:
        return [completion async for completion in live.sample(Request(prompt, keys, 12))]

    together = asyncio.run(main())
    assert sorted(completion.index for completion in together) == list(range(20))
    alone = [asyncio.run(one(live, Request(prompt, [key], 12))) for key in keys[:3]]
    found = {completion.index: completion.token_ids for completion in together}
    assert [completion.token_ids for completion in alone] == [found[place] for place in range(3)]


async def one(live: Engine, request: Request) -> Completion:
    [completion] = [completion async for completion in live.sample(request)]
    return completion
