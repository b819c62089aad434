"""What a process holds, from /proc: memory, open files, and the addresses at which it listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motif.statistics.paired import t_quantile

PAGE = os.sysconf("SC_PAGE_SIZE")
BLOCK = 15.0
"""Seconds whose mean is one point of the slope: neighbouring samples are not independent."""


def resident(pid: int) -> float:
    """MiB of memory in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def open_files(pid: int) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def listening(pid: int) -> list[str]:
    """All addresses at which the process takes connections or datagrams, as protocol host:port."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(link))
        except OSError:  # closed meanwhile
            continue
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *_, inode = line.split()[:10]
            if f"socket:[{inode}]" in own and (state == "0A" or protocol.startswith("udp")):
                found.append(f"{protocol} {_address(local)}")
    return sorted(found)


def _address(local: str) -> str:
    host, _, port = local.partition(":")
    words = bytes.fromhex(host)
    packed = b"".join(words[place : place + 4][::-1] for place in range(0, len(words), 4))
    family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, packed)}:{int(port, 16)}"


def slope(seconds: Sequence[float], values: Sequence[float]) -> dict[str, float] | None:
    """Growth per minute by least squares through the means of blocks, with its 95 % interval; None: too few blocks."""
    blocks: dict[int, list[float]] = {}
    for second, value in zip(seconds, values, strict=True):
        blocks.setdefault(int((second - seconds[0]) // BLOCK), []).append(value)
    if len(blocks) < 4:
        return None
    minutes = np.array(list(blocks)) * BLOCK / 60
    means = np.array([np.mean(block) for block in blocks.values()])
    centred = minutes - minutes.mean()
    growth = float(centred @ means / (centred @ centred))
    rest = means - means.mean() - growth * centred
    degrees = len(means) - 2
    error = float(np.sqrt(rest @ rest / degrees / (centred @ centred)))
    half = t_quantile(0.975, degrees) * error
    return {"per_minute": round(growth, 4), "low": round(growth - half, 4), "high": round(growth + half, 4)}
