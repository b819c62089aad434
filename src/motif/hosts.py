"""Hosts: the address that a server listens on, the names it answers to, and whether the hub has an address."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from motif.errors import ServiceError

DEAD_PEER_SECONDS = 120
"""Timeout after which the kernel drops a connection whose client acknowledges nothing."""

_HOST = re.compile(r"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([^\s:@/?#\[\]]+))(?::\d{0,5})?")


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to this address and no other. Bind before heavy imports: a taken address is told at once then.

    Raises:
        ServiceError: the address does not exist, is taken, or is not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ServiceError(f"cannot listen on {host} ({error}): try another --host, e.g. 127.0.0.1") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAD_PEER_SECONDS)
        try:
            listener.bind(address)
        except OSError as error:
            other = "--host, e.g. 127.0.0.1" if error.errno == errno.EADDRNOTAVAIL else "--port, or 0 for any"
            raise ServiceError(f"cannot listen on {host} port {port}: {error.strerror}; try another {other}") from None
        yield listener


def is_host(text: str) -> bool:
    """Whether a Host header is empty, or has the form of one."""
    return not text or _HOST.fullmatch(text) is not None


def names_this_machine(host: str, own: str) -> bool:
    """Whether a Host header names this server: by `own`, its name; as this machine; or by an IP address.

    A website can let its own name point here (DNS rebinding), but cannot make a browser send another name.
    """
    match = _HOST.fullmatch(host)
    if not match:
        return False
    name = (match[1] or match[2]).lower()
    if name in ("localhost", own.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@contextmanager
def without_waiting_for_the_hub() -> Iterator[None]:
    """Where the hub's name has no address, look only for what is cached: the libraries would try for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies() or _has_address(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _has_address(url: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
    except (OSError, ValueError):
        return False
    return True
