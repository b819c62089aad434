"""Answering one request within its limits while its client is connected, in one piece or streamed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from motif.errors import MotifError
from motif.sampling.answer import Event, Trace, answer
from motif.sampling.concurrency import together
from motif.sampling.openai import UpstreamError
from motif.serve.admission import LONGEST_RETRY, QueueFull
from motif.serve.middleware import AccessRecord, while_connected
from motif.serve.protocol import ApiError
from motif.serve.replies import EventStream, Reply, ReplyKind
from motif.serve.requests import Job, check_fit
from motif.serve.service import Service
from motif.text import one_line

log = logging.getLogger("motif.serve")

LAST_EVENT_SECONDS = 1.0
"""Timeout for sending an error to a client that may have stopped reading."""


class Answering(Response):
    """A response that generates its answers while the client is connected."""

    def __init__(self, service: Service, kind: ReplyKind, job: Job):
        super().__init__()
        self.service, self.job = service, job
        self.reply = Reply(kind, job, service.served)
        self.traces: list[Trace] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        record: AccessRecord = scope["state"]["access_record"]
        record.details = f"answers {len(self.job.plans)} rounds {len(self.job.plans[0].limits)}"
        if self.job.user:
            record.details += f" user {self.job.user!a}"
        await while_connected(receive, self._answer(scope, receive, send))
        for trace in self.traces:
            self.service.metrics.answer(len(trace.rounds), trace.prompt_tokens, trace.completion_tokens)
        prompt_tokens = sum(trace.prompt_tokens for trace in self.traces)
        completion_tokens = sum(trace.completion_tokens for trace in self.traces)
        record.details += f" tokens {prompt_tokens}+{completion_tokens}"

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        running, task = self.service.running, asyncio.current_task()
        assert task is not None
        running.add(task)
        response = _Started(send)
        try:
            await self._within_limits(scope, receive, response)
        except ApiError as error:
            if not response.started:
                raise
            # The status has been sent, so the error is the last event. A client that no longer reads is not awaited.
            scope["state"]["access_record"].status = error.status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_EVENT_SECONDS):
                    await EventStream(_body(response)).chunk(error.content)
                    await response({"type": "http.response.body", "body": b""})
        finally:
            running.discard(task)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, seconds = self.service, self.service.limits.timeout
        if service.stopped:
            raise _shutting_down()
        try:
            async with asyncio.timeout(seconds) as clock, service.queue.enter(len(self.job.plans)):
                for plan in {plan.question: plan for plan in self.job.plans}.values():
                    await asyncio.to_thread(check_fit, plan, service.served)
                if self.job.stream:
                    await self._streamed(send)
                else:
                    await self._generate()
                    await JSONResponse(self.reply.whole(self.traces))(scope, receive, send)
        except QueueFull as full:
            wait = {"Retry-After": str(full.retry_after)}
            raise ApiError(429, str(full), kind="rate_limit_error", code="queue_full", headers=wait) from None
        except TimeoutError:
            if not clock.expired():
                raise
            message = f"no answer within this server's time limit of {seconds:g} s"
            raise ApiError(504, message, kind="timeout_error", code="timeout") from None
        except asyncio.CancelledError:
            if not service.stopped:
                raise
            raise _shutting_down() from None
        except MotifError as error:
            log.warning("%s (request %s)", one_line(str(error)), scope["state"]["access_record"].id)
            raise _told(error) from None

    async def _streamed(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        headers += [(b"x-accel-buffering", b"no")]  # a proxy must pass each event on at once
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        stream = EventStream(_body(send))
        for chunk in self.reply.opening():
            await stream.chunk(chunk)
        await self._generate(stream)
        if self.job.include_usage:
            await stream.chunk(self.reply.usage(self.traces))
        await stream.done()
        await send({"type": "http.response.body", "body": b""})

    async def _generate(self, stream: EventStream | None = None) -> None:
        """Generate all choices at once, and stream them if there is a stream; the first failure ends the others."""
        async with together() as group:
            tasks = [group.create_task(self._trace(index, stream)) for index in range(len(self.job.plans))]
        self.traces = [task.result() for task in tasks]

    async def _trace(self, index: int, stream: EventStream | None) -> Trace:
        plan, served = self.job.plans[index], self.service.served
        if stream is None:
            return await answer(plan, served.rounds, served.sampler)

        async def on_event(event: Event) -> None:
            if chunk := self.reply.event(index, event):
                await stream.chunk(chunk)

        trace = await answer(plan, served.rounds, served.sampler, on_event)
        for chunk in self.reply.closing(index, trace):
            await stream.chunk(chunk)
        return trace


class _Started:
    """A `send` that knows whether the response has started."""

    def __init__(self, send: Send):
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


def _body(send: Send) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    return write


def _shutting_down() -> ApiError:
    return ApiError(503, "the server is shutting down", kind="server_error", code="shutting_down")


def _told(error: MotifError) -> ApiError:
    """What a client is told: where a file or the upstream server is, and what it said, is for the log."""
    if not isinstance(error, UpstreamError):
        message = "the answer could not be generated; this server's log has the cause"
        return ApiError(500, message, kind="server_error", code="decoding_failed")
    if error.retry_after:
        wait = min(error.retry_after, LONGEST_RETRY)
        message, headers = f"the upstream server is busy: try again in {wait} s", {"Retry-After": str(wait)}
        return ApiError(429, message, kind="rate_limit_error", code="upstream_busy", headers=headers)
    message = "the upstream server failed; this server's log has the cause"
    return ApiError(502, message, kind="upstream_error", code="upstream_failed")
