"""Sampling with the live weights of the policy, on one device.

Responses in progress share one decoding batch. Prompts are kept in a `Memory`; in the fast one, what they begin with in
common is run through the model once and stored once, for all forks, all notes of a question, and all questions after
one system prompt. Responses to one prompt whose tokens have been equal so far are one row of the batch, until they
part. A row leaves the batch when it ends, and others enter: nothing waits for a whole round. Every token is drawn by
inverting the cumulative distribution at a uniform number computed from the response's key and the token's position, so
the batch a response happens to be in does not matter (up to rounding of the logits).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from motif.errors import MotifError, NonFiniteError, RecipeError, first_line, out_of_memory
from motif.models.device import current, give_back_memory, to_device
from motif.models.int8 import FLOAT32, Precision
from motif.models.launches import fewer_launches
from motif.models.path import FAST, RIGHT, Finding, Path, choose, off_by
from motif.models.policy import Policy
from motif.models.prefix import Segment, shortest_shared
from motif.sampling.base import Completion, Request, Usage
from motif.sampling.local.check import compare, distance, not_sampled
from motif.sampling.local.drawing import draw, uniforms
from motif.sampling.local.forked import ForkedMemory
from motif.sampling.local.graphs import REPEATS, CudaGraphs, Recorder
from motif.sampling.local.kernels import find_kernels
from motif.sampling.local.memory import Memory, TreeMemory
from motif.sampling.local.packing import Quantiser, sampling_weights
from motif.sampling.local.precision import FAR
from motif.sampling.local.speed import slowdown_of_sampling
from motif.sampling.stepping import SteppingSampler

Queue = deque[tuple[Request, range]]
"""Waiting requests, each with the range of its keys that is meant."""
STEPS = 6
"""Tokens of the longest response by which a way to decode is compared."""
ROW = np.dtype([("prompt", "i8"), ("produced", "i8"), ("limit", "i8"), ("temperature", "f4"), ("top_p", "f4")])
"""A row of the batch: tokens of its prompt, tokens drawn so far, their limit, and how they are drawn."""


class LocalSampler(SteppingSampler):
    """Answers requests with `policy`; at most `max_rows` responses are decoded at once.

    How it decodes is found out once, by comparing with the trainer's plain pass: the fast way (`TreeMemory`) where that
    is right, else the general one (`ForkedMemory`); `path` says which, and why. `path = GENERAL` asks for the second.

    Raises:
        ModelError: the model cannot be sampled here.
    """

    def __init__(self, policy: Policy, max_rows: int = 256, path: Path = FAST, precision: Precision = FLOAT32):
        super().__init__()
        self.policy, self.max_rows = policy, max_rows
        self.path = path
        self.precision = FLOAT32
        self.usage = Usage()
        self.record = None if policy.shards else self.recorder(policy.device)
        self.kernels = None if policy.shards else find_kernels(policy.device)
        self.padded = True  # whether the general way decodes rows of any length together, where it can
        self._queues: dict[str, Queue] = {"current": deque(), "base": deque()}
        self._threads = torch.get_num_threads()
        self.policy.unshard()
        self._check()
        self._take(precision)
        self.usage = Usage()

    def exact(self) -> LocalSampler:
        """See `TrainingSampler.exact`."""
        if not self.precision.int8:
            return self
        other = copy.copy(self)
        SteppingSampler.__init__(other)
        other._queues, other.precision = {name: deque() for name in self._queues}, FLOAT32
        return other

    def enqueue(self, request: Request, first: bool) -> None:
        """Take a request in.

        Children go before the requests that wait: trees are finished one after the other, and few are open at a time.
        """
        self.check_length(request)
        queue = self._queues[request.policy]
        for turn in self.turns(request):
            queue.appendleft(turn) if first else queue.append(turn)

    def turns(self, request: Request) -> Iterator[tuple[Request, range]]:
        """The request as a batch can take it: more responses than rows are sampled in turns."""
        for start in range(0, len(request.keys), self.max_rows):
            yield request, range(start, len(request.keys))[: self.max_rows]

    async def compute(self) -> None:
        """Answer all requests.

        Requests for the base model wait until no request for the current policy is left, and the other way round:
        there is one set of weights, and switching it every token would cost more than waiting.
        """
        if torch.get_num_threads() != self._threads:  # each thread has a number of its own
            torch.set_num_threads(self._threads)
        try:
            while any(self._queues.values()):
                for name, queue in self._queues.items():
                    if queue:
                        with self.open(name) as batch:
                            await self._empty(queue, batch)
        finally:
            for queue in self._queues.values():
                queue.clear()
            give_back_memory()

    async def _empty(self, queue: Queue, batch: DecodingBatch) -> None:
        while queue or batch.count:
            if completions := batch.step(queue):
                await self.hand_over(completions)
            await asyncio.sleep(0)  # let an interrupt be seen

    @contextlib.contextmanager
    def open(self, name: str = "current") -> Iterator[DecodingBatch]:
        """A batch that the caller steps in this thread, on the weights of `current` or `base`; it has the policy."""
        policy = self.policy
        with contextlib.ExitStack() as stack:
            stack.enter_context(current(policy.device))
            stack.enter_context(fewer_launches(policy, anywhere=self.precision.int8))
            quantiser = self.quantiser if self.precision.int8 else None
            stack.enter_context(sampling_weights(policy, name, quantiser, self.kernels))
            stack.enter_context(torch.inference_mode())
            stack.enter_context(policy.precision())
            memory = self._memory()
            stack.callback(memory.clear)
            yield DecodingBatch(policy, self.max_rows, self.usage, memory)

    def _memory(self) -> Memory:
        if self.path.general:
            return ForkedMemory(self.policy, self.usage, self.padded)
        record = None if self.policy.half and not self.policy.autocast else self.record
        return TreeMemory(self.policy, self.usage, record, self.kernels if self.policy.launch_bound else None)

    @staticmethod
    def recorder(device: torch.device) -> Recorder | None:
        """How decoding steps are recorded on a device; None: they are not."""
        return CudaGraphs() if device.type == "cuda" else None

    def sync_weights(self, version: int) -> None:
        """Nothing to do: the weights are the policy's own."""

    def close(self) -> None:
        """Nothing to do: nothing is held between requests."""

    rest = close

    def _check(self) -> None:
        """Take the first way to decode that computes what the trainer computes."""
        path, found = choose(self._compare, self.path.general)
        if path is None:
            raise not_sampled(self.policy, found) from found[-1].cause
        self.path = path

    def measure_slowdown(self, always: bool = False) -> None:
        """See `TrainingSampler.measure_slowdown`."""
        if always or self.path.general:
            timed = copy.copy(self)
            timed.usage = Usage()

            def sample(path: Path, requests: Sequence[Request]) -> None:
                timed.path = path
                timed.sample_past_ends(requests)

            self.path = replace(self.path, slower=slowdown_of_sampling(self.policy, sample))

    def _take(self, precision: Precision) -> None:
        """Sample with these numbers from now on; `auto` stays with float32 if they are too far off."""
        self.precision, self.quantiser = precision, Quantiser(self.policy, precision.slow)
        if precision.int8:
            gaps = self.quantiser.measured(lambda: distance(self.policy, self.sample_past_ends, STEPS))
            self.precision = replace(precision, gaps=gaps)
            if precision.asked == "auto" and not gaps.mean < FAR:  # nor not a number
                self.precision = Precision("auto", reason=f"in 8 bits {off_by(gaps.mean)} on average")

    def _compare(self, path: Path) -> Finding:
        """What is to be said of a way; kernels of our own and CUDA graphs are given up if it is right without only."""
        self.path = path
        found = self._found()
        if path.general and (found.problem or found.gap > RIGHT):
            self.padded = False  # some models know positions or masks of their own only
            found = self._found()
        if found.problem and self.kernels and self.policy.launch_bound and not path.general:
            found = self._without("kernels", "Triton kernels, slower", found.problem)
        if found.problem and self.policy.launch_bound and not path.general:
            self.policy.launch_bound = False  # each operation by itself
            found = self._found()
        if found.problem and self.record is not None and not path.general:
            found = self._without("record", "CUDA graphs, several times slower", found.problem)
        return found

    def _without(self, name: str, told: str, problem: str) -> Finding:
        setattr(self, name, None)
        if not (found := self._found()).problem:
            kind = self.policy.model.config.model_type
            print(f"model type {kind!r} is sampled without {told} ({problem})", file=sys.stderr)
        return found

    def _found(self) -> Finding:
        """What is to be said of the way that is taken now."""
        steps = STEPS if self.record is None or self.path.general else STEPS * REPEATS  # long enough for a recording
        try:
            if not self.path.general:
                shortest_shared(self.policy)  # found out by gradients, which there are none of in inference mode
            return compare(self.policy, self.sample_past_ends, steps)
        except (MotifError, MemoryError):
            raise
        except Exception as error:  # a model that does not fit may raise anything
            if out_of_memory(error):
                raise
            return Finding((isinstance(error, NotImplementedError) and str(error)) or first_line(error), cause=error)

    def sample_past_ends(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests up to their limits; of each policy, the last enters when the others are being decoded."""
        completions: list[Completion] = []
        for name in self._queues:
            turns = [turn for request in requests if request.policy == name for turn in self.turns(request)]
            queue: Queue = deque(turns[:-1] or turns)
            if not turns:
                continue
            with self.open(name) as batch:
                batch.ends = batch.ends[:0]
                for _ in range(2):
                    completions += batch.step(queue)
                queue.extend(turns[1:][-1:])
                while queue or batch.count:
                    completions += batch.step(queue)
        return completions

    def check_length(self, request: Request) -> None:
        """Refuse a request that does not fit the model's context.

        Raises:
            RecipeError: with the settings that would help.
        """
        needed, limit = len(request.prompt_ids) + request.max_tokens, self.policy.max_length
        if needed > limit:
            raise RecipeError(
                f"a prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} new ones do not fit the "
                f"model's {limit}: lower rollout.tokens_first, rollout.tokens_continue or rounds.note_tokens"
            )


class DecodingBatch:
    """The rows being decoded, each for the forks whose tokens have been equal so far.

    Rows 0..count-1 are alive; a row that ends is filled with the last one. What is known of a row without asking
    the device lies in numpy arrays of `max_rows`.
    """

    def __init__(self, policy: Policy, max_rows: int, usage: Usage, memory: Memory):
        self.policy, self.max_rows, self.usage, self.memory = policy, max_rows, usage, memory
        self.device = policy.device
        self.ends = np.array(policy.end_ids)
        self.count = 0
        self.rows = np.zeros(max_rows, dtype=ROW)
        self.tokens = np.zeros((max_rows, 0), dtype=np.int64)
        self.logprobs = np.zeros((max_rows, 0), dtype=np.float32)
        self.prompt_of: list[Segment] = []  # with which each row's prompt ends
        self.forks: list[tuple[Request, int]] = []
        self.keys = np.zeros(0, dtype=np.uint64)  # of each fork
        self.row_of = np.zeros(0, dtype=np.int64)  # of each fork

    def step(self, queue: Queue, at_once: bool = False) -> list[Completion]:
        """Let in what waits, or draw one more token for every fork; returns the responses that ended with it.

        Args:
            queue: requests with those of their keys that are meant, at most `max_rows`; what is let in is taken out.
                It must not be empty when no row is alive.
            at_once: admit requests as soon as there is a row for them, instead of in batches: a forward pass for each
                stalls the others, but nobody waits for the first token.
        """
        waiting = sum(len(forks) for _, forks in queue)
        busy = len(self.forks)
        if waiting and (at_once or busy == 0 or 4 * min(waiting, self.max_rows - busy) >= busy):
            self._admit(queue)
        else:
            self._decode()
        return self._finished()

    def progress(self) -> Iterator[tuple[Request, int, np.ndarray]]:
        """Each fork being decoded: its request, which of the request's keys, and the tokens drawn so far."""
        produced = self.rows["produced"]
        for (request, index), row in zip(self.forks, self.row_of.tolist(), strict=True):
            yield request, index, self.tokens[row, : produced[row]]

    def cancel(self, unwanted: Callable[[Request], bool]) -> None:
        """Remove the forks of some requests and the rows that become empty; they get no completion."""
        leaving = np.array([unwanted(request) for request, _ in self.forks], dtype=bool)
        if leaving.any():
            self._leave(leaving)
            self._remove(np.setdiff1d(np.arange(self.count), self.row_of))

    # -- entering --------------------------------------------------------------------------------------------------

    def _admit(self, queue: Queue) -> None:
        """Let waiting requests in while there is room: run what is new of their prompts, draw the first tokens."""
        chosen: list[tuple[Request, range]] = []
        free = self.max_rows - len(self.forks)
        while queue and len(queue[0][1]) <= free:
            chosen.append(queue.popleft())
            free -= len(chosen[-1][1])
        if not chosen:
            return self._decode()
        requests = [request for request, _ in chosen]
        prompts = self.memory.read([request.prompt_ids for request in requests])
        # Requests with equal prompts and settings have said the same so far: nothing.
        starts = [
            (prompt, (len(request.prompt_ids), 0, request.max_tokens, request.temperature, request.top_p))
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        row_of = {start: self.count + index for index, start in enumerate(dict.fromkeys(starts))}
        first, first_fork = self.count, len(self.forks)
        self._add([prompt for prompt, _ in row_of], np.array([settings for _, settings in row_of], dtype=ROW))
        self.forks += [(request, fork) for request, forks in chosen for fork in forks]
        keys = [request.keys[fork] for request, fork in self.forks[first_fork:]]
        self.keys = np.concatenate([self.keys, np.array(keys, dtype=np.uint64)])
        begun = [row_of[start] for start, (_, forks) in zip(starts, chosen, strict=True) for _ in forks]
        self.row_of = np.concatenate([self.row_of, np.array(begun, dtype=np.int64)])
        self.usage.requested_prompt_tokens += sum(len(request.prompt_ids) * len(forks) for request, forks in chosen)
        self.memory.forget()
        last = [prompt.states[-1] for prompt in self.prompt_of[first:] if prompt.states is not None]
        self._draw(self.policy.head(torch.stack(last)), first, first_fork)

    def _add(self, prompts: Sequence[Segment], rows: np.ndarray) -> None:
        """Append rows."""
        end = self.count + len(prompts)
        self.rows[self.count : end] = rows
        width = int(self.rows["limit"][:end].max())
        if width > self.tokens.shape[1]:
            wider = ((0, 0), (0, width - self.tokens.shape[1]))
            self.tokens, self.logprobs = np.pad(self.tokens, wider), np.pad(self.logprobs, wider)
        self.prompt_of += prompts
        for prompt in prompts:
            prompt.users += 1
        self.memory.enter(self.count, prompts, width)
        self.count = end

    # -- going on --------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """One token for every fork."""
        position = self.rows["produced"][: self.count] - 1  # of the token that was drawn last, in the response
        tokens = self.tokens[np.arange(self.count), position]
        states = self.memory.decode(self.prompt_of, tokens, position)
        self.usage.decoded_rows += self.count
        self._draw(self.policy.head(states), 0, 0)

    def _draw(self, logits: Tensor, first: int, first_fork: int) -> None:
        """Draw a token for each fork from `first_fork` on, from the logits (rows, V) of the rows from `first` on."""
        rows, row_of = self.rows[first : self.count], self.row_of[first_fork:]
        uniform = uniforms(self.keys[first_fork:], self.rows["produced"][row_of])
        heat, top_p = rows["temperature"].copy(), rows["top_p"].copy()
        drawn = draw(logits, heat, top_p, to_device(uniform, self.device), to_device(row_of - first, self.device))
        # Together, because each wait stops a GPU; float32 holds every token below 2**24.
        numbers, logprobs = torch.stack([drawn[0].float(), drawn[1]]).cpu().numpy()
        tokens = numbers.astype(np.int64)
        if not np.isfinite(logprobs).all():
            request = self.forks[first_fork + int(np.flatnonzero(~np.isfinite(logprobs))[0])][0]
            raise NonFiniteError(
                f"the model's logits are not finite after a prompt of {len(request.prompt_ids)} tokens: its weights "
                "are broken, or its numbers too large for model.dtype (set it to 'float32')"
            )
        if len(row_of) > len(rows):
            row_of = self._part(tokens, first_fork)
        produced = self.rows["produced"][row_of]
        self.tokens[row_of, produced] = tokens
        self.logprobs[row_of, produced] = logprobs
        self.rows["produced"][first : self.count] += 1

    def _part(self, tokens: np.ndarray, first_fork: int) -> np.ndarray:
        """Give forks a row of their own if they drew another token than the first of their row; returns their rows."""
        row_of = self.row_of[first_fork:]
        _, firsts, which = np.unique(row_of * self.policy.vocabulary + tokens, return_index=True, return_inverse=True)
        source = row_of[firsts]  # of every (row, token) that was drawn
        stays = np.zeros(len(firsts), dtype=bool)
        stays[np.unique(source, return_index=True)[1]] = True
        target, copied = source.copy(), source[~stays]
        if len(copied):
            target[~stays] = np.arange(self.count, self.count + len(copied))
            new = slice(self.count, self.count + len(copied))
            self._add([self.prompt_of[row] for row in copied], self.rows[copied])
            self.tokens[new], self.logprobs[new] = self.tokens[copied], self.logprobs[copied]
            self.memory.copy(copied, np.arange(new.start, new.stop), int(self.rows["produced"][copied].max()))
            self.row_of[first_fork:] = target[which]
        return self.row_of[first_fork:]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _finished(self) -> list[Completion]:
        """Take out the rows that ended."""
        rows = self.rows[: self.count]
        ended = np.isin(self.tokens[np.arange(self.count), rows["produced"] - 1], self.ends)
        done = ended | (rows["produced"] >= rows["limit"])
        if not done.any():
            return []
        leaving = done[self.row_of]
        completions = []
        for fork in np.flatnonzero(leaving):
            (request, index), row = self.forks[fork], self.row_of[fork]
            length = int(rows["produced"][row])
            self.usage.generated_tokens += length
            completions.append(
                Completion(
                    request=request,
                    index=index,
                    token_ids=self.tokens[row, :length].tolist(),
                    logprobs=self.logprobs[row, :length].tolist(),
                    truncated=not bool(ended[row]),
                )
            )
        self._leave(leaving)
        self._remove(np.flatnonzero(done))
        return completions

    def _leave(self, leaving: np.ndarray) -> None:
        self.forks = [fork for fork, gone in zip(self.forks, leaving.tolist(), strict=True) if not gone]
        self.keys, self.row_of = self.keys[~leaving], self.row_of[~leaving]

    def _remove(self, done: np.ndarray) -> None:
        """Fill the rows that are done with the last ones."""
        left = self.count - len(done)
        for row in done:
            self.prompt_of[row].users -= 1
        holes = done[done < left]
        if len(holes):
            movers = np.setdiff1d(np.arange(left, self.count), done)
            for column in (self.rows, self.tokens, self.logprobs):
                column[holes] = column[movers]
            for hole, mover in zip(holes, movers, strict=True):
                self.prompt_of[hole] = self.prompt_of[mover]
            moved = np.arange(self.count)
            moved[movers] = holes
            self.row_of = moved[self.row_of]
            self.memory.copy(movers, holes, int(self.rows["produced"][holes].max()))
        self.count = left
        del self.prompt_of[left:]
