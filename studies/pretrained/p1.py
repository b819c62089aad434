"""P1, a pretrained model: stories in pieces, rounds against one trained window that holds the story.

    python studies/pretrained/p1.py rates               the pilot of learning rates
    python studies/pretrained/p1.py train               warm starts, all runs, results/p1
    python studies/pretrained/p1.py test                longer stories, other wordings, the twin; results/p1/tests.jsonl
    python studies/pretrained/p1.py table               rounds and the trained window, as README.md has them
    python studies/pretrained/p1.py write [--check]     p1.toml and p1_rates.toml from the table below

`--seeds 0 1`, `--arms long-8 recommended`, `--tests "6 events"`, `--workers 2` and `--runs runs/p1` limit and place the
work. Started again, it goes on where it stopped; runs and tests that are in results/p1 are not made again, wherever
their folders are.

Arms, contrasts, tests and seeds are fixed here, and were committed before any of the runs. What a run changes is each
arm's learning rate: the best of RATES in the pilot on PILOT_SEED, which is not among the seeds. Until its results are
in pilots/, every arm has the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motif.statistics.paired import crossed_interval

HERE = Path(__file__).parent
PILOTS = HERE / "pilots" / "p1_rates.jsonl"
RESULTS = HERE / "results" / "p1"
SEEDS, PILOT_SEED = [0, 1, 2, 3, 4], 103
RATES = (1e-5, 3e-5, 1e-4)
ROW = "pieces"
TOKENS = 32
"""Of a round; a window that holds a story of n events has n times as many."""
STARTS = {
    "rounds": {},
    "long": {"data.stories.events_per_piece": 12, "rollout.branching": [8], "rollout.tokens_first": 3 * TOKENS},
}
"""Two warm starts a seed: on stories read in pieces, and on the same stories read and written in one window."""
WARM = {
    "train.steps": 0,
    "warmstart.source": "solutions",
    "warmstart.notes": "latest",
    "warmstart.steps": 60,
    "warmstart.until": 0.0,
    "warmstart.least_entropy": 0.0,
    "warmstart.demonstrations_per_step": 8,
    "warmstart.learning_rate": 3e-4,
    "warmstart.look_every": 20,
    "warmstart.look_questions": 4,
}
TREE = {
    "credit.train_rounds": "all",
    "credit.divide_by_std": False,
    "credit.baseline": "leave_one_out",
    "loss.kind": "dr_grpo",
}
MADE = 12_000
"""Generated tokens at which arms are compared, about what `recommended` spends in all."""


@dataclass(frozen=True)
class Arm:
    """One way of training. start: which warm start it goes on from; empty: none. rate: the setting that is tuned."""

    about: str
    set: dict[str, Any] = field(default_factory=dict)
    start: str = "rounds"
    rate: str = "train.learning_rate"


ARMS = {
    "untrained": Arm("The model as it comes", {"train.steps": 0}, start="", rate=""),
    "warm": Arm("The warm start alone", {"train.steps": 0}, rate=""),
    "warm-long": Arm("The warm start alone, in one window", STARTS["long"] | {"train.steps": 0}, start="long", rate=""),
    "rejection": Arm(
        "Rejection-sampling fine-tuning: as many updates and questions as the other arms",
        {
            "train.steps": 0,
            "warmstart.source": "self",
            "warmstart.answers": "rounds",
            "warmstart.questions": 60,
            "warmstart.samples": 8,
            "warmstart.keep": 8,
            "warmstart.iterations": 4,
            "warmstart.temperature": 1.0,
            "warmstart.steps": 15,
            "warmstart.until": 0.0,
            "warmstart.least_entropy": 0.0,
            "warmstart.look_every": 1000,
            "warmstart.look_questions": 1,
        },
        rate="warmstart.learning_rate",
    ),
    "long-8": Arm(
        "GRPO with one window that holds the story and the tokens of all rounds, 8 responses",
        TREE | STARTS["long"],
        start="long",
    ),
    "paper": Arm("MOTIF: 8 responses, 4 trajectories each, round 1 trained", {"rollout.branching": [8, 4, 1]}),
    "multi-8": Arm(
        "8 whole trajectories, one shared reward",
        TREE | {"rollout.branching": [8, 1, 1], "credit.group": "round"},
    ),
    "recommended": Arm("[4, 2, 1], every round trained against its siblings", TREE),
}

CONTRASTS = [
    ("`recommended` against the trained window, N questions each", "recommended", "long-8", False),
    ("… at equal generated tokens", "recommended", "long-8", True),
    ("MOTIF against the trained window, N questions each", "paper", "long-8", False),
    ("`recommended` against MOTIF at equal generated tokens", "recommended", "paper", True),
    ("`recommended` against 8 whole trajectories at equal generated tokens", "recommended", "multi-8", True),
    ("`recommended` against rejection-sampling fine-tuning, N questions each", "recommended", "rejection", False),
    ("What reinforcement learning adds to the warm start", "recommended", "warm", False),
    ("What it adds to the warm start in one window", "long-8", "warm-long", False),
    ("The two warm starts: rounds against one window", "warm", "warm-long", False),
]
"""First less second; True: at MADE generated tokens."""
TESTS = {
    "twin": {"data.stories.variant": 1},
    "6 events": {"data.stories.shortest": 6, "data.stories.longest": 6},
    "12 events": {"data.stories.shortest": 12, "data.stories.longest": 12},
}
TESTS |= {f"{name}, unseen wordings": TESTS[name] | {"data.stories.unseen_wordings": True} for name in list(TESTS)[1:]}
"""The same held-out stories with other names, things and numbers, and stories longer than any in training."""
QUESTIONS = 200


def studies() -> dict[str, dict[str, Any]]:
    """The study and the pilot of its learning rates, by file name."""
    chosen = {name: best_rate(name) for name in ARMS if ARMS[name].rate}
    shared: dict[str, Any] = {"recipe": "p1_base.toml", "row": ROW, "keep_trees": False}
    arms = {name: settings(arm, chosen.get(name)) for name, arm in ARMS.items()}
    contrasts = [
        {"name": name, **{side: point(arm, at) for side, arm in (("a", a), ("b", b))}} for name, a, b, at in CONTRASTS
    ]
    study = {"name": "p1", "about": "A pretrained model reads stories: rounds against one trained window"}
    pilot = {"name": "p1_rates", "about": "Learning rates of p1, on a seed that is not among its own"}
    return {
        "p1.toml": study | shared | {"seeds": SEEDS, "reference": "recommended", "arms": arms, "contrasts": contrasts},
        "p1_rates.toml": pilot
        | shared
        | {"seeds": [PILOT_SEED]}
        | {"arms": {f"{name}-{rate:g}": settings(ARMS[name], rate) for name in chosen for rate in RATES}},
    }


def settings(arm: Arm, rate: float | None) -> dict[str, Any]:
    """An arm as study files have it."""
    start = {"model.name": f"starts/{arm.start}-{{seed}}"} if arm.start else {}
    return {"about": arm.about, "set": start | arm.set | ({arm.rate: rate} if rate else {})}


def point(arm: str, at_equal_tokens: bool) -> dict[str, Any]:
    """A side of a contrast."""
    return {"arm": arm} | ({"at": {"generated_tokens": MADE}} if at_equal_tokens else {})


def best_rate(arm: str) -> float:
    """The rate that did best in the pilot; of equals the lowest. Before it has all three, the second."""
    ends = {line["arm"]: line["curve"][-1]["rows"][ROW]["accuracy"] for line in lines(PILOTS) if "arm" in line}
    if not all(f"{arm}-{rate:g}" in ends for rate in RATES):
        return RATES[1]
    return max(RATES, key=lambda rate: (ends[f"{arm}-{rate:g}"], -rate))


def toml(study: dict[str, Any]) -> str:
    """A study file."""
    arms, contrasts = study["arms"], study.get("contrasts", [])
    text = ["# Written by p1.py, which says what is fixed and when: do not edit."]
    text += [f"{key} = {json.dumps(value)}" for key, value in study.items() if key not in ("arms", "contrasts")]
    for name, arm in arms.items():
        text += ["", f'[arms."{name}"]', f"about = {json.dumps(arm['about'])}", f'[arms."{name}".set]']
        text += [f"{key} = {json.dumps(value)}" for key, value in arm["set"].items()]
    for one in contrasts:
        sides = [f"{side} = {inline(one[side])}" for side in ("a", "b")]
        text += ["", "[[contrasts]]", f"name = {json.dumps(one['name'])}", *sides]
    return "\n".join(text) + "\n"


def inline(table: dict[str, Any]) -> str:
    """A table in one line of TOML."""
    return (
        "{ "
        + ", ".join(f"{k} = {inline(v) if isinstance(v, dict) else json.dumps(v)}" for k, v in table.items())
        + " }"
    )


def lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; none if there is no such file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def motif(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "motif", *arguments], check=True)


def start(seed: int, runs: Path) -> None:
    """Make the two warm starts of a seed: models that lie beside the study, where its arms look for them."""
    for name, changes in STARTS.items():
        model, run = HERE / "starts" / f"{name}-{seed}", runs / f"start-{name}-{seed}"
        if (model / "config.json").is_file():
            continue
        given = WARM | changes | {"train.seed": seed}
        sets = [part for key, value in given.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        motif("train", str(HERE / "p1_base.toml"), "--out", str(run), "--resume", *sets)
        motif("export", str(run), "--to", "merged", "--out", str(run / "export"))
        model.parent.mkdir(exist_ok=True)
        shutil.move(run / "export" / "merged", model)


def train(study: str, seeds: list[int], arms: list[str], runs: Path, workers: int) -> Path:
    """Run these arms of a study, or all, seed by seed, and return its results."""
    kept = PILOTS if study == "p1_rates.toml" else RESULTS / "results.jsonl"
    given = runs / study[:-5]
    for seed in seeds:
        there = {key(line) for line in lines(kept)}
        if missing := [arm for arm in arms or studies()[study]["arms"] if (arm, seed) not in there]:
            start(seed, runs)
            options = {"seeds": seed, "workers": workers, "out": given, "arms": ",".join(missing)}
            motif("compare", str(HERE / study), *(f"--{name}={value}" for name, value in options.items()))
            keep(lines(given / "results.jsonl"), kept)
    return kept


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What a record is of; the first of a file is of the study."""
    return tuple(line[name] for name in ("arm", "seed", "test") if name in line)


