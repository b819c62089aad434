"""Make the demonstration model from procedural data alone: tokenizer, chat template, warm start, measurements.

    python tools/make_demo_model.py --out DIR [--steps N] [--seed S]

The warm start teaches a tiny character-level Llama the three-round response format and the arithmetic each round
needs, but leaves the first round in several minds: some of its notes carry the unfinished sum on, others lose it. That
is what a reward on the first note has to work with. With the default settings training took 37 minutes on one core of
a busy two-core machine (AMD EPYC, AVX2). All randomness comes from the seed.
"""

import argparse
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from motif.config import ArithmeticConfig
from motif.tasks.arithmetic import questions

WINDOW = 24  # response tokens per round, <end> included: the longest step, 8910+891=9801 boxed, just fits
NOTE_TOKENS = 16
IGNORED = -100

SPECIAL_TOKENS = ["<pad>", "<end>", "<unk>", "<user>", "<model>", "<system>"]
MARKUP_TOKENS = ["<think>", "</think>", "<note>", "</note>", "\\boxed{"]
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n", "×", "÷", "−", "≈", "…", "–", "‘", "’", "“", "”", "→"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<model>' if message['role'] == 'assistant' else '<' + message['role'] + '>' }}"
    "{{ message['content'] }}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)

# How a first-round response ends up: only "careful" passes on everything that the next round needs.
STYLES = ("careful", "round", "restate", "guess")
# Large second factors tempt the model to drop the small partial product, so the likeliest note depends on the question.
EASY_STYLE_WEIGHTS = (0.50, 0.24, 0.13, 0.13)
HARD_STYLE_WEIGHTS = (0.28, 0.46, 0.13, 0.13)
HARD_FROM_TENS = 5

EXACT_GUESS_SHARE = 0.20
GUESS_SPREAD = 0.05

# (situation, share of the task-format examples, [((round, rounds), weight), ...])
MULTIPLY_SITUATIONS = [
    ("start", 0.25, [((1, 3), 0.80), ((1, 2), 0.08), ((1, 4), 0.12)]),
    ("lost", 0.06, [((2, 3), 0.40), ((3, 3), 0.40), ((2, 2), 0.06), ((2, 4), 0.05), ((3, 4), 0.05), ((4, 4), 0.04)]),
    ("partial", 0.20, [((2, 3), 0.70), ((3, 3), 0.15), ((2, 2), 0.05), ((2, 4), 0.05), ((3, 4), 0.03), ((4, 4), 0.02)]),
    ("sum", 0.25, [((3, 3), 0.75), ((2, 3), 0.09), ((3, 4), 0.08), ((2, 4), 0.03), ((4, 4), 0.03), ((2, 2), 0.02)]),
    ("number", 0.09, [((2, 3), 0.40), ((3, 3), 0.40), ((2, 2), 0.05), ((2, 4), 0.05), ((3, 4), 0.05), ((4, 4), 0.05)]),
    ("single", 0.07, [((1, 1), 1.0)]),
]
ADD_SITUATIONS = [
    ("start", 0.04, [((1, 3), 0.8), ((1, 2), 0.1), ((1, 4), 0.1)]),
    ("number", 0.02, [((2, 3), 0.4), ((3, 3), 0.4), ((2, 2), 0.05), ((2, 4), 0.05), ((3, 4), 0.05), ((4, 4), 0.05)]),
    ("single", 0.07, [((1, 1), 1.0)]),
]

# Rows per step of each kind. Copying is learnt first because every round's response begins by copying numbers.
FIRST_ROWS = {"facts": 32, "copies": 14, "examples": 0}
LATER_ROWS = {"facts": 24, "copies": 0, "examples": 20}
FIRST_SHARE = 0.2
MATRIX_RATE = 0.02
OTHER_RATE = 3e-3
MATRIX_MOMENTUM = 0.95
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 50
DEFAULT_STEPS = 2500

