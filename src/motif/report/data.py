"""The data of the page: everything it shows, gathered from run folders as plain JSON values and kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from motif.config import flat
from motif.report import charts, result, spread
from motif.report.diagnostics import diagnostics
from motif.report.explain import Explainer
from motif.report.now import numbers_now
from motif.report.sections import sections, spending
from motif.report.trees import Forest
from motif.report.warmstart import warmstart_section
from motif.run_files import METRICS, RECIPE, SUMMARY, TREES
from motif.runs.read import (
    Metrics,
    Record,
    Tail,
    file_states,
    is_run,
    number,
    read_probes,
    read_recipe,
    read_summary,
    resume_command,
    section,
    whole,
)
from motif.runs.settings import changed
from motif.runs.state import activity, standing
from motif.text import NONE, counted, percent

RECIPE_LIMIT = 40_000  # characters of the recipe that are shown


class RunView:
    """A run folder as the page shows it, finished or not; each refresh reads what is new.

    ended: nothing will be written any more, although the folder may still be locked.
    """

    def __init__(self, path: Path, *, ended: bool = False):
        self.path, self.ended = path, ended
        self.forest = Forest(path / TREES, self._explain)
        self._tail = Tail(path / METRICS)
        self._metrics, self._epoch = Metrics(), 0  # of that epoch of the file
        self._explainer: tuple[Any, Explainer] | None = None

    def refresh(self, trees: bool = True) -> None:
        """Read what was appended since the last refresh; start over where files were rewritten.

        Args:
            trees: False leaves them for later, because there can be many.
        """
        for _, record in self._tail.records():
            self._forget_another_file()
            self._metrics.add(record)
        self._forget_another_file()
        if trees:
            self.forest.refresh()

    def _explain(self, tree: Record) -> Record:
        state = file_states(self.path)[0]  # of the recipe
        if self._explainer is None or self._explainer[0] != state:
            self._explainer = state, Explainer(read_recipe(self.path)[0])
        return self._explainer[1].explain(tree)

    def _forget_another_file(self) -> None:
        if self._epoch != self._tail.epoch:
            self._metrics, self._epoch = Metrics(), self._tail.epoch

    def data(self, name: str) -> Record:
        """All data but the trees; `notices` name what is missing in the folder."""
        recipe, recipe_text = read_recipe(self.path)
        metrics = self._metrics
        summary = read_summary(self.path)
        before, after, made = result.evaluations(metrics, summary)
        steps = charts.with_dead_share(metrics.steps)
        shape = _shape(recipe)
        latest = next((one for one in reversed(metrics.evaluations()) if one.step or one.stage), None)
        planned = whole(section(recipe, "train").get("steps"))
        step = metrics.steps[-1]["step"] if metrics.steps else 0
        state, reason = standing(self.path, step, summary, ended=self.ended)
        return {
            "name": name,
            "head": _head(name, recipe, summary, shape),
            "state": {
                "word": state,
                "activity": activity(metrics, recipe) if state == "running" else "",
                "reason": reason,
                "step": step,
                "steps": planned,
            },
            "now": numbers_now(steps, made, shape["rounds"], planned if state == "running" else None),
            "result": {
                "reading": result.reading(before, after, latest, shape["rounds"], state == "running"),
                "best": _best(summary, recipe),
                "rows": result.table(before, after, shape["rounds"]),
            },
            "warnings": [*result.diagnoses(metrics.diagnoses, summary), *result.warnings(steps, made, recipe)],
            "notices": _notices(self.path, recipe, metrics, state, reason),
            "axes": charts.axes(steps),
            "sections": [
                *warmstart_section(metrics.warmstart, section(summary, "warmstart")),
                *_with_trees(sections(steps, made, shape["rounds"]), self.forest),
                *diagnostics(steps, read_probes(self.path, metrics)),
                spending(steps),
            ],
            "ledger": result.ledger(metrics, summary),
            "time": charts.step_time(steps),
            "tokens": result.tokens(metrics, summary, recipe),
            "trees": {"epoch": self.forest.epoch, "count": len(self.forest.heads)},
            "recipe": recipe_text[:RECIPE_LIMIT],
        }


def _with_trees(sections: list[Record], forest: Forest) -> list[Record]:
    """The sections, that on outcomes with what only the trees tell."""
    more = [*spread.curriculum(forest), *spread.histograms(forest)]
    return [part | {"charts": [*part["charts"], *more]} if part["id"] == "outcomes" else part for part in sections]


def page_data(runs: Sequence[RunView]) -> Record:
    """The data of one or several runs, without their trees."""
    names = run_names([run.path for run in runs])
    recipes = [read_recipe(run.path)[0] for run in runs]
    return {
        "runs": [run.data(name) for run, name in zip(runs, names, strict=True)],
        "differences": differences(recipes),
    }


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders, with as much of their paths as makes them unique."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({place})" for place, path in enumerate(paths, start=1)]


def differences(recipes: Sequence[Record]) -> list[Record]:
    """The settings in which the recipes of several runs differ, each with the value of every run."""
    first, *others = (dict(flat(recipe)) for recipe in recipes)
    keys = dict.fromkeys(key for other in others for key in changed(first, other))
    return [{"key": key, "values": [str(values.get(key, NONE)) for values in (first, *others)]} for key in keys]


def _shape(recipe: Record) -> Record:
    branching = section(recipe, "rollout").get("branching")
    if not isinstance(branching, list) or not branching or not all((whole(branch) or 0) > 0 for branch in branching):
        return {"rounds": None, "branching": None, "words": f"unknown (no {RECIPE})"}
    m, k, n = branching[0], prod(branching[1:]), len(branching)
    words = f"m {m} × k {k} × n {n}: {counted(m, 'response')} per question, "
    words += f"{counted(k, 'trajectory', 'trajectories')} each, {counted(n, 'round')}" if n > 1 else "one round"
    if isinstance(vary := section(recipe, "rollout").get("rounds_vary"), list) and vary:
        words += f"; cut off or longer, in one of {', '.join(sorted({str(count) for count in vary}))} rounds"
    return {"rounds": n, "branching": branching, "words": words}


def _head(name: str, recipe: Record, summary: Record, shape: Record) -> Record:
    model, data, rollout = (section(recipe, key) for key in ("model", "data", "rollout"))
    per_step = whole(rollout.get("questions_per_step"))
    adapter = {"lora": f"LoRA, rank {model.get('lora_rank', '?')}", "full": "all weights"}.get(
        str(model.get("adapter"))
    )
    seed = summary.get("seed", section(recipe, "train").get("seed"))
    facts = [
        ("Recipe", str(recipe.get("name") or "")),
        ("Model", " · ".join(str(part) for part in (model.get("name"), adapter) if part)),
        ("Task", str(data.get("task") or "")),
        ("Tree", shape["words"] + (f"; {counted(per_step, 'question')} per step" if per_step else "")),
        ("Seed", "" if seed is None else str(seed)),
        ("Paths", result.paths(summary)),
        ("Versions", ", ".join(f"{key} {version}" for key, version in section(summary, "versions").items())),
    ]
    return {
        "name": name,
        "about": str(recipe.get("about") or recipe.get("name") or ""),
        "facts": [{"name": key, "value": value} for key, value in facts if value],
    }


def _best(summary: Record, recipe: Record) -> str:
    best = section(summary, "best")
    step, accuracy = whole(best.get("step")), number(best.get("accuracy"))
    if step is None or accuracy is None:
        return ""
    few, every = (whole(section(recipe, "eval").get(key)) for key in ("questions_during", "questions"))
    asked = f" on the first {counted(few, 'question')}" if few and (every is None or few < every) else ""
    return (
        f"Best evaluation{asked}: {percent(accuracy)} at step {step}. The best of several evaluations on the same "
        "questions flatters; the table does not pick it."
    )


def _notices(run: Path, recipe: Record, metrics: Metrics, state: str, reason: str) -> list[str]:
    absent = {
        RECIPE: "the settings are unknown",
        METRICS: "there are no charts",
        TREES: "there are no trees",
        SUMMARY: "the run has not ended",
    }
    if state == "running":  # they come
        absent = {RECIPE: absent[RECIPE]}
    notices = [f"{name} is missing: {meaning}." for name, meaning in absent.items() if not (run / name).is_file()]
    if state in ("failed", "stopped") and is_run(run):
        why = f": {reason}" if reason else ""
        notices.insert(0, f"The run has {state}{why}. To go on: {resume_command(run)}")
    if is_run(run) and not recipe:
        notices.append(f"{RECIPE} is not the TOML of a recipe, or is a link: the settings are unknown.")
    if metrics.skipped:
        verb = "was" if metrics.skipped == 1 else "were"
        notices.append(f"{METRICS}: {counted(metrics.skipped, 'line')} could not be read, and {verb} left out.")
    return notices
