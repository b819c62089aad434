"""What a run's result depends on, and what of it is no longer the same when the run is gone on with."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from motif.config import Recipe, flat
from motif.method.keys import sampling_key
from motif.method.tree import Question
from motif.tasks import Task

SHORT = 16
"""Hexadecimal digits of a fingerprint."""


def digest(parts: Iterable[Any]) -> str:
    """A hash of parts, of which none can run into the next."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:SHORT]


def grader_digest(grader: str) -> str:
    """A hash of the file that a grader is in; nothing for a grader that is not in a file of its own."""
    file = Path(grader.rpartition(":")[0])
    return digest([file.read_bytes()]) if file.suffix == ".py" and file.is_file() else ""


def settings(recipe: Recipe) -> dict[str, Any]:
    """All settings that change what is trained, by their dotted names.

    More steps, rarer checkpoints or a probe make no other run; a schedule that depends on the number of steps does tie
    it to that number. Which servers, and how they are reached, may change on the way; whether there are any changes the
    random draws.
    """
    data = recipe.model_dump(mode="json")
    for aside in ("about", "name", "probe", "track", "track_project"):
        data.pop(aside)
    for free in ("save_every", "keep_checkpoints", "shard"):
        data["train"].pop(free, None)
    if recipe.train.schedule == "constant" and recipe.train.warmup == 0:
        data["train"].pop("steps")
    sampler = data.pop("sampler")
    if sampler["urls"]:
        data["sampler"] = {"urls": "servers", "overlap": sampler["overlap"]}
    return dict(flat(data))


class Data:
    """The questions of a run: those to train on and those it is evaluated on, with what judges their answers."""

    def __init__(self, task: Task, recipe: Recipe):
        self.sides = {"train": task.train, "test": task.test[: recipe.eval.questions]}
        self.grader = {"name": task.grader, "file": grader_digest(task.grader)}
        self._keys = {side: _keys(questions) for side, questions in self.sides.items()}

    def keys(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: a 64-bit key of each question, in order."""
        return self._keys | {"grader": self.grader}

    def summary(self) -> dict[str, Any]:
        """What the summary says of it: how many questions, and a hash of their ids, texts and answers."""
        counted = {
            side: {"questions": len(questions), "fingerprint": digest(_facts(question) for question in questions)}
            for side, questions in self.sides.items()
        }
        return counted | {"grader": self.grader}

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """In which way it is not what it was when `keys` gave `before`."""
        found = [
            _other_questions(side, questions, self._keys[side], before[side]) for side, questions in self.sides.items()
        ]
        if self.grader != before["grader"]:
            same = self.grader["name"] == before["grader"]["name"]
            found.append(f"the grader's file {self.grader['name']}" if same else f"the grader is {self.grader['name']}")
        return [change for change in found if change]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that are not what they were, as `name: old → new`."""
    keys = [*before, *(key for key in now if key not in before)]
    told = [(key, before.get(key, "unset"), now.get(key, "unset")) for key in keys]
    return [f"{key}: {old} → {new}" for key, old, new in told if old != new]


def environment(device: torch.device) -> dict[str, Any]:
    """Where a run is computed: processor, GPU, threads, and what torch was built for; versions: `record.versions`."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cuda": torch.version.cuda or "",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _facts(question: Question) -> bytes:
    return repr((question.id, question.text, question.gold)).encode()


def _keys(questions: Sequence[Question]) -> torch.Tensor:
    signed = [sampling_key(_facts(question)) - 2**63 for question in questions]
    return torch.tensor(signed, dtype=torch.int64)


def _other_questions(side: str, questions: Sequence[Question], now: torch.Tensor, before: torch.Tensor) -> str | None:
    shared = min(len(now), len(before))
    places = (now[:shared] != before[:shared]).nonzero().flatten().tolist()
    if not places and len(now) == len(before):
        return None
    parts = [f"{len(before):,} {side} questions → {len(now):,}"] if len(now) != len(before) else []
    if places:
        first = questions[places[0]]
        where = f"line {first.line}" if first.line else first.id
        told = f"{len(places):,} of {shared:,} {side} questions differ"
        parts.append(f"{told}, the first is now {where}: {first.text!r:.80}")
    return "; ".join(parts)
