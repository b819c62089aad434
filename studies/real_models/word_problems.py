"""Simple word problems of two steps, made from templates, as data for `task = "file"`.

    python studies/real_models/word_problems.py FOLDER     # writes train.jsonl (600) and test.jsonl (120)

No story occurs on both sides with the same numbers. The wordings are few, so this is far easier than GSM8K.
"""

import json
import random
import sys
from pathlib import Path

NAMES = ("Ada", "Ben", "Chloe", "David", "Ella", "Farid", "Grace", "Hugo", "Iris", "Jonas", "Kim", "Leila")
THINGS = ("apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pencils", "shells", "stamps", "stickers")


def problem(rng: random.Random) -> tuple[str, int]:
    """A question and its answer."""
    name, friend = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    a, b, c = rng.randint(11, 60), rng.randint(3, 30), rng.randint(2, 9)
    kind = rng.randrange(5)
    if kind == 0:
        return f"{name} has {a} {thing}. {friend} gives {name} {b} more, and then {name} loses {c}. How many {thing} does {name} have now?", a + b - c
    if kind == 1:
        return f"{name} buys {c} boxes of {thing} with {b} in each box and already had {a} {thing}. How many {thing} does {name} have in all?", c * b + a
    if kind == 2:
        return f"{name} has {a} {thing}. {friend} has {b} more than {name}. How many {thing} do they have together?", 2 * a + b
    if kind == 3:
        return f"A shop had {a + b + c} {thing}. It sold {b} in the morning and {c} in the afternoon. How many {thing} are left?", a
    return f"{name} shares {b * c} {thing} equally among {c} friends. {friend}, one of them, already had {a}. How many {thing} does {friend} have now?", a + b


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("word problems")
    drawn = list(dict.fromkeys(problem(rng) for _ in range(800)))
    for name, rows in (("train", drawn[120:720]), ("test", drawn[:120])):
        lines = [json.dumps({"question": question, "answer": str(answer)}) for question, answer in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
