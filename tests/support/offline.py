"""No connection beyond this machine: a hook that Python's own sockets cannot get round."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

attempts: list[str] = []
"""What was tried, whatever the code that tried it made of the refusal."""


def guard() -> None:
    """Refuse and note every look-up of a name and every connection beyond this machine, from now on."""
    own = {"", "localhost", socket.gethostname()}

    def is_here(host: Any) -> bool:
        text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return text in own or text.endswith(".invalid")  # which no resolver knows (RFC 2606)
        return address.is_loopback or address.is_unspecified

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        if not is_here(host):
            attempts.append(f"{event} {host}")
            raise OSError(f"no network in tests: {event} {host}")

    sys.addaudithook(hook)
