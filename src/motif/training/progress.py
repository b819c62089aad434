"""Where a run stands: the loop's state, which checkpoints keep, and the clock of a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Tree
from motif.runs.ledger import Ledger
from motif.training.curriculum import Curriculum
from motif.training.diagnosis import Standstill
from motif.training.replay import Replay
from motif.training.update import Budget

PATIENCE = 3
"""Steps in a row with an update that was skipped, because its gradient was not finite, after which a run stops."""


class SkippedUpdates:
    """Counts updates that were not made because their gradient was not finite, and steps in a row with such ones."""

    def __init__(self, count: int = 0, in_a_row: int = 0):
        self.count, self.in_a_row = count, in_a_row

    def add(self, skipped: int) -> None:
        """Count the skipped updates of a step."""
        self.count += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0

    @property
    def too_many(self) -> bool:
        """Whether the run has to stop."""
        return self.in_a_row >= PATIENCE

    @staticmethod
    def explain() -> str:
        """Why the run stops, and what to do."""
        return (
            f"the gradient was not finite in {PATIENCE} steps in a row (update/causes in metrics.jsonl names the "
            "responses), and the weights are as before them: lower train.learning_rate, or set model.dtype = 'float32'"
        )


@dataclass
class Warm:
    """Where the warm start stands, as plain data.

    iteration: how many have been completed; steps: optimiser steps in all, of which `in_iteration` in this one.
    reason: why it ended; empty: it has not. looks: what was seen of the model, and when. trained_on: the sampled
    demonstrations of this iteration. fingerprint: of the demonstrations.
    """

    iteration: int = 0
    steps: int = 0
    in_iteration: int = 0
    reason: str = ""
    demonstrations: int = 0
    dropped: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    fingerprint: str = ""
    looks: list[dict[str, Any]] = field(default_factory=list)
    trained_on: list[Any] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """What the summary says of it."""
        return {key: value for key, value in asdict(self).items() if key not in ("trained_on", "in_iteration")}


class Progress:
    """All of the loop's state besides the weights and the optimiser.

    `drawn` holds a 64-bit key of the text of each question drawn so far. `weights_before`: with `sampler.overlap`, the
    weights that the last step started from, with which the next step's trees are sampled. `budget`: tokens of a
    micro-batch, fewer than the recipe's if those did not fit in memory. `diagnoses`: what was told of why nothing can
    be learnt, and when.
    """

    def __init__(self, microbatch_tokens: int):
        self.step = 0
        self.ledger = Ledger()
        self.evaluations: dict[int, dict[str, Any]] = {}
        self.best: dict[str, Any] | None = None
        self.drawn: set[int] = set()
        self.skips = SkippedUpdates()
        self.weights_before: dict[str, Tensor] | None = None
        self.budget = Budget(microbatch_tokens)
        self.warm = Warm()
        self.standstill = Standstill()
        self.curriculum = Curriculum()
        self.replay = Replay()
        self.diagnoses: list[dict[str, Any]] = []

    def version(self, step: int) -> int:
        """The number of the weights after so many steps, for samplers: the warm start's steps come before them."""
        return self.warm.steps + step

    def count_questions(self, trees: Sequence[Tree], replaced: bool) -> None:
        """Count a step's questions; `replaced`: whether dead ones are (`rollout.refill`)."""
        self.drawn.update(sampling_key(tree.question.whole) for tree in trees)
        self.ledger.questions += len(trees)
        if replaced:
            self.ledger.dropped_questions = (self.ledger.dropped_questions or 0) + sum(tree.dropped for tree in trees)
        self.ledger.distinct_questions = len(self.drawn)

    def count_dead(self, trees: Sequence[Tree], rounds: Rounds, dead: bool) -> None:
        """Count a step whose groups were all dead; any other step ends the standstill."""
        if dead:
            self.standstill.steps += 1
            self.standstill.add(trees, rounds)
        else:
            self.standstill = Standstill()

    def extra(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, besides the step."""
        kept = {"ledger": self.ledger.to_dict(), "evaluations": self.evaluations, "best": self.best}
        kept |= {"drawn": sorted(self.drawn), "skipped": [self.skips.count, self.skips.in_a_row]}
        if self.standstill.steps:
            kept["standstill"] = asdict(self.standstill)
        if self.curriculum.joined:
            kept["curriculum"] = asdict(self.curriculum)
        if self.replay.stems:
            kept["replay"] = asdict(self.replay)
        if self.diagnoses:
            kept["diagnoses"] = self.diagnoses
        if self.warm.steps or self.warm.reason:
            kept["warmstart"] = asdict(self.warm)
        return kept | {"weights_before": self.weights_before, "fits": self.budget.fits}

    def load(self, step: int, extra: dict[str, Any]) -> None:
        """Take over what a checkpoint kept: the inverse of `extra`.

        Raises:
            RunFolderError: the checkpoint is of an older version.
        """
        self.step, self.ledger = step, Ledger.from_dict(extra["ledger"])
        self.evaluations, self.best, self.drawn = extra["evaluations"], extra["best"], set(extra["drawn"])
        self.skips, self.weights_before = SkippedUpdates(*extra["skipped"]), extra["weights_before"]
        self.budget = Budget(self.budget.requested, extra["fits"])
        self.warm = Warm(**extra.get("warmstart", {}))
        self.standstill = Standstill(**extra.get("standstill", {}))
        self.curriculum = Curriculum(**extra.get("curriculum", {}))
        self.replay = Replay(**extra.get("replay", {}))
        self.diagnoses = extra.get("diagnoses", [])


class Clock:
    """Wall-clock seconds of the parts of a step."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the part that has been going on."""
        now = time.perf_counter()
        self.laps[name], self.last = self.laps.get(name, 0.0) + now - self.last, now

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.start

    def metrics(self) -> dict[str, float]:
        """All parts and the total, under `time/`."""
        return {f"time/{name}": seconds for name, seconds in self.laps.items()} | {"time/total": self.total()}
