"""A sampler for many callers: one thread owns the model, event loops send it requests.

Everything in progress is one batch of `motif.sampling.local.batch`. A request joins it at the next token, and leaves it
when its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import torch

from motif.errors import SamplerError
from motif.method.tokens import padding, spell
from motif.models.int8 import FLOAT32, Precision
from motif.models.policy import Policy
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.local.batch import DecodingBatch, LocalSampler, Queue

log = logging.getLogger(__name__)


class Engine:
    """Samples with the weights that the policy has now, for many callers at once.

    At most `max_rows` responses are decoded at once; more wait in the order in which they came. Until `close`, the
    policy must not be used otherwise.

    Raises:
        ModelError: the model cannot be sampled here.
    """

    def __init__(self, policy: Policy, max_rows: int = 256, precision: Precision = FLOAT32):
        self.policy = policy
        self.sampler = LocalSampler(policy, max_rows, precision=precision)
        self.alive = True
        self._ends = {*policy.end_ids, *padding(policy.tokenizer)}
        self.window: int | None = policy.max_length
        self.decoding = 0
        self._orders: list[_Line] = []  # new requests, and those whose caller has gone
        self._changed = threading.Condition()
        self._closing = False
        self._open: dict[Request, _Line] = {}  # being decoded or queued by the thread
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, name="motif-decoding", daemon=True)
        self._thread.start()

    # -- called in event loops -------------------------------------------------------------------------------------

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, each as soon as it ends; `on_text` gets the text of the first key's.

        Raises:
            RecipeError: the prompt does not fit the model's context.
            SamplerError: decoding failed.
        """
        self.sampler.check_length(request)
        line = _Line(request, asyncio.get_running_loop(), streamed=on_text is not None)
        self._order(line)
        spelling, left = Spelling(self.policy.tokenizer, self._ends), len(request.keys)
        try:
            while left:
                await line.news.wait()
                line.news.clear()
                tokens, line.tokens = line.tokens, []
                completions, line.completions = line.completions, []
                if line.error:
                    raise SamplerError(f"decoding failed: {line.error}") from line.error
                if on_text and tokens and not completions and (piece := spelling.push(tokens)):
                    await on_text(piece)
                for completion in completions:
                    left -= 1
                    if on_text and (rest := spelling.rest(completion.token_ids)):
                        await on_text(rest)
                    yield completion
        finally:
            if left:
                line.wanted = False
                self._order(line)

    async def start(self) -> None:
        """Nothing to do: the thread runs already."""

    async def ready(self) -> str | None:
        """Why no answer can be had now; None if it can."""
        return None if self.alive else "decoding has ended"

    async def aclose(self) -> None:
        """End the thread; what is under way fails."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the thread; what is under way fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _order(self, line: _Line) -> None:
        with self._changed:
            if not self.alive or self._closing:
                if line.wanted:
                    raise SamplerError("decoding has ended")
                return
            self._orders.append(line)
            self._changed.notify()

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # it is a setting of each thread
        try:
            while not self._closing:
                with self.sampler.open() as batch:
                    try:
                        self._drive(batch)
                    except Exception as error:  # out of memory, say: these fail, and a fresh batch begins
                        log.exception("decoding failed; %d requests are lost", len(self._open))
                        self._fail(error)
        except BaseException as error:
            log.exception("decoding has ended")
            self._fail(SamplerError(f"{type(error).__name__}: {error}"))
            raise
        finally:
            with self._changed:
                self.alive = False
                self._open |= {line.request: line for line in self._orders if line.wanted}
            self._fail(SamplerError("decoding has ended"))

    def _drive(self, batch: DecodingBatch) -> None:
        queue: Queue = deque()
        while self._take(batch, queue):
            ended = batch.step(queue, at_once=True)
            self._tell(batch, ended)

    def _take(self, batch: DecodingBatch, queue: Queue) -> bool:
        """Carry out orders, waiting for one if there is nothing to do. Returns False when it is time to end."""
        while True:
            self.decoding = batch.count
            with self._changed:
                if not (self._orders or queue or batch.count or self._closing):
                    self._changed.wait()
                orders, self._orders = self._orders, []
                if self._closing:
                    self._open |= {line.request: line for line in orders if line.wanted}
                    return False
            for line in orders:
                if line.wanted and line.request not in self._open:
                    self._open[line.request] = line
                    queue.extend(self.sampler.turns(line.request))
            self._drop({line.request for line in orders if not line.wanted} & self._open.keys(), batch, queue)
            if queue or batch.count:
                self.decoding = batch.count
                return True

    def _drop(self, gone: set[Request], batch: DecodingBatch, queue: Queue) -> None:
        if gone:
            for request in gone:
                del self._open[request]
            kept = [turn for turn in queue if turn[0] not in gone]
            queue.clear()
            queue.extend(kept)
            batch.cancel(lambda request: request in gone)

    def _tell(self, batch: DecodingBatch, ended: Sequence[Completion]) -> None:
        """Hand new tokens and completions to the loops that wait for them."""
        news: dict[asyncio.AbstractEventLoop, list[_News]] = {}
        for completion in ended:
            line = self._open[completion.request]
            line.left -= 1
            if not line.left:
                del self._open[completion.request]
            news.setdefault(line.loop, []).append((line, [], completion))
        for request, index, tokens in batch.progress():
            line = self._open[request]
            if line.streamed and index == 0 and len(tokens) > line.count:
                news.setdefault(line.loop, []).append((line, tokens[line.count :].tolist(), None))
                line.count = len(tokens)
        for loop, items in news.items():
            _post(loop, items)

    def _fail(self, error: Exception) -> None:
        for line in self._open.values():
            _post(line.loop, [(line, [], error)])
        self._open.clear()
        self.decoding = 0


class _Line:
    """A request in progress, shared by the thread and its caller."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop, streamed: bool):
        self.request, self.loop, self.streamed = request, loop, streamed
        self.news = asyncio.Event()
        self.tokens: list[int] = []  # new ones; the loop's
        self.completions: list[Completion] = []  # new ones; the loop's
        self.error: Exception | None = None  # the loop's
        self.left = len(request.keys)  # responses that have not ended; the thread's
        self.count = 0  # tokens handed over; the thread's
        self.wanted = True