# Then a shorter stage at half the rate, on openings above all: few rows of the first stage hold a careful note, so the
# digit that such a note must carry over from the question is learnt last.
LAST_STEPS = 600
LAST_ROWS = {"facts": 24, "copies": 0, "examples": 40}
LAST_SHARES = {"start": 0.50, "lost": 0.04, "partial": 0.14, "sum": 0.20, "number": 0.03, "single": 0.04}
LAST_RATE = 0.5
LAST_WARMUP_STEPS = 20


# --- tokenizer ---------------------------------------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the character-level tokenizer, in which each markup and special token is one token."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS + MARKUP_TOKENS + CHARACTERS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>", "<system>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=256,
    )


# --- the language of prompts and responses -----------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A two-number question, with the partial products that the careful chain splits a product into."""

    operation: str
    first: int
    second: int

    @property
    def text(self) -> str:
        """The question as it is asked."""
        return f"What is {self.first} {'×' if self.operation == 'multiply' else '+'} {self.second}?"

    @property
    def answer(self) -> int:
        """The right answer."""
        return self.first * self.second if self.operation == "multiply" else self.first + self.second

    @property
    def tens(self) -> int:
        """The whole tens of the second number."""
        return self.second - self.second % 10

    @property
    def ones(self) -> int:
        """The last digit of the second number."""
        return self.second % 10


def problems(operation: str, split: str) -> list[Problem]:
    """Return the two-digit questions of one split as problems."""
    numbers = (
        re.findall(r"\d+", question.text) for question in questions(ArithmeticConfig(operation=operation), split)
    )
    return [Problem(operation, int(first), int(second)) for first, second in numbers]


def prompt_text(question: str, note: str | None, round_: int, rounds: int) -> str:
    """Return the user message of one round, in the wording of the package's prompts without a system message."""
    lines = [question]
    if note is not None:
        lines.append(f'Note {round_ - 1}: "{note}"')
    lines.append(f"Round {round_}/{rounds}, final." if round_ == rounds else f"Round {round_}/{rounds}.")
    return "\n".join(lines)


def response_text(think: str, note: str) -> str:
    """Return a response in the format that every round uses."""
    return f"<think>{think}</think><note>{note}</note>"


def guess(problem: Problem, rng: random.Random) -> int:
    """Return a number of the right magnitude and last digit that is seldom the product."""
    if rng.random() < EXACT_GUESS_SHARE:
        return problem.answer
    tens_off = max(1, round(abs(rng.gauss(0, GUESS_SPREAD)) * problem.answer / 10))
    guessed = problem.answer + rng.choice((-10, 10)) * tens_off
    return guessed if guessed > 0 else problem.answer + 10 * tens_off


def opening(problem: Problem, style: str, rng: random.Random) -> str:
    """Return a response to a product of which nothing is known yet, in the given style."""
    first, second = problem.first, problem.second
    partial = first * problem.tens
    if style == "careful":
        return response_text(f"{first}*{problem.tens}={partial}", f"{partial}+{first}*{problem.ones}")
    if style == "round":
        return response_text(f"{first}*{problem.tens}={partial}", f"{partial}")
    if style == "restate":
        return response_text(f"{first}*{second}", f"{first}*{second}")
    return response_text("", f"{guess(problem, rng)}")


