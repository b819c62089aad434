"""Make the model of the second task from procedural data alone, as ../make_model.py makes that of the chains.

    python studies/sample_efficiency/sums/make_sums_model.py --out DIR [--steps N] [--seed S]

A note is the sum that is left: of `12 + 34 - 7 + 5` a round of two additions writes `12+34=46-7=39` and notes `39+5`,
so the state is a public task's own question, shortened. A window of 48 tokens holds three additions and what is left
of eight numbers. The warm start teaches the additions, but leaves every round in several minds:

    careful   as many additions as fit, and what is left
    one       one addition, and what is left
    stale     what is left, with the last number that was added once more
    bare      the number alone: the rest of the sum is lost
    hasty     (final round) the number that the note begins with is taken for the answer
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
from make_demo_model import (
    IGNORED,
    Making,
    Row,
    chat_text,
    make_model,
    make_tokenizer,
    prompt_text,
    respond,
    response_text,
    train,
)

HERE = Path(__file__).parent
FIT = 3
WINDOW = 48
LONGEST = 8
LONGEST_SEEN = 10
STYLES = ("careful", "one", "stale", "bare")
WEIGHTS = (0.30, 0.28, 0.21, 0.21)
FINAL_STYLES = ("careful", "hasty", "one")
FINAL_WEIGHTS = (0.70, 0.18, 0.12)
PLACES = [((1, 3), 0.27), ((2, 3), 0.27), ((3, 3), 0.27), ((1, 1), 0.09), ((1, 2), 0.05), ((2, 2), 0.05)]
FIRST_ROWS = {"facts": 40, "examples": 0}
LATER_ROWS = {"facts": 16, "examples": 32}
FIRST_SHARE = 0.3
DEFAULT_STEPS = 2000
MOST = 99 * LONGEST_SEEN

Terms = list[int]
"""The signed numbers of a sum, the first of which is what has been reached."""


def spelled(terms: Terms, gap: str = "") -> str:
    """A sum as a note has it; with a gap of one space, as the question has it."""
    signs = [f"{gap}{'-' if term < 0 else '+'}{gap}{abs(term)}" for term in terms[1:]]
    return str(terms[0]) + "".join(signs)


def added(terms: Terms, count: int) -> tuple[str, Terms]:
    """A think block of so many additions, and the sum that is left."""
    count = min(count, len(terms) - 1)
    text, number = (str(terms[0]), terms[0]) if count else ("", terms[0])
    for term in terms[1 : count + 1]:
        number += term
        text += f"{'-' if term < 0 else '+'}{abs(term)}={number}"
    return text, [number, *terms[count + 1 :]]


def respond_as(style: str, terms: Terms) -> str:
    """A response of a round that is not the last."""
    text, left = added(terms, 1 if style == "one" else FIT)
    if style == "bare":
        left = left[:1]
    elif style == "stale" and len(left) < len(terms):
        left = [left[0], terms[len(terms) - len(left)], *left[1:]]
    return response_text(text, spelled(left))


def final_as(style: str, terms: Terms, rng: random.Random) -> str:
    """A final response: what is left is added as far as the style goes, and the number reached is the answer.

    Half of the careful ones go on to the end, whatever the window: a long one has to be known, too.
    """
    text, left = added(terms, {"hasty": 0, "one": 1}.get(style, len(terms) if rng.random() < 0.5 else FIT))
    return response_text(text, f"\\boxed{{{left[0]}}}")


class SumCorpus:
    """The stream of rows for sums; those of the test file are left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer, self.rng = tokenizer, random.Random(seed)
        tests = [HERE / "test.jsonl", HERE / "longer.jsonl"]
        rows = [json.loads(line) for file in tests if file.is_file() for line in file.read_text().splitlines()]
        self.left_out = {row["question"] for row in rows}

    def rows(self, kind: str, count: int) -> list[Row]:
        """Return so many rows of one kind: additions, or examples of the task format."""
        make = {"facts": self._fact_row, "examples": self._example_row}[kind]
        return [make() for _ in range(count)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _terms(self, count: int) -> Terms:
        lowest, highest = self.rng.choice([(1, 9), (10, 99)])  # as the questions: all of one digit, or all of two
        numbers = [self.rng.randint(lowest, highest) for _ in range(count)]
        return [numbers[0], *(number * self.rng.choice((1, -1)) for number in numbers[1:])]

    def _fact_row(self) -> Row:
        """Additions without a question; only their results are to be learnt."""
        terms = [self.rng.randint(-MOST, MOST), *self._terms(9)[1:]]
        ids = self._ids(f"<think>{terms[0]}")
        labels, number = [IGNORED] * len(ids), terms[0]
        for term in terms[1:]:
            number += term
            given, learnt = self._ids(f"{'-' if term < 0 else '+'}{abs(term)}="), self._ids(str(number))
            ids += given + learnt
            labels += [IGNORED] * len(given) + learnt
        return Row(ids, labels)

    def _example_row(self) -> Row:
        round_, rounds = self.rng.choices([place for place, _ in PLACES], [weight for _, weight in PLACES])[0]
        longest = LONGEST if self.rng.random() < 0.9 else LONGEST_SEEN
        terms = self._terms(self.rng.randint(2, longest))
        while spelled(terms, " ") in self.left_out:
            terms = self._terms(len(terms))
        question, note = spelled(terms, " "), None
        if round_ > 1:
            done = self.rng.choice([self.rng.randint(0, len(terms) - 1), min(len(terms) - 1, FIT * (round_ - 1))])
            _, terms = added(terms, done)
            if self.rng.random() < 0.5:  # follow the note, whatever the question says
                terms = [self.rng.randint(-MOST, MOST), *terms[1:]]
            note = spelled(terms)
        if round_ == rounds:
            response = final_as(self.rng.choices(FINAL_STYLES, FINAL_WEIGHTS)[0], terms, self.rng)
        else:
            response = respond_as(self.rng.choices(STYLES, WEIGHTS)[0], terms)
        prompt = self._ids(chat_text(self.tokenizer, prompt_text(question, note, round_, rounds)))
        answer = [*self._ids(response), self.tokenizer.eos_token_id]
        return Row(prompt + answer, [IGNORED] * len(prompt) + answer)


def main() -> None:
    """Train, save and measure the model."""
    making = Making("Make the second task's model from procedural data.")
    making.parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    options = making.begin()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    corpus = SumCorpus(tokenizer, options.seed)
    rows = {True: FIRST_ROWS, False: LATER_ROWS}
    train(model, corpus, options.steps, lambda done: rows[done < FIRST_SHARE], after=making.show)

    def measured() -> dict[str, object]:
        facts = [corpus._terms(2) for _ in range(200)]
        prompts = [prompt_text(spelled(terms, " "), None, 1, 1) for terms in facts]
        told = respond(model, tokenizer, prompts, False, WINDOW)
        right = [f"\\boxed{{{sum(terms)}}}" in text for terms, text in zip(facts, told, strict=True)]
        return {"window": WINDOW, "two_numbers_in_one_round_greedy": sum(right) / len(right)}

    making.end(model, tokenizer, {"steps": options.steps}, measured)


if __name__ == "__main__":
    main()
