"""Make the study's model from procedural data alone: the embedded architecture, warm-started on chains of steps.

    python studies/sample_efficiency/make_model.py --out studies/sample_efficiency/model [--steps N] [--seed S]
        [--longest N] [--positions N]

A round can write three steps in its window of 29 tokens, `<think>47a*3=41b+8=49c-5=44</think><note>44d</note>`; the
note is the number reached and the label of the next step, which the next round looks up in the question. The warm start
teaches the steps, but leaves every round in several minds about how many of them to do and what to note:

    careful   as many steps as fit, and the right note
    one       one step, and the right note: enough for short chains only
    stale     the label of the last step done, which is then done twice
    bare      the number without a label, from which nobody knows how to go on: a round lost
    long      one step too many for the window: the note is cut off
    hasty     (final round) the number that the note holds is taken for the answer
"""

import random
import sys
from collections import Counter
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from motif.config import ChainConfig
from motif.tasks.chain import FACTORS, LABELS, MODULUS, Chain, apply, chains, draw, side_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from make_demo_model import (
    IGNORED,
    RESPONSE,
    Making,
    Row,
    chat_text,
    make_model,
    make_tokenizer,
    note_of,
    prompt_text,
    respond,
    response_text,
    train,
)

FIT = 3  # steps that a window holds
WINDOW = 29  # tokens of a response, <end> included: three steps and a boxed answer
NOTE_TOKENS = 8
SHORTEST, LONGEST = 2, 9
LONGEST_SEEN = 11  # the warm start also sees some longer chains

# How likely each style is, for chains that start with an even and with an odd number.
STYLES = ("careful", "one", "stale", "bare", "long")
EVEN_WEIGHTS = (0.40, 0.20, 0.16, 0.16, 0.08)
ODD_WEIGHTS = (0.16, 0.30, 0.24, 0.22, 0.08)
FINAL_STYLES = ("careful", "hasty", "one")
FINAL_WEIGHTS = (0.70, 0.18, 0.12)

# (round, rounds) and how often it is shown.
PLACES = [
    *[((1, 3), 0.26), ((2, 3), 0.26), ((3, 3), 0.26), ((1, 1), 0.08)],
    *[((1, 2), 0.02), ((2, 2), 0.02), ((2, 4), 0.03), ((3, 4), 0.03), ((4, 4), 0.04)],
]
FACTS_IN_A_ROW = 12
LABELS_SEEN = 16  # of single steps, unless longer chains are shown
FIRST_ROWS = {"facts": 24, "copies": 16, "examples": 0}
LATER_ROWS = {"facts": 6, "copies": 0, "examples": 40}
FIRST_SHARE = 0.3
DEFAULT_STEPS = 1400
# The last stage, at half the learning rate: looking up the step of a label is what takes longest to learn.
LAST_ROWS = {"facts": 4, "copies": 24, "examples": 24}
LAST_STEPS = 500
LAST_RATE = 0.5
LAST_WARMUP = 20


def written(chain: Chain, at: int, count: int, number: int) -> tuple[str, int, int]:
    """A think block of `count` steps from step `at` on, and the place and number that it ends with."""
    end = min(at + count, len(chain.steps))
    text = f"{number:02d}" if end > at else ""
    for place in range(at, end):
        number = apply(chain.steps[place], number)
        text += f"{LABELS[place]}{chain.steps[place]}={number:02d}"
    return text, end, number


def respond_as(style: str, chain: Chain, at: int, number: int) -> str:
    """A response of a round that is not the last, in the given style."""
    count = {"one": 1, "long": FIT + 1}.get(style, FIT)
    text, end, number = written(chain, at, count, number)
    label = {"bare": "", "stale": LABELS[max(end - 1, 0)]}.get(style, LABELS[end])
    return response_text(text, f"{number:02d}{label}")


def final_as(style: str, chain: Chain, at: int, number: int, rng: random.Random) -> str:
    """A final response in the given style; half of those with more steps than fit go on regardless."""
    left = len(chain.steps) - at
    count = {"hasty": 0, "one": 1}.get(style, left if left <= FIT or rng.random() < 0.5 else FIT)
    text, _, number = written(chain, at, count, number)
    return response_text(text, f"\\boxed{{{number:02d}}}")


