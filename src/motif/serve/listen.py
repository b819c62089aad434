"""The address that a server listens on, bound before anything heavy is imported: a taken one is told at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from motif.errors import ServiceError

DEAD_PEER_SECONDS = 120
"""Timeout after which the kernel drops a connection whose client acknowledges nothing."""


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to this address and no other.

    Raises:
        ServiceError: the address does not exist, is taken, or is not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ServiceError(f"--host {host}: {error}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAD_PEER_SECONDS)
        try:
            listener.bind(address)
        except OSError as error:
            other = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise ServiceError(f"cannot listen on {host} port {port}: {error.strerror}; try another {other}") from None
        yield listener
