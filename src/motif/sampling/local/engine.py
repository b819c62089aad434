"""Prompts continued with a policy while others come and go: one thread owns the model, an event loop asks.

All that is being answered is one batch of `motif.sampling.local.batch`. A prompt that arrives joins it at the next
token, and one whose caller is cancelled leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from motif.errors import SamplerError
from motif.method.rounds import Rounds
from motif.models.policy import Policy
from motif.sampling.answer import Ask, OnText, Said
from motif.sampling.base import Completion, Request
from motif.sampling.local.batch import Batch, LocalSampler

log = logging.getLogger(__name__)


class Live:
    """A speaker (see `motif.sampling.answer`) with the weights that the policy has now.

    At most `max_rows` responses are decoded at once; more wait in the order in which they came. Until `close`, the
    policy must not be used otherwise.

    Raises:
        RecipeError: the model cannot be sampled here.
    """

    def __init__(self, policy: Policy, rounds: Rounds, max_rows: int = 256):
        self.policy, self.rounds = policy, rounds
        self.sampler = LocalSampler(policy, max_rows)
        self.alive = True
        self.decoding = 0
        """Responses in the batch."""
        self._orders: list[_Line] = []  # arrivals, and those whose caller has gone
        self._changed = threading.Condition()
        self._closing = False
        self._open: set[_Line] = set()  # in the thread's hands
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, name="motif-decoding", daemon=True)
        self._thread.start()

    # -- asked from the event loop ---------------------------------------------------------------------------------

    async def say(self, ask: Ask, on_text: OnText | None = None) -> Said:
        """Continue the prompt of the ask's round.

        Raises:
            RecipeError: it does not fit the model's context.
            SamplerError: decoding failed.
        """
        # In another thread: a long prompt takes a while to tokenise, and others are being told their tokens here.
        prompt = await asyncio.to_thread(self.rounds.prompt, ask.question, list(ask.notes), ask.rounds)
        line = _Line(asyncio.get_running_loop(), told=on_text is not None)
        limits = ask.limits
        line.request = Request(prompt, [ask.key], limits.tokens, limits.temperature, limits.top_p, tag=line)
        self.sampler.check_length(line.request)
        self._order(line)
        spelling = Spelling(self.rounds.tokenizer)
        try:
            while line.result is None:
                await line.news.wait()
                line.news.clear()
                tokens, line.tokens = line.tokens, []
                piece = spelling.push(tokens) if tokens and line.result is None else ""
                if on_text and piece:
                    await on_text(piece)
        finally:
            if line.result is None:
                line.wanted = False
                self._order(line)
        if isinstance(line.result, Exception):
            raise SamplerError(f"decoding failed: {line.result}") from line.result
        done = line.result
        text = str(self.rounds.tokenizer.decode(done.token_ids, skip_special_tokens=True))
        rest = spelling.rest(text)
        if on_text and rest:
            await on_text(rest)
        return Said(text, done.truncated, len(prompt), len(done.token_ids))

    async def ready(self) -> str | None:
        """Why no answer can be had now; None if it can."""
        return None if self.alive else "decoding has ended"

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
                        log.exception("decoding failed; %d responses are lost", len(self._open))
                        self._fail(error)
        except BaseException as error:
            log.exception("decoding has ended")
            self._fail(SamplerError(f"{type(error).__name__}: {error}"))
            raise
        finally:
            with self._changed:
                self.alive = False
                self._open.update(line for line in self._orders if line.wanted)
            self._fail(SamplerError("decoding has ended"))

    def _drive(self, batch: Batch) -> None:
        queue: deque[tuple[Request, range]] = deque()
        while self._take(batch, queue):
            ended = batch.step(queue, at_once=True)
            self._tell(batch, ended)

    def _take(self, batch: Batch, queue: deque[tuple[Request, range]]) -> bool:
        """Carry out orders; with nothing to do, wait for one. False: it is time to end."""
        while True:
            self.decoding = batch.count
            with self._changed:
                if not (self._orders or queue or batch.count or self._closing):
                    self._changed.wait()
                orders, self._orders = self._orders, []
                if self._closing:
                    self._open.update(line for line in orders if line.wanted)
                    return False
            for line in orders:
                if line.wanted and line not in self._open:
                    self._open.add(line)
                    queue.append((line.request, range(1)))
            self._drop({line for line in orders if not line.wanted} & self._open, batch, queue)
            if queue or batch.count:
                self.decoding = batch.count
                return True

    def _drop(self, gone: set[_Line], batch: Batch, queue: deque[tuple[Request, range]]) -> None:
        if gone:
            self._open -= gone
            kept = [turn for turn in queue if turn[0].tag not in gone]
            queue.clear()
            queue.extend(kept)
            batch.cancel(lambda request: request.tag in gone)

    def _tell(self, batch: Batch, ended: Sequence[Completion]) -> None:
        """Hand over what is new, to each loop at once."""
        news: dict[asyncio.AbstractEventLoop, list[tuple[_Line, list[int], Any]]] = {}
        for done in ended:
            line: _Line = done.request.tag
            self._open.discard(line)
            news.setdefault(line.loop, []).append((line, [], done))
        for request, _, tokens in batch.progress():
            line = request.tag
            if line.told and len(tokens) > line.count:
                news.setdefault(line.loop, []).append((line, tokens[line.count :].tolist(), None))
                line.count = len(tokens)
        for loop, items in news.items():
            _post(loop, items)

    def _fail(self, error: Exception) -> None:
        for line in self._open:
            _post(line.loop, [(line, [], error)])
        self._open.clear()
        self.decoding = 0


class _Line:
    """A response under way, between the thread and its caller."""

    request: Request

    def __init__(self, loop: asyncio.AbstractEventLoop, told: bool):
        self.loop, self.told = loop, told
        self.news = asyncio.Event()
        self.tokens: list[int] = []  # new ones; the loop's
        self.result: Completion | Exception | None = None  # the loop's
        self.count = 0  # tokens handed over; the thread's
        self.wanted = True


def _post(loop: asyncio.AbstractEventLoop, items: list[tuple[_Line, list[int], Any]]) -> None:
    def deliver() -> None:
        for line, tokens, result in items:
            line.tokens += tokens
            line.result = result
            line.news.set()

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop has closed: nobody listens
        log.debug("nobody listens any more")


class Spelling:
    """The text of tokens as they come, never with half a character.

    Bytes of one character may be spread over tokens; a piece is given out when what is there ends with a whole one.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self._pieces: list[str] = []
        self._start = self._read = 0  # tokens before `_read` are told; decoding begins at `_start`, for the context

    def push(self, ids: Sequence[int]) -> str:
        """The text that more tokens add."""
        self.ids += ids
        known, whole = self._decode(self._start, self._read), self._decode(self._start, len(self.ids))
        if len(whole) <= len(known) or whole.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self.ids)
        self._pieces.append(whole[len(known) :])
        return self._pieces[-1]

    def rest(self, text: str) -> str:
        """What of the whole text has not been given out."""
        told = "".join(self._pieces)
        return text[len(told) :] if text.startswith(told) else ""

    def _decode(self, start: int, end: int) -> str:
        return str(self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True))
