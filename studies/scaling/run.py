"""Simulate, and write results.json, figure.svg and the tables of README.md.

    python studies/scaling/run.py            # a few minutes on one core
    python studies/scaling/run.py --tables   # simulate nothing; tables and figure from results.json and measured.json

A step grows trees for a number of questions; steps are alike and independent, so a run of N questions is N ÷ (questions
a step) times a mean step. As many steps are simulated as come to ROWS responses (at least MIN_STEPS); the standard
error of the mean is kept beside it. `--full N` simulates all steps of N questions in one setting, as a check of that.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lengths
import measure
import numpy as np
from figure import draw
from simulate import GROWTHS, Costs, Growth, Node, cycle, sample

from motif.config import load_recipe
from motif.models.shape import Shape
from motif.planning.copies import Replica
from motif.planning.devices import TABLE
from motif.planning.forecast import Forecast
from motif.planning.lengths import Lengths

HERE = Path(__file__).parent
ROWS, MIN_STEPS = 30_000, 6
MILLION = 1_000_000
SERVERS = (1, 2, 4, 8, 16, 32, 64)
QUESTIONS = 64
"""A step, where the servers grow in number; 8 a server where questions grow with them."""
QWEN_3B = Shape.dense(3_085_938_688, 36, 2048, 11_008, 151_936, 2 * 36 * 2 * 128, 32_768)
PROMPT, SEAM = 250, 30  # tokens of a GSM8K question in the default scaffold, and what it adds in later rounds
SCALE = 40  # a window of the embedded model has 24 tokens, one of a real one about a thousand

DISTRIBUTIONS = {
    "measured": lengths.measured(HERE / "lengths_demo.json", SCALE),
    "long tail": lengths.long_tailed(),
}


@dataclass(frozen=True)
class World:
    """One distribution of lengths with what it costs on H100s."""

    name: str
    draw: lengths.Draw
    costs: Costs
    forecast: Forecast

    @classmethod
    def of(cls, name: str) -> World:
        """The model, recipe and device of the study with these lengths."""
        draw, dice = DISTRIBUTIONS[name], random.Random(f"costs {name}")
        levels = [np.array(level) for level in lengths.all_lengths([draw(dice) for _ in range(300)])]
        note = 256.0  # rounds.note_tokens of the recipe: notes as long as they may be
        seen = Lengths(name, tuple(levels), (0.0, SEAM + note, SEAM + note))
        shape = ["rollout.branching=[8,4,1]", "rollout.tokens_first=4096", "rollout.tokens_continue=4096"]
        recipe = load_recipe("recommended", shape)
        forecast = Forecast(recipe, QWEN_3B, TABLE["H100"], 1, seen, PROMPT, SEAM, 0, "numeric")
        replica = Replica(TABLE["H100"], server=True, rows=forecast.server_rows())
        context = PROMPT + (SEAM + note) * 64 / 72 + float(np.concatenate(levels).mean()) / 2
        pace = [0.0, *forecast.step_time(replica, np.arange(1, replica.rows + 1), context).tolist()]
        prefill = forecast.prompt_time(replica, 1, context)
        return cls(name, draw, Costs(pace, prefill, PROMPT, SEAM + note), forecast)

    def trees(self, questions: int, step: int) -> list[list[Node]]:
        """The trees of a step: the same whatever grows them."""
        dice = random.Random(f"{self.name} {questions} {step}")
        return [self.draw(dice) for _ in range(questions)]

    def steps(self, questions: int) -> int:
        """How many steps are simulated."""
        return max(MIN_STEPS, math.ceil(ROWS / (72 * questions)))

    def sampling(
        self, questions: int, servers: int, growth: Growth, steps: int | None = None
    ) -> list[tuple[float, float]]:
        """Seconds of sampling and the servers' share of work, for each simulated step."""
        count = steps or self.steps(questions)
        return [sample(self.trees(questions, step), servers, self.costs, growth) for step in range(count)]

    def training(self, questions: int, trainers: int) -> float:
        """Seconds of an update."""
        share = self.forecast.step_levels(math.ceil(questions / trainers))
        return self.forecast.update_time(share, Replica(TABLE["H100"]), trainers)


def cell(world: World, questions: int, servers: int) -> dict[str, Any]:
    """Everything that is known of one setting."""
    found = {growth: world.sampling(questions, servers, growth) for growth in GROWTHS}
    seconds = {growth: [seconds for seconds, _ in steps] for growth, steps in found.items()}
    mean = {growth: statistics.fmean(values) for growth, values in seconds.items()}
    # As many training processes as keep up with the servers, so that overlap has something to hide.
    keeps_up = (t for t in range(1, questions + 1) if world.training(questions, t) <= mean["continuous"])
    trainers = next(keeps_up, questions)
    training, publishing = world.training(questions, trainers), world.forecast.weight_sync_time
    lags = [statistics.fmean(cycle(one, training, publishing, lag) for one in seconds["continuous"]) for lag in (0, 1)]
    return {
        "distribution": world.name,
        "questions": questions,
        "servers": servers,
        "trainers": trainers,
        "steps": len(seconds["level"]),
        "sampling": mean,
        "standard_error": {
            growth: statistics.stdev(values) / math.sqrt(len(values)) for growth, values in seconds.items()
        },
        "busy": {growth: statistics.fmean(busy for _, busy in steps) for growth, steps in found.items()},
        "training": training,
        "publishing": publishing,
        "step": {"lag 0": lags[0], "lag 1": lags[1]},
        "hours_per_million": {f"lag {lag}": lags[lag] * MILLION / questions / 3600 for lag in (0, 1)},
    }


