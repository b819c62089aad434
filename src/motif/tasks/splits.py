"""Sides and orders that depend on what is asked alone, never on what else there is or in which order it was made."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


def hashed(key: str) -> int:
    """A hash of 128 bits, so that its remainder is uniform even modulo a number of nine digits."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big")


def split_of(key: str, test_one_in: int) -> Split:
    """The side of what a key names: one in `test_one_in` is on the test side."""
    return "test" if hashed(f"split {key}") % test_one_in == 0 else "train"
