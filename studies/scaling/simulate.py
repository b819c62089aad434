"""A discrete-event simulation of growing round trees on servers that batch continuously.

A *server* decodes all its rows together: one token for each row takes `pace[b]` seconds with b rows, and what is new of
a prompt stops everything for `prefill` seconds a token. At most `len(pace) - 1` rows run at once; others wait in order.
Requests (a prompt with its siblings) go to the server with the fewest unfinished rows.

Between two events the number of rows of a server is constant, so all its rows get tokens at the same speed. A row that
enters when the server has decoded v steps and has n tokens to come ends at step v + n, whatever enters or leaves in
between: one heap of ends per server, and one of the servers' next events, are all that is needed.

*Level by level*, children wait until every response of the round has ended; *continuously*, they start when their own
parent ends. Left out: the network, failures, other users, and that steps are whole (a row enters between two steps).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Growth = Literal["level", "continuous"]
Node = tuple[int, list]  # the length of a response, and its children


@dataclass(frozen=True)
class Costs:
    """What serving costs.

    pace: seconds of a decoding step of b rows, at index b. prefill: seconds a prompt token. prompt: tokens of a
    question's prompt; note: what a note adds. admit: newcomers wait until they are this share of the rows that run
    (0: nobody waits for others; the local sampler: a quarter).
    """

    pace: Sequence[float]
    prefill: float = 0.0
    prompt: float = 0.0
    note: float = 0.0
    admit: float = 0.0


class Server:
    """One server and its clock."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.now = 0.0  # up to where it is computed; later than the event, while prompts are being read
        self.steps = 0.0  # decoded so far
        self.ends: list[tuple[float, int, Node]] = []
        self.waiting: deque[tuple[Node, float]] = deque()
        self.version = 0  # of what is known about its next event
        self.busy = 0.0  # seconds

    @property
    def load(self) -> int:
        """Rows that run or wait."""
        return len(self.ends) + len(self.waiting)

    def next_event(self) -> float:
        """When the next row ends."""
        return self.now + max(0.0, self.ends[0][0] - self.steps) * self.costs.pace[len(self.ends)]

    def advance(self, time: float) -> None:
        """Decode until `time`."""
        if self.ends and time > self.now:
            self.steps += (time - self.now) / self.costs.pace[len(self.ends)]
            self.busy += time - self.now
        self.now = max(self.now, time)

    def admit(self, ids: itertools.count) -> None:
        """Let in who waits, if there is room and enough of them."""
        free = len(self.costs.pace) - 1 - len(self.ends)
        newcomers = min(len(self.waiting), free)
        if not newcomers or newcomers < self.costs.admit * len(self.ends):
            return
        read = 0.0
        for _ in range(newcomers):
            node, fresh = self.waiting.popleft()
            read += fresh
            heapq.heappush(self.ends, (self.steps + node[0], next(ids), node))
        self.now += read * self.costs.prefill
        self.busy += read * self.costs.prefill


def sample(trees: Sequence[Sequence[Node]], servers: int, costs: Costs, growth: Growth) -> tuple[float, float]:
    """Seconds until all trees (lists of first-round responses) are grown, and the share of them that servers worked."""
    pool = [Server(costs) for _ in range(servers)]
    ids = itertools.count()
    events: list[tuple[float, int, int]] = []  # time, server, version
    held: list[list[Node]] = []  # requests of the next round, level by level
    running = 0

    def submit(requests: Sequence[list[Node]], fresh: float, time: float) -> None:
        nonlocal running
        touched = set()
        for siblings in requests:
            index = min(range(servers), key=lambda i: pool[i].load) if servers > 1 else 0
            # The first of the siblings reads what is new of the prompt; the others share it.
            pool[index].waiting.extend((node, fresh if first else 0.0) for first, node in _marked(siblings))
            running += len(siblings)
            touched.add(index)
        for index in touched:
            pool[index].advance(time)
            schedule(index)

    def schedule(index: int) -> None:
        server = pool[index]
        server.admit(ids)
        server.version += 1
        if server.ends:
            heapq.heappush(events, (server.next_event(), index, server.version))

    submit([list(roots) for roots in trees], costs.prompt, 0.0)
    time = 0.0
    while running:
        time, index, version = heapq.heappop(events)
        server = pool[index]
        if version != server.version:
            continue
        server.advance(time)
        begun: list[list[Node]] = []
        while server.ends and server.ends[0][0] <= server.steps + 1e-6:
            node = heapq.heappop(server.ends)[2]
            running -= 1
            if node[1]:
                begun.append(node[1])
        if growth == "level":
            held += begun
            begun = []
        if begun:
            submit(begun, costs.note, time)
        schedule(index)
        if not running and held:
            begun, held = held, []
            submit(begun, costs.note, time)
    end = max(server.now for server in pool)
    return end, sum(server.busy for server in pool) / (servers * end)


def _marked(siblings: Sequence[Node]) -> list[tuple[bool, Node]]:
    return [(index == 0, node) for index, node in enumerate(siblings)]


def cycle(sampling: float, training: float, publishing: float, lag: int) -> float:
    """Seconds of one step: in turns (lag 0), or sampling the next step beside training (lag 1)."""
    return (max(sampling, training) if lag else sampling + training) + publishing
