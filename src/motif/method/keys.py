"""The randomness key of a response: the whole source of its luck."""

from __future__ import annotations

import hashlib


def sampling_key(*parts: object) -> int:
    """A 64-bit key from (seed, step, question, node path), by BLAKE2b of the parts' `repr`.

    What is sampled depends on the key and on the position of the token, never on the place in a batch. Checkpoints and
    frozen results rest on this spelling: it must not change.
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")
