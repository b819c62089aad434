"""Ledgers: a long list of entries on several accounts, such as `1 A+3 2 B-2 3 A=7`; asked is one account in the end.

An entry adds to an account, takes from it, or sets it. Asked is a total (`+` and `-` only) or a state (`=` only, of
which the last counts). The sequence of accounts and kinds decides the side; the numbers are drawn for it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from motif.config import LedgerConfig
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask, parts, running_counts
from motif.tasks.splits import Split, split_of

TEST_ONE_IN = 8
DRAWN = 12_000
"""Lists drawn for both sides together."""
ACCOUNTS = "ABCDEFGH"


@dataclass(frozen=True)
class Outline:
    """A ledger without its numbers: the account that is asked for, and the account and kind of each entry."""

    number: int
    asked: str
    entries: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """What decides the side."""
        return f"ledger {self.asked} {' '.join(account + kind for account, kind in self.entries)}"


@dataclass(frozen=True)
class Ledger:
    """An outline with its numbers. balances: of the account asked for, at the beginning and after each entry."""

    asked: str
    entries: tuple[str, ...]
    balances: tuple[int, ...]

    def calculation(self, entry: int) -> str:
        """What an entry (from 0) does to the account that is asked for, such as `4+3=7`; empty: nothing."""
        text = self.entries[entry]
        if text[0] != self.asked:
            return ""
        before, after = self.balances[entry : entry + 2]
        return f"{before}{text[1:]}={after}" if text[1] != "=" else f"{self.asked}={after}"


def outlines(settings: LedgerConfig, split: Split) -> list[Outline]:
    """The distinct outlines of one side, in a fixed random order; the same whatever the variant."""
    rng = random.Random(f"ledger {settings.shortest} {settings.longest} {settings.accounts} {settings.ask}")
    drawn: dict[str, Outline] = {}
    for number in range(1, DRAWN + 1):
        ask = rng.choice(("total", "state")) if settings.ask == "both" else settings.ask
        accounts = rng.choices(ACCOUNTS[: settings.accounts], k=rng.randint(settings.shortest, settings.longest))
        kinds = _signs(accounts, settings.largest, rng) if ask == "total" else "=" * len(accounts)
        outline = Outline(number, rng.choice(accounts), tuple(zip(accounts, kinds, strict=True)))
        drawn.setdefault(outline.key, outline)
    return [outline for outline in drawn.values() if split_of(outline.key, TEST_ONE_IN) == split]


def _signs(accounts: Sequence[str], largest: int, rng: random.Random) -> str:
    """Whether each entry adds or takes, so that adding and taking 1 stays within the bounds."""
    balances, signs = dict.fromkeys(accounts, 0), ""
    for account in accounts:
        signs += "+" if balances[account] == 0 else "-" if balances[account] == largest else rng.choice("+-")
        balances[account] += 1 if signs[-1] == "+" else -1
    return signs


def written(outline: Outline, settings: LedgerConfig) -> Ledger:
    """An outline with the numbers of a variant: every balance is from 0 to `largest`."""
    rng = random.Random(f"{outline.key} {settings.variant} {settings.largest}")
    kinds: dict[str, list[str]] = {}
    for account, kind in outline.entries:
        kinds.setdefault(account, []).append(kind)
    balances = {account: _balances(of, settings.largest, rng) for account, of in kinds.items()}
    done, entries, asked = dict.fromkeys(kinds, 0), [], [0]
    for account, kind in outline.entries:
        before, after = balances[account][done[account] : done[account] + 2]
        done[account] += 1
        entries.append(f"{account}{kind}{after if kind == '=' else abs(after - before)}")
        asked.append(balances[outline.asked][done[outline.asked]])
    return Ledger(outline.asked, tuple(entries), tuple(asked))


def _balances(kinds: Sequence[str], largest: int, rng: random.Random) -> list[int]:
    if "=" in kinds:
        return [0, *(rng.randint(0, largest) for _ in kinds)]
    return running_counts([1 if kind == "+" else -1 for kind in kinds], largest, rng, start=0)


def questions(settings: LedgerConfig, split: Split) -> list[Question]:
    """The questions of one side, in a fixed random order; their lines are the numbers of their outlines."""
    made = []
    for outline in outlines(settings, split):
        ledger = written(outline, settings)
        asked = settings.question.replace("{account}", ledger.asked)
        name = f"ledger-{settings.ask}-{settings.shortest}-{settings.longest}-{outline.number}"
        gold = str(ledger.balances[-1])
        if settings.in_pieces:
            pieces = tuple(" ".join(part) for part in parts(ledger.entries, settings.entries_per_piece))
            made.append(Question(name, asked, gold, outline.number, pieces=pieces))
        else:
            listed = " ".join(f"{place} {entry}" for place, entry in enumerate(ledger.entries, start=1))
            steps = len(ledger.entries)
            made.append(Question(name, f"{listed}\n{asked}", gold, outline.number, steps=steps))
    return made


def solution(ledger: Ledger, entries_per_piece: int) -> str:
    """The worked solution: a line for each entry on the account; its annotation says how far it is, and the balance.

    In pieces it is a line a piece: what its entries do to the account, or `none`.
    """
    if entries_per_piece:
        lines = []
        for piece in parts(range(len(ledger.entries)), entries_per_piece):
            told = " ".join(calculation for entry in piece if (calculation := ledger.calculation(entry)))
            lines.append(f"{told or 'none'}<<{ledger.asked}={ledger.balances[piece[-1] + 1]}>>")
        return "\n".join(lines)
    lines = [f"{ledger.asked}=0<<0 {ledger.asked}=0>>"]
    for entry in range(len(ledger.entries)):
        if calculation := ledger.calculation(entry):
            lines.append(f"{calculation}<<{entry + 1} {ledger.asked}={ledger.balances[entry + 1]}>>")
    return "\n".join(lines)


def solutions(settings: LedgerConfig) -> dict[int, str]:
    """The worked solutions of the training questions, by their lines."""
    size = settings.entries_per_piece
    return {outline.number: solution(written(outline, settings), size) for outline in outlines(settings, "train")}


TASK = ProceduralTask(
    "numeric",
    lambda data, split: questions(data.ledger, split),
    worked=lambda data: solutions(data.ledger),
)
