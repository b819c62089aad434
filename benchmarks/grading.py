"""Verdicts a second: motif's graders against calling math-verify in a loop.

* gsm8k: whole numbers as GSM8K's answers are, written as models write them (18, $18, 18 dollars, 18.00, 1,234), half of
  them wrong.
* math: the reference answers and predictions of `tests/cases/math_answers.jsonl` that are no plain numbers.

Every question is answered `--answers` times, as in a group of responses: some of the answers are equal, and are judged
once by motif. `distinct` is the same without repeats. The loop is `verify(parse(gold), parse(prediction))` with its own
time limits, the gold parsed once per question. Workers are warm on both sides. `ratios` are motif's verdicts per second
÷ the loop's, the median over rounds in which both ran in turns.

The second table is agreement with the labelled cases (their origin and rules stand beside them). False positives are
wrong answers called right. `contestable` labels are those on which careful people differ.

    python benchmarks/grading.py --json grading.json
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import interleaved, parser, ratios, table, write

from motif.grading import Grader
from motif.grading.math.quantity import quantity
from motif.method.answers import final

CASES = Path(__file__).parents[1] / "tests" / "cases" / "math_answers.jsonl"
WRITTEN = (
    "{n}",
    "{n}",
    "{n}",
    "${n}",
    "{n} dollars",
    "{n}.00",
    "{n:,}",
    r"{n}\text{{ apples}}",
    "{m}",
    "{m}",
    "{m}",
    "{k}",
)

Pairs = list[tuple[str, str]]


def gsm8k(count: int, answers: int, rng: random.Random) -> Pairs:
    """Gold and prediction of `count` questions with `answers` answers each."""
    pairs = []
    for _ in range(count):
        gold = rng.choice([rng.randrange(100), rng.randrange(100_000)])
        near = gold + rng.choice([-10, -1, 1, 10])
        pairs += [(str(gold), rng.choice(WRITTEN).format(n=gold, m=near, k=rng.randrange(100))) for _ in range(answers)]
    return pairs


def math(count: int, answers: int, rng: random.Random) -> Pairs:
    """The same from the labelled cases; the predictions of other cases with the same gold come along."""
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["form"] == "answer" and quantity(row["gold"]) is None:
            found.setdefault(row["gold"], [row["gold"]]).append(row["prediction"])
    golds = rng.sample(sorted(found), min(count, len(found)))
    return [(gold, rng.choice(found[gold])) for gold in golds for _ in range(answers)]


def ours(pairs: Pairs, workers: int) -> Callable[[int], float]:
    """Verdicts a second with nothing judged before."""
    pool = Grader("math", workers=workers)
    pool.grade_many([(f"x+{i}", f"{i}+x") for i in range(workers * 4)])  # warm

    def run(repeat: int) -> float:
        pool._cache.clear()
        start = time.perf_counter()
        pool.grade_many(pairs)
        return len(pairs) / (time.perf_counter() - start)

    return run


def loop(pairs: Pairs) -> Callable[[int], float]:
    """Verdicts a second of math-verify as its documentation shows it."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def run(repeat: int) -> float:
        start = time.perf_counter()
        golds: dict[str, Any] = {}
        for gold, prediction in pairs:
            if gold not in golds:
                golds[gold] = parse(f"\\boxed{{{gold}}}")
            verify(golds[gold], parse(f"\\boxed{{{prediction}}}"))
        return len(pairs) / (time.perf_counter() - start)

    return run


def agreement(every: int) -> dict[str, dict[str, int]]:
    """Errors by origin of the case, and those on contestable labels apart, of one case in `every`."""
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()][::every]
    with Grader("math", workers=2) as grader:
        pairs = [
            (row["gold"], row["prediction"])
            if row["form"] == "answer"
            else (row["gold"], final(row["prediction"], row.get("fallback", "none")))
            for row in rows
        ]
        grades = grader.grade_many(pairs)
    counts: dict[str, dict[str, int]] = {}
    for row, grade in zip(rows, grades, strict=True):
        contestable = "contestable" in row.get("note", "")
        origin = "contestable" if contestable else "ours" if "ours" in row["origin"] else "published"
        mine = counts.setdefault(
            origin, dict.fromkeys(("right", "wrong", "false positives", "false negatives", "ungraded"), 0)
        )
        mine[row["label"]] += 1
        if grade.verdict == "ungraded":
            mine["ungraded"] += 1
        elif grade.verdict != row["label"]:
            mine["false positives" if grade.verdict == "right" else "false negatives"] += 1
    return counts


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--questions", type=int, default=100)
    options.add_argument("--answers", type=int, default=32, help="to each question (default: %(default)s, m × k)")
    options.add_argument("--workers", type=int, default=1)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.questions, arguments.answers, arguments.repeats = 3, 4, 1
    result: dict[str, Any] = {"setting": vars(arguments) | {"json": None}, "verdicts_per_second": {}, "ratios": {}}
    rows = []
    for name, make in (("gsm8k", gsm8k), ("math", math)):
        pairs = make(arguments.questions, arguments.answers, random.Random(0))
        for key, chosen in ((name, pairs), (f"{name}_distinct", list(dict.fromkeys(pairs)))):
            found = interleaved({"motif": ours(chosen, arguments.workers), "loop": loop(chosen)}, arguments.repeats)
            share = ratios(found["motif"], found["loop"])
            result["verdicts_per_second"][key], result["ratios"][key] = found, share
            rows.append((key, len(chosen), *(round(statistics.median(found[one])) for one in found), share))
    table("Verdicts a second", ["answers", "how many", "motif", "math-verify in a loop", "motif ÷ loop"], rows)
    result["agreement"] = found_agreement = agreement(20 if arguments.quick else 1)
    columns = ["right", "wrong", "false positives", "false negatives", "ungraded"]
    rows = [(origin, *(counts[column] for column in columns)) for origin, counts in found_agreement.items()]
    table("Agreement with the labelled cases", ["cases", *columns], rows)
    write(arguments.json, result)


if __name__ == "__main__":
    main()