def example(chain: Chain, round_: int, rounds: int, rng: random.Random) -> tuple[str | None, str]:
    """A note (None for none) and the response that this round gives to it."""
    note, at, number = None, 0, chain.start
    if round_ > 1:
        at = rng.choice([rng.randint(0, len(chain.steps)), min(len(chain.steps), FIT * (round_ - 1))])
        number = chain.states()[at] if rng.random() < 0.5 else rng.randrange(MODULUS)
        note = f"{number:02d}{LABELS[at]}"
        if rng.random() < 0.12:  # a note that says nothing: start again
            note, at, number = rng.choice(("", f"{number:02d}")), 0, chain.start
    if round_ == rounds:
        return note, final_as(rng.choices(FINAL_STYLES, FINAL_WEIGHTS)[0], chain, at, number, rng)
    weights = ODD_WEIGHTS if chain.start % 2 else EVEN_WEIGHTS
    return note, respond_as(rng.choices(STYLES, weights)[0], chain, at, number)


class ChainCorpus:
    """The stream of rows for chains."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, longest: int = 0) -> None:
        self.tokenizer = tokenizer
        self.longest, self.longest_seen = longest or LONGEST, longest or LONGEST_SEEN
        self.labels = LABELS[: max(LABELS_SEEN, self.longest_seen)]
        self.rng = random.Random(seed)

    def rows(self, kind: str, count: int) -> list[Row]:
        """Return so many rows of one kind: single steps, look-ups of labels, or examples of the task format."""
        make = {"facts": self._fact_row, "copies": self._copy_row, "examples": self._example_row}[kind]
        return [make() for _ in range(count)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chain(self, longest: int) -> Chain:
        while True:
            chain = draw(self.rng, SHORTEST, longest)
            if side_of(chain) == "train":
                return chain

    def _example_row(self) -> Row:
        chain = self._chain(self.longest if self.rng.random() < 0.9 else self.longest_seen)
        round_, rounds = self.rng.choices([place for place, _ in PLACES], [weight for _, weight in PLACES])[0]
        note, response = example(chain, round_, rounds, self.rng)
        prompt = self._ids(chat_text(self.tokenizer, prompt_text(chain.text, note, round_, rounds)))
        answer = [*self._ids(response), self.tokenizer.eos_token_id]
        return Row(prompt + answer, [IGNORED] * len(prompt) + answer)

    def _fact_row(self) -> Row:
        """Steps without a question, as a think block writes them; only their results are to be learnt."""
        number, kinds = self.rng.randrange(MODULUS), self.rng.choices("+-*", k=FACTS_IN_A_ROW)
        token_ids = self._ids(f"<think>{number:02d}")
        labels = [IGNORED] * len(token_ids)
        for kind in kinds:
            step = kind + str(self.rng.choice(FACTORS) if kind == "*" else self.rng.randint(1, 9))
            number = apply(step, number)
            given, learnt = self._ids(f"{self.rng.choice(self.labels)}{step}="), self._ids(f"{number:02d}")
            token_ids += given + learnt
            labels += [IGNORED] * len(given) + learnt
        return Row(token_ids, labels)

    def _copy_row(self) -> Row:
        """A question, a note with a label, and the step of that label."""
        chain = self._chain(self.longest_seen)
        at = self.rng.randrange(len(chain.steps))
        number = f"{self.rng.randrange(MODULUS):02d}"
        prompt = prompt_text(chain.text, f"{number}{LABELS[at]}", 2, 3)
        given = [*self._ids(chat_text(self.tokenizer, prompt)), *self._ids("<think>")]
        learnt = self._ids(written(chain, at, 2, int(number))[0])
        return Row(given + learnt, [IGNORED] * len(given) + learnt)


def style_of(chain: Chain, response: str) -> str:
    """Name the style of a first response, taking the numbers in it for right."""
    found = RESPONSE.fullmatch(response)
    if not found:
        return "cut off or malformed"
    note, done = found[2], min(FIT, len(chain.steps))
    if note[2:] == "":
        return "bare"
    if len(note) != 3 or note[2] not in LABELS:
        return "other"
    place = LABELS.index(note[2])
    steps = found[1].count("=")
    if place == steps:
        return "careful" if place == done else "one" if place == 1 else "other"
    return "stale" if place == steps - 1 else "other"


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[Chain], rounds: int, sampled: bool
) -> list[tuple[str, bool]]:
    """Run every chain through its rounds once: the style of the first response, and whether the answer is right."""
    notes: list[str | None] = [None] * len(asked)
    styles: list[str] = []
    right: list[bool] = []
    for round_ in range(1, rounds + 1):
        prompts = [prompt_text(chain.text, note, round_, rounds) for chain, note in zip(asked, notes, strict=True)]
        responses = respond(model, tokenizer, prompts, sampled, WINDOW)
        notes = [note_of(tokenizer, response, NOTE_TOKENS) for response in responses]
        if round_ == 1:
            styles = [style_of(chain, response) for chain, response in zip(asked, responses, strict=True)]
        right = [
            f"\\boxed{{{chain.states()[-1]:02d}}}</note>" in response
            for chain, response in zip(asked, responses, strict=True)
        ]
    return list(zip(styles, right, strict=True))


def share(right: list[bool]) -> float:
    """The share of true values."""
    return round(sum(right) / len(right), 4) if right else 0.0


def warm_start_report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limit: int) -> dict[str, object]:
    """The measured behaviour of the model on held-out chains."""
    asked = chains(ChainConfig(shortest=SHORTEST, longest=LONGEST), "test")[:limit]
    sampled = measure(model, tokenizer, asked, 3, sampled=True)
    counts = Counter(style for style, _ in sampled)
    numbers, kinds = range(MODULUS), [f"{kind}{d}" for kind in "+-" for d in range(1, 10)] + [f"*{d}" for d in FACTORS]
    facts = [(number, step) for number in numbers for step in kinds]
    given = tokenizer([f"<think>{number:02d}c{step}=" for number, step in facts], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        output = model.generate(given, max_new_tokens=2, do_sample=False)  # type: ignore[misc]
    told = tokenizer.batch_decode(output[:, given.shape[1] :])
    return {
        "questions": len(asked),
        "steps_right_greedy": share([text == f"{apply(s, n):02d}" for text, (n, s) in zip(told, facts, strict=True)]),
        "1_round_greedy": share([right for _, right in measure(model, tokenizer, asked, 1, sampled=False)]),
        "3_rounds_greedy": share([right for _, right in measure(model, tokenizer, asked, 3, sampled=False)]),
        "3_rounds_sampled": share([right for _, right in sampled]),
        "3_rounds_sampled_by_length": {
            length: share([r for (_, r), chain in zip(sampled, asked, strict=True) if len(chain.steps) == length])
            for length in range(SHORTEST, LONGEST + 1)
        },
        "first_note_style_share_sampled": {style: round(n / len(asked), 4) for style, n in counts.most_common()},
        "success_by_first_note_style": {style: share([r for s, r in sampled if s == style]) for style in counts},
    }


def main() -> None:
    """Train, save and measure the model."""
    making = Making("Make the study's model from procedural data.")
    option = making.parser.add_argument
    option("--steps", type=int, default=DEFAULT_STEPS)
    option("--last-steps", type=int, default=LAST_STEPS)
    option("--longest", type=int, default=0, help="show chains of up to so many steps, all lengths equally often")
    option("--positions", type=int, default=256, help="tokens of the longest prompt and response")
    options = making.begin()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    model.config.max_position_embeddings = tokenizer.model_max_length = options.positions
    first, last = (ChainCorpus(tokenizer, options.seed + stage, options.longest) for stage in (0, 1))
    rows = {True: FIRST_ROWS, False: LATER_ROWS}
    train(model, first, options.steps, lambda done: rows[done < FIRST_SHARE], after=making.show)
    train(model, last, options.last_steps, lambda done: LAST_ROWS, LAST_RATE, LAST_WARMUP, after=making.show)
    seen = {"longest_seen": options.longest} if options.longest else {}
    making.end(
        model,
        tokenizer,
        {"steps": options.steps, "last_steps": options.last_steps},
        lambda: {"window": WINDOW, **seen, **warm_start_report(model, tokenizer, limit=1000)},
    )


if __name__ == "__main__":
    main()
