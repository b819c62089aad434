"""`motif serve`: load a model, answer requests, and shut down in good order."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from motif.config import Recipe
from motif.errors import SamplerError, ServiceError, UsageError
from motif.evaluation.target import Target
from motif.method.rounds import Rounds
from motif.models.hub import load_tokenizer
from motif.sampling.openai import Api, OpenAISampler, UpstreamAddress
from motif.serve.admission import ServerLimits
from motif.serve.app import make_app
from motif.serve.connections import Connection, WaitingRoom
from motif.serve.requests import ServedModel
from motif.serve.service import Service
from motif.session import LoadedModel, notices, open_model, piece_limit, with_examples
from motif.text import counted

WAITING_CONNECTIONS = 256
"""Connections that may wait for a request's headers: idle clients, and those that hold on to the server."""
SPARE_CONNECTIONS = 512
"""Connections beyond those of requests that run or wait in the queue: those above, and health checks."""
LAST_SECOND = 1.0
"""The end of the grace period, in which clients are told that it is over."""

log = logging.getLogger("motif.serve")


@dataclass(frozen=True)
class UpstreamConfig:
    """The server that continues prompts in place of the local model (see `motif.sampling.openai`).

    model: the server's name for the model; "" if it serves only one. extra: fields added to each request.
    """

    address: UpstreamAddress
    api: Api = "completions"
    model: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, the model's name in the API, and the API keys.

    early_finish: the default of requests that do not set it. pieces: tokens of a piece of a long message; None: as the
    recipe says, 0: messages are never cut. grace: seconds in which requests in progress may end at
    shutdown, of which the last is for telling those that do not.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str = ""
    keys: tuple[str, ...] = ()
    early_finish: bool = False
    grace: float = 30.0
    pieces: int | None = None


def limits_of(recipe: Recipe, given: dict[str, Any]) -> ServerLimits:
    """The limits of a server for this recipe: those `given` that are not None, else the recipe's, else the defaults.

    Raises:
        UsageError: the recipe's own rounds would exceed them.
    """
    shape = recipe.rollout
    trained = {"concurrency": shape.max_rows, "max_tokens": max(shape.tokens_first, shape.tokens_continue)}
    limits = ServerLimits(**trained | {name: value for name, value in given.items() if value is not None})
    if limits.max_tokens < trained["max_tokens"]:
        raise UsageError(
            f"--max-tokens {limits.max_tokens} is less than the recipe's own {trained['max_tokens']}: "
            "also lower rollout.tokens_first and rollout.tokens_continue (--set)"
        )
    return limits


def serve(
    target: Target,
    options: ServerOptions,
    limits: ServerLimits,
    listener: socket.socket,
    upstream: UpstreamConfig | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept nothing new, and finish requests in progress within the grace period.

    Raises:
        ServiceError: the upstream server does not answer.
        ModelError, RunFolderError: the model cannot be loaded.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    if upstream:
        loaded = _open_upstream(target, upstream, limits.timeout)
    else:
        loaded = open_model(target.recipe, target.weights, limits.concurrency)
    asyncio.run(_run(loaded, target.recipe, options, limits, listener))


def _open_upstream(target: Target, upstream: UpstreamConfig, seconds: float) -> LoadedModel:
    """Prepare sampling on a server elsewhere; of the model only the tokenizer is loaded, which cuts the notes."""
    rounds = Rounds(with_examples(target.recipe).rounds, load_tokenizer(target.recipe.model.name))
    sampler = OpenAISampler(upstream.address, upstream.api, rounds, upstream.model, upstream.extra, seconds)
    return LoadedModel(sampler, rounds, target.recipe.rollout.window or None, f"{sampler.url} ({upstream.api})")


async def _run(
    loaded: LoadedModel, recipe: Recipe, options: ServerOptions, limits: ServerLimits, listener: socket.socket
) -> None:
    sampler = loaded.sampler
    try:
        await sampler.start()
    except SamplerError as error:
        raise ServiceError(f"--upstream cannot be used: {error}") from error
    window = min(filter(None, (loaded.window, sampler.window)), default=None)
    served = ServedModel(
        name=options.name,
        recipe=recipe,
        rounds=loaded.rounds,
        sampler=sampler,
        window=window,
        created=int(time.time()),
        fingerprint=loaded.fingerprint,
        early_finish=options.early_finish,
        notice=notices(recipe),
        piece_tokens=piece_limit(recipe, loaded.rounds, window) if options.pieces is None else options.pieces,
    )
    service = Service(served, limits)
    server = _Server(service, options, _banner(options, listener, loaded, recipe))
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, server.shut_down)
    try:
        await server.serve(sockets=[listener])
    finally:
        await sampler.aclose()
    log.info("ended")


def server_config(service: Service, options: ServerOptions) -> uvicorn.Config:
    """How uvicorn runs a service: HTTP/1.1 alone, with limits on connections."""
    limits = service.limits
    room = WaitingRoom(limits.header_seconds, WAITING_CONNECTIONS)
    return uvicorn.Config(
        make_app(service, options.keys, options.host),
        host=options.host,
        port=options.port,
        http=functools.partial(Connection, room),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.concurrency + limits.queue + SPARE_CONNECTIONS,
        timeout_graceful_shutdown=int(options.grace) + 5,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that prints `banner` when it listens, and leaves signals to its caller.

    uvicorn raises the signal again after a shutdown, which would end the process with an error.
    """

    def __init__(self, service: Service, options: ServerOptions, banner: str):
        super().__init__(server_config(service, options))
        self._service, self._grace, self._banner = service, options.grace, banner

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        print(self._banner, flush=True)

    def shut_down(self) -> None:
        """Accept nothing new, and give requests in progress the grace period; called again, end them at once."""
        if self.should_exit:
            self._stop()
            return
        log.info("shutting down; requests in progress have %g s", self._grace)
        self.should_exit = self._service.draining = True
        asyncio.get_running_loop().call_later(max(0.0, self._grace - LAST_SECOND), self._stop)

    def _stop(self) -> None:
        """Cancel requests in progress; their clients are told, and need not have read it to the end."""
        self._service.stop()
        asyncio.get_running_loop().call_later(LAST_SECOND / 2, self._abort)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _banner(options: ServerOptions, listener: socket.socket, loaded: LoadedModel, recipe: Recipe) -> str:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    shape = recipe.rollout
    tokens = " + ".join(str(limit) for limit in [shape.tokens_first] + [shape.tokens_continue] * (shape.rounds - 1))
    question = json.dumps({"messages": [{"role": "user", "content": "What is 15 × 24?"}]}, ensure_ascii=False)
    key = " -H 'Authorization: Bearer YOUR_KEY'" if options.keys else ""
    lines = [
        f"{options.name} at {url}/v1: {loaded.about}; {counted(shape.rounds, 'round')} of at most {tokens} tokens",
        f"chat in a browser: {url}/",
        f"or: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(question)}",
    ]
    if not options.keys and host not in ("127.0.0.1", "::1"):
        lines.append("no API key is required: anyone who can reach this address can use it (--api-key, MOTIF_API_KEY)")
    return "\n".join(lines)
