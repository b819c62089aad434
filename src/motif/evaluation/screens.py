"""What could make an accuracy look better than it is: training questions among the held-out ones.

* *Overlap*: words in a row that a held-out question shares with a training question.
* *Twin*: the same questions with other numbers and names (`motif.tasks.twins`). Who has learnt answers by heart is
  better at the originals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motif.evaluation.accuracy import Accuracy
from motif.method.tree import Question
from motif.statistics.estimators import proportion
from motif.statistics.paired import student_interval
from motif.text import counted, percent_interval, signed_interval

WORDS = 8
"""Words in a row that count as shared."""
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """How much of each held-out question, by its id, occurs in training questions: the share of its runs of words."""

    shares: dict[str, float]
    same: list[str]
    """Ids of the questions whose words are all the words of a training question, in their order."""

    @property
    def touched(self) -> list[str]:
        """Ids of the questions of which anything is shared."""
        return [name for name, share in self.shares.items() if share > 0]

    def to_dict(self, outcomes: Mapping[str, float | None] | None = None) -> dict[str, Any]:
        """For JSON; with outcomes by question, also the accuracy on the questions with and without an overlap."""
        touched = set(self.touched)
        record: dict[str, Any] = {"words": WORDS, "questions": len(self.shares), "same": self.same}
        record["shared"] = {name: round(self.shares[name], 4) for name in self.touched}
        for key, chosen in (("with", touched), ("without", self.shares.keys() - touched)):
            found = proportion([outcome for name, outcome in (outcomes or {}).items() if name in chosen])
            if found.n:
                record[key] = {"accuracy": found.value, "low": found.low, "high": found.high, "n": found.n}
        return record

    def sentence(self, outcomes: Mapping[str, float | None]) -> str:
        """What was found, and whether it matters."""
        count = counted(len(self.shares), "held-out question")
        text = f"overlap: {len(self.touched)} of {count} share {WORDS} words in a row with training questions"
        text += f", {len(self.same)} all of them" if self.same else ""
        sides = self.to_dict(outcomes)
        shown = [
            f"{percent_interval(sides[key]['accuracy'], sides[key]['low'], sides[key]['high'])} {key} overlap"
            for key in ("with", "without")
            if key in sides
        ]
        return f"{text} ({', '.join(shown)})" if len(shown) == 2 else text


def overlap(train: Iterable[Question], test: Sequence[Question]) -> Overlap:
    """The overlap of held-out questions with training questions; one pass over the training questions.

    A question of fewer than `WORDS` words counts as one run of words, which only an equal question has.
    """
    words = {question.id: _words(question) for question in test}
    wanted = {run for found in words.values() for run in [*_runs(found), tuple(found)]}
    seen: set[tuple[str, ...]] = set()
    for question in train:
        found = _words(question)
        seen |= wanted.intersection([*_runs(found), tuple(found)])
    shares = {}
    for name, found in words.items():
        runs = _runs(found) or [tuple(found)]
        shares[name] = sum(run in seen for run in runs) / len(runs)
    return Overlap(shares, [name for name, found in words.items() if tuple(found) in seen])


def _words(question: Question) -> list[str]:
    return WORD.findall(question.whole.casefold())


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)]


def twin_sentence(results: Mapping[str, Accuracy]) -> str:
    """How the twins of the questions do against the questions themselves; empty if they were not tested."""
    for name, twin in results.items():
        own = results.get(name.removesuffix("_twin"))
        if name.endswith("_twin") and own:
            pairs = [(value, own.outcomes.get(key)) for key, value in twin.outcomes.items()]
            gaps = [changed - asked for changed, asked in pairs if changed is not None and asked is not None]
            if len(gaps) > 1:
                gap = student_interval(gaps)
                words = signed_interval(gap.mean, gap.low or 0.0, gap.high or 0.0)
                return f"twins against the questions themselves: {words} points over {counted(gap.n, 'question')}"
    return ""
