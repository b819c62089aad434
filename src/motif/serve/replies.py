"""Responses in the API's format: in one piece, or streamed in chunks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from motif.sampling.answer import Event, RoundEnded, RoundStarted, RoundText, Trace
from motif.serve.requests import Job, ServedModel

ReplyKind = Literal["chat", "text"]


class Reply:
    """The response to one request."""

    def __init__(self, kind: ReplyKind, job: Job, served: ServedModel):
        self.kind, self.job = kind, job
        self.id = ("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(12)
        self.head: dict[str, Any] = {"id": self.id, "created": int(time.time()), "model": served.name}
        self.details: dict[str, Any] = {"seed": job.seed}
        if notice := served.notice(job.plans[0].as_question.whole):
            self.details["notice"] = notice
        if served.fingerprint:
            self.head["system_fingerprint"] = served.fingerprint

    # -- whole -----------------------------------------------------------------------------------------------------

    def whole(self, traces: Sequence[Trace]) -> dict[str, Any]:
        """All choices in one object."""
        return {
            **self.head,
            "object": "chat.completion" if self.kind == "chat" else "text_completion",
            "choices": [self._choice(index, trace) for index, trace in enumerate(traces)],
            "usage": usage(traces),
            "motif": self.details,
        }

    def _choice(self, index: int, trace: Trace) -> dict[str, Any]:
        content, reason = self.content(trace)
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
        if self.kind == "chat":
            reasoning = "".join(heading(ended) + ended.text + ending(ended) for ended in trace.rounds)
            choice["message"] = {"role": "assistant", "content": content, "reasoning_content": reasoning}
        else:
            choice["text"] = content
        rounds = [ended.to_dict() for ended in trace.rounds]
        return choice | {"motif": {"of": trace.rounds[-1].of, "answer": trace.answer, "rounds": rounds}}

    def content(self, trace: Trace) -> tuple[str, str]:
        """The content of a choice, and its finish reason."""
        text = (trace.answer or "") if self.job.answer_only else trace.content
        places = [place for stop in self.job.stop if (place := text.find(stop)) >= 0]
        if places:
            return text[: min(places)], "stop"
        return text, "length" if trace.rounds[-1].truncated else "stop"

    # -- streamed --------------------------------------------------------------------------------------------------

    def opening(self) -> list[dict[str, Any]]:
        """The first chunk of each choice."""
        if self.kind == "text":
            return []
        roles = {"role": "assistant", "content": ""}
        return [self._chunk(index, roles, self.details) for index in range(len(self.job.plans))]

    def event(self, index: int, event: Event) -> dict[str, Any] | None:
        """The chunk for an event of choice `index`; None if there is nothing to send."""
        place = {"round": event.round, "of": event.of}
        if isinstance(event, RoundStarted):
            return self._chunk(index, {"reasoning_content": heading(event)}, {"event": "round", **place})
        if isinstance(event, RoundText):
            # Completions have no field for reasoning.
            piece = {"reasoning_content": event.text}
            return self._chunk(index, piece, {"event": "text", **place}) if self.kind == "chat" else None
        name = "end" if event.last else "note"
        return self._chunk(index, {"reasoning_content": ending(event)}, {"event": name, **place, **event.to_dict()})

    def closing(self, index: int, trace: Trace) -> list[dict[str, Any]]:
        """The last chunks of choice `index`: its content and its finish reason."""
        content, reason = self.content(trace)
        details = {"event": "answer", "answer": trace.answer}
        return [self._chunk(index, {"content": content}, details), self._chunk(index, {}, None, reason)]

    def usage(self, traces: Sequence[Trace]) -> dict[str, Any]:
        """The chunk with the usage, which ends a stream on request."""
        return {**self.head, "object": self._chunk_name, "choices": [], "usage": usage(traces)}

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _chunk(
        self, index: int, delta: dict[str, Any], details: dict[str, Any] | None, reason: str | None = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
        if self.kind == "chat":
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        return {
            **self.head,
            "object": self._chunk_name,
            "choices": [choice | ({"motif": details} if details else {})],
            **({"usage": None} if self.job.include_usage else {}),
        }


class EventStream:
    """A stream of server-sent events."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]):
        self._write = write

    async def chunk(self, content: dict[str, Any]) -> None:
        """Send a chunk, or the error that ends the stream: no [DONE] follows it."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        await self._write(b"data: " + text.encode() + b"\n\n")

    async def done(self) -> None:
        """Send [DONE], which marks a complete stream."""
        await self._write(b"data: [DONE]\n\n")


def heading(event: RoundStarted | RoundEnded) -> str:
    """The text before a round in the reasoning."""
    return f"[round {event.round} of {event.of}]\n"


def ending(ended: RoundEnded) -> str:
    """The text after a round in the reasoning."""
    return "\n" if ended.last else f"\n[note to round {ended.round + 1}] {ended.note}\n\n"


def usage(traces: Sequence[Trace]) -> dict[str, Any]:
    """The usage of all choices."""
    parts = [trace.usage for trace in traces]
    total = {name: sum(part[name] for part in parts) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    reasoning = sum(part["completion_tokens_details"]["reasoning_tokens"] for part in parts)
    return total | {"completion_tokens_details": {"reasoning_tokens": reasoning}}
