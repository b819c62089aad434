"""`motif serve`: bind an address, open a model, answer, and end in good order."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motif.config import Recipe
from motif.errors import RecipeError
from motif.serve.admission import Limits

if TYPE_CHECKING:
    from motif.evaluation.any_model import Target
    from motif.serve.opening import Elsewhere, Opened

DEAD_PEER_SECONDS = 120
"""Until the kernel gives up a connection whose client takes nothing."""
SPARE_CONNECTIONS = 512
"""Connections beyond those that are answered or wait: health checks, idle clients."""

log = logging.getLogger("motif.serve")


@dataclass(frozen=True)
class Listening:
    """Where a server listens, under which name, and to whom. `grace`: seconds for what is under way when it ends."""

    host: str = "127.0.0.1"
    port: int = 8000
    name: str = ""
    keys: tuple[str, ...] = ()
    early_finish: bool = False
    grace: float = 30.0


def limits_of(recipe: Recipe, given: dict[str, Any]) -> Limits:
    """The limits of a server for this recipe: `given`, where not None, and else the recipe's or our own.

    Raises:
        RecipeError: the recipe's own rounds would not be allowed.
    """
    shape = recipe.rollout
    own = {"concurrency": shape.max_rows, "max_tokens": max(shape.tokens_first, shape.tokens_continue)}
    limits = Limits(**own | {name: value for name, value in given.items() if value is not None})
    if limits.max_tokens < own["max_tokens"]:
        raise RecipeError(
            f"--max-tokens {limits.max_tokens} is less than the recipe's own {own['max_tokens']}: "
            "lower rollout.tokens_first and rollout.tokens_continue too (--set)"
        )
    return limits


def serve(what: Target, listening: Listening, limits: Limits, elsewhere: Elsewhere | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; then take nothing new, and finish what is under way within the grace period.

    Raises:
        RecipeError: the address is taken, the model cannot be used, or the upstream server does not answer.
    """
    from motif.serve.opening import open_local, open_upstream

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    # The address is bound before the model is loaded, so that a taken one is known at once.
    with bound(listening.host, listening.port) as listener:
        if elsewhere:
            opened = open_upstream(what, elsewhere, limits.timeout)
        else:
            opened = open_local(what, limits.concurrency)
        asyncio.run(_run(opened, what, listening, limits, listener))


def require() -> None:
    """Check that the extra `serve` is installed.

    Raises:
        RecipeError: it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise RecipeError("motif serve needs the extra 'serve': pip install 'motif-rl[serve]'")


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to this address, and to no other.

    Raises:
        RecipeError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise RecipeError(f"--host {host}: {error}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # inherited by the connections that are taken
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAD_PEER_SECONDS)
        try:
            listener.bind(address)
        except OSError as error:
            raise RecipeError(f"cannot listen on {host} port {port}: {error.strerror}; try another --port") from None
        yield listener


async def _run(opened: Opened, what: Target, listening: Listening, limits: Limits, listener: socket.socket) -> None:
    import uvicorn

    from motif.sampling.openai import Upstream, UpstreamError
    from motif.serve.app import Service
    from motif.serve.requests import Served

    speaker, window = opened.speaker, opened.window
    if isinstance(speaker, Upstream):
        try:
            await speaker.greet()
        except UpstreamError as error:
            raise RecipeError(f"--upstream cannot be used: {error}") from error
        window = min(filter(None, (window, speaker.window)), default=None)
    served = Served(
        name=listening.name,
        recipe=what.recipe,
        rounds=opened.rounds,
        speaker=speaker,
        window=window,
        created=int(time.time()),
        fingerprint=opened.fingerprint,
        early_finish=listening.early_finish,
    )
    service = Service(served, limits, listening.keys, speaker.ready)
    config = uvicorn.Config(
        service.app(),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.concurrency + limits.queue + SPARE_CONNECTIONS,
        timeout_graceful_shutdown=int(listening.grace) + 5,
    )

    class Server(uvicorn.Server):
        """One that says when it is there, and leaves signals to us: it would die of them when it has ended well."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(_banner(listening, listener, opened, what.recipe), flush=True)

    server = Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if server.should_exit:
            service.stop()  # asked again: at once
        else:
            log.info("shutting down; what is under way has %g s", listening.grace)
            server.should_exit = service.draining = True
            loop.call_later(listening.grace, service.stop)

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        if isinstance(speaker, Upstream):
            await speaker.aclose()
        else:
            speaker.close()
    log.info("ended")


def _banner(listening: Listening, listener: socket.socket, opened: Opened, recipe: Recipe) -> str:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    shape = recipe.rollout
    tokens = " + ".join(str(limit) for limit in [shape.tokens_first] + [shape.tokens_continue] * (shape.rounds - 1))
    question = json.dumps({"messages": [{"role": "user", "content": "What is 15 × 24?"}]}, ensure_ascii=False)
    key = " -H 'Authorization: Bearer YOUR_KEY'" if listening.keys else ""
    lines = [
        f"{listening.name} at {url}/v1: {opened.about}; {shape.rounds} rounds of at most {tokens} tokens",
        f"try: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(question)}",
    ]
    if not listening.keys and host not in ("127.0.0.1", "::1"):
        lines.append("no API key is asked for: whoever reaches this address can use it (--api-key, MOTIF_API_KEY)")
    return "\n".join(lines)
