"""Connections: those that keep the server waiting for a request are closed, whatever their number."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from motif.serve.protocol import ApiError

LATE = ApiError(408, "the request did not arrive in time", kind="timeout_error", code="slow_headers")


class WaitingRoom:
    """The connections that owe the server the headers of a request, oldest first.

    Args:
        seconds: that a connection may wait there. most: places; one more connection, and the oldest is closed.
    """

    def __init__(self, seconds: float, most: int):
        self.seconds, self.most = seconds, most
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}

    def enter(self, connection: Connection) -> None:
        """Let a connection wait from now on, if it does not wait already."""
        if connection in self.waiting:
            return
        if len(self.waiting) >= self.most:
            self._close(next(iter(self.waiting)))
        loop = asyncio.get_running_loop()
        self.waiting[connection] = loop.call_later(self.seconds, self._close, connection)

    def leave(self, connection: Connection) -> None:
        """Wait no longer for a connection."""
        if timer := self.waiting.pop(connection, None):
            timer.cancel()

    def _close(self, connection: Connection) -> None:
        self.leave(connection)
        connection.give_up()


class Connection(H11Protocol):
    """A connection of HTTP/1.1 that waits in a `WaitingRoom` whenever no request of it is being answered."""

    def __init__(self, room: WaitingRoom, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._room = room

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the headers of a request."""
        super().connection_made(transport)
        self._room.enter(self)

    def data_received(self, data: bytes) -> None:
        """Read; once a request's headers are there, its handler limits the time of its body."""
        super().data_received(data)
        self._wait_if_idle()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._room.leave(self)
        super().connection_lost(exc)

    def _wait_if_idle(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._room.leave(self)
        elif not self.transport.is_closing():
            self._room.enter(self)

    def give_up(self) -> None:
        """Close the connection; a client that has begun a request is told why, one that reads nothing is not."""
        unread = self.transport.get_write_buffer_size() > 0
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            head = [("Content-Type", "application/json"), ("Connection", "close")]
            body = json.dumps(LATE.content).encode()
            reply = h11.Response(status_code=LATE.status, headers=head), h11.Data(data=body), h11.EndOfMessage()
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in reply))
        if unread:
            self.transport.abort()
        else:
            self.transport.close()
