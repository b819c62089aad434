"""A study from its file to its results: check the arms, run what is missing, collect, and present."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from motif.compare.analysis import summarise
from motif.compare.page import write_page
from motif.compare.progress import StudyProgress
from motif.compare.results import Record, collect, read_results, write_results
from motif.compare.runner import Runner, Tally, refuse_other_run
from motif.compare.study import Study, StudyRun, check_rows, load_study, main_row, plan_runs, resolve
from motif.compare.words import markdown, print_summary
from motif.display import PlainConsole
from motif.errors import ModelError, RecipeError, UsageError
from motif.evaluation.screens import overlap
from motif.runs.disk import write_atomically
from motif.text import duration

if TYPE_CHECKING:
    from motif.planning.plan import Plan

Tested = list[tuple[str, str, str]]
"""The questions that an arm is tested on: id, text and gold answer of each."""


def compare(
    file: Path,
    out: Path | None = None,
    workers: int = 1,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    mode: Literal["plan", "collect", "run"] = "run",
    results: Sequence[Path] = (),
) -> int:
    """Check, run and collect a study; return the exit status: 0, 1 if a run failed, 130 if the user stopped it.

    Args:
        mode: `plan` only checks; `collect` runs nothing and takes the runs that have finished.
        results: run nothing, read no recipe, and take these results.jsonl; the output goes beside the first unless
            `out`.

    Raises:
        MotifError: see `load_study`, `prepare`, `run_study` and `read_results`.
    """
    console, study = PlainConsole(), load_study(file)
    if results:
        lines, folder = read_results(*results), out or results[0].parent
        present(study, lines, folder, console)
        if len(results) > 1:
            write_results(folder / "results.jsonl", lines)
        return 0
    prepared = prepare(study, file.parent, out, seeds)
    runs = prepared.select(arms, seeds)
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
        present(study, lines, prepared.out, console)
    for name, why in tally.failed.items():
        console.print(f"failed: {name}: {why}", soft_wrap=True)
    if tally.stopped:
        console.print("stopped; the same command resumes")
    return 130 if tally.stopped else 1 if tally.failed else 0


# -- preparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A study whose arms have been checked, with the plan of each arm."""

    study: Study
    folder: Path
    out: Path
    runs: list[StudyRun]
    plans: dict[str, Plan]
    overlap: str = ""
    """How much of the held-out questions occurs in training questions."""

    def select(self, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[StudyRun]:
        """The runs of some arms and seeds; empty: of all.

        Raises:
            UsageError: an arm or seed is not in the study.
        """
        for what, wanted, known in (("arm", arms, self.study.arms), ("seed", seeds, self.study.seeds)):
            for one in wanted:
                if one not in known:
                    raise UsageError(f"the study has no {what} {one!r}, only {', '.join(map(str, known))}")
        return [run for run in self.runs if (not arms or run.arm in arms) and (not seeds or run.seed in seeds)]

    def collect(self) -> list[Record]:
        """Write OUT/results.jsonl from all runs that have finished, and return its lines."""
        recipes = {run.arm: run.recipe for run in self.runs}
        base = resolve(self.study, None, self.folder) if self.study.recipe else next(iter(recipes.values()))
        lines = collect(self.study, base, main_row(self.study, recipes), self.runs, self.folder)
        lines[0]["overlap"] = self.overlap
        write_results(self.out / "results.jsonl", lines)
        return lines


def prepare(study: Study, folder: Path, out: Path | None = None, seeds: Sequence[int] = ()) -> Prepared:
    """Resolve, check and plan each arm of a study, before anything is spent.

    Args:
        folder: of the study file; its recipes are relative to it.
        seeds: that will be run, so that only their own models and data must be there; empty: all.

    Raises:
        RecipeError: an arm cannot be run, or two arms are tested on different questions.
        BadRows: the data of an arm has unusable rows.
    """
    out = out or Path("runs") / study.name
    runs = plan_runs(study, folder, out)
    recipes = {run.arm: run.recipe for run in reversed(runs)}
    recipes = {arm: recipes[arm] for arm in study.arms}
    check_rows(study, recipes)
    from motif.planning.plan import make_plan  # imports torch, which `--from` does without

    plans: dict[str, Plan] = {}
    tested: dict[str, Tested] = {}
    shared: dict[str, str] = {}
    for run in distinct([run for run in runs if run.seed in seeds] or runs):
        arm, recipe = run.arm, run.recipe
        try:
            plan, task = make_plan(recipe)
        except (RecipeError, ModelError) as error:
            raise RecipeError(f"arm {arm!r}: {error}") from None
        questions = task.test[: recipe.eval.questions]
        tested[str(run) if arm in plans else arm] = [
            (question.id, question.text, question.gold) for question in questions
        ]
        plans.setdefault(arm, plan)
        data = recipe.data.model_dump_json()
        shared[data] = shared.get(data) or overlap(task.train, questions).sentence({})
    refuse_other_questions(tested)
    return Prepared(study, folder, out, runs, plans, "; ".join(dict.fromkeys(shared.values())))


def distinct(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The first run of each arm, and those that differ from it by more than their seed (`{seed}` in a setting)."""
    found: dict[str, StudyRun] = {}
    for run in runs:
        train = run.recipe.train.model_copy(update={"seed": 0})
        same = run.recipe.model_copy(update={"name": run.arm, "train": train})
        found.setdefault(same.model_dump_json(), run)
    return list(found.values())


def refuse_other_questions(tested: dict[str, Tested]) -> None:
    """Check that all arms are tested on the same questions, because differences are paired by question.

    Raises:
        RecipeError: names two arms that are not, or an arm that is not tested.
    """
    first, *others = tested
    if not tested[first]:
        raise RecipeError(f"arm {first!r} is tested on nothing: set data.test or data.held_out, and eval.questions")
    for arm in others:
        if tested[arm] != tested[first]:
            raise RecipeError(
                f"arms {first!r} and {arm!r} are tested on different questions ({len(tested[first])} and "
                f"{len(tested[arm])}): give them the same data.test or held-out settings and eval.questions"
            )


def plan_table(prepared: Prepared, runs: Sequence[StudyRun], workers: int) -> Table:
    """The runs of each arm, and roughly how long they take."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for heading in ("arm", "runs", "done", "steps", "questions", "generations", "time of a run"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    seconds = 0.0
    for arm, plan in prepared.plans.items():
        of_arm = [run for run in runs if run.arm == arm]
        if not of_arm:
            continue
        rollout, steps = plan.workload.recipe.rollout, plan.workload.recipe.train.steps
        questions, done = steps * rollout.questions_per_step, sum(run.is_finished for run in of_arm)
        seconds += plan.run_seconds * (len(of_arm) - done)
        numbers: list[Any] = [len(of_arm), done, steps, questions, questions * rollout.generations]
        table.add_row(arm, *(f"{number:,}" for number in numbers), duration(plan.run_seconds))
    table.caption = f"very roughly {duration(seconds / workers)} to go, if every response used up its tokens"
    table.caption_justify = "left"
    return table


# -- running -----------------------------------------------------------------------------------------------------------


def run_study(
    prepared: Prepared,
    runs: Sequence[StudyRun],
    workers: int = 1,
    on_change: Callable[[Runner, StudyRun | None], None] | None = None,
) -> Tally:
    """Run the runs that have not finished.

    Raises:
        UsageError: there is too little memory for so many at once; nothing has been started.
        RunFolderError: a folder holds another run; nothing has been started.
    """
    for run in runs:
        refuse_other_run(run)
    needed = max(sum(prepared.plans[run.arm].memory.values()) for run in runs)
    free = min(plan.available for plan in prepared.plans.values())
    if workers > 1 and needed * workers > free:
        raise UsageError(
            f"{workers} runs at once need about {needed * workers / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            f"free: use --workers {max(1, int(free / needed))}"
        )
    return Runner(runs, workers, prepared.study.keep_trees, on_change or (lambda runner, run: None)).work()


# -- presenting --------------------------------------------------------------------------------------------------------


def present(study: Study, lines: Sequence[Record], out: Path, console: PlainConsole) -> None:
    """Print the summary, and write it as summary.json, table.md and index.html.

    Raises:
        UsageError: the results hold no run of the study.
    """
    if not any(line["arm"] in study.arms for line in lines[1:]):
        raise UsageError(f"the results hold no run of the study's arms ({', '.join(study.arms)})")
    summary = summarise(study, lines)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / "table.md", markdown(summary))
    write_page(out / "index.html", summary, lines)
    print_summary(summary, console)
    console.print(f"page: {out / 'index.html'} (numbers: summary.json, table.md)", soft_wrap=True)
