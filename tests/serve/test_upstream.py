"""The server in front of another: one like vLLM that takes token ids, and one that knows chats only."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from motif.config import ModelConfig
from motif.errors import UsageError
from motif.method.rounds import Rounds
from motif.sampling.openai import OpenAISampler, UpstreamAddress, UpstreamError, _Streamed
from support.fake_vllm import FakeVLLM
from support.serving import CHAT, CLIENT, DEMO, ask, post, raw, serving
from support.waiting import until


@pytest.fixture(scope="module")
def vllm():
    fake = FakeVLLM(ModelConfig(name="embedded", device="cpu", lora_rank=4))
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def rounds(vllm):
    return Rounds(DEMO.rounds, vllm.policy.tokenizer)


def greeted(upstream: OpenAISampler) -> str:
    async def main() -> str:
        try:
            await upstream.start()
        finally:
            await upstream.aclose()
        return upstream.model

    return asyncio.run(main())


@contextmanager
def behind(url: str, rounds: Rounds, api: Any = "completions", **options: Any):
    model, key, extra = options.pop("model", ""), options.pop("key", ""), options.pop("extra", {})
    address = UpstreamAddress.parse(url, key)
    model = greeted(OpenAISampler(address, api, rounds, model, extra, 20.0))
    upstream = OpenAISampler(address, api, rounds, model, extra, 20.0)  # it lives in the server's loop
    with serving(upstream, rounds, **options) as running:
        yield running


def test_answers_through_vllm_are_those_of_the_model_itself(vllm, rounds):
    vllm.reset()
    with behind(vllm.url, rounds, extra={"top_k": -1}) as (url, _):
        found = post(url, ask("What is 15 × 24?")).json()
        told = CLIENT.post(url + CHAT, json=ask("What is 15 × 24?", stream=True)).text
    [choice] = found["choices"]
    assert [card["note"] for card in choice["motif"]["rounds"]] == ["300+15*4", "300+60", "\\boxed{340}"]
    assert [body["prompt"] for body in vllm.bodies[:3]] == [
        rounds.prompt("What is 15 × 24?", notes, 3) for notes in ([], ["300+15*4"], ["300+15*4", "300+60"])
    ]
    assert all(body["top_k"] == -1 and body["max_tokens"] == 24 for body in vllm.bodies)
    prompts = sum(len(body["prompt"]) for body in vllm.bodies[:3])
    assert found["usage"]["prompt_tokens"] == prompts == 133
    assert found["usage"]["completion_tokens"] == 60
    chunks = [json.loads(line[6:]) for line in told.split("\n\n") if line.startswith("data: {")]
    reasoning = "".join(chunk["choices"][0]["delta"].get("reasoning_content", "") for chunk in chunks)
    assert reasoning == choice["message"]["reasoning_content"]


@pytest.mark.parametrize(
    ("deed", "said"),
    [(500, "500"), (400, "out of order"), ("garbage", "cannot be read"), ("cut", "failed"), ("short", "broke off")],
)
def test_an_upstream_that_fails_is_a_502_with_its_reason_in_the_log(vllm, rounds, deed, said, caplog):
    vllm.reset()
    with behind(vllm.url, rounds) as (url, service):
        vllm.misbehave = lambda count, body: deed
        answer = post(url, ask())
        assert answer.status_code == 502, answer.text
        assert answer.json()["error"]["message"] == "the upstream server failed; this server's log has the cause"
        [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said in warning and vllm.url in warning and answer.headers["x-request-id"] in warning
        vllm.misbehave = lambda count, body: None
        assert post(url, ask()).status_code == 200
        until(lambda: service.queue.taken == 0)


def test_an_upstream_that_is_away(vllm, rounds):
    vllm.reset()
    with behind(vllm.url, rounds) as (url, _):
        assert CLIENT.get(url + "/health/ready").status_code == 200
        vllm.stop()
        assert post(url, ask()).status_code == 502
        assert CLIENT.get(url + "/health/ready").status_code == 503
        assert CLIENT.get(url + "/health").status_code == 200
    with pytest.raises(UpstreamError, match="failed"):
        greeted(OpenAISampler(UpstreamAddress.parse(vllm.url), "chat", rounds, "", {}, 5.0))


def test_the_upstreams_key(vllm, rounds):
    vllm.reset()
    vllm.key = "theirs"
    with behind(vllm.url, rounds, key="theirs") as (url, _):
        assert post(url, ask()).status_code == 200
    with pytest.raises(UpstreamError, match="401"), behind(vllm.url, rounds, key="other"):
        pass


@pytest.mark.parametrize(
    ("given", "base"),
    [("http://a:8000", "http://a:8000/v1"), ("http://a:8000/v1/", "http://a:8000/v1"), ("https://a/x/y", "https://a/x/y")],
)  # fmt: skip
def test_addresses(given, base):
    assert UpstreamAddress.parse(given).url == base


@pytest.mark.parametrize("given", ["a:8000", "ftp://a", "http://", "http://a?x=1", ""])
def test_what_is_no_address(given):
    with pytest.raises(UsageError, match="not the address of a server"):
        UpstreamAddress.parse(given)


# -- a server that knows chats only ------------------------------------------------------------------------------------


class ChatOnly:
    """Answers chats: reasoning apart, and without a usage unless `counts`."""

    def __init__(self, counts: bool):
        self.counts, self.bodies, self.open, self.hang, self.status = counts, [], 0, False, 200

    def app(self) -> Starlette:
        async def models(request):
            return JSONResponse({"data": [{"id": "one"}, {"id": "two"}]})

        async def chat(request):
            self.bodies.append(body := await request.json())
            if self.status != 200:
                wait = {"Retry-After": "7"}
                return JSONResponse({"error": {"message": "no room"}}, self.status, wait)
            return StreamingResponse(self.events(body), media_type="text/event-stream")

        routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
        return Starlette(routes=routes)

    async def events(self, body):
        self.open += 1
        try:
            deltas = [{"role": "assistant"}, {"reasoning_content": "I "}, {"reasoning_content": "think"}]
            deltas += [{"content": "<note>"}, {"content": f"\\boxed{{{len(self.bodies)}}}</note>"}]
            for delta in deltas:
                yield f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': None}]})}\n\n"
                while self.hang:
                    await asyncio.sleep(0.02)
                    yield ": still there\n\n"
            yield f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
            if self.counts:
                yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 11, 'completion_tokens': 5}})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.open -= 1


@pytest.fixture(params=[True, False], ids=["counts", "does not count"])
def chat_only(request):
    fake = ChatOnly(request.param)
    server = uvicorn.Server(uvicorn.Config(fake.app(), port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    server.should_exit = True
    thread.join(120)


def test_a_chat_upstream_gets_the_messages_of_each_round(chat_only, rounds):
    with pytest.raises(UpstreamError, match="'one', 'two': choose"):
        greeted(OpenAISampler(UpstreamAddress.parse(chat_only.url), "chat", rounds, "", {}, 5.0))
    with behind(chat_only.url, rounds, api="chat", model="two") as (url, _):
        found = post(url, ask("q")).json()
    messages = [rounds.messages("q", notes, 3) for notes in ([], ["\\boxed{1}"], ["\\boxed{1}", "\\boxed{2}"])]
    assert [body["messages"] for body in chat_only.bodies] == messages
    assert {body["model"] for body in chat_only.bodies} == {"two"}
    [choice] = found["choices"]
    assert choice["message"]["content"] == "\\boxed{3}"
    assert "<think>I think</think><note>\\boxed{2}</note>" in choice["message"]["reasoning_content"]
    assert all(card["well_formed"] for card in choice["motif"]["rounds"])
    if chat_only.counts:
        assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (33, 15)
    else:  # by our own count
        texts = [f"<think>I think</think><note>\\boxed{{{number}}}</note>" for number in (1, 2, 3)]
        counted = sum(len(rounds.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        assert found["usage"]["completion_tokens"] == counted


def test_a_client_that_leaves_closes_the_upstream_request(chat_only, rounds):
    chat_only.hang = True
    with behind(chat_only.url, rounds, api="chat", model="one") as (url, service):
        with raw(url, ask("q")):
            until(lambda: chat_only.open == 1)
        until(lambda: chat_only.open == 0 and service.queue.taken == 0)


def test_a_busy_upstream_is_a_429(chat_only, rounds):
    chat_only.status = 429
    with behind(chat_only.url, rounds, api="chat", model="one") as (url, _):
        answer = post(url, ask("q"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_reasoning_that_was_taken_out_is_put_back():
    heard = _Streamed(("<think>", "</think>"), room=100)
    deltas = [{"reasoning": "a"}, {"reasoning": "b", "content": "c"}, {"content": "d"}, {"content": None}]
    pieces = [heard.take(json.dumps({"choices": [{"delta": delta}]})) for delta in deltas]
    assert pieces == ["<think>a", "b</think>c", "d", ""]
