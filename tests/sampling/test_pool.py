"""The pool of servers while they fail and come back: what was so before a wait is looked at again after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from motif.config import SamplerConfig
from motif.errors import SamplerError
from motif.sampling.vllm import pool as module
from motif.sampling.vllm.adapters import Adapter, AdapterFolder
from motif.sampling.vllm.client import Fault, Server
from motif.sampling.vllm.pool import Pool

OLD, NEW = (Adapter(f"motif-x-{name}", version, Path(name)) for version, name in enumerate(("old", "new")))


class Calls:
    """What servers were asked for; `on` a call, something else happens first."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.on: Callable[[str, str], Awaitable[None] | None] = lambda call, name: None

    async def __call__(self, call: str, name: str = "") -> None:
        self.made.append((call, name))
        await asyncio.sleep(0)
        if waiting := self.on(call, name):
            await waiting


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()

    async def greet(self: Server, client: object) -> None:
        await calls("greet")
        self.loaded = set()

    async def load(self: Server, client: object, name: str, path: str) -> None:
        await calls("load", name)
        self.loaded.add(name)

    async def unload(self: Server, client: object, name: str) -> None:
        self.loaded.discard(name)
        await calls("unload", name)

    for method in (greet, load, unload):
        monkeypatch.setattr(Server, method.__name__, method)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    return calls


@pytest.fixture
def run(calls: Calls) -> Iterator[Callable[..., None]]:
    """Runs a test's coroutine with a pool of some servers, and closes the pool."""

    def run(test: Callable[[Pool], Awaitable[None]], servers: int = 1, patience: float = 20.0) -> None:
        urls = [f"http://127.0.0.1:{place + 1}" for place in range(servers)]
        config = SamplerConfig(urls=urls, patience=patience)

        async def main() -> None:
            folder = AdapterFolder(config)
            folder.prefix = "motif-x-"
            pool = Pool(config, folder)
            try:
                await test(pool)
            finally:
                await pool.close()
                folder.close()

        asyncio.run(main())

    return run


async def back(server: Server) -> None:
    while not server.up:
        await asyncio.sleep(0)


def test_a_server_that_is_gone_again_is_waited_for_further(run):
    async def test(pool: Pool) -> None:
        [server] = pool.servers
        pool.lost(server, Fault("first"))
        asking = asyncio.create_task(pool.least_loaded())
        await back(server)  # the waiting task is woken up, and has not run yet
        pool.lost(server, Fault("second, of a request that was still under way"))
        assert await asyncio.wait_for(asking, 120) is server
        assert server.up

    run(test)


def test_patience_counts_from_the_first_moment_on(run, calls):
    async def flap(pool: Pool) -> None:
        while True:
            await back(pool.servers[0])
            pool.lost(pool.servers[0], Fault("gone again"))

    async def test(pool: Pool) -> None:
        pool.lost(pool.servers[0], Fault("gone"))
        flapping = asyncio.create_task(flap(pool))
        await asyncio.sleep(0)  # it is the first in line whenever the server is back
        with pytest.raises(SamplerError, match=r"no server has answered for 0\.2 s.*gone"):
            await pool.least_loaded()
        flapping.cancel()

    run(test, patience=0.2)


def test_whoever_waited_for_a_load_that_failed_does_not_try_it_again(run, calls):
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise Fault("no memory")

    async def test(pool: Pool) -> None:
        [server] = pool.servers

        async def ask() -> None:
            try:
                await pool.load(server, NEW)
            except Fault as fault:
                pool.lost(server, fault)
                raise

        calls.on = lambda call, name: fail() if call == "load" else None
        ended = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
        assert [str(fault) for fault in ended] == ["no memory"] * 5
        assert [call for call, _ in calls.made].count("load") == 1

    run(test)


@pytest.mark.parametrize("moment", ["load", "unload"])
def test_an_adapter_that_is_published_while_a_server_comes_back_is_there_when_it_is(run, calls, moment):
    """Both the loading of the adapter before and the unloading of an older one take a while."""
    published = []

    async def test(pool: Pool) -> None:
        away, other = pool.servers
        await pool.load_everywhere(OLD)

        def publish(call: str, name: str) -> Awaitable[None] | None:
            if call == "greet":
                return None
            if (call == moment or not other.up) and not published and not away.up:
                published.append(call)
                return pool.load_everywhere(NEW)
            return None

        greet = away.greet

        async def greeting(client: object) -> None:
            await greet(client)
            away.loaded = {"motif-x-older"} | ({OLD.name} if moment == "unload" else set())

        away.greet = greeting  # type: ignore[method-assign]
        calls.on = publish
        pool.lost(away, Fault("gone"))
        await asyncio.wait_for(back(away), 120)
        assert published == [moment]
        assert away.loaded == other.loaded == {NEW.name}

    run(test, servers=2)


def test_closing_leaves_nothing_loaded_by_a_recovery(run, calls):
    async def test(pool: Pool) -> None:
        away, _ = pool.servers
        await pool.load_everywhere(NEW)

        async def until_the_recovery_ended() -> None:
            while not (away.up or recovery.done()):
                await asyncio.sleep(0)

        pool.lost(away, Fault("gone"))
        recovery = pool._recoveries[away]
        calls.on = lambda call, name: until_the_recovery_ended() if call == "unload" else None
        while calls.made[-1][0] != "greet":
            await asyncio.sleep(0)
        await pool.close()
        assert not any(server.loaded for server in pool.servers)

    run(test, servers=2)
