"""A study made ready: every arm resolved, checked and planned before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.compare.results import Record, collect, write_results
from motif.compare.runner import Runner, Tally, refuse_other_run
from motif.compare.study import Run, Study, check_rows, main_row, plan_runs, resolve
from motif.errors import ModelError, RecipeError
from motif.planning.plan import Plan, make_plan


@dataclass(frozen=True)
class Prepared:
    """A study whose arms have been checked. `plans` has one per arm."""

    study: Study
    folder: Path
    out: Path
    runs: list[Run]
    plans: dict[str, Plan]

    def chosen(self, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Run]:
        """The runs of some arms and seeds; empty: all.

        Raises:
            RecipeError: not in the study.
        """
        for what, wanted, known in (("arm", arms, self.study.arms), ("seed", seeds, self.study.seeds)):
            for one in wanted:
                if one not in known:
                    raise RecipeError(f"the study has no {what} {one!r}, only {', '.join(map(str, known))}")
        return [r for r in self.runs if (not arms or r.arm in arms) and (not seeds or r.seed in seeds)]

    def collect(self) -> list[Record]:
        """Write OUT/results.jsonl from all runs that have finished, and return its lines."""
        recipes = {run.arm: run.recipe for run in self.runs}
        base = resolve(self.study, None, self.folder) if self.study.recipe else next(iter(recipes.values()))
        lines = collect(self.study, base, main_row(self.study, recipes), self.runs, self.folder)
        write_results(self.out / "results.jsonl", lines)
        return lines


def prepare(study: Study, folder: Path, out: Path | None = None) -> Prepared:
    """Resolve and check every arm of a study, and load every arm's questions; nothing is spent.

    Args:
        folder: the study file's, which its recipes are relative to.

    Raises:
        RecipeError: a recipe cannot be run, or two arms are tested on different questions.
        BadRows: the data of an arm has unusable rows.
    """
    out = out or Path("runs") / study.name
    runs = plan_runs(study, folder, out)
    recipes = {run.arm: run.recipe for run in reversed(runs)}
    recipes = {arm: recipes[arm] for arm in study.arms}
    check_rows(study, recipes)
    plans: dict[str, Plan] = {}
    tests: dict[str, Any] = {}
    for arm, recipe in recipes.items():
        try:
            plans[arm], task = make_plan(recipe)
        except (RecipeError, ModelError) as error:
            raise type(error)(f"arm {arm!r}: {error}") from None
        tests[arm] = [(q.id, q.text, q.gold) for q in task.test[: recipe.eval.questions]]
    refuse_other_questions(tests)
    return Prepared(study, folder, out, runs, plans)


def refuse_other_questions(tests: dict[str, list[tuple[str, str, str]]]) -> None:
    """Differences are paired by question, so all arms have to be tested on the same ones.

    Raises:
        RecipeError: names two arms that are not, or that nothing is tested.
    """
    first, *others = tests
    if not tests[first]:
        raise RecipeError(f"arm {first!r} is tested on nothing: set data.test or data.held_out, and eval.questions")
    for arm in others:
        if tests[arm] != tests[first]:
            raise RecipeError(
                f"arms {first!r} and {arm!r} are tested on different questions ({len(tests[first])} and "
                f"{len(tests[arm])}): give them the same data.test or held-out settings and eval.questions"
            )


def run_study(
    prepared: Prepared,
    runs: Sequence[Run],
    workers: int = 1,
    on_change: Callable[[Runner, Run | None], None] | None = None,
) -> Tally:
    """Run what has not been run yet.

    Raises:
        RecipeError: too little memory for so many at once, or a folder with another run; nothing has been started.
    """
    for run in runs:
        refuse_other_run(run)
    needed = max(sum(prepared.plans[run.arm].memory.values()) for run in runs)
    free = min(plan.available for plan in prepared.plans.values())
    if workers > 1 and needed * workers > free:
        raise RecipeError(
            f"{workers} runs at once need about {needed * workers / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            f"free: use --workers {max(1, int(free / needed))}"
        )
    return Runner(runs, workers, prepared.study.keep_trees, on_change or (lambda runner, run: None)).work()