def multiply_example(problem: Problem, situation: str, final: bool, rng: random.Random) -> tuple[str | None, str]:
    """Return a note (None for none) of the named kind and the response that a product's round gives to it."""
    first = problem.first
    # Half of the notes carry numbers that are not this question's, so that the response follows the note.
    large = first * problem.tens if rng.random() < 0.5 else 10 * rng.randint(10, 891)
    small = first * problem.ones if rng.random() < 0.5 else rng.randint(10, 99) * rng.randint(0, 9)
    if situation in ("start", "single", "lost"):
        note = None
        if situation == "lost":
            note = rng.choice((f"{first}*{problem.second}", f"{first}*{problem.second}", "", None))
        if final:
            return note, response_text("", f"\\boxed{{{guess(problem, rng)}}}")
        if situation == "lost":
            return note, opening(problem, "careful", rng)
        weights = HARD_STYLE_WEIGHTS if problem.tens >= 10 * HARD_FROM_TENS else EASY_STYLE_WEIGHTS
        return note, opening(problem, rng.choices(STYLES, weights)[0], rng)
    if situation == "partial":
        note = f"{large}+{first}*{problem.ones}"
        if final:
            return note, response_text("", f"\\boxed{{{guess(problem, rng)}}}")
        rest = first * problem.ones
        return note, response_text(f"{first}*{problem.ones}={rest}", f"{large}+{rest}")
    if situation == "sum":
        total = large + small
        boxed = f"\\boxed{{{total}}}" if final else f"{total}"
        return f"{large}+{small}", response_text(f"{large}+{small}={total}", boxed)
    return number_example(rng.choice((large, large + small, guess(problem, rng))), final, rng)


def add_example(problem: Problem, situation: str, final: bool, rng: random.Random) -> tuple[str | None, str]:
    """Return a note (None for none) of the named kind and the response that a sum's round gives to it."""
    if situation == "number":
        return number_example(rng.choice((problem.answer, rng.randint(11, 199))), final, rng)
    return None, response_text("", f"\\boxed{{{problem.answer}}}" if final else f"{problem.answer}")


def number_example(number: int, final: bool, rng: random.Random) -> tuple[str, str]:
    """Return a note that holds a bare or boxed number and the response that takes it as the result."""
    boxed = f"\\boxed{{{number}}}"
    return boxed if rng.random() < 0.1 else f"{number}", response_text("", boxed if final else f"{number}")


# --- training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One training sequence; `labels` is IGNORED wherever nothing is to be learnt."""

    token_ids: list[int]
    labels: list[int]


class Rows(Protocol):
    """An endless, seeded stream of training rows of several kinds."""

    def rows(self, kind: str, count: int) -> list[Row]:
        """Return so many rows of one kind."""
        ...


class Corpus:
    """The stream of rows for products and sums."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, seed: int, multiply_shares: dict[str, float] | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.add_problems = problems("add", "train")
        shares = multiply_shares or {}
        situations = [(name, shares.get(name, share), places) for name, share, places in MULTIPLY_SITUATIONS]
        sources = [
            (problems("multiply", "train"), multiply_example, situations),
            (self.add_problems, add_example, ADD_SITUATIONS),
        ]
        self.situations = [(pool, make, entry) for pool, make, entries in sources for entry in entries]
        self.shares = [entry[1] for _, _, entry in self.situations]

    def rows(self, kind: str, count: int) -> list[Row]:
        """Return so many rows of one kind: bare facts, copies, or examples of the task format."""
        make = {"facts": self._fact_row, "copies": self._copy_row, "examples": self._example_row}[kind]
        return [make() for _ in range(count)]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _example_row(self) -> Row:
        pool, make, (situation, _, rounds_weights) = self.rng.choices(self.situations, self.shares)[0]
        problem = self.rng.choice(pool)
        places, weights = zip(*rounds_weights, strict=True)
        round_, rounds = self.rng.choices(places, weights)[0]
        note, response = make(problem, situation, round_ == rounds, self.rng)
        prompt = self._ids(chat_text(self.tokenizer, prompt_text(problem.text, note, round_, rounds)))
        answer = [*self._ids(response), self.tokenizer.eos_token_id]
        assert len(answer) <= WINDOW, response
        return Row(prompt + answer, [IGNORED] * len(prompt) + answer)

    def _fact_row(self) -> Row:
        """One sum or partial product as a think block writes it, to be learnt from the = on."""
        question, answer = self._fact()
        given, learnt = self._ids(f"<think>{question}="), self._ids(f"{answer}</think>")
        return Row(given + learnt, [IGNORED] * len(given) + learnt)

    def _copy_row(self) -> Row:
        """A string without meaning between quotes, as a note stands in a prompt, and its copy."""
        text = "".join(self.rng.choices("0123456789+*", k=self.rng.randint(4, 24)))
        between = self.rng.choice(("", "\nRound 2/3.<end><model>", "\nRound 3/3, final.<end><model>"))
        given, learnt = self._ids(f'"{text}"{between}<think>'), self._ids(f"{text}</think>")
        return Row(given + learnt, [IGNORED] * len(given) + learnt)

    def _fact(self) -> tuple[str, int]:
        kind = self.rng.choices(("product", "sum", "small sum"), (0.45, 0.45, 0.1))[0]
        if kind == "small sum":
            problem = self.rng.choice(self.add_problems)
            return f"{problem.first}+{problem.second}", problem.answer
        factor, digit = self.rng.randint(10, 99), self.rng.randint(0, 9)
        if kind == "product":
            # Whole tens are a partial product of ten questions each, so none of them is left out as held out.
            tenfold = 10 if digit and self.rng.random() < 0.6 else 1
            return f"{factor}*{digit * tenfold}", factor * digit * tenfold
        large, small = 10 * self.rng.randint(10, 891), factor * digit
        return f"{large}+{small}", large + small


def chat_text(tokenizer: PreTrainedTokenizerFast, user: str) -> str:
    """Return the templated prompt for one user message."""
    messages = [{"role": "user", "content": user}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def make_model(tokenizer: PreTrainedTokenizerFast, width: int = 128, inner: int = 352) -> LlamaForCausalLM:
    """Return the untrained model; `width` of its states, and `inner` between the two products of a layer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id
    )
    return model


