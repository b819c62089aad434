"""The servers of a run: which are up, which adapter each has, and which gets the next request."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Iterable

from motif.config import SamplerConfig
from motif.errors import SamplerError, ServiceError
from motif.sampling.http import bearer, make_client
from motif.sampling.vllm.adapters import Adapter, AdapterFolder
from motif.sampling.vllm.client import Fault, Server

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a server that failed is asked again: doubled each time, up to the longest."""
CLOSE_SECONDS = 5.0
"""Timeout for unloading an adapter, in seconds."""


class Pool:
    """Servers that may fail and come back. To be made, used and closed in one event loop."""

    def __init__(self, config: SamplerConfig, folder: AdapterFolder, key: str | None = None):
        self.config, self.folder = config, folder
        self.servers = [Server(url) for url in config.urls]
        self.client = make_client(bearer(key or os.environ.get(config.api_key_variable)))
        self._adapter: Adapter | None = None
        self._lost = ""  # why no server will come back
        self._any_up = asyncio.Event()
        self._any_up.set()
        self._loading = {server: asyncio.Lock() for server in self.servers}
        self._recoveries: dict[Server, asyncio.Task[None]] = {}

    # -- who is there ----------------------------------------------------------------------------------------------

    async def least_loaded(self) -> Server:
        """The server with the fewest responses under way; waits for one to come back when none is there.

        Raises:
            SamplerError: none came back in time, or none will.
        """
        try:
            async with asyncio.timeout(self.config.patience):
                while not (up := [server for server in self.servers if server.up]):
                    if self._lost:
                        raise SamplerError(self._lost)
                    await self._any_up.wait()  # the server that came back may be gone again when this task runs
        except TimeoutError:
            faults = "; ".join(f"{server.url}: {server.fault}" for server in self.servers)
            raise SamplerError(f"no server has answered for {self.config.patience:g} s ({faults})") from None
        return min(up, key=lambda server: server.waiting)

    def give_up(self, why: str) -> None:
        """Wait for no server any more; `why` is the message of the error."""
        self._lost = why
        self._any_up.set()

    def lost(self, server: Server, fault: Fault) -> None:
        """Send a server nothing more until it has said that it is back."""
        server.fault = str(fault)
        if server.up:
            server.up = False
            server.strikes += 1
            if not any(other.up for other in self.servers):
                self._any_up.clear()
            self._recoveries[server] = asyncio.create_task(self._recover(server))

    async def _recover(self, server: Server) -> None:
        while True:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (server.strikes - 1))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            try:
                await server.greet(self.client)
                await self._catch_up(server)
                break
            except (Fault, ServiceError) as fault:
                server.fault = str(fault)
                server.strikes += 1
        server.up = True
        self._any_up.set()

    async def _catch_up(self, server: Server) -> None:
        """Load the current adapter and unload retired ones, until nothing was published meanwhile."""
        async with self._loading[server]:
            while True:
                adapter, old = self._adapter, [name for name in server.loaded if self._is_old(name)]
                if adapter and adapter.name not in server.loaded:
                    await self.bring(server, adapter)
                elif old:
                    await server.unload(self.client, old[0])
                else:
                    return

    # -- adapters --------------------------------------------------------------------------------------------------

    async def load(self, server: Server, adapter: Adapter) -> None:
        """Load an adapter on a server, if it does not have it.

        Raises:
            Fault: it does not answer, or failed, also in an attempt that this one waited for.
            ServiceError: it refuses the adapter.
        """
        if adapter.name in server.loaded:
            return
        async with self._loading[server]:
            if not server.up:
                raise Fault(server.fault)
            if adapter.name not in server.loaded:
                await self.bring(server, adapter)

    async def bring(self, server: Server, adapter: Adapter) -> None:
        """Load an adapter on a server, wherever its folder is; raises as `load` does."""
        path = await self.folder.bring(adapter, server.url)
        await server.load(self.client, adapter.name, path)

    async def load_everywhere(self, adapter: Adapter) -> None:
        """Load an adapter everywhere and retire the one before; a server that is away gets it when it is back.

        Raises:
            SamplerError: no server is left.
            ServiceError: a server cannot load it.
        """
        old, self._adapter = self._adapter, adapter

        async def load(server: Server) -> None:
            try:
                await self.load(server, adapter)
            except Fault as fault:
                self.lost(server, fault)

        try:
            await everyone(load(server) for server in self.servers if server.up)
            await self.least_loaded()
        finally:
            if old:
                await self.retire(old)

    async def retire(self, adapter: Adapter) -> None:
        """Unload an adapter wherever it is and remove its folder; a server that fails here is found out later."""

        async def unload(server: Server) -> None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await server.unload(self.client, adapter.name)
            except (Fault, ServiceError, TimeoutError):
                pass

        await everyone(unload(server) for server in self.servers if adapter.name in server.loaded)
        await self.folder.remove(adapter, [server.url for server in self.servers])

    def _is_old(self, name: str) -> bool:
        current = self._adapter.name if self._adapter else ""
        return name.startswith(self.folder.prefix) and name != current

    async def close(self) -> None:
        """Retire the adapter loaded last, and end the connections."""
        for task in self._recoveries.values():  # first, so that none loads what is unloaded below
            task.cancel()
        await asyncio.gather(*self._recoveries.values(), return_exceptions=True)
        if self._adapter:
            await self.retire(self._adapter)
        await self.client.aclose()


async def everyone(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all, then raise the first error."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
