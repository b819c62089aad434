"""The data and the machine that the result of a run depends on, and which of them has changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from motif.grading.given import GIVEN, digest_of
from motif.method.keys import sampling_key
from motif.method.tree import Question

SHORT = 16
"""Hexadecimal digits of a fingerprint."""


class Data:
    """The questions of a run: those to train on and those it is evaluated on, with the grader of their answers."""

    def __init__(self, train: Sequence[Question], test: Sequence[Question], grader: str):
        self.sides = {"train": train, "test": test}
        self.grader = {"name": grader, "file": grader_digest(grader)}
        self._keys = {side: _keys(questions) for side, questions in self.sides.items()}

    def keys(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: a 64-bit key of each question, in order, and the grader."""
        return self._keys | {"grader": self.grader}

    def summary(self) -> dict[str, Any]:
        """What the summary says of the data: how many questions, and a hash of their ids, texts and answers."""
        counted = {
            side: {"questions": len(questions), "fingerprint": digest(_facts(question) for question in questions)}
            for side, questions in self.sides.items()
        }
        return counted | {"grader": self.grader}

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """How the data differs from that of which `keys` gave `before`."""
        changes = [
            _other_questions(side, questions, self._keys[side], before[side]) for side, questions in self.sides.items()
        ]
        if self.grader != before["grader"]:
            same = self.grader["name"] == before["grader"]["name"]
            name = self.grader["name"]
            kind = "the reward" if name.startswith(GIVEN) else "the grader's file"
            changes.append(f"{kind} {name.removeprefix(GIVEN)}" if same else f"the grader is {name}")
        return [change for change in changes if change]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("motif-rl", "torch", "transformers", "peft", "mpmath", "numpy")
    installed = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def environment(device: torch.device) -> dict[str, Any]:
    """The machine that computes a run: processor, GPU, threads, and what torch was built for."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cuda": torch.version.cuda or "",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def digest(parts: Iterable[Any]) -> str:
    """A hash of parts, of which none can run into the next."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:SHORT]


def grader_digest(grader: str) -> str:
    """A hash of the file that a grader is in, or of the code of one that was given in Python; empty for others."""
    if grader.startswith(GIVEN):
        return digest_of(grader)
    file = Path(grader.rpartition(":")[0])
    return digest([file.read_bytes()]) if file.suffix == ".py" and file.is_file() else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _facts(question: Question) -> bytes:
    facts = (question.id, question.whole, question.gold)
    return repr((*facts, sorted(question.columns.items())) if question.columns else facts).encode()


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
        differ = f"{len(places):,} of {shared:,} {side} questions differ"
        parts.append(f"{differ}, the first is now {where}: {first.text!r:.80}")
    return "; ".join(parts)
