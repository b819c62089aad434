"""Procedural chains of operations on a two-digit number, as long as you like: what one window cannot hold.

A question gives a starting number and labelled steps, all modulo 100: `47 a*3 b+8 c-5` is 41, 49, 44. Each step can be
undone, so every slip shows in the answer, and a guess is right once in a hundred.
"""

import hashlib
import random
from dataclasses import dataclass

from motif.method.tree import Question

MODULUS = 100
LABELS = "abcdefghijklmnop"
FACTORS = (3, 7, 9)  # no common divisor with 100, so that multiplying loses nothing
SPLITS = ("train", "test")
TEST_ONE_IN = 8
DRAWN = 16_000
"""Chains drawn by hash, both sides together."""


@dataclass(frozen=True)
class Chain:
    """A starting number and the steps applied to it, e.g. `("*3", "+8", "-5")`."""

    start: int
    steps: tuple[str, ...]

    @property
    def text(self) -> str:
        """The question as it is asked."""
        return " ".join([f"{self.start:02d}", *(label + step for label, step in zip(LABELS, self.steps, strict=False))])

    def states(self) -> list[int]:
        """The number before the first step and after each."""
        found = [self.start]
        for step in self.steps:
            found.append(apply(step, found[-1]))
        return found


def apply(step: str, number: int) -> int:
    """The number after one step, modulo 100."""
    operand = int(step[1:])
    return {"+": number + operand, "-": number - operand, "*": number * operand}[step[0]] % MODULUS


def draw(rng: random.Random, shortest: int, longest: int) -> Chain:
    """A random chain with a length from `shortest` to `longest`, all equally likely."""
    steps = []
    for _ in range(rng.randint(shortest, longest)):
        kind = rng.choice("+-*")
        steps.append(kind + str(rng.choice(FACTORS) if kind == "*" else rng.randint(1, 9)))
    return Chain(rng.randrange(MODULUS), tuple(steps))


def chains(shortest: int, longest: int, split: str, count: int = DRAWN) -> list[Chain]:
    """One side of `count` drawn chains without repeats; which side a chain is on depends on the chain alone.

    Raises:
        ValueError: a length or a split that is not allowed.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if not 1 <= shortest <= longest <= len(LABELS):
        raise ValueError(f"chains have 1 to {len(LABELS)} steps, shortest first; got {shortest} to {longest}")
    rng = random.Random(f"chain {shortest} {longest}")
    drawn = dict.fromkeys(draw(rng, shortest, longest) for _ in range(count))
    return [chain for chain in drawn if split_of(chain) == split]


def split_of(chain: Chain) -> str:
    """The side that a chain is on."""
    digest = hashlib.blake2b(f"split {chain.text}".encode(), digest_size=16).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_ONE_IN == 0 else "train"


def questions(shortest: int, longest: int, split: str) -> list[Question]:
    """One side of the questions, in a fixed random order, so that a prefix is a random sample.

    Raises:
        ValueError: see `chains`.
    """
    return [
        Question(id=f"chain {chain.text}", text=chain.text, gold=f"{chain.states()[-1]:02d}")
        for chain in chains(shortest, longest, split)
    ]