_News = tuple[_Line, list[int], Completion | Exception | None]


def _post(loop: asyncio.AbstractEventLoop, items: list[_News]) -> None:
    def deliver() -> None:
        for line, tokens, result in items:
            line.tokens += tokens
            if isinstance(result, Exception):
                line.error = result
            elif result is not None:
                line.completions.append(result)
            line.news.set()

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop has closed
        log.debug("the caller's loop has closed")


class Spelling:
    """The text of tokens as they arrive, never with half a character.

    The bytes of one character may be spread over tokens; a piece is returned when the text ends with a whole one.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int]):
        self.tokenizer, self.ends = tokenizer, ends
        self.ids: list[int] = []
        self._pieces: list[str] = []
        self._start = self._read = (
            0  # tokens before `_read` have been returned; decoding begins at `_start`, for context
        )

    def push(self, ids: Sequence[int]) -> str:
        """The text that more tokens add."""
        self.ids += ids
        known, whole = self.text(self.ids[self._start : self._read]), self.text(self.ids[self._start :])
        if len(whole) <= len(known) or whole.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self.ids)
        self._pieces.append(whole[len(known) :])
        return self._pieces[-1]

    def rest(self, ids: Sequence[int]) -> str:
        """The part of the whole response's text that has not been returned."""
        text, told = self.text(ids), "".join(self._pieces)
        return text[len(told) :] if text.startswith(told) else ""

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        return spell(self.tokenizer, ids, self.ends)
