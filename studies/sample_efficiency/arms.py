"""Write the studies of the arms that others propose, and of their learning rates, from one table.

    python studies/sample_efficiency/arms.py            writes chains.toml, sums.toml and the pilots *_rates.toml
    python studies/sample_efficiency/arms.py --check    says whether they are as they would be written

Arms, contrasts, amounts and seeds are fixed here, and were committed before any of the runs. The one thing that a run
changes is each arm's learning rate: the best of RATES in the pilot on PILOT_SEED, which is not among the seeds. Until
the pilot's results are in pilots/ every arm has the second.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RATES = (7e-4, 1.5e-3, 3e-3)
PILOT_SEED = 103
SEEDS = list(range(10))
SHARED = {
    "model.adapter": "lora",
    "model.lora_rank": 16,
    "model.lora_alpha": 16,
    "rollout.questions_per_step": 2,
    "train.steps": 60,
    "eval.questions": 300,
    "eval.rounds": [3],
    "eval.temperature": 1.0,
    "eval.every": 12,
}
TREE = {
    "rollout.branching": [4, 2, 1],
    "credit.train_rounds": "all",
    "credit.baseline": "leave_one_out",
    "credit.divide_by_std": False,
    "loss.kind": "dr_grpo",
}
VALUE = {key: value for key, value in TREE.items() if key != "credit.baseline"} | {"rollout.branching": [4, 2, 2]}
LONG = {"eval.rounds": [1], "eval.every": 12, "rollout.tokens_first": 87}
ALONE = LONG | {"credit.baseline": "leave_one_out", "credit.divide_by_std": False, "loss.kind": "dr_grpo"}
OWN = {
    "train.steps": 0,
    "warmstart.source": "self",
    "warmstart.answers": "rounds",
    "warmstart.questions": 30,
    "warmstart.samples": 8,
    "warmstart.keep": 8,
    "warmstart.iterations": 4,
    "warmstart.temperature": 1.0,
    "warmstart.steps": 15,
    "warmstart.until": 0.0,
    "warmstart.look_every": 1000,
    "warmstart.look_questions": 1,
}
UNTRAINED = {"train.steps": 0}


@dataclass(frozen=True)
class Arm:
    """One way of training. rate: the setting that is tuned, if one is. best: whether the second task has the arm."""

    about: str
    set: dict[str, Any]
    rate: str = "train.learning_rate"
    row: str = "rounds_3"
    measure: str = "accuracy"
    best: bool = False


ARMS = {
    "recommended": Arm("[4, 2, 1], every round trained against its siblings", TREE, best=True),
    "multi-24": Arm(
        "24 whole trajectories of three rounds, one shared reward",
        {
            "rollout.branching": [24, 1, 1],
            "credit.group": "round",
            "credit.train_rounds": "all",
            "loss.kind": "dapo",
        },
        best=True,
    ),
    "paper": Arm("MOTIF as published", {"rollout.branching": [8, 4, 1], "credit.format_weight": 1.0}, best=True),
    "long-8": Arm(
        "B1: single-round GRPO trained with one window of 87 tokens, the tokens of three rounds",
        LONG | {"rollout.branching": [8], "credit.format_weight": 1.0},
        row="rounds_1",
        best=True,
    ),
    "long-8-loo": Arm(
        "B1, with the baseline and loss of `recommended`, and no reward for the form",
        ALONE | {"rollout.branching": [8], "credit.format_weight": 0.0},
        row="rounds_1",
    ),
    "long-24": Arm(
        "B1, with as many responses as multi-24 has trajectories",
        LONG | {"rollout.branching": [24], "credit.format_weight": 1.0},
        row="rounds_1",
    ),
    "tail": Arm(
        "B2: no note, the last 14 tokens (half a window) of a response are carried (Delethink)",
        TREE
        | {"rounds.carry": "tail", "rounds.untagged": "tail", "rounds.note_tokens": 14, "credit.format_weight": 0.0},
        best=True,
    ),
    "cache": Arm(
        "B3: each round rewarded for its own answer, notes replayed (Reasoning Cache), 40 questions three times",
        TREE
        | {
            "rollout.branching": [1, 1, 8],
            "rollout.rounds_vary": [1, 2, 3],
            "rollout.replay": 0.5,
            "data.limit": 40,
        },
    ),
    "cache-fresh": Arm(
        "B3 without replay: notes sampled anew, 120 questions once",
        TREE | {"rollout.branching": [1, 1, 8], "rollout.rounds_vary": [1, 2, 3]},
    ),
    "mixed": Arm("B4: half compared with siblings, half with the round (LoGo-GRPO)", TREE | {"credit.group": "mixed"}),
    "tree-422": Arm(
        "[4, 2, 2] against siblings: what the next two are compared with", TREE | {"rollout.branching": [4, 2, 2]}
    ),
    "progress": Arm("B4: V(t + 1) - V(t), all nodes of [4, 2, 2] trained (SPO)", VALUE | {"credit.group": "progress"}),
    "chain": Arm(
        "B4: V(t + 1) - V(t), first children of [4, 2, 2] trained, the others estimate (VinePPO)",
        VALUE | {"credit.group": "chain"},
    ),
    "rejection": Arm(
        "B5: rejection-sampling fine-tuning in three rounds, four times 30 questions × 8 answers, 60 updates",
        TREE | OWN,
        rate="warmstart.learning_rate",
        best=True,
    ),
    "rejection-long": Arm(
        "B5 in one window of 87 tokens",
        ALONE | OWN | {"rollout.branching": [8]},
        rate="warmstart.learning_rate",
        row="rounds_1",
    ),
    "vote-5": Arm(
        "B6: the warm start, majority of 5: for 300 questions the tokens that `recommended` trains and answers with",
        TREE | UNTRAINED | {"eval.samples": 5},
        rate="",
        measure="majority",
        best=True,
    ),
    "vote-13": Arm(
        "B6, majority of 13: the same for multi-24",
        TREE | UNTRAINED | {"eval.samples": 13},
        rate="",
        measure="majority",
    ),
    "vote-long-5": Arm(
        "B6 in one window of 87 tokens, majority of 5",
        ALONE | UNTRAINED | {"rollout.branching": [8], "eval.samples": 5},
        rate="",
        row="rounds_1",
        measure="majority",
    ),
    "reasoning-only": Arm(
        "B7: no gradient on the tokens of notes (CompactionRL)", TREE | {"credit.tokens": "reasoning"}
    ),
    "notes-only": Arm("B7: a gradient on the tokens of notes only", TREE | {"credit.tokens": "notes"}),
    "varied": Arm("2, 3 or 4 rounds in training, 3 in the test", TREE | {"rollout.rounds_vary": [2, 3, 4]}),
    "untrained": Arm("the warm start", TREE | UNTRAINED, rate=""),
}


@dataclass(frozen=True)
class Contrast:
    """The difference a - b, once both have spent an amount of a currency; at: empty, at the end."""

    name: str
    a: str
    b: str
    at: dict[str, float] = field(default_factory=dict)
    margin: float | None = None


TOKENS = {"generated_tokens": 45000}
EQUAL = ", at 45,000 generated tokens"
CONTRASTS = [
    Contrast(
        "B1: recommended against the trained long window, 8 responses, N questions each",
        "recommended",
        "long-8",
        {},
        -0.03,
    ),
    Contrast(
        "B1 with one baseline and loss: recommended against long-8-loo, N questions each",
        "recommended",
        "long-8-loo",
        {},
        -0.03,
    ),
    Contrast("B1 at equal calls: multi-24 against long-24, N questions each", "multi-24", "long-24", {}, -0.03),
    Contrast("MOTIF against the trained long window, N questions each", "paper", "long-8"),
    Contrast("MOTIF against multi-24, equal calls and questions", "paper", "multi-24"),
    Contrast("Recommended against MOTIF" + EQUAL, "recommended", "paper", TOKENS),
    Contrast("Recommended against multi-24" + EQUAL, "recommended", "multi-24", TOKENS),
    Contrast("B2: a written note against the tail" + EQUAL, "recommended", "tail", TOKENS),
    Contrast(
        "B3: credit for what follows against a round's own answer, N questions each", "recommended", "cache-fresh"
    ),
    Contrast("B3: replayed notes against fresh ones, N draws each", "cache", "cache-fresh"),
    Contrast("B4: the mix of local and global against siblings alone" + EQUAL, "mixed", "recommended", TOKENS),
    Contrast("B4: V(t + 1) - V(t) against siblings, the same tree, N questions each", "progress", "tree-422"),
    Contrast("B4: what training the estimating continuations adds, N questions each", "tree-422", "chain"),
    Contrast(
        "B5: reinforcement learning against rejection sampling, at the end of each, about 50,000 generated tokens",
        "recommended",
        "rejection",
    ),
    Contrast("B5 in the long window, at the end of each", "long-8-loo", "rejection-long"),
    Contrast("B6: training against voting with as many tokens", "recommended", "vote-5"),
    Contrast("B6: multi-24 against voting with as many tokens", "multi-24", "vote-13"),
    Contrast("B6 in the long window", "long-8", "vote-long-5"),
    Contrast("B7: what the gradient on notes adds" + EQUAL, "recommended", "reasoning-only", TOKENS),
    Contrast("B7: what the gradient on reasoning adds" + EQUAL, "recommended", "notes-only", TOKENS),
    Contrast("Rounds varied in training against three" + EQUAL, "varied", "recommended", TOKENS),
]


@dataclass(frozen=True)
class Task:
    """A study: its file, recipe and arms. set: settings that replace those of the arms. at: its amount of tokens."""

    name: str
    about: str
    recipe: str
    arms: list[str]
    long: int
    tail: int


TASKS = [
    Task("chains", "The arms that others propose, on chains of 2 to 9 steps", "base.toml", list(ARMS), 87, 14),
    Task(
        "sums",
        "The same on a second, public task: chain sums of reasoning-gym",
        "sums_base.toml",
        [name for name, arm in ARMS.items() if arm.best],
        144,
        24,
    ),
]


def settings_of(arm: Arm, task: Task) -> dict[str, Any]:
    """The settings of an arm in a task, whose windows have other sizes."""
    changed = dict(arm.set)
    if "rollout.tokens_first" in changed:
        changed["rollout.tokens_first"] = task.long
    if changed.get("rounds.carry") == "tail":
        changed["rounds.note_tokens"] = task.tail
    return changed


def chosen_rates(task: Task) -> dict[str, float]:
    """The best rate of each arm that the pilot has tried at all three; of equals the smallest."""
    file = HERE / "pilots" / f"{task.name}_rates.jsonl"
    found: dict[str, dict[float, float]] = {}
    for line in file.read_text().splitlines()[1:] if file.is_file() else []:
        run = json.loads(line)
        name, _, place = run["arm"].rpartition("-rate-")
        if name in ARMS:
            found.setdefault(name, {})[RATES[int(place) - 1]] = run["curve"][-1]["rows"][ARMS[name].row]["accuracy"]
    return {
        name: max(sorted(tried), key=lambda rate: tried[rate])
        for name, tried in found.items()
        if len(tried) == len(RATES)
    }


def toml(value: Any) -> str:
    """A value as TOML."""
    return json.dumps(value, ensure_ascii=False)


def table(values: dict[str, Any]) -> list[str]:
    """Lines of settings."""
    return [f"{key} = {toml(value)}" for key, value in values.items()]


def arm_lines(name: str, arm: Arm, values: dict[str, Any], about: str = "") -> list[str]:
    """An arm of a study file."""
    lines = ["", f"[arms.{name}]", f"about = {toml(about or arm.about)}", f"row = {toml(arm.row)}"]
    if arm.measure != "accuracy":
        lines.append(f"measure = {toml(arm.measure)}")
    return [*lines, f"[arms.{name}.set]", *table(values)]


def head(name: str, about: str, task: Task, seeds: list[int], reference: str) -> list[str]:
    """The beginning of a study file."""
    return [
        "# Written by arms.py, which says what is fixed and when: do not edit.",
        *table({"name": name, "about": about, "recipe": task.recipe, "seeds": seeds, "row": "rounds_3"}),
        *([f"reference = {toml(reference)}"] if reference else []),
        "keep_trees = false",
        "",
        "[set]",
        *table(SHARED),
    ]


def study(task: Task) -> str:
    """The study of a task."""
    rates = chosen_rates(task)
    lines = head(task.name, task.about, task, SEEDS, "recommended")
    for name in task.arms:
        arm = ARMS[name]
        rate = {arm.rate: rates.get(name, RATES[1])} if arm.rate else {}
        lines += arm_lines(name, arm, settings_of(arm, task) | rate)
    for one in CONTRASTS:
        if one.a in task.arms and one.b in task.arms:
            at = f", at = {{ {', '.join(table(one.at))} }}" if one.at else ""
            lines += ["", "[[contrasts]]", f"name = {toml(one.name)}"]
            lines += [f"{side} = {{ arm = {toml(arm)}{at} }}" for side, arm in (("a", one.a), ("b", one.b))]
            lines += [f"margin = {one.margin}"] if one.margin is not None else []
    return "\n".join(lines) + "\n"


def pilot(task: Task) -> str:
    """The pilot of a task: every arm that is tuned at each rate, on the pilot seed."""
    about = f"A pilot: each arm at {len(RATES)} learning rates, on a seed that is not reported"
    lines = head(f"{task.name}_rates", about, task, [PILOT_SEED], "")
    for name in task.arms:
        arm = ARMS[name]
        for place, rate in enumerate(RATES, start=1):
            if arm.rate:
                values = settings_of(arm, task) | {arm.rate: rate, "eval.every": 0}
                lines += arm_lines(f"{name}-rate-{place}", arm, values, f"{arm.about}; learning rate {rate:g}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files, or check them."""
    texts = {f"{task.name}.toml": study(task) for task in TASKS}
    texts |= {f"{task.name}_rates.toml": pilot(task) for task in TASKS}
    if "--check" in sys.argv:
        stale = [name for name, text in texts.items() if (HERE / name).read_text() != text]
        sys.exit(f"stale: {', '.join(stale)}" if stale else None)
    for name, text in texts.items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
