"""Whether the server's memory settles: batches of requests, and what it holds when all have been answered.

    python tests/campaigns/settle.py --batches 24 --out runs/campaigns/settle.json

A slope measured under load has the noise of what is being answered; between batches nothing is. Half of a batch is
refused, a sixth each are streams, clients that leave, and completions. What grows with every batch is a leak; what the
allocator and the bounded caches keep does not. The exit status is 1 if the last third of the batches still grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from clients import Clients
from load import HUNG, TIMEOUT
from server import Server
from watch import open_files, resident
from wire import send

AT_ONCE = 24
REST = 2.0
"""Seconds after a batch, in which connections close."""
MOST = 0.25
"""MiB a batch that count as growth, in the mean over the last third."""


async def batch(server: Server, clients: Clients, size: int) -> Counter[int]:
    """Ask so often, a few at a time; how many answers had which status (0: the client left before it)."""
    makers = [clients.bad, clients.stream, clients.bad, clients.leaver, clients.bad, clients.texts]
    gate, statuses = asyncio.Semaphore(AT_ONCE), Counter[int]()

    async def one(index: int) -> None:
        async with gate:
            turn = makers[index % len(makers)]()
            statuses[(await send(server.port, turn.data, turn.pace, HUNG)).status] += 1

    await asyncio.gather(*(one(index) for index in range(size)))
    await asyncio.sleep(REST)
    return statuses


def main() -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--size", type=int, default=1200, help="requests in a batch")
    parser.add_argument("--out", type=Path, default=Path("settle.json"))
    options = parser.parse_args()
    if options.batches < 1 or options.size < 1:
        parser.error("--batches and --size must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        limits = {"concurrency": AT_ONCE, "queue": AT_ONCE, "timeout": TIMEOUT}
        server = Server(limits, Path(folder) / "server.log")
        clients, mib, files = Clients(server.key, random.Random(0)), [resident(server.pid)], [open_files(server.pid)]
        statuses: Counter[int] = Counter()
        try:
            for number in range(1, options.batches + 1):
                statuses += asyncio.run(batch(server, clients, options.size))
                mib.append(resident(server.pid))
                files.append(open_files(server.pid))
                print(f"after {number * options.size} requests: {mib[-1]:.1f} MiB, {files[-1]} files", flush=True)
                last = max(1, number // 3)
                summary = {
                    "command": f"python tests/campaigns/settle.py --batches {number} --size {options.size}",
                    "statuses": dict(sorted(statuses.items())),
                    "mib_when_idle": [round(value, 2) for value in mib],
                    "mib_a_batch_in_the_last_third": round((mib[-1] - mib[-1 - last]) / last, 3),
                    "open_files_when_idle": files,
                }
                options.out.write_text(json.dumps(summary, indent=1) + "\n")
        finally:
            server.stop()
    settled = summary["mib_a_batch_in_the_last_third"] <= MOST and len(set(files[1:])) == 1
    print("settled" if settled else "still growing")
    return 0 if settled else 1


if __name__ == "__main__":
    sys.exit(main())
