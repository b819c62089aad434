"""Answering one request: within its limits, while its client is there, whole or streamed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from motif.errors import RecipeError, SamplerError
from motif.sampling.answer import Event, Thought, think
from motif.sampling.openai import UpstreamError
from motif.serve.admission import Busy
from motif.serve.middleware import Account, while_connected
from motif.serve.protocol import Refused
from motif.serve.replies import Kind, Reply, Stream
from motif.serve.requests import Job, check_fit

if TYPE_CHECKING:
    from motif.serve.app import Service

log = logging.getLogger("motif.serve")

LAST_WORD_SECONDS = 1.0
"""For telling an error to a client that may have stopped reading."""


class Answering(Response):
    """Thinks while the client is there, and tells it."""

    def __init__(self, service: Service, kind: Kind, job: Job):
        super().__init__()
        self.service, self.job = service, job
        self.reply = Reply(kind, job, service.served)
        self.thoughts: list[Thought] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, in the place of the response."""
        account: Account = scope["state"]["account"]
        account.said = f"answers {len(self.job.plans)} rounds {len(self.job.plans[0].limits)}"
        if self.job.user:
            account.said += f" user {self.job.user!a}"
        await while_connected(receive, self._answer(scope, receive, send))
        spent = [(len(thought.rounds), thought.prompt_tokens, thought.completion_tokens) for thought in self.thoughts]
        for numbers in spent:
            self.service.metrics.thought(*numbers)
        account.said += f" tokens {sum(part[1] for part in spent)}+{sum(part[2] for part in spent)}"

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, task = self.service, asyncio.current_task()
        assert task is not None
        service.running.add(task)
        begun = _Started(send)
        try:
            await self._within_limits(scope, receive, begun)
        except Refused as refused:
            if not begun.yes:
                raise
            # The status is out, so the error is the last event; whoever has stopped reading is not waited for.
            scope["state"]["account"].status = refused.status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await Stream(_body(begun)).error(refused.content)
                    await begun({"type": "http.response.body", "body": b""})
        finally:
            service.running.discard(task)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, seconds = self.service, self.service.limits.timeout
        if service.stopped:
            raise _stopping()
        try:
            async with asyncio.timeout(seconds) as clock, service.gate.enter(len(self.job.plans)):
                for plan in {plan.question: plan for plan in self.job.plans}.values():
                    await asyncio.to_thread(check_fit, plan, service.served)
                if self.job.stream:
                    await self._streamed(send)
                else:
                    self.thoughts = await self._think(None)
                    await JSONResponse(self.reply.whole(self.thoughts))(scope, receive, send)
        except Busy as busy:
            wait = {"Retry-After": str(busy.retry_after)}
            raise Refused(429, str(busy), kind="rate_limit_error", code="queue_full", headers=wait) from None
        except TimeoutError:
            if not clock.expired():
                raise
            message = f"not answered within this server's limit of {seconds:g} s"
            raise Refused(504, message, kind="timeout_error", code="timeout") from None
        except asyncio.CancelledError:
            if not service.stopped:
                raise
            raise _stopping() from None
        except UpstreamError as error:
            log.warning("%s", error)
            if error.retry_after:
                wait = {"Retry-After": error.retry_after}
                raise Refused(429, str(error), kind="rate_limit_error", code="upstream_busy", headers=wait) from None
            raise Refused(502, str(error), kind="upstream_error", code="upstream_failed") from None
        except (SamplerError, RecipeError) as error:
            raise Refused(500, str(error), kind="server_error", code="decoding_failed") from None

    async def _streamed(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        headers += [(b"x-accel-buffering", b"no")]  # a proxy must not collect what is to be seen at once
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        stream = Stream(_body(send))
        for chunk in self.reply.opening():
            await stream.chunk(chunk)

        async def on_event(index: int, event: Event) -> None:
            if chunk := self.reply.event(index, event):
                await stream.chunk(chunk)

        self.thoughts = await self._think(on_event, stream)
        if self.job.include_usage:
            await stream.chunk(self.reply.usage(self.thoughts))
        await stream.done()
        await send({"type": "http.response.body", "body": b""})

    async def _think(
        self, on_event: Callable[[int, Event], Awaitable[None]] | None, stream: Stream | None = None
    ) -> list[Thought]:
        """All choices at once; the first that fails ends the others."""
        served = self.service.served

        async def one(index: int) -> Thought:
            async def tell(event: Event) -> None:
                assert on_event is not None
                await on_event(index, event)

            plan = self.job.plans[index]
            thought = await think(plan, served.rounds, served.speaker, tell if on_event else None)
            for chunk in self.reply.closing(index, thought) if stream else ():
                assert stream is not None
                await stream.chunk(chunk)
            return thought

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index)) for index in range(len(self.job.plans))]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


class _Started:
    """A `send` that knows whether the answer has begun."""

    def __init__(self, send: Send):
        self._send, self.yes = send, False

    async def __call__(self, message: Message) -> None:
        self.yes = True
        await self._send(message)


def _body(send: Send) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    return write


def _stopping() -> Refused:
    return Refused(503, "the server is shutting down", kind="server_error", code="shutting_down")
