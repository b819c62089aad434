"""A real server under mixed traffic: streams, slow readers, clients that leave, bad requests, wrong keys, full queues.

    python tests/campaigns/load.py --clients 200 --seconds 600 --out runs/load

That many clients stream at once, each asking again as soon as it has its answer; a twentieth of that number ask for
whole answers, as many send what must be refused, and every 20 seconds a crowd comes, for which the queue is too short.
OUT/requests.jsonl has a line for each request, OUT/process.jsonl one for each second of the server, and
OUT/summary.json the figures. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from clients import FIXED, Broken, Clients, OutOfTime, Told, Turn, Wrong, check_tokens, check_usage, fixed, told
from server import Server
from watch import listening, open_files, resident, slope
from wire import CHAT, Pace, fields, get, request, send

from motif.config import load_recipe
from motif.method.rounds import Rounds
from motif.models.hub import load_tokenizer

TIMEOUT = 120.0
"""Seconds that the server gives a request."""
HUNG = TIMEOUT + 30
"""Seconds after which a client gives up on an answer."""
CROWD_EVERY = 20.0
TOKENISED = 10
"""One answer in so many is tokenised again."""
IDLE = {"motif_answers_running", "motif_requests_waiting", "motif_responses_decoding"}
"""Gauges that must be 0 when all clients have gone."""


class Load:
    """All clients of one server, and what they have seen."""

    def __init__(self, server: Server, seed: int, requests: TextIO):
        self.server, self.requests = server, requests
        self.dice = random.Random(seed)
        self.clients = Clients(server.key, self.dice)
        recipe = load_recipe("demo")
        self.own_rounds = recipe.rollout.rounds
        self.scaffold = Rounds(recipe.rounds, load_tokenizer("embedded"))
        self.known: list[Told] = []
        self.begun = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.checks: Counter[str] = Counter()
        self.problems: list[str] = []
        self.times: dict[str, list[float]] = {"first": [], "gap": [], "answer": [], "retry": []}

    async def learn(self) -> None:
        """The answers to the fixed questions while nothing else is asked."""
        for index in range(FIXED):
            answer = await send(self.server.port, request(CHAT, fixed(index), self.server.key), Pace(), HUNG)
            self.known.append(told(answer, "stream" in fixed(index)))

    async def client(self, number: int, make: Callable[[], Turn], end: float) -> None:
        """One client: asks, waits for the answer, asks again."""
        while time.monotonic() < end:
            await self.ask(number, make())

    async def crowd(self, size: int, end: float) -> None:
        """Many at once, again and again."""
        while time.monotonic() + CROWD_EVERY < end:
            await asyncio.sleep(CROWD_EVERY * self.dice.uniform(0.8, 1.2))
            await asyncio.gather(*(self.ask(-1, self.clients.stream()) for _ in range(size)))

    async def ask(self, number: int, turn: Turn) -> None:
        """One request, and again when a full queue says so, as often as it says so."""
        again = False
        while wait := await self._once(number, turn, again):
            await asyncio.sleep(wait * self.dice.uniform(1.0, 1.1))
            again = True

    async def _once(self, number: int, turn: Turn, again: bool) -> float:
        """The seconds after which to ask again; 0: done."""
        at, outcome, wait, record = time.monotonic() - self.begun, "", 0.0, {}
        try:
            answer = await send(self.server.port, turn.data, turn.pace, HUNG)
            self.statuses[answer.status] += answer.whole
            record = {"status": answer.status, "seconds": round(answer.seconds, 3)}
            if not answer.whole:
                outcome = "left by the client"
            elif answer.status == 429:
                outcome, wait = "429", self._refused(answer.headers, answer.json())
            elif answer.status not in turn.statuses:
                raise Wrong(f"status {answer.status}: {answer.body[:200]!r}")
            elif answer.status == 200:
                outcome = "answered"
                record |= self._check(turn, answer)
            else:
                outcome = f"refused with {answer.status}"
        except TimeoutError:
            outcome = "hung"
            self.problems.append(f"{turn.kind}: no whole answer after {HUNG:g} s")
        except OutOfTime:
            outcome = "out of time"
            early = record["seconds"] < TIMEOUT - 1
            if early or turn.pace.seconds == 0:  # slow readers ask for the longest answers, up to 32 rounds
                self.problems.append(f"{turn.kind}: out of time after {record['seconds']} s")
        except (Wrong, Broken, AssertionError) as error:
            outcome = "wrong" if isinstance(error, Wrong) else "broken"
            self.problems.append(f"{turn.kind}: {error}")
            record["problem"] = str(error)[:500]
        if again:
            self.checks["let in when it came back" if outcome != "429" else "sent away again when it came back"] += 1
        self.outcomes[f"{turn.kind}: {outcome}"] += 1
        line = {"at": round(at, 3), "client": number, "kind": turn.kind, "outcome": outcome, **record}
        self.requests.write(json.dumps(line) + "\n")
        return wait

    def _refused(self, headers: dict[str, str], found: Any) -> float:
        wait = headers.get("retry-after", "")
        if found["error"]["code"] != "queue_full" or not wait.isdecimal() or not 1 <= int(wait) <= 120:
            raise Wrong(f"a 429 with Retry-After {wait!r}: {found}")
        self.times["retry"].append(float(wait))
        self.checks["429 with Retry-After"] += 1
        return float(wait)

    def _check(self, turn: Turn, answer: Any) -> dict[str, Any]:
        found = told(answer, "stream" in turn.body)
        check_usage(found)
        self.checks["usage is the sum of rounds"] += 1
        if sum(self.checks.values()) % TOKENISED == 0 or turn.known is not None:
            self.checks["rounds tokenised again"] += check_tokens(found, turn.body, self.scaffold, self.own_rounds)
        if turn.known is not None:
            if found.core() != self.known[turn.known].core():
                raise Wrong(f"fixed question {turn.known} got {found.core()}, unloaded {self.known[turn.known].core()}")
            self.checks["equal to the unloaded answer"] += 1
        self.times["answer"].append(answer.seconds)
        if answer.first and not turn.pace.seconds:
            self.times["first"].append(answer.first)
            self.times["gap"].append(answer.gap)
        usage = found.usage
        return {"first": round(answer.first, 3), "gap": round(answer.gap, 3)} | {
            name: usage[name] for name in ("prompt_tokens", "completion_tokens")
        }


async def watch(server: Server, out: TextIO, samples: list[dict[str, float]]) -> None:
    """Measure the server each second until cancelled."""
    begun = time.monotonic()
    while True:
        sample = {
            "at": round(time.monotonic() - begun, 2),
            "mib": round(resident(server.pid), 2),
            "files": open_files(server.pid),
            "cpu": _cpu_seconds(server.pid),
        }
        gauges = fields((await get(server.port, "/metrics", server.key)).body.decode())
        sample |= {name.removeprefix("motif_"): gauges[name] for name in IDLE if name in gauges}
        samples.append(sample)
        out.write(json.dumps(sample) + "\n")
        await asyncio.sleep(1)


def _cpu_seconds(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


async def campaign(server: Server, clients: int, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """The whole campaign; returns the summary."""
    samples: list[dict[str, float]] = []
    before = {"files": open_files(server.pid), "mib": round(resident(server.pid), 1)}
    with (out / "requests.jsonl").open("w") as requests, (out / "process.jsonl").open("w") as process:
        load = Load(server, seed, requests)
        await load.learn()
        watching = asyncio.create_task(watch(server, process, samples))
        load.begun = time.monotonic()
        end, makers = load.begun + seconds, _makers(load.clients, clients)
        tasks = [load.client(number, make, end) for number, make in enumerate(makers)]
        await asyncio.gather(*tasks, load.crowd(max(4, clients // 4), end))
        spent = time.monotonic() - load.begun
        addresses = listening(server.pid)
        watching.cancel()
        left = await _left(server, before["files"])
    return _summary(load, samples, before, left, addresses, clients, seconds, spent)


def _makers(clients: Clients, count: int) -> list[Callable[[], Turn]]:
    makers: list[Callable[[], Turn]] = []
    for share, make in clients.streaming():
        makers += [make] * round(share * count)
    makers = (makers + [clients.stream] * count)[:count]
    return makers + [clients.whole, clients.bad] * max(1, count // 20)


async def _left(server: Server, files: int) -> dict[str, float]:
    """What is left of the clients when they have gone: gauges, and file descriptors beyond those from before."""
    for _ in range(40):
        text = (await get(server.port, "/metrics", server.key)).body.decode()
        await asyncio.sleep(0.25)  # until the connection for this question has gone too
        gauges = fields(text)
        left = {name: gauges.get(name, -1.0) for name in sorted(IDLE)} | {"files": open_files(server.pid) - files}
        if not any(left.values()):
            break
    return left | {name: value for name, value in gauges.items() if name.startswith("motif_requests_total")}


def _summary(
    load: Load,
    samples: list[dict[str, float]],
    before: dict[str, float],
    left: dict[str, float],
    addresses: list[str],
    clients: int,
    seconds: float,
    spent: float,
) -> dict[str, Any]:
    loaded = [sample for sample in samples if sample["at"] <= seconds]
    late = [sample for sample in loaded if sample["at"] >= min(120.0, seconds / 3)]
    half = [sample for sample in loaded if sample["at"] >= seconds / 2]
    counted = Counter({int(re.search(r'status="(\d+)"', name)[1]): 0 for name in left if "{" in name})  # type: ignore[index]
    for name, value in left.items():
        if "{" in name and "metrics" not in name:
            counted[int(re.search(r'status="(\d+)"', name)[1])] += int(value)  # type: ignore[index]
    expected = [f"tcp 127.0.0.1:{load.server.port}"]
    if addresses != expected:
        load.problems.append(f"listens at {addresses}, and was told {expected}")
    stuck = {name: value for name, value in left.items() if "{" not in name and value}
    if stuck:
        load.problems.append(f"left when all clients had gone: {stuck}")
    running = [sample["answers_running"] for sample in loaded]
    return {
        "command": f"python tests/campaigns/load.py --clients {clients} --seconds {seconds:g}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "clients": clients,
        "seconds": round(spent, 1),
        "requests": sum(load.outcomes.values()),
        "outcomes": dict(sorted(load.outcomes.items())),
        "statuses_seen": dict(sorted(load.statuses.items())),
        "statuses_counted_by_the_server": dict(sorted(counted.items())),
        "checks": dict(sorted(load.checks.items())),
        "seconds_to_first_text": spread(load.times["first"]),
        "longest_pause_in_a_stream": spread(load.times["gap"]),
        "seconds_to_answer": spread(load.times["answer"]),
        "retry_after": spread(load.times["retry"]),
        "answers_running": spread(running),
        "cpu_share": round((loaded[-1]["cpu"] - loaded[0]["cpu"]) / max(1, loaded[-1]["at"] - loaded[0]["at"]), 2),
        "memory_mib": {
            "before": before["mib"],
            "after_warm_up": late[0]["mib"],
            "most": max(sample["mib"] for sample in samples),
            "at_the_end": loaded[-1]["mib"],
            "slope_after": late[0]["at"],
            "slope": _growth(late),
            "slope_of_the_second_half": _growth(half),
        },
        "open_files": {"before": before["files"], "most": max(sample["files"] for sample in samples)},
        "left": {name: value for name, value in left.items() if "{" not in name},
        "listens_at": addresses,
        "problems": len(load.problems),
        "first_problems": load.problems[:20],
    }


def of_clients(requests: Path) -> dict[str, Any]:
    """From the lines of all requests: the answers of each client by its kind, and how long who was sent away waited."""
    answers: dict[str, Counter[int]] = {}
    sent_away: dict[int, float] = {}
    waits = []
    for line in map(json.loads, requests.read_text().splitlines()):
        number, kind = line["client"], line["kind"].partition(":")[0]
        if number < 0:  # a crowd
            continue
        answers.setdefault(kind, Counter())[number] += line["outcome"] == "answered"
        if line["outcome"] == "429":
            sent_away.setdefault(number, line["at"])
        elif number in sent_away:
            waits.append(line["at"] - sent_away.pop(number))
    of_kinds = {kind: spread(list(counts.values())) for kind, counts in sorted(answers.items())}
    return {"answers_of_a_client": of_kinds, "seconds_until_let_in": spread(waits)}


def _growth(samples: list[dict[str, float]]) -> dict[str, float] | None:
    return slope([sample["at"] for sample in samples], [sample["mib"] for sample in samples])


def spread(values: list[float]) -> dict[str, float] | None:
    """How numbers lie."""
    if not values:
        return None
    middle, high = np.percentile(values, [50, 99])
    return {
        "count": len(values),
        "least": round(min(values), 3),
        "median": round(float(middle), 3),
        "percentile_99": round(float(high), 3),
        "most": round(max(values), 3),
    }


def run(clients: int, seconds: float, out: Path, seed: int = 0) -> dict[str, Any]:
    """Start a server, load it, end it; returns the summary, which is also in OUT/summary.json."""
    out.mkdir(parents=True, exist_ok=True)
    limits = {"concurrency": clients, "queue": max(2, clients // 20), "timeout": TIMEOUT}
    server = Server(limits, out / "server.log")
    try:
        summary = asyncio.run(campaign(server, clients, seconds, seed, out))
    finally:
        status = server.stop()
    summary |= of_clients(out / "requests.jsonl")
    log = server.log.read_text()
    if status != 0 or "Traceback" in log:
        summary["problems"] += 1
        summary["first_problems"].append(f"the server ended with {status}; its log: {log[-1000:]}")
    (out / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def main() -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/load"))
    options = parser.parse_args()
    summary = run(options.clients, options.seconds, options.out, options.seed)
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
