"""Make the circuit model from procedural data alone: the embedded model's architecture, warm-started on truth tables.

    python tools/make_circuit_model.py --out DIR [--steps N] [--seed S]

The question is the truth table of a function of a, b, c, d as 16 bits. The careful way takes three rounds, because no
window of 40 tokens holds all of it:

    round 1 folds d away: each two bits become 0, 1, d or D (not d)          01 10 11 00 …  →  dD10…
    round 2 folds c away: each two symbols become a function of c and d      dD 10 …        →  c^d:~c:…
    round 3 writes the multiplexer over a and b and boxes it                 a?b?c^d:~c:b?…:…

The warm start teaches every fold but leaves the first round in several minds: some of its notes carry the whole folded
table on, others only half of it, or only what holds for d = 0, or the table as it was. All randomness comes from the
seed.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

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
from motif.config import CircuitConfig
from motif.grading.circuit import truth_table
from motif.method.answers import boxed
from motif.tasks.circuit import NAMES, TEMPLATES, questions, side_of

WINDOW = 40  # response tokens per round, <end> included: round 2's longest response has 39
NOTE_TOKENS = 24
ROWS = 16

SYMBOLS = {"00": "0", "11": "1", "01": "d", "10": "D"}
PAIR_OF = {symbol: pair for pair, symbol in SYMBOLS.items()}
# The function of c and d with these values at cd = 00, 01, 10, 11.
FUNCTIONS = {
    "0000": "0", "0001": "c&d", "0010": "c&~d", "0011": "c", "0100": "~c&d", "0101": "d", "0110": "c^d",
    "0111": "c|d", "1000": "~c&~d", "1001": "c^~d", "1010": "~d", "1011": "c|~d", "1100": "~c", "1101": "~c|d",
    "1110": "~c|~d", "1111": "1",
}  # fmt: skip

STYLES = ("careful", "rough", "half", "restate")
# Tables with many ones tempt the model to take d for 0, so the likeliest note depends on the question.
EASY_STYLE_WEIGHTS = (0.50, 0.24, 0.14, 0.12)
HARD_STYLE_WEIGHTS = (0.18, 0.58, 0.12, 0.12)
HARD_FROM_ONES = 7

# (situation, share of the examples, [((round, rounds), weight), ...])
SITUATIONS = [
    ("start", 0.30, [((1, 3), 0.80), ((1, 2), 0.08), ((1, 4), 0.12)]),
    ("single", 0.05, [((1, 1), 1.0)]),
    ("lost", 0.07, [((2, 3), 0.45), ((3, 3), 0.40), ((2, 2), 0.05), ((2, 4), 0.05), ((3, 4), 0.05)]),
    ("folded", 0.30, [((2, 3), 0.80), ((3, 3), 0.08), ((2, 2), 0.04), ((2, 4), 0.04), ((3, 4), 0.04)]),
    ("functions", 0.28, [((3, 3), 0.84), ((2, 3), 0.04), ((3, 4), 0.06), ((4, 4), 0.06)]),
]
HALF_SHARE = 0.15  # of the notes that later rounds see, those with half of the table

FIRST_ROWS = {"copies": 14, "examples": 24}
LATER_ROWS = {"copies": 0, "examples": 36}
FIRST_SHARE = 0.2
DEFAULT_STEPS = 1400


# --- the language of notes ---------------------------------------------------------------------------------------


def fold(bits: str) -> str:
    """One symbol for each two bits: what the output is for d = 0 and d = 1."""
    return "".join(SYMBOLS[bits[place : place + 2]] for place in range(0, len(bits), 2))


def unfold(symbols: str) -> str:
    """The bits that fold to these symbols."""
    return "".join(PAIR_OF[symbol] for symbol in symbols)


def rough(bits: str) -> str:
    """The folded table of a function that takes no notice of d: every pair counts by its first bit."""
    return bits[::2]


def functions(symbols: str) -> list[str]:
    """One function of c and d for each two symbols, the last first, as the multiplexer wants them."""
    bits = unfold(symbols)
    return [FUNCTIONS[bits[place : place + 4]] for place in reversed(range(0, len(bits), 4))]


def multiplexer(found: list[str]) -> str:
    """The Verilog expression that chooses among the functions: by b for two of them, by a and b for four."""
    if len(found) == 4:
        return f"a?b?{found[0]}:{found[1]}:b?{found[2]}:{found[3]}"
    return f"b?{found[0]}:{found[1]}"


def spaced(text: str) -> str:
    """The text with a space after each two characters."""
    return " ".join(text[place : place + 2] for place in range(0, len(text), 2))


def opening(bits: str, style: str) -> str:
    """A response to a table of which nothing is known yet, in the given style."""
    if style == "careful":
        return response_text(spaced(bits), fold(bits))
    if style == "half":
        return response_text(spaced(bits[:8]), fold(bits[:8]))
    return response_text("d=0", rough(bits)) if style == "rough" else response_text("", bits)


def style_weights(bits: str) -> tuple[float, ...]:
    """How likely each style is to be shown for this table."""
    return HARD_STYLE_WEIGHTS if bits.count("1") >= HARD_FROM_ONES else EASY_STYLE_WEIGHTS


def example(bits: str, situation: str, final: bool, rng: random.Random) -> tuple[str | None, str]:
    """A note (None for none) of the named kind, and the response that a round gives to it."""
    hasty = response_text("", f"\\boxed{{{multiplexer(functions(rough(bits)))}}}")
    if situation in ("start", "single"):
        style = rng.choices(STYLES, style_weights(bits))[0]
        return None, hasty if final else opening(bits, style)
    if situation == "lost":
        note = rng.choice((bits, bits, bits, "", None))
        return note, hasty if final else opening(bits, "careful")
    # Half of the notes are not this question's, so that the response follows the note.
    symbols = fold(bits) if rng.random() < 0.5 else fold(random_bits(rng))
    if rng.random() < 0.2:
        symbols = rough(unfold(symbols))
    if rng.random() < HALF_SHARE:
        symbols = symbols[:4]
    note = ":".join(functions(symbols))
    if situation == "folded":
        reversed_pairs = " ".join(reversed(spaced(symbols).split()))
        return symbols, hasty if final else response_text(reversed_pairs, note)
    return note, response_text("", f"\\boxed{{{multiplexer(functions(symbols))}}}" if final else note)


def random_bits(rng: random.Random) -> str:
    """A table of the train side."""
    while True:
        bits = f"{rng.getrandbits(ROWS):0{ROWS}b}"
        if side_of(bits) == "train" and len(set(bits)) == 2:
            return bits


class CircuitCorpus:
    """The stream of rows for truth tables."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)

    def rows(self, kind: str, count: int) -> list[Row]:
        """Return so many rows of one kind: copies, or examples of the task format."""
        make = {"copies": self._copy_row, "examples": self._example_row}[kind]
        return [make() for _ in range(count)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _example_row(self) -> Row:
        situation, _, places = self.rng.choices(SITUATIONS, [share for _, share, _ in SITUATIONS])[0]
        round_, rounds = self.rng.choices([place for place, _ in places], [weight for _, weight in places])[0]
        bits = random_bits(self.rng)
        note, response = example(bits, situation, round_ == rounds, self.rng)
        prompt = self._ids(chat_text(self.tokenizer, prompt_text(question_text(bits), note, round_, rounds)))
        answer = [*self._ids(response), self.tokenizer.eos_token_id]
        assert len(answer) <= WINDOW, response
        return Row(prompt + answer, [IGNORED] * len(prompt) + answer)

    def _copy_row(self) -> Row:
        """A string without meaning between quotes, as a note stands in a prompt, and its copy."""
        text = "".join(self.rng.choices("01dDc~&|^:", k=self.rng.randint(4, NOTE_TOKENS)))
        given, learnt = self._ids(f'"{text}"\nRound 2/3.<end><model><think>'), self._ids(f"{text}</think>")
        return Row(given + learnt, [IGNORED] * len(given) + learnt)


def question_text(bits: str) -> str:
    """The question as it is asked."""
    return TEMPLATES["table"].format(names=NAMES, bits=bits)


# --- measurement -------------------------------------------------------------------------------------------------


@dataclass
class Trajectory:
    """One question's rounds as measured."""

    bits: str
    style: str = ""
    right: bool = False
    well_formed: list[bool] = field(default_factory=list)


def style_of(bits: str, response: str) -> str:
    """Name the style of a first-round response."""
    found = RESPONSE.fullmatch(response)
    notes = {fold(bits): "careful", rough(bits): "rough", fold(bits[:8]): "half", bits: "restate"}
    return notes.get(found[2], "other") if found else "other"


def is_right(bits: str, response: str) -> bool:
    """Whether the boxed expression has this truth table."""
    answer = boxed(response)
    try:
        return answer is not None and truth_table.expression(answer, NAMES) == int(bits[::-1], 2)
    except truth_table.Unsupported:
        return False


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tables: list[str], rounds: int, sampled: bool
) -> list[Trajectory]:
    """Run every table through its rounds once."""
    trajectories = [Trajectory(bits) for bits in tables]
    notes: list[str | None] = [None] * len(tables)
    for round_ in range(1, rounds + 1):
        prompts = [
            prompt_text(question_text(t.bits), n, round_, rounds) for t, n in zip(trajectories, notes, strict=True)
        ]
        responses = respond(model, tokenizer, prompts, sampled, WINDOW)
        for trajectory, response in zip(trajectories, responses, strict=True):
            trajectory.well_formed.append(RESPONSE.fullmatch(response) is not None)
            trajectory.right = is_right(trajectory.bits, response)
            if round_ == 1:
                trajectory.style = style_of(trajectory.bits, response)
        notes = [note_of(tokenizer, response, NOTE_TOKENS) for response in responses]
    return trajectories


