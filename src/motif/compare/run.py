"""What `motif compare` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from motif.compare.analysis import summarise
from motif.compare.page import write_page
from motif.compare.progress import StudyProgress, count_finished
from motif.compare.results import Record, read_results
from motif.compare.runner import Tally
from motif.compare.study import Run, Study, load_study
from motif.compare.words import markdown, print_summary
from motif.display import PlainConsole
from motif.errors import RecipeError
from motif.runs.disk import write_atomically
from motif.text import duration

if TYPE_CHECKING:
    from motif.compare.prepare import Prepared


def compare(
    file: Path,
    out: Path | None = None,
    workers: int = 1,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    mode: Literal["plan", "collect", "run"] = "run",
    results: Path | None = None,
) -> int:
    """Check, run and collect a study; returns the exit status: 0, 1 if a run failed, 130 if the user stopped it.

    Args:
        mode: `plan` only checks, `collect` runs nothing and takes what has finished.
        results: run nothing, look at no recipe, and take this results.jsonl; the output goes beside it unless `out`.

    Raises:
        RecipeError, BadRows: see `prepare`, `run_study` and `read_results`.
    """
    console, study = PlainConsole(), load_study(file)
    if results is not None:
        present(study, read_results(results), out or results.parent, console)
        return 0
    from motif.compare.prepare import prepare, run_study  # with torch, which the above does without

    prepared = prepare(study, file.parent, out)
    runs = prepared.chosen(arms, seeds)
    console.print(plan_table(prepared, runs, workers))
    if mode == "plan":
        return 0
    tally = Tally(0)
    if mode == "run":
        planned = {arm: plan.run_seconds for arm, plan in prepared.plans.items()}
        with StudyProgress(planned, console) as progress:
            tally = run_study(prepared, runs, workers, progress)
    lines = prepared.collect()
    if len(lines) > 1:
        present(prepared.study, lines, prepared.out, console)
    for name, why in tally.failed.items():
        console.print(f"failed: {name}: {why}", soft_wrap=True, markup=False)
    if tally.stopped:
        console.print("stopped; the same command resumes it", markup=False)
    return 130 if tally.stopped else 1 if tally.failed else 0


def present(study: Study, lines: Sequence[Record], out: Path, console: Console) -> None:
    """Print the summary, and write it as summary.json, table.md and index.html.

    Raises:
        RecipeError: the results hold no run of the study.
    """
    if not any(line["arm"] in study.arms for line in lines[1:]):
        raise RecipeError(f"the results hold no run of the study's arms ({', '.join(study.arms)})")
    summary = summarise(study, lines)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / "table.md", markdown(summary))
    write_page(out / "index.html", summary, lines)
    print_summary(summary, console)
    told = f"page: {out / 'index.html'} (numbers: summary.json, table.md)"
    console.print(told, soft_wrap=True, markup=False)


def plan_table(prepared: Prepared, runs: Sequence[Run], workers: int) -> Table:
    """What will be run, and roughly for how long."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for heading in ("arm", "runs", "done", "steps", "questions", "generations", "time of a run"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    total = 0.0
    for arm, plan in prepared.plans.items():
        mine = [run for run in runs if run.arm == arm]
        if not mine:
            continue
        rollout, steps = plan.workload.recipe.rollout, plan.workload.recipe.train.steps
        questions, done = steps * rollout.questions_per_step, count_finished(mine)
        total += plan.run_seconds * (len(mine) - done)
        table.add_row(
            arm,
            str(len(mine)),
            str(done),
            f"{steps:,}",
            f"{questions:,}",
            f"{questions * rollout.generations:,}",
            duration(plan.run_seconds),
        )
    table.caption = f"very roughly {duration(total / workers)} to go, if every response used up its tokens"
    table.caption_justify = "left"
    return table
