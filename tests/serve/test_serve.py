"""The server on the embedded model, asked by the clients that people use: openai, curl, and plain requests."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess

import openai
import pytest

from motif.evaluation.evaluate import evaluate
from motif.evaluation.rows import DecodingMode, EvalRow
from motif.method.tree import Question
from motif.sampling.local.engine import Engine
from motif.serve.protocol import CompletionRequest
from motif.session import open_session, solve
from motif.tasks import Task
from support import ROOT
from support.serving import CLIENT, DEMO, ask, counted, post, raw, requests_counted, serving
from support.waiting import until

SMALL = DEMO.model_copy(
    update={"eval": DEMO.eval.model_copy(update={"rounds": [3], "temperature": 1.0, "samples": 3, "greedy": True})}
)
QUESTIONS = [Question(f"test/{a}x{b}", f"What is {a} × {b}?", str(a * b)) for a, b in ((15, 24), (31, 47), (99, 12))]


class Kept:
    """The trees of an evaluation, by drawing and question."""

    def __init__(self):
        self.trees = {}

    def get(self, row: EvalRow, drawing: DecodingMode, questions):
        return None

    def put(self, row: EvalRow, drawing: DecodingMode, trees):
        self.trees |= {(drawing.name, tree.question.id): tree for tree in trees}


@pytest.fixture(scope="module")
def evaluated():
    """What `motif eval` and `motif solve` answer."""
    session = open_session(SMALL, task=Task("solve", [], [], "exact", []))
    kept = Kept()
    evaluate(QUESTIONS, session.sampler, session.rounds, session.grader, SMALL, store=kept)
    solved = {
        (q.text, seed): next(solve(q.text, session, greedy=False, seed=seed).leaves()).answer
        for q in QUESTIONS
        for seed in (0, 5)
    }
    session.close()
    return session, kept.trees, solved


@pytest.fixture(scope="module")
def server(evaluated):
    session = evaluated[0]
    live = Engine(session.policy, max_rows=32)
    with serving(live, session.rounds, window=256, concurrency=32, max_tokens=48) as (url, service):
        yield url, service, live
    live.close()


@pytest.fixture(scope="module")
def url(server):
    return server[0]


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


def messages(text: str = "What is 15 × 24?"):
    return [{"role": "user", "content": text}]


# -- the same answers as elsewhere -------------------------------------------------------------------------------------


def test_greedy_answers_are_the_evaluated_ones(client, evaluated):
    for question in QUESTIONS:
        leaf = next(evaluated[1]["greedy", question.id].leaves())
        found = client.chat.completions.create(model="demo", messages=messages(question.text), temperature=0)
        assert found.choices[0].motif["answer"] == leaf.answer
        assert found.choices[0].finish_reason == "stop"


def test_sampled_answers_are_the_evaluated_ones(client, evaluated):
    for question in QUESTIONS:
        tree = evaluated[1]["sampled", question.id]
        found = client.chat.completions.create(
            model="demo", messages=messages(question.text), temperature=1, n=3, extra_body={"question_id": question.id}
        )
        for choice, root in zip(found.choices, tree.roots, strict=True):
            nodes = list(root.walk())
            assert [card["note"] for card in choice.motif["rounds"]] == [node.note for node in nodes]
            assert choice.motif["answer"] == nodes[-1].answer
            assert all(node.text in choice.message.reasoning_content for node in nodes)
            spent = [(card["prompt_tokens"], card["completion_tokens"]) for card in choice.motif["rounds"]]
            assert spent == [(len(node.prompt_ids), len(node.token_ids)) for node in nodes]
    assert len({root.answer for tree in evaluated[1].values() for root in tree.leaves()}) > 4


def test_seeded_answers_are_those_of_solve(client, evaluated):
    for (text, seed), answer in evaluated[2].items():
        found = client.chat.completions.create(model="demo", messages=messages(text), temperature=1, seed=seed)
        assert found.choices[0].motif["answer"] == answer
        assert found.motif["seed"] == seed


def test_a_drawn_seed_repeats_the_answer(client):
    first = client.chat.completions.create(model="demo", messages=messages(), temperature=2, n=4)
    again = client.chat.completions.create(
        model="demo", messages=messages(), temperature=2, n=4, seed=first.motif["seed"]
    )
    other = client.chat.completions.create(model="demo", messages=messages(), temperature=2, n=4)
    contents = [[choice.message.reasoning_content for choice in found.choices] for found in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]


def test_together_as_one_by_one(url):
    client = openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0)

    async def answer(a: int) -> str:
        found = await client.chat.completions.create(model="demo", messages=messages(f"What is {a} × 37?"), seed=a)
        return found.choices[0].message.reasoning_content

    async def main():
        together = await asyncio.gather(*(answer(a) for a in range(11, 71)))
        return together, [await answer(a) for a in (11, 30, 55, 70)]

    together, alone = asyncio.run(main())
    assert [together[0], together[19], together[44], together[59]] == alone


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = client.chat.completions.create(model="demo", messages=messages(), n=2, temperature=1, seed=1)
    stream = client.chat.completions.create(
        model="demo",
        messages=messages(),
        n=2,
        temperature=1,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    *told, last = chunks
    assert last.choices == [] and last.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in told if chunk.choices[0].index == choice.index]
        reasoning = [getattr(part.delta, "reasoning_content", None) or "" for part in mine]
        assert "".join(reasoning) == choice.message.reasoning_content
        assert "".join(part.delta.content or "" for part in mine) == choice.message.content
        assert [part.finish_reason for part in mine if part.finish_reason] == [choice.finish_reason]
        assert mine[0].delta.role == "assistant"
        events = [part.motif for part in mine if getattr(part, "motif", None) and part.motif.get("event") != "text"]
        names = [(event["event"], event.get("round")) for event in events if "event" in event]
        assert names == [
            ("round", 1), ("note", 1), ("round", 2), ("note", 2), ("round", 3), ("end", 3), ("answer", None),
        ]  # fmt: skip
        notes = [event["note"] for event in events if event.get("event") in ("note", "end")]
        assert notes == [card["note"] for card in choice.motif["rounds"]]
        # The content comes after all reasoning.
        places = [index for index, part in enumerate(reasoning) if part]
        assert max(places) < next(index for index, part in enumerate(mine) if part.delta.content)
    assert sum(bool(getattr(chunk.choices[0].delta, "reasoning_content", "")) for chunk in told) > 60


def test_the_async_client_streams(url):
    async def main() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="demo", messages=messages(), stream=True)
            content = reasoning = ""
            async for chunk in stream:
                assert getattr(chunk, "usage", None) is None
                content += chunk.choices[0].delta.content or ""
                reasoning += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
            return content, reasoning

    content, reasoning = asyncio.run(main())
    assert content.startswith("\\boxed{")
    assert reasoning.startswith("[round 1 of 3]\n<think>")


def test_completions_answer_each_prompt_n_times(client):
    prompts = ["What is 15 × 24?", "What is 15 × 11?"]
    found = client.completions.create(model="demo", prompt=prompts, n=2, temperature=1, seed=4)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    chats = [
        client.chat.completions.create(model="demo", messages=messages(text), n=2, temperature=1, seed=4)
        for text in prompts
    ]
    assert [choice.text for choice in found.choices] == [
        choice.message.content for chat in chats for choice in chat.choices
    ]
    assert found.usage.completion_tokens == sum(chat.usage.completion_tokens for chat in chats)
    stream = client.completions.create(model="demo", prompt=prompts, n=2, temperature=1, seed=4, stream=True)
    told = ["", "", "", ""]
    for chunk in stream:
        told[chunk.choices[0].index] += chunk.choices[0].text
    assert told == [choice.text for choice in found.choices]


# -- parameters --------------------------------------------------------------------------------------------------------


def test_usage_is_the_sum_over_rounds_and_choices(client):
    found = client.chat.completions.create(model="demo", messages=messages(), n=3, temperature=1, seed=2)
    cards = [card for choice in found.choices for card in choice.motif["rounds"]]
    assert found.usage.prompt_tokens == sum(card["prompt_tokens"] for card in cards)
    assert found.usage.completion_tokens == sum(card["completion_tokens"] for card in cards)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    reasoning = sum(card["completion_tokens"] for card in cards if card["round"] < 3)
    assert found.usage.completion_tokens_details.reasoning_tokens == reasoning


def test_rounds_and_limits_are_honoured(client):
    def cards(**body):
        found = client.chat.completions.create(model="demo", messages=messages(), extra_body=body)
        return [(card["completion_tokens"], card["truncated"]) for card in found.choices[0].motif["rounds"]], found

    assert len(cards(rounds=1)[0]) == 1
    assert len(cards(rounds=5)[0]) == 5
    short, found = cards(tokens_first=5, tokens_continue=6)
    assert short == [(5, True), (6, True), (6, True)]
    assert found.choices[0].finish_reason == "length"
    shared, found = cards(max_completion_tokens=30)
    assert sum(tokens for tokens, _ in shared) <= 30 and len(shared) == 3
    assert shared[0] == (10, True)
    assert cards(max_tokens=72)[0] == cards()[0]  # all that the rounds may use: no limit at all


def test_stop_cuts_the_content_and_no_round(client):
    whole = client.chat.completions.create(model="demo", messages=messages())
    cut = client.chat.completions.create(model="demo", messages=messages(), stop=["zzz", "{"])
    assert whole.choices[0].message.content.startswith("\\boxed{")
    assert cut.choices[0].message.content == "\\boxed"
    assert cut.choices[0].message.reasoning_content == whole.choices[0].message.reasoning_content
    assert cut.usage == whole.usage


def test_the_bare_answer(client):
    whole = client.chat.completions.create(model="demo", messages=messages())
    bare = client.chat.completions.create(model="demo", messages=messages(), extra_body={"answer_only": True})
    assert whole.choices[0].message.content == "\\boxed{" + bare.choices[0].message.content + "}"


def test_a_conversation_is_one_question(client):
    earlier = client.chat.completions.create(model="demo", messages=messages())
    chat = [
        {"role": "system", "content": "Be brief."},
        *messages("Hi"),
        earlier.choices[0].message.model_dump(exclude_none=True),
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 × 3?"}]},
    ]
    found = client.chat.completions.create(model="demo", messages=chat, extra_body={"rounds": 1})
    folded = "Be brief.\n\nUser: Hi\n\nAssistant: " + earlier.choices[0].message.content + "\n\nWhat is 2 × 3?"
    single = client.chat.completions.create(model="demo", messages=messages(folded), extra_body={"rounds": 1})
    assert found.usage == single.usage
    assert found.choices[0].message.reasoning_content == single.choices[0].message.reasoning_content


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"roundz": 2}, "roundz", "did you mean 'rounds'"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"logprobs": 0}, "logprobs", "not supported"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
        ({"n": 2}, "n", "set temperature"),
        ({"n": 0}, "n", "greater than"),
        ({"n": "1"}, "n", "integer"),
        ({"n": 33, "temperature": 1}, "n", "more than the 32"),
        ({"rounds": 0}, "rounds", "greater than"),
        ({"rounds": 10**9}, "rounds", "less than"),
        ({"temperature": -1}, "temperature", "greater than"),
        ({"top_p": 0}, "top_p", "greater than"),
        ({"tokens_first": 49}, "tokens_first", "more than this server's 48"),
        ({"max_tokens": 2}, "max_tokens", "leaves no token"),
        ({"stop": [""]}, "stop", "none of them empty"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream = true"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "contain the question"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "must be a user's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "text parts"),
        ({"messages": [{"role": "user", "content": "x", "size": 1}]}, "size", "unknown"),
        ({"messages": [{"role": "user", "content": "What? " * 100}]}, None, "the window of 256"),
        ({"messages": None}, "messages", "array"),
    ],
)
def test_what_cannot_be_done_is_refused_in_the_apis_format(url, body, param, said):
    answer = post(url, ask() | body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_neutral_values_are_taken(url):
    neutral = {"logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "tools": [], "logit_bias": {}}
    neutral |= {"tool_choice": "none", "response_format": {"type": "text"}, "stop": None, "n": None, "user": "me"}
    assert post(url, ask(**neutral)).status_code == 200


def test_the_openai_client_raises_the_right_errors(client):
    with pytest.raises(openai.NotFoundError, match="model 'gpt-4' is not served here"):
        client.chat.completions.create(model="gpt-4", messages=messages())
    with pytest.raises(openai.BadRequestError, match="no token ids"):
        client.completions.create(model="demo", prompt=[1, 2, 3])
    with pytest.raises(openai.BadRequestError, match="not empty"):
        client.completions.create(model="demo", prompt=["What is 15 × 24?", " \n"])


@pytest.mark.parametrize("blank", ["", " \n", "\x1c", "\x85", "\ufeff", "\u3000"])
def test_a_question_that_some_reader_of_the_description_takes_for_blank_is_refused(client, blank):
    with pytest.raises(openai.BadRequestError, match="not empty"):
        client.completions.create(model="demo", prompt=blank)
    pattern = CompletionRequest.model_json_schema()["properties"]["prompt"]["anyOf"][0]["pattern"]
    assert not re.search(pattern, blank)
    assert re.search(pattern, f"{blank}?")


def test_zero_is_not_false(client):
    for value in (0, 0.0, True):
        with pytest.raises(openai.BadRequestError, match="echo: is not supported"):
            client.completions.create(model="demo", prompt="1?", extra_body={"echo": value})


def test_the_model_is_listed(client):
    [card] = client.models.list().data
    assert (card.id, card.object, card.owned_by) == ("demo", "model", "motif")
    assert client.models.retrieve("demo") == card
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other/model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(server, stream):
    url, service, live = server
    before = requests_counted(service, 499)
    body = ask("What is 15 × 24?", stream=stream, n=32, temperature=1, rounds=32)
    with raw(url, body) as client:
        until(lambda: live.decoding > 0)
        while stream and client.recv(4096).count(b"data: ") < 2:
            pass
    until(lambda: requests_counted(service, 499) == before + 1)
    assert service.queue.taken == 0 and not service.running
    until(lambda: live.decoding == 0 and not live._open)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(url):
    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-sS", "-m", "30", *arguments], capture_output=True, text=True, check=True
        ).stdout

    body = ["-H", "Content-Type: application/json", "-d", json.dumps(ask(), ensure_ascii=False)]
    found = json.loads(curl(f"{url}/v1/chat/completions", *body))
    assert found["choices"][0]["message"]["content"].startswith("\\boxed{")
    body[-1] = json.dumps(ask(stream=True))
    lines = curl("-N", f"{url}/v1/chat/completions", *body).strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "chat.completion.chunk" for line in lines[:-1])
    assert "Content-Type: application/json" in curl(f"{url}/v1/chat/completions", "-d", "{}")


def test_the_page_names_every_metric(server):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    families = re.findall(r"^# TYPE (motif_\w+) \w+$", CLIENT.get(server[0] + "/metrics").text, re.MULTILINE)
    assert len(families) == 9
    assert set(re.findall(r"`(motif_[a-z_]+)`", page)) == set(families)


def test_metrics_count(server):
    url, service, _ = server
    before = {name: counted(service, f"{name}_total") for name in ("answers", "rounds")}
    post(url, ask())
    until(lambda: counted(service, "answers_total") > before["answers"])  # an answer is counted once it has been sent
    text = CLIENT.get(url + "/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["motif_answers_total"]) == before["answers"] + 1
    assert float(values["motif_rounds_total"]) == before["rounds"] + 3
    assert float(values["motif_answers_running"]) == 0
    counts = [float(value) for name, value in values.items() if name.startswith("motif_request_seconds_bucket")]
    assert counts == sorted(counts) and counts[-1] == float(values["motif_request_seconds_count"])
    CLIENT.get(url + "/made/up/by/a/client")
    assert "made" not in CLIENT.get(url + "/metrics").text
