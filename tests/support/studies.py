"""Studies: a small one as a file, and a made-up one of eight arms and ten seeds, as results.jsonl would hold it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from motif.compare.study import Study

ARMS = ("single", "single-72", "multi-8", "multi-24", "paper", "paper-base", "recommended", "untrained")
ENDS = (0.46, 0.48, 0.66, 0.72, 0.70, 0.62, 0.78, 0.45)
ROWS = ("rounds_1", "rounds_3", "rounds_1_matched")
STUDY: dict[str, Any] = {
    "name": "made_up",
    "about": "Eight arms on a task that does not exist.",
    "recipe": "demo",
    "seeds": list(range(10)),
    "row": "rounds_3",
    "reference": "paper",
    "arms": {name: {"about": f"The arm called {name}."} for name in ARMS},
    "contrasts": [
        {
            "name": "MOTIF with 0.15 N questions against single-round GRPO with N",
            "a": {"arm": "paper", "at": {"questions": 120}},
            "b": {"arm": "single", "at": {"questions": 800}},
            "margin": -0.01,
        },
        {"name": "The layout alone", "a": {"arm": "paper"}, "b": {"arm": "multi-24"}, "margin": -0.02},
        {"name": "What the base model costs", "a": {"arm": "paper-base"}, "b": {"arm": "paper"}},
        {
            "name": "Ours at equal tokens",
            "a": {"arm": "recommended", "at": {"generated_tokens": 400_000}},
            "b": {"arm": "paper", "at": {"generated_tokens": 400_000}},
        },
    ],
    "thresholds": [
        {
            "name": "questions to reach 60 %",
            "arms": ["paper", "recommended", "single"],
            "currency": "questions",
            "target": 0.6,
        },
        {
            "name": "questions to what paper reaches",
            "arms": ["paper", "recommended"],
            "currency": "questions",
            "target": {"arm": "paper"},
        },
    ],
}


def made_up(seed: int = 0, arms: tuple[str, ...] = ARMS, seeds: int = 10, text: str = "") -> tuple[Study, list[Any]]:
    """A study and its results; `text` stands wherever a text of the user's can."""
    rng = random.Random(seed)
    data = STUDY | {"seeds": list(range(seeds)), "about": text or STUDY["about"]}
    data["arms"] = {name: {"about": text or f"The arm called {name}."} for name in ARMS}
    if text:
        data["contrasts"] = [one | {"name": f"{place} {text}"} for place, one in enumerate(STUDY["contrasts"])]
    ids = [f"q{index}" for index in range(200)]
    lines: list[Any] = [{"study": "made_up", "row": "rounds_3", "base": {}, "questions": dict.fromkeys(ROWS, ids)}]
    for number in range(seeds):
        luck = rng.gauss(0, 0.02)
        for arm in arms:
            lines.append(_run(rng, arm, number, luck, text))
    return Study.model_validate(data), lines


def _run(rng: random.Random, arm: str, seed: int, luck: float, text: str) -> dict[str, Any]:
    trained = arm != "untrained"
    multi = not arm.startswith("single")
    cost = {"single": 8, "single-72": 72}.get(arm, 72) * 20
    speed = {"recommended": 3.0}.get(arm, 1.2)
    curve = []
    for step in range(0, 101 if trained else 1, 10):
        rise = (1 - math.exp(-speed * step / 50)) / (1 - math.exp(-2 * speed))
        value = 0.45 + (ENDS[ARMS.index(arm)] - 0.45) * rise + (luck + rng.gauss(0, 0.012)) * (step > 0)
        shares = {"rounds_1": 0.1 if multi else value, "rounds_3": value, "rounds_1_matched": 0.8 * value}
        questions = 8 * step
        spent = {"questions": questions, "updates": step, "generated_tokens": questions * cost}
        spent |= {"flops": questions * cost * 4.1e6, "seconds": step * 1.3, "distinct_questions": min(questions, 300)}
        rows = {
            row: {"accuracy": round(share, 4), "low": share - 0.03, "high": share + 0.03, "n": 200, "ungraded": 0}
            | {"truncated": 0.02, "mean_tokens": 51.4}
            for row, share in shares.items()
        }
        curve.append({"step": step, "spent": spent, "rows": rows})
    outcomes = {
        row: "".join("1" if rng.random() < curve[-1]["rows"][row]["accuracy"] else "0" for _ in range(200))
        for row in ROWS
    }
    return {
        "arm": arm,
        "seed": seed,
        "settings": {"rollout.branching": [8, 4, 1], "data.arithmetic.template": text or "x"},
        "curve": curve,
        "outcomes": outcomes,
        "dead_groups": 0.2 if trained else None,
        "truncated": 0.03 if trained else None,
        "diagnostics": {},
        "probes": [],
        "ledger": curve[-1]["spent"],
        "wall_seconds": 200.0,
        "versions": {"motif-rl": "0.1.0", "torch": "2.13.0"},
    }


SMALL = """
name = "small"
recipe = "demo"
seeds = [0, 1]
set = { "train.steps" = 4, "eval.questions" = 20 }
[arms.paper]
[arms.single]
set = { "rollout.branching" = [8], eval.rounds = [1, 3] }
"""


def study_file(folder: Path, text: str = SMALL) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path
