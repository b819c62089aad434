"""Sampling on vLLM servers.

A request goes to the server with the fewest responses under way. Siblings are one request, so the server computes their
prompt once. Each sibling is taken from the stream as it ends, and its children are requested at once. A server that
fails is polled at growing intervals and gets the adapter again when it is back; meanwhile the others do its work. A
response is counted when it is taken, and it is taken once, so a failure costs time and nothing else.

The sampler has an event loop and a thread of its own, so that connections stay open whichever loop calls it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, nullcontext, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from motif.config import Recipe
from motif.errors import RecipeError, SamplerError, ServiceError
from motif.models.int8 import FLOAT32
from motif.models.policy import Policy
from motif.sampling.base import Completion, OnText, Request, Usage
from motif.sampling.concurrency import together
from motif.sampling.local.check import explained_by_rounding, random_adapter
from motif.sampling.vllm.adapters import Adapter, AdapterFolder
from motif.sampling.vllm.client import Fault, NotLoaded, Server, VllmChoice, VllmRequest
from motif.sampling.vllm.pool import Pool, everyone

T = TypeVar("T")
SEEDS = 2**62
"""Seeds are below this: servers take signed 64-bit numbers, and a sibling's seed is the first one's plus its place."""
SAME_MODEL = 0.3
"""Mean difference of log-probabilities (nats) up to which a server is taken to serve the policy's model in float32:
another model makes several nats."""

PROMPT, TOKENS = 72, 8
"""Tokens of the prompt, and of each response, by which a server is compared with the policy."""


class ServerSampler:
    """Answers requests on the servers of a recipe.

    Args:
        window: the longest sequence, in tokens.
        once: with several training processes, each of which has a sampler: waits until all have called it, does the
            work in one of them, and returns the result to all.

    Raises:
        ServiceError: a server does not answer, or serves another model than the recipe's.
    """

    advice = "start it as `motif vllm-command` says, or sample in this process: sampler.urls = []"
    """What to do about a server that cannot be used."""
    key: str | None = None
    """The servers' API key, where no environment variable has it."""

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
        self._answers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="motif-servers", daemon=True)
        self._thread.start()
        try:
            self._call(self._open())
        except BaseException:
            self.close()
            raise

    # -- the protocol ----------------------------------------------------------------------------------------------

    path, precision = None, FLOAT32

    def exact(self) -> ServerSampler:
        """Itself: servers sample everything."""
        return self

    def measure_slowdown(self, always: bool = False) -> None:
        """Nothing to do: how servers decode is theirs."""

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, each as soon as it ends; responses come whole, so `on_text` is not called.

        Raises:
            SamplerError: no server is left, or one answers with another adapter than it was asked for.
            ServiceError: a server refuses a request.
            RecipeError: the request does not fit the window.
        """
        self._check_length(request)
        if self.adapter is None:
            self.sync_weights(0)
        adapter = self.adapter
        assert adapter is not None
        caller = asyncio.get_running_loop()
        arrivals: asyncio.Queue[Completion | BaseException] = asyncio.Queue()

        def deliver(item: Completion | BaseException) -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                caller.call_soon_threadsafe(arrivals.put_nowait, item)

        answering = asyncio.run_coroutine_threadsafe(self._answer(request, adapter, deliver), self._loop)
        left = len(request.keys)
        try:
            while left:
                item = await arrivals.get()
                if isinstance(item, BaseException):
                    raise item
                left -= 1
                yield item
        finally:
            if left:  # else the connection comes to its own end, and can be used again
                answering.cancel()

    def sync_weights(self, version: int) -> None:
        """Write the adapter once, load it on every server, and remove the one before.

        A server that is away gets it when it is back.

        Raises:
            SamplerError: no server is left.
            ServiceError: a server cannot load it.
        """
        if self.adapter is None or self.adapter.version != version:
            state = self.policy.state()  # in every process, which sharded weights need
            self.adapter = self.once(lambda: self._load(version, state))

    def _load(self, version: int, state: dict[str, Tensor]) -> Adapter:
        adapter = self.folder.write(self.policy, version, state)
        self._call(self.pool.load_everywhere(adapter))
        return adapter

    def rest(self) -> None:
        """Nothing to do: the servers have devices of their own."""

    def close(self) -> None:
        """Unload the adapter and remove it; requests under way fail. Calling it twice is harmless."""
        if self._loop.is_closed():
            return
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.folder.close()

    # -- answering, in the sampler's own loop ----------------------------------------------------------------------

    async def _answer(
        self, request: Request, adapter: Adapter, deliver: Callable[[Completion | BaseException], None]
    ) -> None:
        """Deliver every sibling, or the error that ended the request."""
        task = asyncio.current_task()
        assert task is not None
        self._answers.add(task)
        try:
            async with together() as group:
                group.create_task(self._siblings(request, adapter, range(len(request.keys)), 0, group, deliver))
        except asyncio.CancelledError:
            deliver(SamplerError("the sampler has been closed"))
            raise
        except BaseException as error:
            deliver(error)
        finally:
            self._answers.discard(task)

    async def _siblings(
        self,
        request: Request,
        adapter: Adapter,
        wanted: range,
        tries: int,
        group: asyncio.TaskGroup,
        deliver: Callable[[Completion], None],
    ) -> None:
        """Get the siblings `wanted`; those still missing when a server fails are requested again."""
        missing = set(wanted)

        def take(index: int, choice: VllmChoice) -> None:
            # Greedy siblings are all equal, so only one was requested.
            for place in sorted(missing) if request.temperature == 0 else [index]:
                missing.discard(place)
                self._count(request, place, choice)
                deliver(_completion(request, place, choice, self.policy.end_ids, adapter))

        async with self._slots:
            try:
                return await self._ask(request, wanted, adapter, take)
            except Fault as fault:
                if tries == self.config.retries:
                    raise SamplerError(f"gave up a request after {tries + 1} tries: {fault}") from fault
        for part in _runs_of(missing):
            group.create_task(self._siblings(request, adapter, part, tries + 1, group, deliver))

    async def _ask(
        self, request: Request, wanted: range, adapter: Adapter, take: Callable[[int, VllmChoice], None]
    ) -> None:
        """Ask one server; `take` gets each response as it ends.

        Raises:
            Fault: the server failed; what had been taken stays taken.
        """
        server = await self.pool.least_loaded()
        current = request.policy == "current"
        call = VllmRequest(
            model=adapter.name if current else server.base,
            prompt_ids=request.prompt_ids,
            seed=request.keys[0] % SEEDS + wanted.start,
            count=1 if request.temperature == 0 else len(wanted),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            end_ids=self.policy.end_ids,
        )
        left = call.count
        server.waiting += left
        try:
            if current:
                await self.pool.load(server, adapter)
            async with aclosing(server.complete(self.pool.client, call, self.config.timeout)) as choices:
                async for index, choice in choices:
                    server.strikes = 0
                    server.waiting, left = server.waiting - 1, left - 1
                    take(wanted.start + index, choice)
        except NotLoaded as fault:
            server.loaded.discard(adapter.name)  # the server has restarted; the next request loads it again
            self.pool.lost(server, fault)
            raise
        except Fault as fault:
            self.pool.lost(server, fault)
            raise
        finally:
            server.waiting -= left

    def _count(self, request: Request, place: int, choice: VllmChoice) -> None:
        """Add a response to the usage; the prompt that siblings share counts with the first of them."""
        length = len(request.prompt_ids)
        self.usage.prefill_tokens += length if place == 0 else 0
        self.usage.requested_prompt_tokens += length
        self.usage.generated_tokens += len(choice.token_ids)
        self.usage.decoded_rows += len(choice.token_ids)

    def _check_length(self, request: Request) -> None:
        if len(request.prompt_ids) + request.max_tokens > self.window:
            raise RecipeError(
                f"a prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} new ones do not fit the window "
                f"of {self.window}: lower rollout.tokens_first, rollout.tokens_continue or rounds.note_tokens"
            )

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work in the sampler's own loop and return its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # e.g. an interrupt of this thread
            future.cancel()
            raise

    async def _open(self) -> None:
        self.pool = Pool(self.config, self.folder, self.key)
        self._slots = asyncio.Semaphore(self.config.concurrency * len(self.pool.servers))
        await self._greet()

    async def _close(self) -> None:
        for answer in self._answers:
            answer.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)
        await self.pool.close()

    async def _greet(self) -> None:
        """Check that every server answers, serves the policy's model, and changes it by adapters as the policy does."""

        async def greet(server: Server, adapter: Adapter | None) -> None:
            try:
                await server.greet(self.pool.client)
                if server.max_length < self.window:
                    raise ServiceError(
                        f"{server.url} takes {server.max_length} tokens, and the recipe's window is {self.window}: "
                        f"lower rollout.window, or {self.advice}"
                    )
                await self._compare(server, adapter)
            except Fault as fault:
                raise ServiceError(f"{server.url} cannot sample: {fault}: {self.advice}") from fault

        if self.policy.shards:  # whose adapter is in pieces
            return await everyone(greet(server, None) for server in self.pool.servers)
        with random_adapter(self.policy):
            adapter = self.folder.write(self.policy, 0, self.policy.state())
            try:
                await everyone(greet(server, adapter) for server in self.pool.servers)
            finally:
                await self.pool.retire(adapter)

    async def _compare(self, server: Server, adapter: Adapter | None) -> None:
        """Refuse a server whose log-probabilities are not the policy's, without an adapter or with this one."""
        vocabulary = min(len(self.policy.tokenizer), self.policy.vocabulary)
        # A prompt in which a wrong position or mask shows.
        rng, size = random.Random(0), max(1, min(PROMPT, self.window - TOKENS))
        prompt = [rng.randrange(vocabulary) for _ in range(size)]

        async def answers(model: str, temperature: float) -> list[VllmChoice]:
            call = VllmRequest(model, prompt, 7, 8, TOKENS, temperature, 1.0, self.policy.end_ids)
            async with aclosing(server.complete(self.pool.client, call, self.config.timeout)) as found:
                return [choice async for _, choice in found]

        def check(choices: Sequence[VllmChoice], temperature: float, adapted: bool, what: str) -> None:
            gap, bound = (f(prompt, choices, temperature, adapted) for f in (self._gap, self._bound))
            if gap > bound or (adapted and gap > self._gap(prompt, choices, temperature)):
                raise ServiceError(
                    f"{server.url} {what}: log-probabilities differ by {gap:.2g} on average, and rounding explains "
                    f"{bound:.2g}: {self.advice}"
                )

        for temperature in [1.0, 2.0] if self._heated else [1.0]:
            choices = await answers(server.base, temperature)
            if temperature != 1 and self._gap(prompt, choices, 1.0) < self._gap(prompt, choices, temperature):
                raise ServiceError(
                    f"{server.url} reports log-probabilities before the temperature: start it with "
                    "--logprobs-mode processed_logprobs, as `motif vllm-command` says"
                )
            other = f"serves another model than {self.policy.config.name!r}, or in another way"
            check(choices, temperature, False, other)
        if adapter:
            await self.pool.bring(server, adapter)
            check(await answers(adapter.name, 1.0), 1.0, True, "changes the model by an adapter in another way")

    def _gap(
        self, prompt: Sequence[int], choices: Sequence[VllmChoice], temperature: float, adapted: bool = False
    ) -> float:
        """The mean difference from the policy's log-probabilities, in nats."""
        if any(max(choice.token_ids) >= self.policy.vocabulary for choice in choices):
            return float("inf")
        ours = self._logprobs(prompt, choices, temperature, adapted)
        theirs = torch.tensor([value for choice in choices for value in choice.logprobs], device=ours.device)
        return float((ours - theirs).abs().mean())

    def _bound(self, prompt: Sequence[int], choices: Sequence[VllmChoice], temperature: float, adapted: bool) -> float:
        """What the gap may be: in bfloat16 what rounding explains, as for the sampler in this process."""
        if not self.policy.half:
            return SAME_MODEL
        if self.policy.config.four_bit:  # whose kernels have one precision
            return explained_by_rounding(0.0)
        rounded = self._logprobs(prompt, choices, temperature, adapted)
        with self.policy.in_float32():
            exact = self._logprobs(prompt, choices, temperature, adapted)
        return explained_by_rounding(float((rounded - exact).abs().mean()))

    @torch.no_grad()
    def _logprobs(
        self, prompt: Sequence[int], choices: Sequence[VllmChoice], temperature: float, adapted: bool
    ) -> Tensor:
        """The policy's log-probabilities (T,) of all tokens, with its adapter or without."""
        with nullcontext() if adapted else self.policy.adapter_disabled():
            logprobs_T, _ = self.policy.token_logprobs(
                [prompt] * len(choices), [choice.token_ids for choice in choices], [temperature] * len(choices)
            )
        return logprobs_T


def _completion(
    request: Request, place: int, choice: VllmChoice, end_ids: Sequence[int], adapter: Adapter
) -> Completion:
    return Completion(
        request=request,
        index=place,
        token_ids=list(choice.token_ids),
        logprobs=list(choice.logprobs),
        truncated=choice.token_ids[-1] not in end_ids,
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