def simulate() -> dict[str, Any]:
    """All settings."""
    started = time.perf_counter()
    worlds = [World.of(name) for name in DISTRIBUTIONS]
    one = [cell(world, questions, 1) for world in worlds for questions in (1, 4, 16, 64)]
    strong = [cell(world, QUESTIONS, servers) for world in worlds for servers in SERVERS]
    weak = [cell(world, 8 * servers, servers) for world in worlds for servers in SERVERS]
    return {"one": one, "strong": strong, "weak": weak, "seconds": time.perf_counter() - started}


def full(questions: int, servers: int = 8) -> dict[str, Any]:
    """A run of so many questions without extrapolation, and what the extrapolation says of it."""
    world, started = World.of("long tail"), time.perf_counter()
    steps = math.ceil(questions / QUESTIONS)
    whole = sum(seconds for seconds, _ in world.sampling(QUESTIONS, servers, "continuous", steps))
    took = time.perf_counter() - started
    few = statistics.fmean(seconds for seconds, _ in world.sampling(QUESTIONS, servers, "continuous")) * steps
    return {"questions": questions, "servers": servers, "simulated": whole, "extrapolated": few, "seconds": took}


# -- tables ------------------------------------------------------------------------------------------------------------


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """Markdown; numbers with three digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows])


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def one(results: dict[str, Any]) -> str:
    """One server: what continuous growth saves."""
    return table(
        ["lengths", "questions a step", "level by level, s", "continuous, s", "ratio", "server at work"],
        [
            [
                c["distribution"],
                c["questions"],
                c["sampling"]["level"],
                c["sampling"]["continuous"],
                c["sampling"]["level"] / c["sampling"]["continuous"],
                f"{100 * c['busy']['continuous']:.0f} %",
            ]
            for c in results["one"]
        ],
    )


def _servers(cells: list[dict[str, Any]]) -> str:
    first = {c["distribution"]: c for c in cells if c["servers"] == 1}
    rows = []
    for c in cells:
        alone = first[c["distribution"]]
        gain = alone["sampling"]["continuous"] / c["sampling"]["continuous"] * c["questions"] / alone["questions"]
        devices = c["servers"] + c["trainers"]
        hours = c["hours_per_million"]
        rows.append(
            [
                c["distribution"],
                c["servers"],
                c["questions"],
                c["sampling"]["level"],
                c["sampling"]["continuous"],
                f"{100 * gain / c['servers']:.0f} %",
                c["trainers"],
                c["step"]["lag 0"],
                c["step"]["lag 1"],
                hours["lag 0"],
                hours["lag 1"],
                round(hours["lag 1"] * devices),
            ]
        )
    return table(
        [
            "lengths",
            "servers",
            "questions a step",
            "level by level, s",
            "continuous, s",
            "of linear",
            "trainers",
            "step, lag 0, s",
            "lag 1, s",
            "hours a million, lag 0",
            "lag 1",
            "GPU-hours, lag 1",
        ],
        rows,
    )


def strong(results: dict[str, Any]) -> str:
    """More servers for the same step."""
    return _servers(results["strong"])


def weak(results: dict[str, Any]) -> str:
    """More servers for a step that grows with them."""
    return _servers(results["weak"])


def check(results: dict[str, Any]) -> str:
    """The extrapolation against a whole run."""
    found = results["full"]
    off = found["extrapolated"] / found["simulated"] - 1
    return (
        f"{found['questions']:,} questions on {found['servers']} servers, all steps simulated: "
        f"{found['simulated'] / 3600:,.2f} h of sampling; extrapolated from the steps of the table: "
        f"{found['extrapolated'] / 3600:,.2f} h ({100 * off:+.1f} %). Simulating it all took "
        f"{found['seconds'] / 60:,.1f} minutes."
    )


def local(_: dict[str, Any]) -> str:
    """The local sampler, measured and simulated."""
    found = json.loads((HERE / "measured.json").read_text(encoding="utf-8"))
    columns = ["level by level, s", "simulated", "continuous, s", "simulated", "ratio", "simulated"]
    keys = [f"{what} {which}" for which in ("level", "continuous", "ratio") for what in ("measured", "simulated")]
    rows = [[int(row["questions"]), *(row[key] for key in keys)] for row in measure.compare(found)]
    loads = " and ".join(f"{load:.1f}" for load in found["load_average"])
    return table(["questions", *columns], rows) + f"\n\n(load average of the machine before and after: {loads})"


def readme(results: dict[str, Any]) -> str:
    """README.md with its tables made anew."""
    makers = {maker.__name__: maker for maker in (one, strong, weak, check, local)}

    def filled(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n\n{makers[match[1]](results)}\n\n<!-- end -->"

    text = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(rf"<!-- ({'|'.join(makers)}) -->.*?<!-- end -->", filled, text, flags=re.DOTALL)


def main() -> None:
    """See the top of this file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tables", action="store_true", help="simulate nothing; write tables and figure anew")
    options.add_argument("--full", type=int, default=10_000, metavar="N", help="questions of the run without shortcut")
    chosen = options.parse_args()
    file = HERE / "results.json"
    if not chosen.tables:
        results = simulate() | {"full": full(chosen.full)}
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(file.read_text(encoding="utf-8"))
    (HERE / "README.md").write_text(readme(results), encoding="utf-8")
    (HERE / "figure.svg").write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    main()
