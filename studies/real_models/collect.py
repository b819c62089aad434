"""Copy what is worth keeping of the runs into this folder, and print the tables of README.md."""

import json
import shutil
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent


def table(run: Path) -> str:
    """Medians over the steps of one run, and its accuracies."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "reward" in line]
    summary = json.loads((run / "summary.json").read_text())

    def median(name: str) -> float:
        return statistics.median(step[name] for step in steps if step.get(name) is not None)

    def mean(name: str, part: list[dict]) -> str:
        return f"{statistics.fmean(step[name] for step in part):.3f}"

    quarter = max(1, len(steps) // 4)
    begin, end = steps[:quarter], steps[-quarter:]
    ledger = summary["ledger"]
    sampled = sum(step["time/sample"] for step in steps)
    rows = [
        ("steps", len(steps)),
        ("seconds a step (median)", f"{median('time/total'):.0f}"),
        ("of which sampling / grading / update / record", " / ".join(
            f"{median(f'time/{part}'):.2f}" for part in ("sample", "grade", "update", "record"))),
        ("generated tokens a second while sampling", f"{ledger['generated_tokens'] / sampled:.0f}"),
        ("generated / prompt / trained tokens", " / ".join(
            f"{ledger[key]:,}" for key in ("generated_tokens", "prefill_tokens", "trained_tokens"))),
        ("updates", ledger["updates"]),
        ("dead groups", f"{sum(s['dead_groups'] for s in steps)} of {sum(s['groups'] for s in steps)}"),
        ("largest sampler gap", f"{max((s['sampler/mean_gap'] or 0) for s in steps):.1e}"),
    ]  # fmt: skip
    for name in ("reward", "outcome/mean", "format/rate_1", "completions/clipped_ratio", "note/early_answer"):
        rows.append((f"{name}, first and last quarter of the steps", f"{mean(name, begin)} → {mean(name, end)}"))
    for rounds in summary["before"]:
        text = []
        for when in ("before", "after"):
            a = summary[when].get(rounds)
            text.append(f"{100 * a['accuracy']:.1f} % [{100 * a['low']:.1f}–{100 * a['high']:.1f}]" if a else "-")
        rows.append(
            (f"held-out accuracy, {rounds.replace('_', ' ')}, n = {summary['before'][rounds]['n']}", " → ".join(text))
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


for folder in map(Path, sys.argv[1:]):
    target = HERE / "results" / folder.name
    target.mkdir(parents=True, exist_ok=True)
    for name in ("recipe.toml", "metrics.jsonl", "summary.json"):
        shutil.copy(folder / name, target / name)
    print(f"\n## {folder.name}\n\n{table(folder)}")
