"""Write demonstrations of chains of 2 to 5 steps for `warmstart.file`.

    python studies/start/chain_rounds.py whole.jsonl early.jsonl

Each round does one to three steps and notes the number reached with the label of the next step. In the first file every
chain has three rounds, and the last gives the answer. In the second a round from which the answer can be reached gives
it in half of the cases, and is then the last. No chain is one of the task's test questions.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from motif.tasks.chain import LABELS, Chain, apply, draw, side_of

FIT = 3  # steps that a window of 29 tokens holds
ROUNDS = 3
COUNT = 800
SHORTEST, LONGEST = 2, 5


def steps(chain: Chain, at: int, count: int, number: int) -> tuple[str, int]:
    """The text of `count` steps from step `at` on, and the number that they end with."""
    text = f"{number:02d}" if count else ""
    for place in range(at, at + count):
        number = apply(chain.steps[place], number)
        text += f"{LABELS[place]}{chain.steps[place]}={number:02d}"
    return text, number


def solved(chain: Chain, rng: random.Random, early: float) -> list[str] | None:
    """The responses of one way through the rounds; None: it did not come to the end.

    `early`: the chance to give the answer as soon as it is in reach.
    """
    responses, at, number = [], 0, chain.start
    for round_ in range(1, ROUNDS + 1):
        left = len(chain.steps) - at
        answers = left <= FIT and (round_ == ROUNDS or rng.random() < early)
        count = left if answers else min(left, rng.choice((1, 2, 3, 3)))
        text, number = steps(chain, at, count, number)
        at += count
        box = f"\\boxed{{{number:02d}}}"
        note = box if answers else f"{number:02d}{LABELS[at]}"
        responses.append(f"<think>{text}</think><note>{note}</note>")
        if answers:
            return responses
    return None


def main() -> None:
    """Write the files."""
    rng = random.Random(0)
    for name, early in zip(sys.argv[1:3], (0.0, 0.5), strict=True):
        lines: list[str] = []
        while len(lines) < COUNT:
            chain = draw(rng, SHORTEST, LONGEST)
            responses = solved(chain, rng, early) if side_of(chain) == "train" else None
            if responses:
                row = {"question": chain.text, "answer": f"{chain.states()[-1]:02d}", "rounds": responses}
                lines.append(json.dumps(row))
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
