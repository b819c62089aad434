"""Make the model of the recipe `read` from the demonstration model: it reads a piece of a ledger, but seldom goes on.

    python tools/make_read_model.py --out DIR [--steps N] [--seed S]

A round reads a piece of three entries and is told the balance so far. The warm start teaches it to add up the piece,
and leaves it in several minds about the balance: some rounds go on from it, others begin from 0 again or repeat it. So
the first piece is read right, and texts of several pieces hardly ever; a reward on the end has something to work with.
Only training texts are used. All randomness comes from the seed.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from make_demo_model import IGNORED, Row, chat_text, make_tokenizer, respond, response_text, save, train
from motif.config import LedgerConfig
from motif.demo import MODELS
from motif.tasks import ledger
from motif.tasks.procedural import parts

SETTINGS = {"shortest": 1, "longest": 12, "accounts": 2, "largest": 20, "question": "{account}?"}
PIECE = 3
# Shares of going on from the balance, beginning from 0 again and repeating it, where a piece takes something or not.
TAKING, GIVING = (0.30, 0.52, 0.18), (0.50, 0.34, 0.16)
STYLES = ("go on", "begin again", "repeat")
ROWS = 48
RATE, WARMUP = 0.5, 20
DEFAULT_STEPS = 900


def prompt_text(asked: str, piece: str, balance: int | None, last: bool) -> str:
    """The user message of one round in the wording of the recipe `read`."""
    note = "" if balance is None else f'\nNote: "{asked}={balance}"'
    return f"{asked}? {piece}{note}" + "\nfinal." * last


def response(asked: str, entries: list[str], balance: int, last: bool) -> str:
    """The response that adds up the entries on the account, from this balance on."""
    read = []
    for entry in entries:
        balance += int(entry[1:]) * (entry[0] == asked)
        read.append(f"{entry}:{balance}")
    note = f"\\boxed{{{balance}}}" if last else f"{asked}={balance}"
    return response_text(" ".join(read), note)


class Corpus:
    """An endless, seeded stream of rounds that read a piece of a training text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, undecided: bool) -> None:
        self.tokenizer, self.undecided = tokenizer, undecided
        self.rng = random.Random(seed)
        self.outlines = ledger.outlines(LedgerConfig(**SETTINGS), "train")  # type: ignore[arg-type]

    def rows(self, kind: str, count: int) -> list[Row]:
        """So many rows; there is one kind."""
        return [self._row() for _ in range(count)]

    def _row(self) -> Row:
        settings = LedgerConfig(**SETTINGS, variant=self.rng.randrange(10**6))  # type: ignore[arg-type]
        text = ledger.written(self.rng.choice(self.outlines), settings)
        pieces = parts(text.entries, PIECE)
        at = self.rng.randrange(len(pieces))
        entries, asked, last = list(pieces[at]), text.asked, self.rng.random() < 0.35
        balance = text.balances[at * PIECE]
        style = "go on"
        if at and self.undecided:
            takes = any(entry.startswith(f"{asked}-") for entry in entries)
            style = self.rng.choices(STYLES, TAKING if takes else GIVING)[0]
        told = None if at == 0 else balance
        read = [] if style == "repeat" else entries
        answer = response(asked, read, 0 if style == "begin again" or at == 0 else balance, last)
        return self._encoded(prompt_text(asked, " ".join(entries), told, last), answer)

    def _encoded(self, prompt: str, answer: str) -> Row:
        given = self.tokenizer(chat_text(self.tokenizer, prompt), add_special_tokens=False)["input_ids"]
        learnt = [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        return Row(given + learnt, [IGNORED] * len(given) + learnt)


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pieces: int, sampled: bool) -> float:
    """The share of held-out texts of so many pieces that are read right from beginning to end."""
    size = {**SETTINGS, "shortest": PIECE * pieces, "longest": PIECE * pieces}
    settings = LedgerConfig(**size)  # type: ignore[arg-type]
    texts = [ledger.written(outline, settings) for outline in ledger.outlines(settings, "test")[:200]]
    notes: list[int | None] = [None] * len(texts)
    answers = [""] * len(texts)
    for at in range(pieces):
        last = at == pieces - 1
        prompts = [
            prompt_text(text.asked, " ".join(parts(text.entries, PIECE)[at]), note, last)
            for text, note in zip(texts, notes, strict=True)
        ]
        answers = respond(model, tokenizer, prompts, sampled, window=40)
        found = [answer.partition("<note>")[2].partition("</note>")[0].partition("=")[2] for answer in answers]
        notes = [int(number) if number.isdigit() else 0 for number in found]
    return sum(f"\\boxed{{{t.balances[-1]}}}" in a for t, a in zip(texts, answers, strict=True)) / len(texts)


def main() -> None:
    """Train, save and measure the model."""
    parser = argparse.ArgumentParser(description="Make the model of the recipe `read`.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, tokenizer and warm_start.json")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # one thread also keeps the order of float sums, and so the weights, the same
    torch.manual_seed(arguments.seed)
    tokenizer = make_tokenizer()
    model = LlamaForCausalLM.from_pretrained(MODELS["embedded"], dtype=torch.float32)
    started = time.monotonic()

    def progress(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} loss {loss:.4f} {time.monotonic() - started:.0f} s", flush=True)

    # First to read without fail, which is the harder part; then to be undecided.
    certain = arguments.steps * 2 // 3
    train(
        model, Corpus(tokenizer, arguments.seed, False), certain, lambda done: {"rounds": ROWS}, RATE, WARMUP, progress
    )
    print("reads right:", {n: measure(model, tokenizer, n, sampled=False) for n in (1, 4, 16)}, flush=True)
    rest = arguments.steps - certain
    train(
        model,
        Corpus(tokenizer, arguments.seed + 1, True),
        rest,
        lambda done: {"rounds": ROWS},
        RATE / 2,
        WARMUP,
        progress,
    )
    minutes = (time.monotonic() - started) / 60
    save(model, tokenizer, arguments.out)
    report = {
        "parameters": model.num_parameters(),
        "steps": [certain, rest],
        "seed": arguments.seed,
        "train_minutes_one_core": round(minutes, 1),
        "greedy_by_pieces": {n: measure(model, tokenizer, n, sampled=False) for n in (1, 2, 4, 16)},
        "sampled_by_pieces": {n: measure(model, tokenizer, n, sampled=True) for n in (1, 2, 4, 16)},
    }
    text = json.dumps(report, indent=2)
    (arguments.out / "warm_start.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
