"""Sampling on vLLM servers.

Requests go to the server with the fewest responses under way. Siblings are one request, so that the server runs their
prompt once, and each is taken from the stream as it ends: its children are sent at once. A server that fails is asked
whether it is back at growing intervals, and gets the adapter again when it is; meanwhile the others do its work. A
response is taken once and counted when it is taken, so a failure costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import torch
from torch import Tensor

from motif.config import Recipe
from motif.errors import RecipeError, SamplerError
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request, Usage
from motif.sampling.vllm.adapters import Adapter, AdapterFolder
from motif.sampling.vllm.client import Answer, Ask, Fault, NotLoaded, Server
from motif.sampling.vllm.pool import Pool, everyone

SEEDS = 2**62
"""Seeds are below this: servers take signed 64-bit numbers, and a sibling's seed is the first one's plus its place."""
SAME_MODEL = 0.3
"""Mean difference of log-probabilities (nats) up to which a server is taken to serve the policy's model: rounding to
bfloat16 makes some hundredths, another model several nats."""


class ServerSampler:
    """Answers requests on the servers of a recipe.

    Args:
        window: the longest sequence, in tokens.
        once: with several training processes, each with a sampler of its own: does some work in one of them when all
            have come to it, and gives all of them its result.

    Raises:
        RecipeError: a server does not answer, or serves something else than the recipe's model.
    """

    def __init__(
        self,
        policy: Policy,
        recipe: Recipe,
        window: int,
        once: Callable[[Callable[[], Adapter]], Adapter] = lambda work: work(),
    ):
        self.policy, self.config = policy, recipe.sampler
        self.usage = Usage()
        self.folder = AdapterFolder(self.config)
        self.adapter: Adapter | None = None
        self.window, self.once = window, once
        self._heated = {recipe.rollout.temperature_first, recipe.rollout.temperature_continue} != {1.0}
        self._runner = asyncio.Runner()  # one loop for all runs, so that connections stay open
        self._busy: asyncio.Task[None] | None = None
        self._one_at_a_time = threading.Lock()
        self._call(self._open)
        try:
            self._call(self._greet)
        except BaseException:
            self.close()
            raise

    # -- the protocol ----------------------------------------------------------------------------------------------

    def run(self, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]) -> None:
        """Answer all requests and those that `then` returns; `then` is called in this thread.

        Raises:
            SamplerError: no server is left, or one answers with another adapter than it was asked for.
            RecipeError: a server refuses a request.
        """
        if self.adapter is None:
            self.publish(0)
        self._call(self._run, requests, then)

    def publish(self, version: int) -> None:
        """Write the adapter once, load it on every server, and remove the one before.

        A server that is away gets it when it is back.

        Raises:
            SamplerError: no server is left.
            RecipeError: a server cannot load it.
        """
        if self.adapter is None or self.adapter.version != version:
            state = self.policy.state()  # in every process, which sharded weights need
            self.adapter = self.once(lambda: self._published(version, state))

    def _published(self, version: int, state: dict[str, Tensor]) -> Adapter:
        adapter = self.folder.write(self.policy, version, state)
        self._call(self.pool.publish, adapter)
        return adapter

    def cancel(self) -> None:
        """Let a `run` in another thread end with `asyncio.CancelledError`."""
        if self._busy:
            self._runner.get_loop().call_soon_threadsafe(self._busy.cancel)

    def close(self) -> None:
        """Unload the adapter and remove it."""
        if self._busy:  # an interrupt left it where it was
            self._busy.cancel()
        self._call(self.pool.close)
        self._runner.close()
        self.folder.close()

    # -- answering -------------------------------------------------------------------------------------------------

    async def _run(self, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]) -> None:
        adapter = self.adapter
        assert adapter is not None
        slots = asyncio.Semaphore(self.config.concurrency * len(self.pool.servers))
        self._busy = asyncio.current_task()

        async def answer(request: Request, wanted: range, tries: int = 0) -> None:
            """Get the siblings `wanted`; those still missing when a server fails are asked for again."""
            missing = set(wanted)
            async with slots:
                try:
                    await self._ask(request, wanted, adapter, lambda index, found: take(request, index, found, missing))
                    return
                except Fault as fault:
                    if tries == self.config.retries:
                        raise SamplerError(f"gave up a request after {tries + 1} tries: {fault}") from fault
            for part in _runs_of(missing):
                group.create_task(answer(request, part, tries + 1))

        def take(request: Request, index: int, found: Answer, missing: set[int]) -> None:
            # Greedy siblings are all the same, and were asked for once.
            for place in sorted(missing) if request.temperature == 0 else [index]:
                missing.discard(place)
                self._count(request, place, found)
                send(then(_completion(request, place, found, self.policy.end_ids, adapter)))

        def send(more: Iterable[Request]) -> None:
            for request in more:
                self._check_length(request)
                group.create_task(answer(request, range(len(request.keys))))

        try:
            async with asyncio.TaskGroup() as group:
                send(requests)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._busy = None

    async def _ask(
        self, request: Request, wanted: range, adapter: Adapter, take: Callable[[int, Answer], None]
    ) -> None:
        """Ask one server; `take` gets each response as it ends.

        Raises:
            Fault: the server failed; what had been taken stays taken.
        """
        server = await self.pool.least_loaded()
        current = request.policy == "current"
        ask = Ask(
            model=adapter.name if current else server.base,
            prompt_ids=request.prompt_ids,
            seed=request.keys[0] % SEEDS + wanted.start,
            count=1 if request.temperature == 0 else len(wanted),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            end_ids=self.policy.end_ids,
        )
        left = ask.count
        server.waiting += left
        try:
            if current:
                await self.pool.load(server, adapter)
            async with aclosing(server.complete(self.pool.client, ask, self.config.timeout)) as answers:
                async for index, found in answers:
                    server.strikes = 0
                    server.waiting, left = server.waiting - 1, left - 1
                    take(wanted.start + index, found)
        except NotLoaded as fault:
            server.loaded.discard(adapter.name)  # it has been restarted; the next to come loads it again
            self.pool.lost(server, fault)
            raise
        except Fault as fault:
            self.pool.lost(server, fault)
            raise
        finally:
            server.waiting -= left

    def _count(self, request: Request, place: int, found: Answer) -> None:
        """Count a response that is taken; the prompt that siblings share, with the first of them."""
        length = len(request.prompt_ids)
        self.usage.prefill_tokens += length if place == 0 else 0
        self.usage.requested_prompt_tokens += length
        self.usage.generated_tokens += len(found.token_ids)
        self.usage.decoded_rows += len(found.token_ids)

    def _check_length(self, request: Request) -> None:
        if len(request.prompt_ids) + request.max_tokens > self.window:
            raise RecipeError(
                f"a prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} new ones do not fit the window "
                f"of {self.window}: lower rollout.tokens_first, rollout.tokens_continue or rounds.note_tokens"
            )

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        with self._one_at_a_time:

            async def main() -> None:
                await function(*arguments)

            self._runner.run(main())

    async def _open(self) -> None:
        self.pool = Pool(self.config, self.folder)

    async def _greet(self) -> None:
        """Find out whether every server is there and serves the policy's model as it must."""

        async def greet(server: Server) -> None:
            try:
                await server.greet(self.pool.client)
                if server.max_length < self.window:
                    raise RecipeError(
                        f"{server.url} takes {server.max_length} tokens, and the recipe's window is {self.window}: "
                        "start it as `motif vllm-command` says, or lower rollout.window"
                    )
                await self._compare(server)
            except Fault as fault:
                raise RecipeError(
                    f"{server.url} cannot sample: {fault}. Start it as `motif vllm-command` says, or sample in this "
                    "process: sampler.urls = []"
                ) from fault

        await everyone(greet(server) for server in self.pool.servers)

    async def _compare(self, server: Server) -> None:
        """Refuse a server whose log-probabilities are not the policy's (without its adapter)."""
        for temperature in [1.0, 2.0] if self._heated else [1.0]:
            prompt, ends = [self.policy.end_ids[0]] * 4, self.policy.end_ids
            ask = Ask(server.base, prompt, 7, 8, 4, temperature, 1.0, ends)
            async with aclosing(server.complete(self.pool.client, ask, self.config.timeout)) as answers:
                found = [answer async for _, answer in answers]
            gap = self._gap(prompt, found, temperature)
            if temperature != 1 and self._gap(prompt, found, 1.0) < gap:
                raise RecipeError(
                    f"{server.url} tells log-probabilities before the temperature: start it with "
                    "--logprobs-mode processed_logprobs, as `motif vllm-command` says"
                )
            if gap > SAME_MODEL:
                raise RecipeError(
                    f"{server.url} serves another model than {self.policy.config.name!r}, or in another way: "
                    f"log-probabilities differ by {gap:.2g} on average. Start it as `motif vllm-command` says"
                )

    @torch.no_grad()
    def _gap(self, prompt: Sequence[int], found: Sequence[Answer], temperature: float) -> float:
        if any(max(answer.token_ids) >= self.policy.vocabulary for answer in found):
            return float("inf")
        with self.policy.adapter_disabled():
            own, _ = self.policy.token_logprobs(
                [prompt] * len(found), [answer.token_ids for answer in found], [temperature] * len(found)
            )
        theirs = torch.tensor([value for answer in found for value in answer.logprobs], device=own.device)
        return float((own - theirs).abs().mean())


def _completion(request: Request, place: int, found: Answer, end_ids: Sequence[int], adapter: Adapter) -> Completion:
    return Completion(
        request=request,
        index=place,
        token_ids=list(found.token_ids),
        logprobs=list(found.logprobs),
        truncated=found.token_ids[-1] not in end_ids,
        version=adapter.version if request.policy == "current" else None,
    )


def _runs_of(places: Iterable[int]) -> list[range]:
    """Numbers as runs without gaps: {0, 1, 4} is 0 to 1 and 4."""
    runs: list[range] = []
    for place in sorted(places):
        if runs and runs[-1].stop == place:
            runs[-1] = range(runs[-1].start, place + 1)
        else:
            runs.append(range(place, place + 1))
    return runs


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