def keep(found: list[dict[str, Any]], file: Path) -> None:
    """Add to a file of results what it does not have yet."""
    there = lines(file)
    if there and found[0].get("base", there[0].get("base")) != there[0].get("base"):
        sys.exit(f"{file} is of other settings than these runs")
    records = {key(line): line for line in [*found, *there]}
    names = sorted(records, key=lambda name: (len(name), str(name)))
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(records[name], ensure_ascii=False) + "\n" for name in names)
    file.write_text(text, encoding="utf-8")


def tested(run: Path, test: str) -> list[float]:
    """The outcome of each question of a test, one greedy answer each; tested if that has not been done."""
    out = run / test.replace(" ", "-").replace(",", "")
    if not (out / "results.json").is_file():
        given = dict(TESTS[test])
        if any(run.parent.name.startswith(arm) for arm in ("long-8", "warm-long")):
            given["rollout.tokens_first"] = TOKENS * given.get("data.stories.longest", 3)
        sets = [part for key, value in given.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        motif("eval", str(run), "--out", str(out), "--questions", str(QUESTIONS), "--temperature", "0", *sets)
    return [
        outcome or 0.0 for line in lines(out / "outcomes.jsonl") if line["row"] == ROW for outcome in line["outcomes"]
    ]


def test(study: str, seeds: list[int], tests: list[str], runs: Path, out: Path) -> None:
    """Test all arms that have been trained, and keep each question's outcome: a line for an arm, a seed and a test."""
    there = {key(line) for line in lines(out)}
    for name, arm, seed in itertools.product(tests, studies()[study]["arms"], seeds):
        run = runs / study[:-5] / arm / f"seed-{seed}"
        if arm != "untrained" and (arm, seed, name) not in there and (run / "summary.json").is_file():
            outcomes = "".join(str(int(outcome)) for outcome in tested(run, name))
            keep([{"arm": arm, "seed": seed, "test": name, "outcomes": outcomes}], out)


def table(results: Path = RESULTS) -> list[str]:
    """Rows for README.md: rounds and the trained window over the seeds that both have, and the difference."""
    runs = [line for line in lines(results / "results.jsonl") if "arm" in line]
    ends = {(line["arm"], line["seed"]): line["outcomes"][ROW] for line in runs}
    rows = ["| accuracy, greedy, % | rounds | one trained window | difference, points |", "|---|---|---|---|"]
    for name, of in {"2 and 3 events": ends, **dict.fromkeys(TESTS)}.items():
        records = [line for line in lines(results / "tests.jsonl") if line["test"] == name]
        right = of or {(line["arm"], line["seed"]): line["outcomes"] for line in records}
        for when, a, b in (("after the warm start", "warm", "warm-long"), ("at the end", "recommended", "long-8")):
            seeds = [seed for arm, seed in right if arm == a and (b, seed) in right]
            sides = [[[float(outcome) for outcome in right[arm, seed]] for seed in seeds] for arm in (a, b)]
            gap = crossed_interval([[x - y for x, y in zip(*pair, strict=True)] for pair in zip(*sides, strict=True)])
            shares = [f"{100 * sum(map(sum, side)) / sum(map(len, side)):.1f}" for side in sides]
            interval = f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
            rows.append(f"| {name}, {when} | {shares[0]} | {shares[1]} | {interval} |")
    return rows


def table_by_seed(results: Path = RESULTS) -> list[str]:
    """Rows for README.md: both arms at the end, by seed, with the warm starts before them in brackets."""
    found: dict[tuple[str, int, str], str] = {}
    for line in lines(results / "tests.jsonl"):
        found[line["arm"], line["seed"], line["test"]] = (
            f"{100 * line['outcomes'].count('1') / len(line['outcomes']):.1f}"
        )
    seeds = sorted({seed for arm, seed, _ in found if arm == "recommended"})
    rows = [
        f"| accuracy, greedy, % | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        "|---" * (1 + len(seeds)) + "|",
    ]
    for name in TESTS:
        cells = []
        for seed in seeds:
            ends = (found[arm, seed, name] for arm in ("recommended", "long-8", "warm", "warm-long"))
            cells.append("{} against {} ({}, {})".format(*ends))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def write(check: bool) -> None:
    """Write the study files, or say whether they are as they would be written."""
    for name, study in studies().items():
        if not check:
            (HERE / name).write_text(toml(study), encoding="utf-8")
        elif (HERE / name).read_text(encoding="utf-8") != toml(study):
            sys.exit(f"{name} is not what p1.py writes: run python studies/pretrained/p1.py write")


def main() -> None:
    """Do the part that is named."""
    parser = argparse.ArgumentParser(description="P1: a pretrained model on stories in pieces.")
    parser.add_argument("part", choices=["write", "rates", "train", "test", "table"])
    parser.add_argument("--check", action="store_true", help="with write: only compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--arms", nargs="+", default=[], help="with rates and train: only these")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), choices=list(TESTS), help="with test: only these")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/p1"), help="folder of the runs")
    given = parser.parse_args()
    if given.part == "rates":
        train("p1_rates.toml", [PILOT_SEED], given.arms, given.runs, given.workers)
    elif given.part == "train":
        results = train("p1.toml", given.seeds, given.arms, given.runs, given.workers)
        motif("compare", str(HERE / "p1.toml"), "--from", str(results), "--out", str(RESULTS))
    elif given.part == "test":
        test("p1.toml", given.seeds, given.tests, given.runs, RESULTS / "tests.jsonl")
    elif given.part == "table":
        print("\n".join([*table(), "", *table_by_seed()]))
    if given.part in ("write", "rates"):
        write(given.check)


if __name__ == "__main__":
    main()
