"""The examples do what they say, in their smallest form, and those that need a server with one that is none."""

from __future__ import annotations

import sys
from types import ModuleType

import httpx2
import pytest

from motif.config import load_recipe
from motif.grading import Grader
from motif.grading.given import give
from motif.grading.own import Answered
from motif.method.rounds import Rounds
from support import ROOT
from support.scripts import loaded
from support.serving import CLIENT, DEMO, Scripted, serving
from support.tiny import char_tokenizer


def example(name: str) -> ModuleType:
    return loaded(ROOT / "examples" / f"{name}.py")


def test_an_llm_judge_is_asked_once_and_its_failure_costs_only_its_answers(tmp_path):
    module = example("llm_judge")
    cache = tmp_path / "judged.jsonl"
    judge = module.Judge(module.stand_in(), "stand-in", cache)
    with Grader(give(judge)) as grader:
        outcomes = [grader.judge(Answered(answer, "360", "15 × 24?")).outcome for answer in ("360", "340", "7", "360")]
    assert outcomes == [1.0, 0.5, 0.0, 1.0] and judge.asked == 3
    cache.write_text(cache.read_text() + '{"key": "half a li')
    again = module.Judge("http://127.0.0.1:9/v1", "stand-in", cache, tries=1)
    with Grader(give(again)) as grader:
        assert grader.judge(Answered("340", "360", "15 × 24?")).outcome == 0.5 and not again.asked
        lost = grader.judge(Answered("1", "360", "15 × 24?"))
    assert lost.verdict == "ungraded" and "the judge cannot be asked: ConnectError" in lost.reason


@pytest.mark.parametrize("said", ["I cannot tell", "11"])
def test_what_is_no_score_is_no_verdict(tmp_path, said):
    module = example("llm_judge")
    judge = module.Judge("http://judge/v1", "any", tmp_path / "judged.jsonl", tries=1)
    reply = {"choices": [{"message": {"content": said}}]}
    judge.client = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=reply)))
    with Grader(give(judge)) as grader:
        grade = grader.judge(Answered("1", "2", "?"))
    assert (grade.verdict, said in grade.reason, judge.cache.exists()) == ("ungraded", True, False)


def test_a_model_on_a_server_shows_its_rounds(capsys):
    texts = ["<think>a</think><note>b</note>", "<think>a</think><note>\\boxed{3}</note>"]
    rounds = Rounds(DEMO.rounds, char_tokenizer())
    with serving(Scripted(lambda ask: texts[len(ask.notes) == ask.rounds - 1]), rounds) as (url, _):
        example("model_on_a_server").ask(CLIENT, f"{url}/v1", "demo", "1+2?")
    shown = capsys.readouterr().out
    assert "round 1:" in shown and "note: b" in shown and "answer: 3" in shown


def test_a_csv_file_becomes_a_recipe_and_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["train.steps=1", "rollout.questions_per_step=1", "eval.questions=2"]
    monkeypatch.setattr(sys, "argv", ["own_csv.py", *(part for one in few for part in ("--set", one))])
    example("own_csv").main()
    shown = capsys.readouterr().out
    assert "products.toml: questions in 'Aufgabe', answers in 'Lösung'" in shown and "finished after 1 step" in shown
    assert load_recipe("products.toml").data.grader == "numeric"


def test_long_texts_are_read_in_more_pieces_than_were_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["long_text.py", "--steps", "1", "--questions", "2"])
    example("long_text").main()
    assert "texts of 12 pieces, three times as long as any that was trained on:" in capsys.readouterr().out
