"""The server under pressure: keys, full queues, slow and leaving clients, bodies that are too much, its end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest

from motif.errors import SamplerError
from motif.method.rounds import Rounds
from motif.serve import admission
from motif.serve.admission import AdmissionQueue, QueueFull
from support.serving import (
    CHAT,
    CLIENT,
    DEMO,
    Scripted,
    ask,
    post,
    raw,
    request_head,
    requests_counted,
    serving,
    together,
    until,
)
from support.tiny import char_tokenizer

ROUNDS = Rounds(DEMO.rounds, char_tokenizer())


def note(_: Any) -> str:
    return "<think>x</think> <note>\\boxed{7}</note>"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_gets_nothing():
    sampler = Scripted(note)
    with serving(sampler, ROUNDS, keys=("secret", "schlüssel")) as (url, _):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "secret"},
            {"Authorization": "Basic secret"},
        ):
            for path in ("/v1/models", "/v1/models/demo", "/metrics", "/openapi.json", "/nope", CHAT):
                answer = CLIENT.get(url + path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert "demo" not in answer.text
            assert post(url, ask(), headers=headers).status_code == 401
        assert sampler.asks == []
        assert CLIENT.get(url + "/health").json() == CLIENT.get(url + "/health/ready").json() == {"status": "ok"}
        for key in ("secret", "schlüssel"):
            headers = {"Authorization": f"Bearer {key}".encode()}
            assert post(url, ask(), headers=headers).status_code == 200
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0).models.list()
        assert openai.OpenAI(base_url=url + "/v1", api_key="secret").models.list().data[0].id == "demo"


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_the_queue_admits_in_order_and_wide_requests_are_not_starved():
    async def main() -> list[str]:
        queue, order = AdmissionQueue(4, 10), []

        async def one(name: str, count: int) -> None:
            async with queue.enter(count):
                order.append(name)
                assert queue.taken <= 4
                await asyncio.sleep(0.01)

        calls = [("a", 3), ("wide", 4), ("b", 1), ("c", 1)]
        await asyncio.gather(*(one(*call) for call in calls))
        assert queue.taken == 0 and not queue.waiting
        return order

    assert asyncio.run(main()) == ["a", "wide", "b", "c"]


def test_the_queue_forgets_who_leaves_it():
    async def main() -> None:
        queue = AdmissionQueue(1, 2)

        async def hold() -> None:
            async with queue.enter(1):
                await release.wait()

        release = asyncio.Event()
        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as busy:
            await hold()
        assert busy.value.retry_after >= 1
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert len(queue.waiting) == 1
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.taken == 0 and not queue.waiting

    asyncio.run(main())


def test_a_place_goes_to_the_next_when_one_leaves_the_queue_in_that_moment():
    async def main() -> None:
        queue = AdmissionQueue(1, 10)

        async def hold() -> None:
            async with queue.enter(1):
                await release.wait()

        release = asyncio.Event()
        holding, leaving, staying = (asyncio.create_task(hold()) for _ in range(3))
        await asyncio.sleep(0)
        assert len(queue.waiting) == 2
        release.set()  # the first gives its place back when it runs next,
        leaving.cancel()  # before the second does
        await asyncio.gather(holding, staying)
        assert leaving.cancelled()
        assert queue.taken == 0 and not queue.waiting

    asyncio.run(main())


def test_those_who_are_sent_away_are_told_to_come_back_one_after_the_other(monkeypatch):
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: 1234.5))  # all at the same moment

    async def main() -> list[int]:
        queue, waits = AdmissionQueue(2, 0), []
        async with queue.enter(2):
            for _ in range(400):
                with pytest.raises(QueueFull) as busy:
                    async with queue.enter(1):
                        pass
                waits.append(busy.value.retry_after)
        return waits

    waits = asyncio.run(main())  # an answer holds its place for a second, as long as nothing else is known
    assert waits == sorted(waits)
    assert waits[:6] == [1, 1, 2, 2, 3, 3] and waits[-1] == 120


def test_more_than_the_queue_holds_get_an_honest_429():
    sampler = Scripted(note, held=True)
    with (
        serving(sampler, ROUNDS, concurrency=2, queue=3) as (url, service),
        ThreadPoolExecutor() as pool,
    ):
        asking = pool.submit(together, url, [ask(f"q{i}") for i in range(12)])
        until(lambda: requests_counted(service, 429) == 7)
        sampler.held = False
        answers = asking.result()
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] * 5 + [429] * 7
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json()["error"]["code"] == "queue_full"
        assert sampler.most == 2
        assert post(url, ask()).status_code == 200  # and there is room again
        until(lambda: service.queue.taken == 0)


def test_nobody_is_starved_and_usage_stays_right():
    sampler = Scripted(lambda ask: f"<note>{ask.question} \\boxed{{7}}</note>")
    with serving(sampler, ROUNDS, concurrency=8, queue=100) as (url, service):
        answers = together(url, [ask(f"q{i}", n=1 + i % 3, temperature=1) for i in range(60)])
        assert all(answer.status_code == 200 for answer in answers)
        for i, answer in enumerate(answers):
            found = answer.json()
            assert [choice["message"]["content"] for choice in found["choices"]] == [f"q{i} \\boxed{{7}}"] * (1 + i % 3)
            assert found["usage"]["completion_tokens"] == 3 * 2 * (1 + i % 3)
        assert sampler.most <= 8
        until(lambda: service.queue.taken == 0 and not service.running)


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_request_that_takes_too_long_is_given_up():
    sampler = Scripted(note, held=True)
    with serving(sampler, ROUNDS, timeout=0.3) as (url, service):
        answer = post(url, ask())
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        with pytest.raises(openai.APIError, match="no answer within"):  # in a stream that has begun
            list(
                openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0).chat.completions.create(
                    model="demo", messages=ask()["messages"], stream=True
                )
            )
        assert sampler.cancelled == len(sampler.asks)
        until(lambda: requests_counted(service, 504) == 2)
        until(lambda: service.queue.taken == 0)


def test_a_client_that_stops_reading_is_given_up():
    sampler = Scripted(lambda ask: " ".join(["x" * 20_000] * 600))
    with serving(sampler, ROUNDS, timeout=1.0) as (url, service):
        with raw(url, ask(stream=True)):
            until(lambda: requests_counted(service, 504) == 1)
            assert service.queue.taken == 0 and sampler.now == 0
        assert CLIENT.get(url + "/health").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_work(stream):
    sampler = Scripted(note, held=True)
    with serving(sampler, ROUNDS) as (url, service):
        with raw(url, ask(stream=stream, n=3, temperature=1)):
            until(lambda: sampler.now == 3)
        until(lambda: sampler.now == 0 and service.queue.taken == 0)
        assert sampler.cancelled == 3
        assert requests_counted(service, 499) == 1


def test_one_that_leaves_the_queue_is_never_thought():
    sampler = Scripted(note, held=True)
    with serving(sampler, ROUNDS, concurrency=1, queue=5) as (url, service):
        thread = threading.Thread(target=post, args=(url, ask("first")))
        thread.start()
        until(lambda: sampler.now == 1)
        with raw(url, ask("second")):
            until(lambda: service.queue.waiting)
        until(lambda: not service.queue.waiting)
        sampler.held = False
        thread.join()
        assert {one.question for one in sampler.asks} == {"first"}


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    sampler = Scripted(note)
    with serving(sampler, ROUNDS, body=2000) as (url, _):
        yield url


def test_bodies_that_are_too_long(small):
    assert post(small, ask("x" * 3000)).status_code == 413

    def parts():
        for _ in range(10):
            yield b"x" * 1000

    answer = CLIENT.post(small + CHAT, content=parts(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")
    assert post(small, ask("x" * 1000)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"[]", b"null", b'"x"', b"{}", b"\xff\xfe", b'{"messages": NaN}', b"[" * 1900,
     b'{"messages":[{"role":"user","content":"\\ud800"}]}', b'{"a":1,"a":2}', b'{"' + b"k" * 1900 + b'":1}'],
)  # fmt: skip
def test_malformed_bodies(small, body):
    answer = CLIENT.post(small + CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.text) < 2000


def test_whole_numbers_may_be_written_as_3_0_but_not_as_3_5(small):
    answer = post(small, ask(rounds=2.0, seed=7.0))
    assert answer.status_code == 200 and answer.json()["choices"][0]["motif"]["of"] == 2
    assert answer.json()["motif"]["seed"] == 7
    for wrong in (2.5, True, "2", 1e300):
        assert post(small, ask(rounds=wrong)).json()["error"]["param"] == "rounds"


def test_what_fits_the_schema_and_is_refused_has_a_code_that_the_description_names(small):
    paths = CLIENT.get(small + "/openapi.json").json()["paths"]
    rules = paths[CHAT]["post"]["responses"]["400"]["description"]
    for body in (ask(" "), ask(n=2, temperature=0), ask(max_tokens=2), ask(tokens_first=10**6)):
        answer = post(small, body)
        assert answer.status_code == 400 and f"`{answer.json()['error']['code']}`" in rules


def test_bodies_that_are_not_declared_as_json(small):
    answer = CLIENT.post(small + CHAT, content=json.dumps(ask()), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_body_that_does_not_come():
    with serving(Scripted(note), ROUNDS, body_seconds=0.3) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(request_head(99) + b"{")
            client.settimeout(60)
            assert b" 408 " in client.recv(4096).split(b"\r\n")[0]


def test_a_line_in_the_log_is_one_line_and_holds_no_question(caplog):
    with caplog.at_level("INFO", logger="motif.serve"), serving(Scripted(note), ROUNDS) as (url, _):
        answers = [
            post(url, ask("my secret question", user="me\nfake line")),
            CLIENT.get(url + "/x%0a2026 forged%1b[31m"),
        ]
        # Another test's server may write the line of its last request now: ids say which lines are ours.
        ids = [answer.headers["x-request-id"] for answer in answers]

        def lines_of(request: str) -> list[str]:
            return [line for line in map(logging.LogRecord.getMessage, caplog.records) if request in line]

        until(lambda: all(map(lines_of, ids)))  # a line is written when its answer has gone out
    [[answered], [refused]] = map(lines_of, ids)
    for line in (answered, refused):
        assert not ("\n" in line or "\x1b" in line or "secret question" in line)
    assert "200" in answered and "rounds 3" in answered and r"user 'me\nfake line'" in answered
    assert "404" in refused


# -- errors and the end ------------------------------------------------------------------------------------------------


def test_an_error_of_our_own_is_a_500_without_its_insides():
    def fail(_: Any) -> str:
        raise ValueError("insides")

    with serving(Scripted(fail), ROUNDS) as (url, service):
        answer = post(url, ask())
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert "insides" not in answer.text
        until(lambda: requests_counted(service, 500) == 1)
        until(lambda: service.queue.taken == 0)


def test_an_error_of_the_sampler_stays_in_the_log(caplog):
    def fail(_: Any) -> str:
        raise SamplerError("no memory left for /home/anna/model\n2026 forged")

    with serving(Scripted(fail), ROUNDS) as (url, _):
        answer = post(url, ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "decoding_failed")
    assert "anna" not in answer.text
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "/home/anna/model\\n2026" in warning and answer.headers["x-request-id"] in warning


def test_when_it_ends_those_under_way_are_told():
    sampler = Scripted(note, held=True)
    with serving(sampler, ROUNDS) as (url, service):
        answers: list[httpx2.Response] = []
        threads = [
            threading.Thread(target=lambda stream=stream: answers.append(post(url, ask(stream=stream))))
            for stream in (False, True)
        ]
        for thread in threads:
            thread.start()
        until(lambda: sampler.now == 2)
        service.stop()
        for thread in threads:
            thread.join(120)
        assert sampler.now == 0
        assert sorted(answer.status_code for answer in answers) == [200, 503]
        assert all("shutting down" in answer.text for answer in answers)
        assert all("[DONE]" not in answer.text for answer in answers)
        assert CLIENT.get(url + "/health/ready").status_code == 503
        assert post(url, ask()).status_code == 503


def test_the_description_is_what_the_server_does(small):
    found = CLIENT.get(small + "/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    for path, methods in found["paths"].items():
        for method in methods:
            answer = CLIENT.request(
                method.upper(), small + path.replace("{id}", "demo"), json={} if method == "post" else None
            )
            assert str(answer.status_code) in methods[method]["responses"]
            kinds = methods[method]["responses"][str(answer.status_code)]["content"]
            assert answer.headers["content-type"].split(";")[0] in kinds
    names = set(found["components"]["schemas"]["ChatRequest"]["properties"])
    assert {"messages", "rounds", "tokens_first", "early_finish", "stream"} <= names
    references = {part.split('"')[0] for part in json.dumps(found).split("#/components/schemas/")[1:]}
    assert references <= set(found["components"]["schemas"])


def test_a_server_that_begins_to_shut_down_while_its_upstream_is_asked_is_not_ready():
    sampler = Scripted(note)
    with serving(sampler, ROUNDS) as (url, service):

        async def ready() -> None:
            service.draining = True

        sampler.ready = ready
        assert CLIENT.get(url + "/health/ready").status_code == 503
