"""Word problems of one step with small numbers, as data for `task = "file"`.

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
    ("{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", lambda a, b: a + b),
    ("{name} has {sum} {thing} and gives {b} away. How many {thing} does {name} have left?", lambda a, b: a),
    ("{name} has {a} {thing} and {friend} has {b}. How many {thing} do they have together?", lambda a, b: a + b),
    ("There were {sum} {thing} in a box. {name} took {b}. How many {thing} are still in the box?", lambda a, b: a),
)


def problem(rng: random.Random) -> tuple[str, int]:
    """A question and its answer."""
    name, friend = rng.sample(NAMES, 2)
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    story, answer = rng.choice(STORIES)
    text = story.format(a=a, b=b, sum=a + b, name=name, friend=friend, thing=rng.choice(THINGS))
    return f"{text} Answer with the number only.", answer(a, b)


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
