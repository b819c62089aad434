"""How often the maths and the numeric rule are fooled, and how often they refuse what is right.

    python tests/campaigns/answers.py --json docs/performance/answers.json && python tools/pages.py

The wrong answers are made from templates of the kinds that fooled graders before: hedges, junk that ends in the gold
answer, letters in another order, zero for a tiny gold, dates read as differences, several bounds, words that change a
number. The right ones are those of `tests/cases/right_phrasings.txt`, each as four families of models write it. Both
were written before the table was made, and the rules were mended with their failures in view; so the table says what
the rules do on these kinds, not what they do on kinds that nobody thought of.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from motif.grading.math.rule import Math
from motif.grading.numeric import Numeric, number
from motif.method.answers import final

CASES = Path(__file__).parents[1] / "cases"
PHRASINGS, TEMPLATES = CASES / "right_phrasings.txt", CASES / "wrong_answers.json"

RULES = (Math(), Numeric())
HANGING = (
    "9^{9^{9}}",
    "100000000!",
    "9^{9^{9^{9}}}",
    "(" * 300 + ")" * 300,
    "(" * 900 + "1" + ")" * 900,
    r"\frac{1}{" * 60 + "2" + "}" * 60,
    "2^{2^{2^{2^{2^{2}}}}}",
    "((9!)!)!",
    r"\binom{10^9}{10^8}",
    "10**10**10",
    "+".join(["x^9"] * 200),
    "x" * 900,
    r"\sqrt{" * 200 + "2" + "}" * 200,
    "1," * 900 + "1",
    r"\pm 1" * 40,
    "e^{e^{e^{e^{9}}}}",
    r"\sum_{k=1}^{10^9} k",
    "0." + "3" * 1900,
    "9" * 1999,
    r"\prod_{n=1}^{\infty} 2",
    "|" * 300 + "x" + "|" * 300,
    r"\arcsin 2 + \tan(90^\circ)",
    r"\frac{x}{\sin(\pi)}",
    r"\sqrt[3]{10000!}",
    "(2^{1000})^{200}+x",
    "+".join(f"{k}!" for k in range(9000, 9200)),
)
HUNG_GOLDS = ("42", r"\frac{1}{2}", "x+1", "(1,2)", r"\sqrt{2}", "ABD")


def wrong() -> Iterator[tuple[str, str, str]]:
    """The kind, the gold answer, and an answer that must not be right."""
    data: dict[str, Any] = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    for (gold, other), form in itertools.product(data["golds"].items(), data["hedges"]):
        yield "hedges and denials", gold, form.format(g=gold, w=other)
    for gold, form in itertools.product(("5", "42", r"\frac{3}{4}", "12.5", r"\sqrt{2}"), data["junk"]):
        yield "junk that ends in the gold", gold, form.format(g=gold)
    for word, form in itertools.product(data["changing"], ("5 {w}", r"5 \text{{ {w}}}", r"\text{{5 {w}}}")):
        yield "words that change a number", "5", form.format(w=word)
    for gold, zero in itertools.product(data["tiny"], data["zeros"]):
        if number(gold) != number(zero):
            yield "zero for a tiny gold", gold, zero
    for word in data["words"]:
        yield from (("letters in another order", word, answer) for answer in _orders(word))
    for gold, answers in data["apart"].items():
        yield from (("another value of its type", gold, answer) for answer in answers)
    for gold, answer in itertools.product(HUNG_GOLDS, HANGING):
        yield "answers that hang", gold, answer


def _orders(word: str) -> Iterator[str]:
    orders = {"".join(order) for order in itertools.islice(itertools.permutations(word), 1, 400)} - {word}
    for order in sorted(orders)[:: max(1, len(orders) // 9)]:
        yield order
        if len(word) > 2:
            yield ", ".join(order)


_AS_UNICODE = (
    (r"\\times", "×"), (r"\\pi(?![a-z])", "π"), (r"\\le(?![a-z])", "≤"), (r"\\ge(?![a-z])", "≥"), (r"\\infty", "∞"),
    (r"\\ne(?![a-z])", "≠"), (r"\\cup", "∪"), (r"\\pm", "±"), (r"\^\\circ", "°"), (r"\\mathbb\{R\}", "ℝ"),
    (r"\\in(?![a-z])", "∈"), (r"\\sqrt\{(\w+)\}", r"√\1"), (r"\^2(?!\d)", "²"), (r"\^\{10\}", "¹⁰"),
    (r"\\text\{([^{}]*)\}", r"\1"), (r"\\(?:emptyset|varnothing)", "∅"), (r"(?<![\w}])-(?=\d)", "−"),
)  # fmt: skip


def _unicode(text: str) -> str:
    for old, new in _AS_UNICODE:
        text = re.sub(old, new, text)
    return text


def _typeset(text: str) -> str:
    text = text.replace(r"\frac", r"\dfrac").replace(r"\text{ ", r"\,\text{").replace(r"\mid", r"\;\middle|\;")
    if re.fullmatch(r"\([^()]*,[^()]*\)", text):
        text = rf"\left{text[:-1]}\right)"
    return text


FAMILIES: dict[str, tuple[Callable[[str], str], str]] = {
    "typeset, in a sentence": (_typeset, "Therefore, the answer is:\n\n$$\\boxed{{{a}}}$$"),
    "plain, with a closing line": (lambda text: text, "The final answer is $\\boxed{{{a}}}$. I hope it is correct."),
    "Unicode": (_unicode, "**Final Answer:** \\boxed{{{a}}} 🎉"),
    "Markdown, display mathematics": (
        lambda text: f" {text}. " if text[-1].isalnum() else text,
        "### Answer\n\\[\n\\boxed{{{a}}}\n\\]\n✅ Checked with n = 7.",
    ),
}


def right() -> Iterator[tuple[str, str, str]]:
    """The family, the gold answer, and a whole response whose answer is right."""
    lines = PHRASINGS.read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        gold, answer = line.split("\t")
        for family, (write, around) in FAMILIES.items():
            yield family, gold, around.format(a=write(answer))


def count() -> dict[str, Any]:
    """How many of each kind there are, the errors of both rules, and the slowest verdict in seconds of computing."""
    kinds: dict[str, dict[str, Any]] = {}
    errors: list[tuple[str, ...]] = []
    slowest = 0.0
    for want, answers in (("wrong", wrong()), ("right", right())):
        for kind, gold, text in answers:
            row = kinds.setdefault(kind, {"want": want, "math": 0, "of_math": 0, "numeric": 0, "of_numeric": 0})
            answer = text if want == "wrong" else final(text) or ""
            for rule in RULES if number(gold) is not None else RULES[:1]:
                started = time.process_time()
                verdict = rule.grade(gold, answer).verdict
                slowest = max(slowest, time.process_time() - started)
                row[f"of_{rule.name}"] += 1
                if verdict != want:
                    row[rule.name] += 1
                    errors.append((rule.name, want, gold, answer))
    return {"kinds": kinds, "errors": errors, "slowest": slowest}


def main() -> None:
    """Print the errors, and write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    found = count()
    for error in found["errors"]:
        print(*error, sep=" | ")
    for kind, row in found["kinds"].items():
        print(kind, row)
    print(f"slowest verdict: {found['slowest']:.2f} s of computing")
    if arguments.json:
        arguments.json.write_text(json.dumps(found["kinds"], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
