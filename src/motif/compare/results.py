"""The raw results of a study: one file, from which all numbers, tables and figures can be made again.

results.jsonl begins with a line about the study (`"study"`), followed by a line per run. A curve has an entry per
evaluation with the amounts spent by then, from the ledger in the metrics line of the same step.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from motif.compare.study import COMPUTED, Study, StudyRun
from motif.config import Recipe, flat
from motif.errors import RunFolderError, UsageError
from motif.runs.disk import write_atomically
from motif.runs.read import Metrics, read_metrics, read_outcomes, read_summary, wall_seconds
from motif.runs.settings import changed, settings

Record = dict[str, Any]
LETTERS = {1.0: "1", 0.0: "0", None: "-"}
"""The outcome of a question that was answered once: right, wrong, ungraded."""


def collect(study: Study, base: Recipe, row: str, runs: Sequence[StudyRun], folder: Path) -> list[Record]:
    """The lines of results.jsonl, from the run folders that have finished.

    Paths below the study's `folder` are written relative to it, so that results mean the same on other machines.
    """
    ids: dict[str, list[str]] = {}
    lines = [read_run(run, base, ids) for run in runs if run.is_finished]
    for line in lines:
        line["settings"] = _relative(line["settings"], folder)
    settings = _relative(dict(flat(base.model_dump(mode="json"))), folder)
    return [{"study": study.name, "row": row, "base": settings, "questions": ids}, *lines]


def _relative(settings: Record, folder: Path) -> Record:
    prefix = f"{folder.resolve()}/"
    return {key: value.removeprefix(prefix) if isinstance(value, str) else value for key, value in settings.items()}


def read_run(run: StudyRun, base: Recipe, ids: dict[str, list[str]]) -> Record:
    """One run as one record; question ids go into `ids`, by row, and are checked against those of other runs.

    Raises:
        RunFolderError: the run was evaluated on other questions than the runs before it.
    """
    metrics, summary = read_metrics(run.folder), read_summary(run.folder)
    outcomes = read_outcomes(run.folder, run.recipe.train.steps)
    for row, line in outcomes.items():
        if ids.setdefault(row, line["questions"]) != line["questions"]:
            raise RunFolderError(f"{run.folder}: {row} was evaluated on other questions than in the runs before it")
    changes = changed(settings(base), settings(run.recipe))
    return {
        "arm": run.arm,
        "seed": run.seed,
        "settings": {key: new for key, (_, new) in changes.items() if key != "train.seed"},
        "curve": curve(metrics, summary.get("ledger", {})),
        "outcomes": {row: shorthand(line["outcomes"]) for row, line in outcomes.items()},
        "dead_groups": mean(record.get("frac_reward_zero_std") for record in metrics.steps),
        "truncated": mean(record.get("completions/clipped_ratio") for record in metrics.steps),
        "diagnostics": diagnostics(metrics.steps),
        "probes": [{"step": step, "probe": probe} for step, probe in sorted(metrics.probes.items())],
        "ledger": with_computed(summary.get("ledger", {})),
        "wall_seconds": wall_seconds(run.folder),
        "versions": summary.get("versions", {}),
    }


def curve(metrics: Metrics, ledger: Record) -> list[Record]:
    """An entry per evaluation: step, amounts spent by then, and each row's accuracy. `ledger` is the run's last.

    One after a warm start has its own entry at step 0, with what the stage had spent by its last line, or, where the
    run ends with it, in all.
    """
    points = []
    for step, rows in sorted(metrics.evals.items()):
        last = next((record for record in reversed(metrics.steps) if record["step"] <= step), {})
        spent = {key.removeprefix("ledger/"): value for key, value in last.items() if key.startswith("ledger/")}
        points.append({"step": step, "spent": with_computed(spent or dict.fromkeys(ledger, 0)), "rows": rows})
        if step == 0 and (warmed := next((line for line in metrics.warmstart if "eval" in line), None)):
            lines = [line for line in metrics.warmstart if "ledger/generated_tokens" in line]
            spent = {key: lines[-1].get(f"ledger/{key}") for key in ledger} if metrics.steps and lines else ledger
            points.append({"step": 0, "spent": with_computed(spent), "rows": warmed["eval"]})
    return points


def with_computed(spent: Record) -> Record:
    """Amounts spent, with all tokens computed among them."""
    if COMPUTED in spent or not {"generated_tokens", "prefill_tokens"} <= spent.keys():
        return spent
    return spent | {COMPUTED: spent["generated_tokens"] + spent["prefill_tokens"]}


def diagnostics(steps: Sequence[Record]) -> Record:
    """All metrics under `diag/`, as columns over the steps that have any."""
    diagnosed = [record for record in steps if any(key.startswith("diag/") for key in record)]
    keys = sorted({key for record in diagnosed for key in record if key.startswith("diag/")})
    columns = {key.removeprefix("diag/"): [record.get(key) for record in diagnosed] for key in keys}
    return {"step": [record["step"] for record in diagnosed]} | columns if diagnosed else {}


def shorthand(outcomes: list[float | None]) -> str | list[float | None]:
    """Outcomes as a string of letters, if each is right, wrong or ungraded."""
    if all(outcome in LETTERS for outcome in outcomes):
        return "".join(LETTERS[outcome] for outcome in outcomes)
    return outcomes


def spelled_out(outcomes: str | list[float | None]) -> list[float | None]:
    """The inverse of `shorthand`: a number or None per question."""
    values = {letter: value for value, letter in LETTERS.items()}
    return [values[letter] for letter in outcomes] if isinstance(outcomes, str) else outcomes


def write_results(path: Path, lines: Sequence[Record]) -> None:
    """Write results.jsonl."""
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    write_atomically(path, text)


def read_results(*paths: Path) -> list[Record]:
    """The lines of results.jsonl; of several, such as arms that were added later, the lines of all.

    Raises:
        UsageError: no such file, a file of another kind, or files that do not belong together.
    """
    (head, *runs), *others = (_read(path) for path in paths)
    for path, (other, *lines) in zip(paths[1:], others, strict=True):
        for row in head["questions"].keys() & other["questions"].keys():
            if head["questions"][row] != other["questions"][row]:
                raise UsageError(f"{path}: its runs were tested on other questions ({row}) than those of {paths[0]}")
        head["questions"] |= other["questions"]
        for line in lines:
            if any((line["arm"], line["seed"]) == (run["arm"], run["seed"]) for run in runs):
                raise UsageError(f"{path}: another file has {line['arm']} seed {line['seed']}, too: leave one out")
        runs += lines
    return [head, *runs]


def _read(path: Path) -> list[Record]:
    """The lines of one results.jsonl.

    Raises:
        UsageError: no such file, or a file of another kind.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON lines: {error}") from None
    if not lines or "study" not in lines[0] or not all("arm" in line and "curve" in line for line in lines[1:]):
        raise UsageError(f"{path} is not what `motif compare` writes: a line on the study, then a line per run")
    for run in lines[1:]:
        run["ledger"] = with_computed(run["ledger"])
        for point in run["curve"]:
            point["spent"] = with_computed(point["spent"])
    return lines


def mean(values: Iterable[Any]) -> float | None:
    """The mean of the numbers among the values; None if there are none."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers else None
