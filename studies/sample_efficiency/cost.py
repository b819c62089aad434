"""How long a run of each arm takes on one core, from the processor time of a few steps and answers.

    python studies/sample_efficiency/cost.py [chains|sums] [ARM ...] > studies/sample_efficiency/pilots/cost.jsonl

A line of JSON for each arm: seconds of processor time of a step, of an evaluation and of a run, whatever else the
machine does meanwhile. Every arm is run with the pilot seed, three steps and 20 held-out questions, and scaled up.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from motif import train
from motif.compare.study import load_study, resolve
from motif.config import Recipe
from motif.display import Display
from motif.training.events import Evaluated, Event, StepEnded

HERE = Path(__file__).parent
STEPS, QUESTIONS, PILOT_SEED = 3, 20, 103


class Stopwatch:
    """The processor time of each step and evaluation."""

    def __init__(self) -> None:
        self.last, self.steps, self.evaluations = time.process_time(), list[float](), list[float]()

    def __call__(self, event: Event) -> None:
        """Charge the time since the event before to this one."""
        now = time.process_time()
        if isinstance(event, StepEnded):
            self.steps.append(now - self.last)
        elif isinstance(event, Evaluated):
            self.evaluations.append(now - self.last)
        self.last = now


def small(recipe: Recipe) -> Recipe:
    """The recipe with few steps and questions."""
    settings = recipe.model_dump()
    settings["train"] |= {"steps": min(STEPS, recipe.train.steps), "seed": PILOT_SEED}
    settings["eval"] |= {"questions": QUESTIONS, "every": 0}
    if recipe.warmstart.source:
        settings["warmstart"] |= {"questions": 5, "iterations": 1, "steps": STEPS}
    return Recipe.model_validate(settings)


def measure(recipe: Recipe, out: Path) -> dict[str, Any]:
    """The seconds of an arm."""
    watch = Stopwatch()
    train(small(recipe), out, display=Display(quiet=True), callbacks=[watch])
    evaluations = 1 + (recipe.train.steps // recipe.eval.every if recipe.eval.every and recipe.train.steps else 1)
    evaluation = min(watch.evaluations) / QUESTIONS * recipe.eval.questions
    step = sum(watch.steps) / len(watch.steps) if watch.steps else 0.0
    warm = recipe.warmstart
    stage = 0.0
    if warm.source:  # between the two evaluations: five questions sampled and three steps, of so many
        between = watch.evaluations[-1] - watch.evaluations[0]
        stage = max(0.0, between) / 5 * warm.questions * warm.iterations
    total = step * recipe.train.steps + stage + evaluation * evaluations
    return {"step": round(step, 2), "evaluation": round(evaluation, 1), "run": round(total)}


def main() -> None:
    """Print a line for each arm."""
    task, *arms = [*sys.argv[1:], *([] if sys.argv[1:] else ["chains"])]
    study, total = load_study(HERE / f"{task}.toml"), 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arms or study.arms:
            seconds = measure(resolve(study, name, HERE), Path(folder) / name)
            total += len(study.seeds) * seconds["run"]
            print(json.dumps({"task": task, "arm": name} | seconds), flush=True)
    print(json.dumps({"task": task, "all_runs_hours_of_one_core": round(total / 3600, 2)}))


if __name__ == "__main__":
    main()
