"""What the tests of the server share: a service on a free port of this machine, and a sampler that follows a script."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn

from motif.config import Recipe, load_recipe
from motif.sampling.base import Completion, OnText, Request
from motif.serve.admission import ServerLimits
from motif.serve.requests import ServedModel
from motif.serve.run import ServerOptions, server_config
from motif.serve.service import Service
from support.waiting import until

DEMO = load_recipe("demo")
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Ask:
    """What a request of the loop that grows trees is about."""

    question: str
    notes: list[str]
    rounds: int
    request: Request

    @classmethod
    def of(cls, request: Request) -> Ask:
        return cls(*request.messages.args, request)


class Scripted:
    """Answers in each round what `script` makes of the ask, word by word.

    Attributes:
        held: all answers wait until this is false.
        asks: all that it was asked. now, most: responses under way, and the most there were. cancelled: given up.
    """

    def __init__(self, script: Callable[[Ask], str], held: bool = False):
        self.script, self.held = script, held
        self.asks: list[Ask] = []
        self.now = self.most = self.cancelled = self.decoding = 0
        self.window = None

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        ask = Ask.of(request)
        self.asks.append(ask)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            text = self.script(ask)
            for piece in text.split(" "):
                await asyncio.sleep(0)
                while self.held:
                    await asyncio.sleep(0.005)
                if on_text:
                    await on_text(piece if text.startswith(piece) else " " + piece)
            count = len(text.split(" "))
            yield Completion(request, 0, [], [], False, text=text, prompt_tokens=10, completion_tokens=count)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1

    async def ready(self) -> str | None:
        return None


@contextmanager
def serving(
    sampler: Any,
    rounds: Any,
    recipe: Recipe = DEMO,
    keys: tuple[str, ...] = (),
    window: int | None = None,
    piece_tokens: int = 0,
    **limits: Any,
) -> Iterator[tuple[str, Service]]:
    """A running service; yields its address and itself."""
    facts = {"created": 1, "fingerprint": "motif-test", "piece_tokens": piece_tokens}
    served = ServedModel("demo", recipe, rounds, sampler, window, **facts)
    service = Service(served, ServerLimits(**limits))
    server = uvicorn.Server(server_config(service, ServerOptions(port=0, keys=keys)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join(120)


def counted(service: Service, name: str, **labels: str) -> float:
    """The value of a counter of the service; 0 before it is first counted."""
    return service.metrics.registry.get_sample_value(f"motif_{name}", labels) or 0.0


def requests_counted(service: Service, status: int, path: str = CHAT) -> float:
    """How many requests have ended with this status."""
    return counted(service, "requests_total", path=path, status=str(status))


def ask(text: str = "What is 15 × 24?", **parameters: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **parameters}


CLIENT = httpx2.Client(timeout=120, verify=False)  # making one takes longer than an answer


def post(url: str, body: Any, path: str = CHAT, **options: Any) -> httpx2.Response:
    return CLIENT.post(url + path, json=body, **options)


def together(url: str, bodies: list[Any]) -> list[httpx2.Response]:
    """The answers to requests that are sent at the same time."""

    async def main() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=120, verify=False, limits=limits) as client:
            return await asyncio.gather(*(client.post(url + CHAT, json=body) for body in bodies))

    return asyncio.run(main())


def request_head(length: int) -> bytes:
    """The headers of a chat request whose body has so many bytes."""
    lines = f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"
    return "\r\n".join((*lines, "", "")).encode()


@contextmanager
def raw(url: str, body: Any) -> Iterator[socket.socket]:
    """A connection over which a chat has been asked for, and nothing has been read."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    with socket.create_connection((host, int(port))) as client:
        client.sendall(request_head(len(data)) + data)
        yield client
