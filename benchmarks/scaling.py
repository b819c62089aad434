"""What a step of motif costs as its shape grows: sampling and update against each setting, one at a time.

The embedded model (another with --model) grows trees of m responses and k trajectories through n rounds for q questions
and is then trained on round 1. Every response has exactly `response` tokens (the model is told an end token it lacks),
every note about `note` tokens: it is a stretch of the response, cut by the reading rules. From a middle setting, one
number at a time is doubled and doubled again. `exponents` are the slopes of log seconds against log setting (1: cost is
proportional; less: what is shared or fixed does not grow), fitted by least squares to medians over repeats; `per_unit`
the slope in seconds per unit of the setting.

Responses are sampled at temperature 1 from the weights as they are; a model sure of its words says the same in several
responses, which costs less. `--temperature 3` shows the cost without that.

    python benchmarks/scaling.py --json scaling.json                 # a few minutes on one core
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from common import interleaved, parser, table, write

from motif.config import Recipe, load_recipe
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.models.policy import Policy
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import collect
from motif.training.check import choose_update_path
from motif.training.update import update


@dataclass(frozen=True)
class Shape:
    """What a step is made of."""

    m: int = 8
    k: int = 4
    n: int = 3
    questions: int = 4
    note: int = 16
    response: int = 32


SWEEPS = {
    "m": (4, 8, 16),
    "k": (2, 4, 8),
    "n": (2, 3, 5),
    "questions": (2, 4, 8),
    "note": (4, 16, 32),
    "response": (16, 32, 64),
}
QUICK = {"m": (2, 4), "response": (4, 8)}


def recipe(shape: Shape, model: str, temperature: float) -> Recipe:
    """The recipe of one setting; round 1 branches m times, round 2 k times, later rounds not at all."""
    return load_recipe(
        {
            "name": "benchmark",
            "model": {"name": model, "device": "cpu"},
            "rounds": {"system_prompt": "", "note_tokens": shape.note},
            "rollout": {
                "branching": [shape.m, shape.k, *[1] * (shape.n - 2)],
                "tokens_first": shape.response,
                "tokens_continue": shape.response,
                "temperature_first": temperature,
                "temperature_continue": temperature,
            },
            "eval": {"questions": 0},
        }
    )


class Bench:
    """One model, measured in many shapes."""

    def __init__(self, model: str, temperature: float):
        self.model, self.temperature = model, temperature
        self.policy = Policy(recipe(Shape(), model, temperature).model)
        choose_update_path(self.policy)
        self.sampler = LocalSampler(self.policy)
        self.policy.end_ids = [self.policy.vocabulary]  # no response ends early
        self.optimizer = torch.optim.AdamW(self.policy.trainable(), lr=0.0)  # costs the same, changes nothing

    def step(self, shape: Shape) -> Callable[[int], dict[str, float]]:
        """Seconds of sampling and of the update, with the tokens generated and the rows computed for them."""
        settings = recipe(shape, self.model, self.temperature)
        rounds = Rounds(settings.rounds, self.policy.tokenizer)
        asked = [Question(str(i), f"What is {13 + 7 * i} × {24 + 5 * i}?", "0") for i in range(shape.questions)]

        def run(repeat: int) -> dict[str, float]:
            before = replace(self.sampler.usage)
            start = time.perf_counter()
            trees = grow(asked, self.sampler, rounds, settings.rollout, seed=repeat)
            sampled = time.perf_counter()
            for tree in trees:
                for index, node in enumerate(tree.roots):
                    node.advantage = 1.0 if index % 2 else -1.0
            update(self.policy, self.optimizer, collect(trees, settings), settings)
            usage = self.sampler.usage
            return {
                "sampling": sampled - start,
                "update": time.perf_counter() - sampled,
                "generated": usage.generated_tokens - before.generated_tokens,
                "decoded": usage.decoded_rows - before.decoded_rows,
                "prompt": usage.prefill_tokens - before.prefill_tokens,
            }

        return run


def slopes(values: tuple[int, ...], seconds: list[float]) -> tuple[float, float]:
    """Least squares: the exponent of seconds in the setting, and seconds per unit of it."""
    exponent = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
    return exponent, float(np.polyfit(values, seconds, 1)[0])


def main() -> None:
    """Run the sweeps."""
    options = parser(__doc__)
    options.add_argument("--model", default="embedded")
    options.add_argument("--temperature", type=float, default=1.0)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    sweeps: dict[str, tuple[int, ...]] = QUICK if arguments.quick else SWEEPS
    repeats = 1 if arguments.quick else arguments.repeats

    bench = Bench(arguments.model, arguments.temperature)
    found: dict[str, Any] = {}
    fits: dict[str, Any] = {}
    for name, values in sweeps.items():
        shapes = {str(value): replace(Shape(), **{name: value}) for value in values}
        rows = interleaved({value: bench.step(shape) for value, shape in shapes.items()}, repeats)
        found[name] = {
            value: {key: statistics.median(row[key] for row in measured) for key in measured[0]}
            for value, measured in rows.items()
        }
        fits[name] = {}
        for part in ("sampling", "update"):
            exponent, per_unit = slopes(values, [found[name][str(value)][part] for value in values])
            fits[name][part] = {"exponent": exponent, "seconds_per_unit": per_unit}

    table(
        f"Seconds a step ({arguments.model}; otherwise {Shape()})",
        ["setting", "sampling", "update", "generated tokens", "rows decoded", "prompt tokens run"],
        [
            (
                f"{name} = {value}",
                row["sampling"],
                row["update"],
                *(int(row[x]) for x in ("generated", "decoded", "prompt")),
            )
            for name, rows in found.items()
            for value, row in rows.items()
        ],
    )
    table(
        "Fitted slopes",
        ["setting", "sampling ~ setting^", "s per unit", "update ~ setting^", "s per unit"],
        [
            (name, *(fit[part][key] for part in ("sampling", "update") for key in ("exponent", "seconds_per_unit")))
            for name, fit in fits.items()
        ],
    )
    result = {"setting": {k: v for k, v in vars(arguments).items() if k != "json"}, "seconds": found, "slopes": fits}
    write(arguments.json, result)


if __name__ == "__main__":
    main()
