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


STORIES = (
    (
        "{name} has {a} {thing}. {friend} gives {name} {b} more, and then {name} loses {c}. "
        "How many {thing} does {name} have now?",
        lambda a, b, c: a + b - c,
    ),
    (
        "{name} buys {c} boxes of {thing} with {b} in each box and already had {a} {thing}. "
        "How many {thing} does {name} have in all?",
        lambda a, b, c: c * b + a,
    ),
    (
        "{name} has {a} {thing}. {friend} has {b} more than {name}. How many {thing} do they have together?",
        lambda a, b, c: 2 * a + b,
    ),
    (
        "A shop had {sum} {thing}. It sold {b} in the morning and {c} in the afternoon. How many {thing} are left?",
        lambda a, b, c: a,
    ),
    (
        "{name} shares {product} {thing} equally among {c} friends. {friend}, one of them, already had {a}. "
        "How many {thing} does {friend} have now?",
        lambda a, b, c: a + b,
    ),
)


def problem(rng: random.Random) -> tuple[str, int]:
    """A question and its answer."""
    name, friend = rng.sample(NAMES, 2)
    a, b, c = rng.randint(11, 60), rng.randint(3, 30), rng.randint(2, 9)
    story, answer = rng.choice(STORIES)
    words = {"name": name, "friend": friend, "thing": rng.choice(THINGS)}
    return story.format(a=a, b=b, c=c, sum=a + b + c, product=b * c, **words), answer(a, b, c)


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