def accuracy(trajectories: list[Trajectory]) -> float:
    """The share of trajectories that end in a right expression."""
    return round(sum(trajectory.right for trajectory in trajectories) / len(trajectories), 4)


def shares(trajectories: list[Trajectory]) -> dict[str, float]:
    """The share of each style of first note."""
    counts = Counter(trajectory.style for trajectory in trajectories)
    return {style: round(count / len(trajectories), 4) for style, count in counts.most_common()}


def warm_start_report(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limit: int, repeats: int
) -> dict[str, object]:
    """The measured behaviour of the model on held-out truth tables."""
    tables = [question.text[-ROWS:] for question in questions(CircuitConfig(), "test")[:limit]]
    sampled = measure(model, tokenizer, tables * repeats, 3, sampled=True)
    greedy = measure(model, tokenizer, tables, 3, sampled=False)
    formed = [good for trajectory in sampled for good in trajectory.well_formed]
    by_style = {style: [t for t in sampled if t.style == style] for style in (*STYLES, "other")}
    return {
        "questions": len(tables),
        "1_round_greedy": accuracy(measure(model, tokenizer, tables, 1, sampled=False)),
        "3_rounds_greedy": accuracy(greedy),
        "3_rounds_sampled": accuracy(sampled),
        "success_by_first_note_style": {style: accuracy(kept) for style, kept in by_style.items() if kept},
        "first_note_style_share_sampled": shares(sampled),
        "first_note_style_share_greedy": shares(greedy),
        "well_formed_responses_sampled": round(sum(formed) / len(formed), 4),
    }


# --- command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Train, save and measure the model."""
    making = Making("Make the circuit model from procedural data.")
    making.parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    options = making.begin()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    corpus = CircuitCorpus(tokenizer, options.seed)
    rows = {False: LATER_ROWS, True: FIRST_ROWS}
    train(model, corpus, options.steps, lambda done: rows[done < FIRST_SHARE], after=making.show)
    making.end(
        model,
        tokenizer,
        {"steps": options.steps},
        lambda: {"window": WINDOW, **warm_start_report(model, tokenizer, limit=500, repeats=4)},
    )


if __name__ == "__main__":
    main()
