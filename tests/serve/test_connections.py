"""Connections that hold on to the server, name another host, or hide a request in a body; and the end of a server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from motif.hosts import names_this_machine
from motif.method.rounds import Rounds
from motif.serve import run
from motif.serve.admission import ServerLimits
from motif.serve.requests import ServedModel
from motif.serve.run import ServerOptions
from motif.serve.service import Service
from support.serving import CHAT, CLIENT, DEMO, Scripted, ask, post, request_head, serving
from support.tiny import char_tokenizer
from support.waiting import until

ROUNDS = Rounds(DEMO.rounds, char_tokenizer())


def note(_) -> str:
    return "<note>\\boxed{7}</note>"


@pytest.fixture(scope="module")
def url():
    with serving(Scripted(note), ROUNDS) as (url, _):
        yield url


@pytest.fixture(scope="module")
def impatient():
    with serving(Scripted(note), ROUNDS, header_seconds=1.0) as (url, _):
        yield url


@contextmanager
def connected(url: str):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(60)
        yield client


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes the connection; fails if it does not within a minute."""
    found = b""
    while part := client.recv(4096):
        found += part
    return found


# -- the name of the server --------------------------------------------------------------------------------------------

OURS = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:8000", "10.1.2.3:80", "[::1]:8000", "[::1]"]
OURS += ["gpu1", "GPU1:8000", "0.0.0.0"]
STRANGE = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", " ", "[evil"]
STRANGE += ["anna@127.0.0.1", "evil.example#@localhost", "localhost/evil", "localhost:port", "[localhost]", "0x7f.1"]
STRANGE += ["127.0.0.1, evil.example", "gpu2", "gpu1.evil.example", "localhost\tx", "::1", "[::1"]


@pytest.mark.parametrize("host", OURS)
def test_names_of_this_machine(host):
    assert names_this_machine(host, "gpu1")


@pytest.mark.parametrize("host", STRANGE)
def test_names_of_others(host):
    assert not names_this_machine(host, "gpu1")


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready", "/metrics", "/openapi.json", "/v1/models", CHAT])
def test_without_a_key_no_other_name_is_answered(url, path):
    for host in ("evil.example", "localhost.evil.example:80", "[evil"):
        answer = CLIENT.get(url + path, headers={"Host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")
    assert post(url, ask(), headers={"Host": "evil.example"}).status_code == 421
    assert CLIENT.get(url + path, headers={"Host": "localhost:1"}).status_code != 421


def test_with_a_key_any_name_is_answered():
    with serving(Scripted(note), ROUNDS, keys=("k",)) as (url, _):
        headers = {"Host": "motif.example", "Authorization": "Bearer k"}
        assert post(url, ask(), headers=headers).status_code == 200
        assert CLIENT.get(url + "/health", headers={"Host": "motif.example"}).status_code == 200


# -- waiting -----------------------------------------------------------------------------------------------------------

ASKED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALVES = [
    b"GET /hea",
    b"GET /health HTTP/1.1\r\nHost: loc",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    ASKED + b"GET /hea",
]
NOTHING = [b"", ASKED, b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"]


def test_half_a_request_is_given_up_and_a_connection_without_one_is_closed(impatient):
    with ExitStack() as stack:  # all of them wait at the same time
        halves, without = ([stack.enter_context(connected(impatient)) for _ in texts] for texts in (HALVES, NOTHING))
        for client, sent in zip([*halves, *without], [*HALVES, *NOTHING], strict=True):
            client.sendall(sent)
        for client, sent in zip(halves, HALVES, strict=True):
            found = rest(client)
            assert found.count(b"HTTP/1.1 ") == sent.count(b"\r\n\r\n") + 1, sent
            assert b" 408 " in found and b"slow_headers" in found, sent
        for client, sent in zip(without, NOTHING, strict=True):
            assert b" 408 " not in rest(client), sent


@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"])
def test_a_byte_now_and_then_gains_no_time(impatient, head):
    with connected(impatient) as client, pytest.raises(OSError):
        client.sendall(head)
        for _ in range(2000):  # more than a minute's; a second is enough
            client.sendall(b"G")
            time.sleep(0.05)
        pytest.fail("it went on")


def test_many_half_open_connections_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(run, "WAITING_CONNECTIONS", 20)
    monkeypatch.setattr(run, "SPARE_CONNECTIONS", 40)
    with serving(Scripted(note), ROUNDS, concurrency=2, queue=2) as (url, _), ExitStack() as stack:
        clients = []
        for _ in range(100):
            clients.append(stack.enter_context(connected(url)))
            clients[-1].sendall(b"GET /health HT")
        assert post(url, ask()).status_code == 200
        with contextlib.suppress(ConnectionResetError):  # where it is closed before what it sent is read
            assert b" 408 " in rest(clients[0])
        assert CLIENT.get(url + "/health").status_code == 200


def test_a_slow_answer_is_not_cut_off():
    sampler = Scripted(note, held=True)
    with serving(sampler, ROUNDS, header_seconds=1.0) as (url, _), ThreadPoolExecutor() as pool:
        asking = pool.submit(post, url, ask())
        until(lambda: sampler.now)
        time.sleep(1.2)
        sampler.held = False
        assert asking.result().status_code == 200


# -- bodies in disguise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "identity", "chunked, chunked"])
@pytest.mark.parametrize("length_first", [True, False])
def test_a_body_with_two_ends_hides_no_request(url, coding, length_first):
    fields = ["Content-Length: 6", f"Transfer-Encoding: {coding}"][:: 1 if length_first else -1]
    head = "\r\n".join((f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields, "", ""))
    with connected(url) as client:
        client.sendall(head.encode() + b"0\r\n\r\n" + ASKED)
        found = rest(client)
    assert found.count(b"HTTP/1.1 ") == 1 and found[9:12] in (b"400", b"501")


def test_two_lengths_are_refused(url):
    with connected(url) as client:
        client.sendall(request_head(5).replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n") + b"hello" + ASKED)
        assert rest(client).count(b"HTTP/1.1 ") == 1


# -- long questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["What is 12 × 13? ", "a", " \n", "é"])
def test_a_question_that_is_far_too_long_is_not_read_to_its_end(monkeypatch, text):
    read = []
    prompt = ROUNDS.prompt
    monkeypatch.setattr(ROUNDS, "prompt", lambda question, *rest: read.append(len(question)) or prompt(question, *rest))
    with serving(Scripted(note), ROUNDS, window=400) as (url, _):
        answer = post(url, ask(text * (400_000 // len(text)) + "?"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert sum(read) < 10_000
        assert post(url, ask("What is 12 × 13?")).status_code == 200


# -- the end -----------------------------------------------------------------------------------------------------------


def test_streams_that_nobody_reads_end_within_the_grace():
    served = ServedModel("demo", DEMO, ROUNDS, Scripted(lambda _: " ".join(["x" * 20_000] * 600)), None, created=1)
    service = Service(served, ServerLimits(concurrency=80))
    server = run._Server(service, ServerOptions(port=0, grace=1.5), "ready")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),), daemon=True)
    thread.start()
    until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    body = b'{"messages": [{"role": "user", "content": "q"}], "stream": true}'
    with ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(connected(url)).sendall(request_head(len(body)) + body)
        until(lambda: len(service.running) == 80)
        loop.call_soon_threadsafe(server.shut_down)
        thread.join(100)  # 120 s, if each had a grace of its own, and 600 s without any
        assert not thread.is_alive()
    assert not service.running
    loop.close()
