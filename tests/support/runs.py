"""Run folders as real runs would leave them, made up in milliseconds."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import zlib
from pathlib import Path
from typing import Any

from motif.runs.folder import RECORD
from motif.statistics.variance import Components, question_components

HOSTILE = (
    "</script><img src=x onerror=\"document.documentElement.dataset.error='ran'\"><!-- <script>alert(1)</script> "
    "<!--<script> \u2028\u2029 \u202egnp.exe \x1b[31mred\x1b[0m \x00 \ud800 🂡 日本語 &lt; [[script]] [[data]] \\u003c"
)


def fake_run(
    folder: Path,
    *,
    steps: int = 60,
    planned: int = 60,
    branching: tuple[int, ...] = (8, 4, 1),
    questions: int = 4,
    after: float | None = 0.72,
    text: str | None = None,
    probed: bool = False,
    seed: int = 0,
) -> Path:
    """A run that goes from about 40 % to about 70 %: recipe, metrics with evaluations, trees, summary."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(
        'name = "demo"\nabout = "Two-digit multiplication in three rounds."\n[model]\n'
        'name = "embedded"\nadapter = "lora"\n'
        f'lora_rank = 64\n[data]\ntask = "arithmetic"\n[rollout]\nquestions_per_step = {questions}\n'
        f"branching = {list(branching)}\ntokens_first = 256\ntokens_continue = 128\n"
        f"[train]\nsteps = {planned}\nseed = {seed}\n"
    )
    rounds = len(branching)
    before_rate = 0.41
    ledger: dict[str, Any] = dict.fromkeys(("questions", "updates", "generated_tokens", "prefill_tokens"), 0)
    ledger |= {"prefill_saved": 0, "trained_tokens": 0, "flops": 0.0, "seconds": 0.0}
    before, end = _evaluation(before_rate, rounds), _evaluation(after or 0.5, rounds)
    metrics: list[dict[str, Any]] = [{"step": 0, "eval": before}]
    with (folder / "trees.jsonl").open("w") as trees:
        for step in range(1, steps + 1):
            skill = before_rate + ((after or 0.5) - before_rate) * (1 - math.exp(-3 * step / max(planned, 1)))
            grown = [_tree(rng, step, index, branching=branching, skill=skill, text=text) for index in range(questions)]
            trees.writelines(json.dumps(tree) + "\n" for tree in grown)
            metrics.append(_training_line(rng, step, grown, ledger, branching=branching, skill=skill))
            if step % 20 == 0:
                metrics.append({"step": step, "eval": _evaluation(skill, rounds)})
    if probed:
        metrics += [{"step": 0, "probe": made_up_probe(0.4)}, {"step": steps, "probe": made_up_probe(0.7)}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    summary: dict[str, Any] = {"before": before, "ledger": ledger, "seed": seed, "status": "stopped"}
    summary["versions"] = {"motif-rl": "0.1.0", "torch": "2.13.0", "transformers": "5.13.0", "python": "3.11.7"}
    if after is not None:
        summary |= {"after": end, "status": "finished", "best": {"step": 40, "accuracy": 0.731}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _evaluation(rate: float, rounds: int, n: int = 500) -> dict[str, Any]:
    found = {}
    for count in {1, rounds}:
        share = rate if count == rounds else 0.75 * rate
        half = 1.96 * math.sqrt(share * (1 - share) / n)
        found[f"rounds_{count}"] = {
            "accuracy": share,
            "low": share - half,
            "high": share + half,
            "n": n,
            "truncated": 0.03,
            "mean_tokens": 90.0 * count,
        }
    return found


def _tree(
    rng: random.Random, step: int, index: int, *, branching: tuple[int, ...], skill: float, text: str | None
) -> dict[str, Any]:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    ease = min(1.0, max(0.0, rng.gauss(1.3 * skill - 0.2, 0.6)))

    def node(path: tuple[int, ...], quality: float) -> dict[str, Any]:
        final = len(path) == len(branching)
        right = rng.random() < quality
        answer = str(a * b if right else a * b + rng.choice([-100, -10, 10, 90]))
        note = (
            f"{a} × {b} = {a} × {b // 10 * 10} + {a} × {b % 10}. So far: {a * (b // 10) * 10}."
            if not final
            else f"\\boxed{{{answer}}}"
        )
        formed = rng.random() < 0.6 + 0.35 * skill
        body = text or (
            f"<reasoning>\nI split {b} into {b // 10 * 10} and {b % 10}.\n{a} × {b // 10 * 10} = {a * (b // 10) * 10}\n"
            f"{a} × {b % 10} = {a * (b % 10)}\n</reasoning>\n<answer>\n{note}\n</answer>"
        )
        record: dict[str, Any] = {
            "path": list(path),
            "text": body if formed else body.replace("</answer>", ""),
            "tokens": 60 + rng.randint(0, 60),
            "prompt_tokens": 48,
            "truncated": rng.random() < 0.05,
            "well_formed": formed,
            "note": text or note,
            "answer": answer if final else None,
            "value": None,
            "reward": None,
            "advantage": None,
        }
        if final:
            verdict = "ungraded" if rng.random() < 0.002 else "right" if right else "wrong"
            reason = (
                text or {"right": "equal", "wrong": f"{answer} ≠ {a * b}", "ungraded": "the grader timed out"}[verdict]
            )
            record |= {"verdict": verdict, "reason": reason, "value": None if verdict == "ungraded" else float(right)}
        else:
            count = branching[len(path)]
            record["children"] = [node((*path, child), quality) for child in range(count)]
            values = [child["value"] for child in record["children"] if child["value"] is not None]
            record["value"] = sum(values) / len(values) if values else None
        return record

    responses = [
        node((response,), min(1.0, max(0.0, ease + rng.gauss(0, 0.25) * (0 < ease < 1))))
        for response in range(branching[0])
    ]
    for response in responses:
        response["reward"] = (response["value"] or 0.0) + response["well_formed"]
    mean = sum(response["reward"] for response in responses) / len(responses)
    for response in responses:
        response["advantage"] = response["reward"] - mean
    question = {"id": f"arithmetic-{step}-{index}", "text": text or f"What is {a} × {b}?", "gold": text or str(a * b)}
    return {"step": step, "question": question, "responses": responses}


def _training_line(
    rng: random.Random,
    step: int,
    trees: list[dict[str, Any]],
    ledger: dict[str, Any],
    *,
    branching: tuple[int, ...],
    skill: float,
) -> dict[str, Any]:
    rounds, k = len(branching), math.prod(branching[1:])
    responses = [response for tree in trees for response in tree["responses"]]
    values = [response["value"] for response in responses if response["value"] is not None]
    counts = [0] * (k + 1)
    for value in values:
        counts[round(value * k)] += 1
    solved = [[response["value"] or 0 for response in tree["responses"]] for tree in trees]
    _charge(ledger, len(trees))
    line: dict[str, Any] = {
        "step": step,
        "reward": sum(response["reward"] for response in responses) / len(responses),
        "reward_std": 0.4,
        "frac_reward_zero_std": 0.1,
        "completions/mean_length": 88.0,
        "completions/clipped_ratio": 0.05,
        "entropy": 0.9 - 0.4 * skill + rng.gauss(0, 0.03),
        "kl": None,
        "clip_ratio": 0.0,
        "grad_norm": abs(rng.gauss(0.6, 0.15)),
        "learning_rate": 5e-6,
        "loss": rng.gauss(0, 0.01),
        "sampler/mean_gap": abs(rng.gauss(2e-6, 5e-7)),
        "outcome/mean": sum(values) / len(values),
        "outcome/rate_counts": counts,
        "outcome/ungraded": sum(response["value"] is None for response in responses),
        "outcome/never": sum(max(row) == 0 for row in solved) / len(solved),
        "outcome/always": sum(min(row) == 1 for row in solved) / len(solved),
        "note/mean_tokens": 31 + rng.gauss(0, 2),
        "note/empty": 0.04,
        "note/early_answer": min(1, 0.2 + 0.3 * skill),
        "groups": len(trees),
        "dead_groups": sum(len(set(row)) == 1 for row in solved),
        "time/sample": 12.1,
        "time/grade": 0.8,
        "time/update": 7.5,
        "time/record": 0.1,
        "time/total": 21.0,
    }
    line["outcome/sometimes"] = 1 - line["outcome/never"] - line["outcome/always"]
    for count in range(1, rounds + 1):
        line[f"format/rate_{count}"] = min(1, 0.5 + 0.45 * skill + 0.03 * count + rng.gauss(0, 0.03))
        line[f"length/round_{count}"] = 120 - 14 * count + 30 * skill + rng.gauss(0, 4)
        line[f"truncated/round_{count}"] = max(0, 0.12 - 0.1 * skill - 0.01 * count + rng.gauss(0, 0.01))
    parts = Components()
    if k > 1:
        parts = sum((question_components(outcomes_of(tree)) for tree in trees), parts)
    return line | parts.metrics() | {f"ledger/{key}": value for key, value in ledger.items()}


def _charge(ledger: dict[str, Any], questions: int) -> None:
    ledger["questions"] += questions
    ledger["updates"] += 1
    for key, amount in (
        ("generated_tokens", 24_000),
        ("prefill_tokens", 9_000),
        ("prefill_saved", 60_000),
        ("trained_tokens", 7_000),
        ("flops", 3.1e12),
    ):
        ledger[key] += amount * questions
    ledger["seconds"] += 21.0


def outcomes_of(tree: dict[str, Any]) -> list[list[float]]:
    return [
        [child["value"] for child in response["children"] if child["value"] is not None]
        for response in tree["responses"]
    ]


def made_up_probe(own: float) -> dict[str, Any]:
    def estimate(value: float, half: float = 0.05) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    values = {"own": own, "empty": 0.05, "shuffled": 0.02, "own_minus_empty": own - 0.05}
    return {
        "questions": 20,
        "correlation": estimate(0.7),
        "icc": estimate(0.3),
        "trained_bias": estimate(0.01),
        "rewards": [{"k": k, "bias": estimate(0.0), "variance": 0.2 / k, "reliability": 0.3} for k in (1, 2, 4, 8)],
        "values": {name: estimate(value) for name, value in values.items()},
    }


def offsets_at(folder: Path, step: int) -> dict[str, tuple[int, int]]:
    """Where the record of a run ended after a step, as a checkpoint of that step keeps it."""
    offsets = {}
    for name in RECORD:
        lines = (folder / name).read_bytes().splitlines(keepends=True) if (folder / name).is_file() else []
        kept = b"".join(itertools.takewhile(lambda line: json.loads(line)["step"] <= step, lines))
        offsets[name] = len(kept), zlib.crc32(kept)
    return offsets


MEASURED = re.compile(r"^(time|memory|processes)/|seconds$")


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what is a matter of the clock and of the machine."""
    return [_computed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _computed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _computed(item) for key, item in value.items() if not MEASURED.search(key)}
