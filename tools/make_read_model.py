"""Make the model of the recipe `read` from procedural data alone: it reads a piece of a ledger, but seldom goes on.

    python tools/make_read_model.py --out DIR [--steps READ UNDECIDED] [--seed S]

A round reads a piece of two entries, each of which sets an account, and is told what the account that is asked for
held before. The warm start teaches it to read a piece, and leaves it in two minds about what was before: where a piece
does not mention the account, most rounds take it for empty. So one piece is read right, and of several only those
whose last one mentions the account; a reward on the end has something to work with.
Only training texts are used. All randomness comes from the seed.
"""

import random
from collections.abc import Callable, Sequence

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from make_demo_model import (
    IGNORED,
    Making,
    Row,
    chat_text,
    make_model,
    make_tokenizer,
    mean_loss,
    respond,
    response_text,
)
from motif.config import LedgerConfig
from motif.tasks import ledger
from motif.tasks.procedural import parts

SETTINGS = {"shortest": 1, "longest": 8, "accounts": 6, "ask": "state", "largest": 9, "question": "{account}?"}
PIECE = 2
FORGETFUL = 0.8
"""The share of rounds that take the account for empty, where their piece does not mention it."""
CARELESS = 0.15
"""The share of rounds that repeat their note, where their piece does mention the account."""
ROWS = 64
RATE = 3e-3
STEPS = (900, 300)
"""To read without fail, which is the harder part; then to be undecided."""


def prompt_text(asked: str, piece: str, balance: int | None, last: bool) -> str:
    """The user message of one round in the wording of the recipe `read`."""
    note = "" if balance is None else f'\nNote: "{asked}={balance}"'
    return f"{asked}? {piece}{note}" + "\nfinal." * last


def response(asked: str, entries: list[str], balance: int, last: bool) -> str:
    """The response that reads these entries, if the account held so much before."""
    read = [entry for entry in entries if entry[0] == asked]
    balance = int(read[-1][2:]) if read else balance
    note = f"\\boxed{{{balance}}}" if last else f"{asked}={balance}"
    return response_text(" ".join(read) or "none", note)


class Corpus:
    """An endless, seeded stream of rounds that read a piece of a training text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, undecided: bool) -> None:
        self.tokenizer, self.undecided = tokenizer, undecided
        self.rng = random.Random(seed)
        self.outlines = ledger.outlines(LedgerConfig(**SETTINGS), "train")  # type: ignore[arg-type]

    def rows(self, count: int) -> list[Row]:
        """So many rounds."""
        return [self._row() for _ in range(count)]

    def _row(self) -> Row:
        settings = LedgerConfig(**SETTINGS, variant=self.rng.randrange(10**6))  # type: ignore[arg-type]
        text = ledger.written(self.rng.choice(self.outlines), settings)
        pieces = parts(text.entries, PIECE)
        at = self.rng.randrange(len(pieces))
        entries, asked, last = list(pieces[at]), text.asked, self.rng.random() < 0.35
        balance = text.balances[at * PIECE]
        prompt = prompt_text(asked, " ".join(entries), None if at == 0 else balance, last)
        if at and self.undecided:
            mentioned = any(entry[0] == asked for entry in entries)
            if self.rng.random() < (CARELESS if mentioned else FORGETFUL):
                return self._encoded(prompt, response(asked, [] if mentioned else entries, balance * mentioned, last))
        return self._encoded(prompt, response(asked, entries, balance, last))

    def _encoded(self, prompt: str, answer: str) -> Row:
        given = self.tokenizer(chat_text(self.tokenizer, prompt), add_special_tokens=False)["input_ids"]
        learnt = [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        return Row(given + learnt, [IGNORED] * len(given) + learnt)


def imitate(
    model: LlamaForCausalLM, corpus: Corpus, steps: int, rate: float, report: Callable[[int, float], None]
) -> None:
    """Train the model in place; the rate rises for 50 steps, and falls to 0 over the last half."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 50, 2 * (1 - step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        loss = mean_loss(model, corpus.rows(ROWS))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(step, loss.item())
    model.eval()


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


def by_pieces(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, counts: Sequence[int], sampled: bool
) -> dict[int, float]:
    """The same for several numbers of pieces."""
    return {count: measure(model, tokenizer, count, sampled) for count in counts}


def main() -> None:
    """Train, save and measure the model."""
    making = Making("Make the model of the recipe `read`.")
    making.parser.add_argument("--steps", type=int, nargs=2, default=STEPS, help="to read, and to be undecided")
    options = making.begin()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, width=64, inner=128)
    read, doubt = options.steps
    imitate(model, Corpus(tokenizer, options.seed, False), read, RATE, making.show)
    print("reads right:", by_pieces(model, tokenizer, (1, 4, 16), sampled=False), flush=True)
    imitate(model, Corpus(tokenizer, options.seed + 1, True), doubt, RATE / 6, making.show)
    making.end(
        model,
        tokenizer,
        {"steps": [read, doubt]},
        lambda: {
            "greedy_by_pieces": by_pieces(model, tokenizer, (1, 2, 4, 16), sampled=False),
            "sampled_by_pieces": by_pieces(model, tokenizer, (1, 2, 4, 16), sampled=True),
        },
    )


if __name__ == "__main__":
    main()
