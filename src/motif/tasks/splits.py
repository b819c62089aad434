"""Hashes that decide sides and orders by the question alone, whatever other questions there are."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


def hashed(key: str) -> int:
    """A 128-bit hash: even its remainder modulo a nine-digit number is uniform."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big")


def split_of(key: str, test_one_in: int) -> Split:
    """The side of a key; one key in `test_one_in` is on the test side."""
    return "test" if hashed(f"split {key}") % test_one_in == 0 else "train"
