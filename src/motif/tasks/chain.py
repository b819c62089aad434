"""Chains of arithmetic steps on a two-digit number, up to more steps than one window can hold.

A question is a starting number and labelled steps, all modulo 100: `47 a*3 b+8 c-5` gives 41, 49, 44. Each step can be
undone, so every slip shows in the answer, and a guess is right once in a hundred times.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from motif.config import ChainConfig
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import Split, split_of

MODULUS = 100
LABELS = "abcdefghijklmnopqrstuvwxyzABCD"
FACTORS = (3, 7, 9)  # no common divisor with 100, so that a product can be undone
TEST_ONE_IN = 8
DRAWN = 16_000
"""Chains drawn for both sides together, repeats included."""


@dataclass(frozen=True)
class Chain:
    """A starting number and the steps applied to it, e.g. `("*3", "+8", "-5")`."""

    start: int
    steps: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text of the question."""
        return " ".join([f"{self.start:02d}", *(label + step for label, step in zip(LABELS, self.steps, strict=False))])

    def states(self) -> list[int]:
        """The number before the first step and after each."""
        numbers = [self.start]
        for step in self.steps:
            numbers.append(apply(step, numbers[-1]))
        return numbers


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


def chains(settings: ChainConfig, split: Split) -> list[Chain]:
    """The distinct chains of one side; which side a chain is on depends on the chain alone."""
    rng = random.Random(f"chain {settings.shortest} {settings.longest}")
    drawn = dict.fromkeys(draw(rng, settings.shortest, settings.longest) for _ in range(DRAWN))
    return [chain for chain in drawn if side_of(chain) == split]


def side_of(chain: Chain) -> Split:
    """The side of a chain."""
    return split_of(chain.text, TEST_ONE_IN)


def questions(settings: ChainConfig, split: Split) -> list[Question]:
    """The questions of one side, in a fixed random order."""
    return [
        Question(f"chain {chain.text}", chain.text, gold=f"{chain.states()[-1]:02d}", steps=len(chain.steps))
        for chain in chains(settings, split)
    ]


TASK = ProceduralTask("numeric", lambda data, split: questions(data.chain, split))
