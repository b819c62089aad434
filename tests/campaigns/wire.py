"""HTTP over a bare connection: as light as a client can be, and free to misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Broken(Exception):
    """The connection ended, or what came is no HTTP."""


@dataclass(frozen=True)
class Pace:
    """How a client reads: at most `bytes` at a time, then a rest of `seconds`; it leaves after `leave_after` bytes."""

    bytes: int = 2**16
    seconds: float = 0.0
    leave_after: int | None = None


@dataclass
class Answer:
    """What came back. `first` and `gap`: seconds to the first piece of text, and the longest between two pieces."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    first: float = 0.0
    gap: float = 0.0
    seconds: float = 0.0
    whole: bool = False

    def json(self) -> Any:
        """The body, if it is JSON."""
        return json.loads(self.body)

    def events(self) -> list[dict[str, Any]]:
        """The events of a stream; the mark of its end must be there."""
        *parts, done, nothing = self.body.split(b"\n\n")
        if done != b"data: [DONE]" or nothing:
            raise Broken(f"a stream ends with {self.body[-200:]!r}")
        return [json.loads(part.removeprefix(b"data: ")) for part in parts]


def request(path: str, body: Any, key: str, headers: str = "") -> bytes:
    """A POST with this JSON, or these bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "" if "Content-Type" in headers else "Content-Type: application/json\r\n"
    length = "" if "Content-Length" in headers or "Transfer-Encoding" in headers else f"Content-Length: {len(data)}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {key}\r\n{kind}{length}{headers}\r\n"
    return head.encode() + data


async def connect(port: int, narrow: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection; a narrow one takes little at a time, so that the server feels a slow reader."""
    raw = socket.socket()
    raw.setblocking(False)
    if narrow:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=raw, limit=1024 if narrow else 2**16)


async def send(port: int, data: bytes, pace: Pace, seconds: float) -> Answer:
    """Send a request on a connection of its own, and read what comes.

    Raises:
        TimeoutError: the answer is not whole after so many seconds. Broken: it never will be.
    """
    answer, begun = Answer(), time.monotonic()
    async with asyncio.timeout(seconds):
        reader, writer = await connect(port, narrow=pace.seconds > 0)
        try:
            writer.write(data)
            await _read(reader, answer, pace, begun)
        except ConnectionError as error:
            raise Broken(f"{type(error).__name__} after {len(answer.body)} bytes") from error
        finally:
            writer.transport.abort()  # an impolite end, as of a client that crashes
    answer.seconds = time.monotonic() - begun
    return answer


async def _read(reader: asyncio.StreamReader, answer: Answer, pace: Pace, begun: float) -> None:
    data, start, chunked, last = bytearray(), -1, False, 0.0
    while True:
        part = await reader.read(pace.bytes)
        now = time.monotonic()
        data += part
        if start < 0 and (end := data.find(b"\r\n\r\n")) >= 0:
            start = end + 4
            _head(answer, bytes(data[:end]))
            chunked = answer.headers.get("transfer-encoding") == "chunked"
        if start >= 0 and not answer.first and b'"event":"text"' in data:
            answer.first, last = now - begun, now
        elif last:
            answer.gap, last = max(answer.gap, now - last), now
        if start >= 0 and _ended(data, start, chunked, answer):
            answer.body = _dechunked(bytes(data[start:])) if chunked else bytes(data[start:])
            answer.whole = True
            return
        if not part:
            raise Broken(f"the connection ended after {len(data)} bytes")
        if pace.leave_after is not None and len(data) >= pace.leave_after:
            return
        if pace.seconds:
            await asyncio.sleep(pace.seconds)


def _head(answer: Answer, head: bytes) -> None:
    first, *lines = head.decode("latin-1").split("\r\n")
    answer.status = int(first.split(" ")[1])
    answer.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def _ended(data: bytearray, start: int, chunked: bool, answer: Answer) -> bool:
    if chunked:
        return data.endswith(LAST_CHUNK)
    return len(data) - start >= int(answer.headers.get("content-length", 0))


def _dechunked(data: bytes) -> bytes:
    parts, place = [], 0
    while True:
        end = data.index(b"\r\n", place)
        size = int(data[place:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        place = end + 2 + size + 2
        if data[place - 2 : place] != b"\r\n":
            raise Broken("a chunk is longer than it says")


def fields(text: str) -> dict[str, float]:
    """The numbers of /metrics by name and labels."""
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


async def get(port: int, path: str, key: str) -> Answer:
    """A GET."""
    head = f"GET {path} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {key}\r\n\r\n"
    return await send(port, head.encode(), Pace(), 30)
