"""Write the questions of the second task: chain sums of reasoning-gym (https://github.com/open-thought/reasoning-gym).

    pip install reasoning-gym==0.1.25 && python studies/sample_efficiency/sums/sum_questions.py

Sums of 2 to 8 numbers of one or two digits. Of its wording only the sum is kept: a model of this size is made for it.
No sum of the test is among those of the training, nor one with the same numbers in the same order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from reasoning_gym import create_dataset

HERE = Path(__file__).parent
SIDES = {"train": 1200, "test": 300}
LONGER = 300
"""Sums of 9 to 16 numbers, longer than any in training."""


def sums(count: int, seed: int, terms: tuple[int, int], seen: set[tuple[str, ...]]) -> list[dict[str, str]]:
    """So many different sums whose numbers have not been seen in this order."""
    settings = {"min_terms": terms[0], "max_terms": terms[1], "min_digits": 1, "max_digits": 2}
    found: list[dict[str, str]] = []
    for item in create_dataset("chain_sum", size=4 * count, seed=seed, **settings):
        text = re.search(r"\d.*\d", item["question"])
        assert text is not None, item
        numbers = tuple(re.findall(r"\d+", text[0]))
        if numbers not in seen and len(found) < count:
            seen.add(numbers)
            found.append({"question": text[0], "answer": str(item["answer"])})
    assert len(found) == count
    return found


def main() -> None:
    """Write the files."""
    seen: set[tuple[str, ...]] = set()
    # Question i of seed s is question i - 1 of seed s + 1: far apart they are different ones.
    written = {name: sums(count, 100_000 * place, (2, 8), seen) for place, (name, count) in enumerate(SIDES.items())}
    written["longer"] = sums(LONGER, 900_000, (9, 16), seen)
    for name, rows in written.items():
        lines = [json.dumps(row) for row in rows]
        (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