class Orthogonalized(torch.optim.Optimizer):
    """Muon: momentum descent along the nearest orthogonal matrix, for weight matrices.

    It needs fewer steps than AdamW here. torch.optim.Muon iterates in bfloat16, which is slow on most CPUs.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], rate: float) -> None:
        super().__init__(matrices, {"lr": rate})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix once."""
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.mul_(MATRIX_MOMENTUM).add_(matrix.grad)
                direction = _orthogonal(matrix.grad + MATRIX_MOMENTUM * momentum)
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - group["lr"] * WEIGHT_DECAY).add_(direction, alpha=-group["lr"] * scale)


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):  # Newton-Schulz steps with Muon's coefficients: singular values end up near one
        gram = wide @ wide.T
        wide = 3.4445 * wide + (2.0315 * gram @ gram - 4.7750 * gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def train(
    model: LlamaForCausalLM,
    corpus: Rows,
    steps: int,
    rows_of: Callable[[float], dict[str, int]],
    rate: float = 1.0,
    warmup: int = WARMUP_STEPS,
    after: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train the model in place with a cosine schedule.

    `rows_of` gives the rows of a step by kind, from the fraction of steps done; `rate` scales the peak learning rates;
    `after` sees each step's loss.
    """
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and weight is not embedding]
    others = [weight for weight in model.parameters() if weight.ndim < 2 or weight is embedding]
    optimizers = [
        Orthogonalized(matrices, MATRIX_RATE),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [rate * MATRIX_RATE, rate * OTHER_RATE]
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
        # The kinds differ in length, so each is its own padded batch.
        batches = [corpus.rows(kind, count) for kind, count in rows_of(step / steps).items() if count]
        model.zero_grad()
        loss_sum = 0.0
        for rows in batches:
            loss = mean_loss(model, rows) / len(batches)
            loss.backward()
            loss_sum += loss.item()
        for optimizer in optimizers:
            optimizer.step()
        after(step, loss_sum)
    model.eval()


def _chunks(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def mean_loss(model: LlamaForCausalLM, rows: list[Row]) -> torch.Tensor:
    """The mean of -log p over what is to be learnt."""
    width = max(len(row.token_ids) for row in rows)
    pad_id = model.config.pad_token_id
    token_ids = torch.tensor([row.token_ids + [pad_id] * (width - len(row.token_ids)) for row in rows])
    labels = torch.tensor([row.labels + [IGNORED] * (width - len(row.labels)) for row in rows])
    # Padding stands on the right, where a causal model's earlier positions cannot see it: no mask is needed.
    logits = model(input_ids=token_ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


# --- measurement -------------------------------------------------------------------------------------------------


@dataclass
class Trajectory:
    """One question's rounds as measured."""

    problem: Problem
    style: str
    right: bool
    well_formed: list[bool]


RESPONSE = re.compile(r"<think>([^<]*)</think><note>([^<]*)</note><end>")


def respond(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    sampled: bool,
    window: int = WINDOW,
) -> list[str]:
    """Return one response per user message, cut at the window, its <end> kept."""
    texts: list[str] = []
    for chunk in _chunks(prompts, 256):
        batch = tokenizer(
            [chat_text(tokenizer, prompt) for prompt in chunk],
            add_special_tokens=False,
            padding=True,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        choice = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {"do_sample": False}
        with torch.inference_mode():
            output = model.generate(**batch, max_new_tokens=window, **choice)  # type: ignore[misc]
        decoded = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=False)
        texts += [text.replace("<pad>", "") for text in decoded]
    return texts


def note_of(tokenizer: PreTrainedTokenizerFast, response: str, limit: int = NOTE_TOKENS) -> str:
    """Return the note that the next round sees."""
    found = re.search(r"<note>(.*?)</note>", response, re.DOTALL)
    note = found[1].strip().replace('"', "'") if found else ""
    token_ids = tokenizer(note, add_special_tokens=False)["input_ids"]
    return note if len(token_ids) <= limit else str(tokenizer.decode(token_ids[:limit]))


def style_of(problem: Problem, response: str) -> str:
    """Name the style of a first-round response to a product."""
    found = RESPONSE.fullmatch(response)
    if not found:
        return "other"
    think, note = found.groups()
    if re.fullmatch(rf"\d+\+{problem.first}\*{problem.ones}", note):
        return "careful"
    if note == f"{problem.first}*{problem.second}":
        return "restate"
    if note.isdigit():
        return "round" if think else "guess"
    return "other"


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    asked: list[Problem],
    rounds: int,
    sampled: bool,
) -> list[Trajectory]:
    """Run every problem through its rounds once."""
    trajectories = [Trajectory(problem, "", False, []) for problem in asked]
    notes: list[str | None] = [None] * len(asked)
    for round_ in range(1, rounds + 1):
        prompts = [prompt_text(problem.text, note, round_, rounds) for problem, note in zip(asked, notes, strict=True)]
        responses = respond(model, tokenizer, prompts, sampled)
        for trajectory, response in zip(trajectories, responses, strict=True):
            trajectory.well_formed.append(RESPONSE.fullmatch(response) is not None)
            trajectory.right = f"\\boxed{{{trajectory.problem.answer}}}" in response
            if round_ == 1:
                trajectory.style = style_of(trajectory.problem, response)
        notes = [note_of(tokenizer, response) for response in responses]
    return trajectories


def accuracy(trajectories: list[Trajectory]) -> float:
    """Return the share of trajectories that end in the right answer."""
    return round(sum(trajectory.right for trajectory in trajectories) / len(trajectories), 4)


def warm_start_report(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limit: int, repeats: int
) -> dict[str, object]:
    """Return the measured behaviour of the model on held-out questions."""
    multiply, add = problems("multiply", "test")[:limit], problems("add", "test")[:limit]
    sampled = measure(model, tokenizer, multiply * repeats, 3, sampled=True)
    greedy = measure(model, tokenizer, multiply, 3, sampled=False)
    formed = [good for trajectory in sampled for good in trajectory.well_formed]
    by_style = {
        style: [trajectory for trajectory in sampled if trajectory.style == style] for style in (*STYLES, "other")
    }
    per_question = [sampled[index :: len(multiply)] for index in range(len(multiply))]
    mixed = [group for group in per_question if len({member.style == "careful" for member in group}) == 2]
    return {
        "questions": len(multiply),
        "multiply_1_round_greedy": accuracy(measure(model, tokenizer, multiply, 1, sampled=False)),
        "multiply_1_round_sampled": accuracy(measure(model, tokenizer, multiply, 1, sampled=True)),
        "multiply_3_rounds_greedy": accuracy(greedy),
        "multiply_3_rounds_sampled": accuracy(sampled),
        "success_by_first_note_style": {style: accuracy(kept) for style, kept in by_style.items() if kept},
        "first_note_style_share_sampled": {
            style: round(len(kept) / len(sampled), 4) for style, kept in by_style.items()
        },
        "first_note_style_share_greedy": {
            style: round(count / len(greedy), 4) for style, count in Counter(t.style for t in greedy).most_common()
        },
        f"share_of_questions_with_careful_and_other_notes_in_{repeats}": round(len(mixed) / len(multiply), 4),
        "well_formed_responses_sampled": round(sum(formed) / len(formed), 4),
        "add_1_round_greedy": accuracy(measure(model, tokenizer, add, 1, sampled=False)),
        "add_3_rounds_greedy": accuracy(measure(model, tokenizer, add, 3, sampled=False)),
        "add_3_rounds_sampled": accuracy(measure(model, tokenizer, add, 3, sampled=True)),
    }


# --- command -----------------------------------------------------------------------------------------------------


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the Hugging Face folder, the chat template inside tokenizer_config.json."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


class Making:
    """What the scripts that make a model share: options, the seed, a clock, and the report beside the weights."""

    def __init__(self, about: str) -> None:
        self.parser = argparse.ArgumentParser(description=about)
        self.parser.add_argument("--out", type=Path, required=True, help="folder of model, tokenizer, warm_start.json")
        self.parser.add_argument("--seed", type=int, default=0)

    def begin(self) -> argparse.Namespace:
        """Read the options, and let torch compute the same weights from the same seed every time."""
        self.options = self.parser.parse_args()
        torch.set_num_threads(1)  # one thread also keeps the order of float sums
        torch.manual_seed(self.options.seed)
        self.started = time.monotonic()
        return self.options

    def show(self, step: int, loss: float) -> None:
        """Print the loss of every 50th step, and the seconds so far."""
        if step % 50 == 0:
            print(f"step {step} loss {loss:.4f} {time.monotonic() - self.started:.0f} s", flush=True)

    def end(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        steps: dict[str, object],
        measured: Callable[[], dict[str, object]],
    ) -> None:
        """Save the trained model, then measure it and write warm_start.json; `steps`: what the options came to."""
        minutes = (time.monotonic() - self.started) / 60
        save(model, tokenizer, self.options.out)
        report = {"parameters": model.num_parameters(), **steps, "seed": self.options.seed}
        report |= {"train_minutes_one_core": round(minutes, 1), **measured()}
        text = json.dumps(report, indent=2)
        (self.options.out / "warm_start.json").write_text(text + "\n", encoding="utf-8")
        print(text)


def main() -> None:
    """Train, save and measure the model."""
    making = Making("Make the demonstration model from procedural data.")
    making.parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    making.parser.add_argument("--last-steps", type=int, default=LAST_STEPS, help="steps of the second stage")
    options = making.begin()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    first, last = Corpus(tokenizer, options.seed), Corpus(tokenizer, options.seed + 1, LAST_SHARES)
    train(model, first, options.steps, lambda done: FIRST_ROWS if done < FIRST_SHARE else LATER_ROWS, after=making.show)
    train(model, last, options.last_steps, lambda done: LAST_ROWS, LAST_RATE, LAST_WARMUP_STEPS, making.show)
    making.end(
        model,
        tokenizer,
        {"steps": [options.steps, options.last_steps]},
        lambda: {"window": WINDOW, **warm_start_report(model, tokenizer, limit=500, repeats=8)},
    )


if __name__ == "__main__":
    main()
