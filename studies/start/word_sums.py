"""Write a CSV of plain English word sums with their answers: `python word_sums.py 60 sums.csv` (questions, file, seed).

Others than those of a file: `python word_sums.py 200 fresh.csv 1 sums.csv`.

What a newcomer might type in: 1 to 3 small numbers of things, one or two steps, many wordings. No worked solutions.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Ella",
    "Finn",
    "Grace",
    "Henry",
    "Ida",
    "Jonas",
    "Kate",
    "Leo",
    "Maya",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Will",
]
THINGS = [
    "apples",
    "books",
    "pencils",
    "marbles",
    "stamps",
    "shells",
    "cards",
    "coins",
    "plums",
    "eggs",
    "buttons",
    "stickers",
    "nuts",
    "flowers",
]
ONE_STEP = (
    ("{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?", lambda a, b, c: a + b),
    ("There are {a} {things} in a bag and {b} in a box. How many {things} are there in all?", lambda a, b, c: a + b),
    ("{name} finds {a} {things} on Monday and {b} on Tuesday. How many is that together?", lambda a, b, c: a + b),
    ("{name} had {s} {things} and lost {b} of them. How many are left?", lambda a, b, c: a),
    ("A shop has {s} {things}. It sells {b}. How many {things} does it still have?", lambda a, b, c: a),
    ("{name} needs {s} {things} and has {b}. How many {things} are missing?", lambda a, b, c: a),
    ("Each of {k} children has {b} {things}. How many {things} do the children have?", lambda a, b, c: c * b),
    ("{name} buys {k} boxes with {b} {things} in each. How many {things} is that?", lambda a, b, c: c * b),
    ("{name} puts {p} {things} into {k} equal heaps. How many {things} are in a heap?", lambda a, b, c: b),
)
TWO_STEPS = (
    (
        "{name} has {a} {things}, gets {b} from a friend and finds {k}. How many {things} does {name} have?",
        lambda a, b, c: a + b + c,
    ),
    (
        "{name} had {s} {things}, gave away {b} and then got {k}. How many {things} does {name} have?",
        lambda a, b, c: a + c,
    ),
    ("A bus has {a} people. {b} get on, and then {k} get on. How many are on the bus?", lambda a, b, c: a + b + c),
    (
        "{name} buys {k} packs of {b} {things} and has {a} at home. How many is that?",
        lambda a, b, c: c * b + a,
    ),
    ("{k} children have {b} {things} each, and {name} has {a}. How many {things} is that?", lambda a, b, c: c * b + a),
)


def word_sums(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """So many different questions and their answers; two of three take one step."""
    rng, sums = random.Random(seed), dict[str, int]()
    while len(sums) < count:
        wording, answer = rng.choice(TWO_STEPS if len(sums) % 3 == 2 else ONE_STEP)
        a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 5)
        words: dict[str, object] = {"name": rng.choice(NAMES), "things": rng.choice(THINGS)}
        words |= {"a": a, "b": b, "k": c, "s": a + b, "p": b * c}
        sums[wording.format(**words)] = answer(a, b, c)
    return list(sums.items())


def main(count: str, file: str, seed: str = "0", without: str = "") -> None:
    """Write the file."""
    known = set[str]()
    if without:
        with Path(without).open(newline="", encoding="utf-8") as opened:
            known = {row["question"] for row in csv.DictReader(opened)}
    rows = [row for row in word_sums(int(count) + len(known), int(seed)) if row[0] not in known]
    with Path(file).open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["question", "answer"])
        writer.writerows(rows[: int(count)])


if __name__ == "__main__":
    main(*sys.argv[1:])
