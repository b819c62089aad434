"""A sampler whose responses are written down: what a loop makes of them does not depend on a model's luck."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from motif.method.rounds import Rounds
from motif.models.int8 import FLOAT32
from motif.models.policy import Policy
from motif.sampling.base import Completion, OnText, Request, Usage

Say = Callable[[str, tuple[int, ...]], str]
"""Of a chat's last message and the path of a response in its tree: the response. One that ends with `…` is cut off."""
WELL_FORMED = "<think>a</think><note>{}</note>"


class ScriptedSampler:
    """A `TrainingSampler` that says what it is told to, and counts its requests."""

    def __init__(self, policy: Policy, rounds: Rounds, say: Say):
        self.policy, self.rounds, self.say, self.usage, self.asked = policy, rounds, say, Usage(), 0

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        self.asked += 1
        question = request.messages()[-1]["content"]
        for index, path in enumerate(request.paths):
            text = self.say(question, path)
            ids = self.rounds.response(text.removesuffix("…"))
            if cut := text.endswith("…"):
                ids.pop()
            self.usage.generated_tokens += len(ids)
            yield Completion(request, index, ids, [-1.0] * len(ids), truncated=cut)

    path, precision = None, FLOAT32

    def exact(self) -> ScriptedSampler:
        return self

    def measure_slowdown(self, always: bool = False) -> None:
        pass

    def sync_weights(self, version: int) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def script(monkeypatch: Any, say: Say) -> list[ScriptedSampler]:
    """Let every session that is opened from now on sample what `say` returns; the list gets their samplers."""
    opened: list[ScriptedSampler] = []

    def open_sampler(recipe: Any, policy: Policy, *more: Any) -> ScriptedSampler:
        opened.append(ScriptedSampler(policy, Rounds(recipe.rounds, policy.tokenizer), say))
        return opened[-1]

    monkeypatch.setattr("motif.session.open_sampler", open_sampler)
    return opened


def recipe_of_sums(folder: Path, model: str, count: int = 8, **sections: dict[str, Any]) -> dict[str, Any]:
    """A recipe of `count` sums in two rounds on a tiny model, whose questions are `0+1`, `1+1`, …"""
    rows = "".join(json.dumps({"question": f"{n}+1", "answer": str(n + 1)}) + "\n" for n in range(count))
    (folder / "sums.jsonl").write_text(rows)
    tags = {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"]}
    bare = {"system_prompt": "", "counter": "", "progress": " {note}", "final": "", "note_tokens": 8}
    recipe: dict[str, Any] = {
        "method": "paper",
        "model": {"name": model, "adapter": "full", "device": "cpu"},
        "data": {"train": str(folder / "sums.jsonl"), "grader": "numeric"},
        "rounds": tags | bare,
        "rollout": {"branching": [2, 1], "tokens_first": 32, "tokens_continue": 32, "window": 64},
        "sampler": {"max_mean_gap": 0},
        "train": {"steps": 3, "threads": 1, "save_every": 1, "learning_rate": 1e-3},
        "eval": {"questions": 0},
    }
    for name, section in sections.items():
        recipe[name] = recipe.get(name, {}) | section
    return recipe
