"""An upstream server that lies, babbles or breaks off: 502, never 500, and nothing of it reaches a client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import gzip
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from motif.config import load_recipe
from motif.errors import RecipeError, UsageError
from motif.method.rounds import Rounds
from motif.sampling.http import bearer
from motif.sampling.openai import BadReply, OpenAISampler, UpstreamAddress, _Streamed, retry_after
from support.serving import CLIENT, DEMO, ask, post, serving
from support.tiny import char_tokenizer
from support.waiting import until

ROUNDS = Rounds(DEMO.rounds, char_tokenizer())
PASSWORD, KEY = "hunter2/ü", "sk-secret-key"
ANSWER = {"choices": [{"delta": {"content": "<note>\\boxed{7}</note>"}, "finish_reason": "stop"}]}


@pytest.fixture(scope="module")
def upstream():
    """A server that streams `lines` to every chat, or gives `response`; `seen`: the headers of the last request."""
    state = SimpleNamespace(lines=[], response=None, seen={}, models={"data": [{"id": "one"}]})

    async def models(request):
        state.seen = dict(request.headers)
        return JSONResponse(state.models) if not isinstance(state.models, bytes) else Response(state.models)

    async def chat(request):
        state.seen = dict(request.headers)
        return (
            state.response(request) if state.response else StreamingResponse(stream(), media_type="text/event-stream")
        )

    async def stream():
        for line in state.lines:
            yield line

    routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    state.port = server.servers[0].sockets[0].getsockname()[1]
    yield state
    server.should_exit = True
    thread.join(120)


@pytest.fixture(scope="module")
def front(upstream):
    """The address of a server in front of it."""
    address = UpstreamAddress.parse(f"http://anna:hunter2%2F%C3%BC@127.0.0.1:{upstream.port}")
    with serving(OpenAISampler(address, "chat", ROUNDS, "one", {}, 20.0), ROUNDS) as (url, _):
        yield url


@pytest.fixture(autouse=True)
def plain(upstream):
    upstream.lines, upstream.response, upstream.models = [event(ANSWER)], None, {"data": [{"id": "one"}]}


def event(content: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"data: " + text + b"\n\n"


def delta(**content: Any) -> bytes:
    return event({"choices": [{"delta": content, "finish_reason": None}]})


BAD = {
    "usage is a text": event(ANSWER | {"usage": "abc"}),
    "usage is a list": event(ANSWER | {"usage": [1]}),
    "a count is a text": event(ANSWER | {"usage": {"prompt_tokens": "11"}}),
    "a count is negative": event(ANSWER | {"usage": {"completion_tokens": -5}}),
    "a count is huge": event(ANSWER | {"usage": {"completion_tokens": 10**30}}),
    "a count is a truth value": event(ANSWER | {"usage": {"prompt_tokens": True}}),
    "deep lists": event(b"[" * 100_000),
    "deep objects": event(b'{"choices":' * 50_000),
    "a lone surrogate": event(b'{"choices":[{"delta":{"content":"\\ud800"},"finish_reason":"stop"}]}'),
    "text is a number": delta(content=5),
    "text is an object": delta(content={"a": 1}),
    "reasoning is a list": delta(reasoning_content=["x"]),
    "delta is a text": event({"choices": [{"delta": "x"}]}),
    "choices is an object": event({"choices": {"0": {}}}),
    "choices are texts": event({"choices": ["x"]}),
    "the reason is a number": event({"choices": [{"delta": {}, "finish_reason": 3}]}),
    "no object": event(b"5"),
    "null": event(b"null"),
    "no JSON": event(b"{nonsense"),
    "not UTF-8 in JSON's own characters": event(b'{"choices\xff": ['),
    "an error as a text": event({"error": "my secret"}),
    "an error as a list": event({"error": ["my secret"]}),
    "nothing": b"",
    "no reason at the end": delta(content="<note>7</note>"),
    "no events": b"<html>hello</html>\n" * 100,
    "an endless line": b"data: " + b"x" * 200_000,
    "more than was asked for": delta(content="word " * 100_000),
    "more than was asked for, in pieces": delta(content="word ") * 1_000,
    "more reasoning than was asked for": delta(reasoning="word ") * 1_000,
}


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD.keys())
def test_malformed_replies_are_502(upstream, front, lines):
    upstream.lines = [lines]
    answer = post(front, ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed"), answer.text
    assert "secret" not in answer.text and str(upstream.port) not in answer.text
    streamed = post(front, ask(stream=True))
    assert '"upstream_failed"' in streamed.text and "[DONE]" not in streamed.text
    upstream.lines = [event(ANSWER)]
    assert post(front, ask()).status_code == 200


NAMES = [
    "choices",
    "delta",
    "content",
    "usage",
    "error",
    "finish_reason",
    "text",
    "prompt_tokens",
    "reasoning",
    "message",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES | st.builds(lambda inner: {"choices": [{"delta": inner}]}, VALUES))
def test_any_event_is_read_or_refused(content):
    with contextlib.suppress(BadReply):
        assert isinstance(_Streamed(("<think>", "</think>"), 100).take(json.dumps(content)), str)


def test_replies_with_gaps_are_read(upstream, front):
    upstream.lines = [
        b": a comment\r\n\r\n",
        event({}),
        event({"choices": None, "usage": None}),
        event({"choices": []}),
    ]
    upstream.lines += [event({"choices": [{"index": 0}]}), event(ANSWER)[:30], event(ANSWER)[30:], event({"id": 1})]
    upstream.lines += [event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": None, "more": {}}})]
    answer = post(front, ask())
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == 9
    assert answer.json()["choices"][0]["message"]["content"] == "\\boxed{7}"


def endless(_: Any) -> Response:
    async def body():
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(body(), 500)


RESPONSES = {
    "an endless error": endless,
    "deep JSON in an error": lambda _: Response(b"[" * 100_000, 500),
    "an error that repeats our key": lambda r: JSONResponse({"error": {"message": r.headers["authorization"]}}, 401),
    "a redirect": lambda r: Response(b"", 307, {"Location": f"http://{PASSWORD.split('/', maxsplit=1)[0]}.example"}),
    "a bomb": lambda _: Response(gzip.compress(b"\0" * 2**24), 200, {"Content-Encoding": "gzip"}),
    "no content": lambda _: Response(b"", 204),
    "a line that forges the log": lambda _: JSONResponse({"error": {"message": "a\n2026 forged\x1b[2J"}}, 500),
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
def test_failures_stay_in_the_log_and_secrets_stay_out_of_it(upstream, front, response, caplog):
    upstream.response = response
    answer = post(front, ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    assert answer.json()["error"]["message"] == "the upstream server failed; this server's log has the cause"
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(upstream.port) in warning and not set("\n\x1b") & set(warning)
    pair = f"anna:{PASSWORD}"
    for secret in (PASSWORD, pair, "hunter2%2F%C3%BC", base64.b64encode(pair.encode()).decode()):
        assert secret not in warning


DATE = email.utils.formatdate(time.time() + 3000, usegmt=True)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("1.5", 2, 2), ("0", 1, 1), ("-3", 1, 1), ("999999999", 120, 120), ("soon", 1, 1), ("1e999", 1, 1),
     ("nan", 1, 1), pytest.param(DATE, 120, 120, id="in 50 minutes"),
     ("٣", 1, 3),
     ("Thu, 01 Jan 1970 00:00:00 GMT", 1, 1), ("Thu, 99 Jan 1970", 1, 1)],
)  # fmt: skip
def test_the_wait_of_a_busy_upstream_is_a_number(upstream, front, header, low, high):
    raw = header.encode("latin-1", "replace")
    upstream.response = lambda _: Response(b"no room", 429, {"Retry-After": raw.decode("latin-1")})
    answer = post(front, ask())
    assert answer.status_code == 429 and "no room" not in answer.text
    assert low <= int(answer.headers["Retry-After"]) <= high


def test_dates_far_away_are_no_error():
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT") == 3600
    assert retry_after("Fri, 31 Dec 99999 23:59:59 GMT") == 1


@pytest.mark.parametrize(
    "models", [b"[" * 100_000, b"", b"no json", {"data": "abc"}, {"data": [5]}, {"data": [{"id": 5}]}, {}, [], None]
)
def test_a_malformed_list_of_models_is_not_ready(upstream, front, models):
    upstream.models = models
    assert CLIENT.get(front + "/health/ready").status_code == 503


@pytest.mark.parametrize("window", ["abc", -5, 0, True, 1.5, None, [4]])
def test_a_window_that_is_no_number_is_unknown(upstream, front, window):
    upstream.models = {"data": [{"id": "one", "max_model_len": window}]}
    assert CLIENT.get(front + "/health/ready").status_code == 200


# -- user info and keys ----------------------------------------------------------------------------------------------


def test_user_info_becomes_a_header(upstream, front):
    assert post(front, ask()).status_code == 200
    scheme, coded = upstream.seen["authorization"].split()
    assert scheme == "Basic" and base64.b64decode(coded).decode() == f"anna:{PASSWORD}"
    address = UpstreamAddress.parse("http://anna:hunter2@gpu1:8000/v1")
    assert address.url == "http://gpu1:8000/v1" and "hunter2" not in repr(address)


def test_a_key_is_sent_as_it_is():
    assert UpstreamAddress.parse("http://gpu1:8000", f" {KEY}\n").authorization == f"Bearer {KEY}"
    assert UpstreamAddress.parse("http://@gpu1:8000").authorization == ""


@pytest.mark.parametrize(
    "given",
    ["http://anna:hunter2@", "anna:hunter2@gpu1:8000", "http://anna:hunter2@[::1", "http://anna:hunter2@gpu1:99999",
     "http://anna:hunter2@gpu1:abc", "ftp://anna:hunter2@gpu1", "http://anna:hunter2@gpu1/v1?key=hunter2"],
)  # fmt: skip
def test_what_is_no_address_is_said_without_the_password(given):
    with pytest.raises(UsageError, match="not the address of a server") as error:
        UpstreamAddress.parse(given)
    assert "anna:hunter2" not in str(error.value)


def test_user_info_and_a_key_are_one_too_many():
    with pytest.raises(UsageError, match="names a user, and a key is set too") as error:
        UpstreamAddress.parse("http://anna:hunter2@gpu1:8000", KEY)
    assert "hunter2" not in str(error.value) and KEY not in str(error.value)


def test_a_key_that_no_header_holds_is_said_without_it():
    with pytest.raises(UsageError, match="control characters") as error:
        bearer("one\ntwo")
    assert "one" not in str(error.value).split() and "two" not in str(error.value)


def test_servers_of_a_recipe_name_no_user():
    with pytest.raises(RecipeError, match=r"names a user or password.*api_key_variable") as error:
        load_recipe("demo", ['sampler.urls=["http://anna:hunter2@gpu1:8000"]'])
    assert "hunter2" not in str(error.value) and "…@gpu1" in str(error.value)
