"""The run folder: what was run, what it cost, and every tree that was grown.

recipe.toml     the resolved recipe
metrics.jsonl   a line per step, and one per evaluation; TRL's names where the meaning is the same
trees.jsonl     a line per grown tree
outcomes.jsonl  a line per evaluation and number of rounds: the mean outcome of each held-out question
summary.json    accuracy before and after, the ledger, versions
trackers.json   with `track`: the run's id at the trackers, and how far each of them is
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from motif.config import Recipe
from motif.errors import RecipeError
from motif.method.credit import CreditCounts
from motif.method.tree import Node, Tree
from motif.runs.disk import sync


@dataclass
class Ledger:
    """What a run has spent so far on training; evaluation and the probe are not in it.

    questions: drawn, repeats included; distinct_questions: of these, with different texts. generated_tokens: over all
    rounds and branches. prefill_tokens: prompt tokens run through the model; prefill_saved: those that were not,
    because responses share prompts or beginnings of them. trained_tokens: response tokens in the loss, once per pass.
    flops: 2P per generated or prefilled token and 6P per token of an update pass (4P with a frozen base, which needs no
    weight gradients), for P parameters; attention is left out. seconds: wall clock of the steps, of which sampling,
    grading (what was left of it when the last response had been sampled) and training (credit and update).
    """

    questions: int = 0
    distinct_questions: int = 0
    updates: int = 0
    generated_tokens: int = 0
    prefill_tokens: int = 0
    prefill_saved: int = 0
    trained_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    sampling_seconds: float = 0.0
    grading_seconds: float = 0.0
    training_seconds: float = 0.0


Marks = dict[str, tuple[int, int]]
"""How many bytes each file of a record has, and their CRC-32."""
FILES = ("metrics.jsonl", "trees.jsonl", "outcomes.jsonl")


class RunFolder:
    """Appends to a run's files, and cuts them back to where they were when a run goes on from an earlier checkpoint.

    With `writes` false it leaves the disk alone: of several processes only one keeps the record.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes
        self._marks: Marks = dict.fromkeys(FILES, (0, 0))
        self.follow: Callable[[dict[str, Any]], None] | None = None  # gets each line of metrics too
        if writes:
            path.mkdir(parents=True, exist_ok=True)

    def recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe."""
        if self.writes:
            write_atomically(self.path / "recipe.toml", recipe.to_toml())

    def metrics(self, line: dict[str, Any]) -> None:
        """Append one line of numbers; what is not finite is written as null, because JSON knows no NaN."""
        line = {key: _finite(value) for key, value in line.items()}
        self._append("metrics.jsonl", [line])
        if self.follow:
            self.follow(line)

    def trees(self, trees: Iterable[Tree]) -> None:
        """Append a step's trees."""
        self._append("trees.jsonl", [tree.to_dict() for tree in trees])

    def outcomes(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append what became of each question in an evaluation: `step`, `row`, `questions` (ids), `outcomes`."""
        self._append("outcomes.jsonl", list(lines))

    def summary(self, content: dict[str, Any]) -> None:
        """Replace the summary as a whole."""
        if self.writes:
            write_atomically(self.path / "summary.json", json.dumps(content, indent=2) + "\n")

    def marks(self) -> Marks:
        """Where the files end, for a checkpoint: from here on the disk keeps them up to there."""
        for name, (size, _) in self._marks.items():
            if self.writes and size:
                sync(self.path / name)
        return dict(self._marks)

    def damaged(self, marks: Marks) -> list[str]:
        """Which files no longer begin with what they held when these were their marks."""
        return [name for name, mark in marks.items() if _mark(self.path / name, mark[0]) != mark]

    def cut_back(self, marks: Marks | None = None) -> None:
        """Drop what was written after these marks (by default: all), of a damaged file also its torn last line."""
        if not self.writes:
            return
        for name in FILES:
            file, (size, _) = self.path / name, (marks or {}).get(name, (0, 0))
            if not file.is_file():
                continue
            if _mark(file, size)[0] < size:
                size = file.read_bytes().rfind(b"\n") + 1
            with file.open("r+b") as opened:
                opened.truncate(size)
            self._marks[name] = _mark(file, size)

    def _append(self, name: str, records: list[dict[str, Any]]) -> None:
        if not self.writes:
            return
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with (self.path / name).open("ab") as file:
            file.write(data)
        size, checksum = self._marks[name]
        self._marks[name] = size + len(data), zlib.crc32(data, checksum)


def _mark(file: Path, size: int) -> tuple[int, int]:
    """How many of a file's first `size` bytes are there, and their CRC-32."""
    there = checksum = 0
    if file.is_file():
        with file.open("rb") as opened:
            while piece := opened.read(min(1 << 20, size - there)):
                there, checksum = there + len(piece), zlib.crc32(piece, checksum)
    return there, checksum


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash or a power cut leaves either the old or the new content."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)


def step_metrics(trees: Sequence[Tree], counts: Sequence[CreditCounts], rounds: int) -> dict[str, Any]:
    """What one step's trees look like: rewards, outcomes, groups, and lengths, form and truncation round by round."""
    levels: list[list[Node]] = [[] for _ in range(rounds)]
    for tree in trees:
        for level, nodes in zip(levels, tree.rounds(), strict=False):
            level.extend(nodes)
    first = levels[0]
    nodes = [node for level in levels for node in level]
    rates = [root.mean_outcome() for root in first]
    means = [[root.mean_outcome() for root in tree.roots] for tree in trees]
    solved = [values for group in means if (values := [mean for mean in group if mean is not None])]
    notes = [node for level in levels[:-1] for node in level]
    groups, dead = sum(count.groups for count in counts), sum(count.dead_groups for count in counts)
    spreads = [
        statistics.stdev(r) for tree in trees if len(r := [x.reward for x in tree.roots if x.reward is not None]) > 1
    ]
    metrics: dict[str, Any] = {
        "reward": _mean([root.reward for root in first if root.reward is not None]),
        "reward_std": _mean(spreads),
        "frac_reward_zero_std": dead / groups if groups else None,
        "groups": groups,
        "dead_groups": dead,
        "completions/mean_length": _mean([len(node.token_ids) for node in nodes]),
        "completions/clipped_ratio": _mean([node.truncated for node in nodes]),
        "outcome/mean": _mean(rates),
        "outcome/rate_counts": _rate_counts(first),
        "outcome/ungraded": sum(count.ungraded for count in counts),
        "outcome/ungraded_reason": _commonest(
            leaf.reason for tree in trees for leaf in tree.leaves() if leaf.verdict == "ungraded"
        ),
        "outcome/never": _mean([max(values) == 0 for values in solved]),
        "outcome/always": _mean([min(values) == 1 for values in solved]),
        "outcome/sometimes": _mean([max(values) > 0 and min(values) < 1 for values in solved]),
        "note/empty": _mean([not node.note for node in notes]),
        "note/mean_characters": _mean([len(node.note) for node in notes]),
        "note/early_answer": _mean([node.answer is not None for node in notes]),
    }
    for index, level in enumerate(levels, start=1):
        metrics[f"length/round_{index}"] = _mean([len(node.token_ids) for node in level])
        metrics[f"truncated/round_{index}"] = _mean([node.truncated for node in level])
        metrics[f"format/rate_{index}"] = _mean([node.well_formed for node in level])
    return metrics


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("motif-rl", "torch", "transformers", "peft", "math-verify", "numpy")
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _rate_counts(first: Sequence[Node]) -> list[int]:
    """How many first-round responses had 0, 1, …, k right trajectories (those with an ungraded one are left out)."""
    counts: list[int] = []
    for root in first:
        verdicts = [leaf.verdict for leaf in root.leaves()]
        if "ungraded" not in verdicts:
            counts += [0] * (len(verdicts) + 1 - len(counts))
            counts[verdicts.count("right")] += 1
    return counts


def _commonest(reasons: Iterable[str]) -> str | None:
    counted = Counter(reasons).most_common(1)
    return counted[0][0] if counted else None


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ledger_from(state: dict[str, Any]) -> Ledger:
    """A ledger from its saved fields.

    Raises:
        RecipeError: an older version saved it, and what that did not count cannot be known now.
    """
    missing = [field.name for field in fields(Ledger) if field.name not in state]
    if missing:
        raise RecipeError(
            f"the checkpoint is of an older version, which did not count {', '.join(missing)}: finish the run with "
            "that version, or start afresh with another --out"
        )
    return Ledger(**{field.name: state[field.name] for field in fields(Ledger)})


def ledger_dict(ledger: Ledger, prefix: str = "") -> dict[str, float]:
    """The ledger's fields, with an optional prefix on their names."""
    return {prefix + name: value for name, value in asdict(ledger).items()}
