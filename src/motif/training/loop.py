"""The loop: sample and grade, credit, update, record.

`train` reads from top to bottom: what is opened, the evaluation before, the steps, the evaluation after. What a step
does stands in `step` in five lines. With several processes (`motif.distributed`) each runs this loop, grows its share
of the trees, and then sees all of them; the main one writes.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motif.config import Recipe, load_recipe
from motif.display import Display
from motif.distributed import Processes, as_launched, process_group
from motif.errors import NonFiniteError, RecipeError, SamplerError
from motif.evaluation.evaluate import evaluate
from motif.evaluation.probe import probe, probe_questions
from motif.evaluation.rows import answers_in
from motif.grading.beside import grading_beside
from motif.method.credit import assign
from motif.method.keys import sampling_key
from motif.method.tree import Question
from motif.models.device import pick_device
from motif.planning.plan import make_plan
from motif.report import write_report
from motif.runs import checkpoint
from motif.runs.disk import only_writer
from motif.runs.folder import Ledger, RunFolder, ledger_dict, ledger_from, step_metrics, versions
from motif.runs.provenance import Data, environment
from motif.runs.trackers import tracking
from motif.runs.weights import BEST, save_weights
from motif.sampling.base import Usage
from motif.sampling.grow import grow
from motif.session import Session, open_session
from motif.statistics.variance import components
from motif.tasks import Task
from motif.training.batch import UpdateStats, collect
from motif.training.overlap import Ahead, Sampled
from motif.training.resume import here, interruptions, refuse_used_folder, restore, told
from motif.training.update import Budget, make_optimizer, update

PATIENCE = 3
"""Steps in a row with an update that was skipped, because its gradient was not finite, after which a run stops."""
NOT_FINITE = (
    f"the gradient was not finite in {PATIENCE} steps in a row (update/causes in metrics.jsonl names the responses), "
    "and the weights are as before them: lower train.learning_rate, or set model.dtype = 'float32'"
)
CAUSES = 20
"""Names of responses written down for a step, at most."""


@dataclass(frozen=True)
class Result:
    """What a run came to. `before` and `after` map `rounds_1`, `rounds_3`, … to accuracy, low, high and n."""

    run: Path
    steps: int
    finished: bool
    before: dict[str, Any]
    after: dict[str, Any]
    ledger: Ledger


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    settings: Iterable[str] = (),
    display: Display | None = None,
) -> Result:
    """Fine-tune the recipe's model and write the run folder.

    Args:
        recipe: a `Recipe`, or what `load_recipe` takes: a shipped name, a TOML file, a mapping.
        out: the run folder; default `runs/<recipe name>`.
        resume: go on from the newest good checkpoint in `out` (from the start, if there is none).
        allow_changes: go on though recipe or data have changed, or lines of the record have been lost; says which.
        settings: `section.key=value` changes to the recipe.
        display: where progress goes; default: the terminal.

    Raises:
        RecipeError: the recipe, the model or the folder cannot be used (it is another process's, say); nothing has
            been spent yet.
        BadRows: the data has unusable rows (see `data.skip_bad`).
        PeerFailed: another process of this run failed.
        SamplerError: no server is left to sample on; `resume` goes on later.
        OutOfResources: disk, memory or open files have run out; `resume` goes on later.
        NonFiniteError: the model's numbers are not finite, in sampling or for `PATIENCE` steps in a row in
            training; the last good weights are in the newest checkpoint.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    folder = Path(out) if out else default_folder(recipe.name)
    recipe = as_launched(recipe)
    with process_group(pick_device(recipe.model.device)) as processes:
        display = (display or Display()) if processes.main else Display(quiet=True)
        with ExitStack() as held, told(folder):
            task = processes.on_main(lambda: _prepare(recipe, folder, resume, display, processes, held))
            session = open_session(recipe, task, processes=processes)
            held.callback(session.close)
            run = RunFolder(folder, processes.main)
            with display, tracking(recipe, run, display.message), interruptions(processes) as interrupted:
                return _run(session, run, interrupted, display, allow_changes, held)


def _prepare(
    recipe: Recipe, folder: Path, resume: bool, display: Display, processes: Processes, held: ExitStack
) -> Task:
    """Load the questions and check all that can be checked before anything is spent."""
    refuse_used_folder(folder, resume)
    plan, task = make_plan(recipe, processes)
    display.plan(plan.rows())
    plan.refuse_if_too_big()
    held.enter_context(only_writer(folder))
    return task


def _run(
    session: Session,
    run: RunFolder,
    interrupted: threading.Event,
    display: Display,
    allow_changes: bool,
    held: ExitStack,
) -> Result:
    recipe, policy, processes = session.recipe, session.policy, session.processes
    optimizer = make_optimizer(policy.trainable(), recipe.train, processes)
    data = Data(session.task, recipe)
    restored = restore(session, run, optimizer, data, allow_changes, display)
    state = Progress.restore(restored.step, restored.extra) if restored else Progress()
    run.recipe(recipe)
    ahead = held.enter_context(Ahead(session.sampler)) if recipe.sampler.overlap else None

    def save() -> None:
        keep = recipe.train.keep_checkpoints
        extra = state.extra() | {"record": run.marks(), "data": data.keys(), "environment": here(session)}
        checkpoint.save(run.path, state.step, policy, optimizer, recipe, extra, keep, processes)

    if not restored:
        state.evaluations[0] = _evaluate(session, run, 0, display)
        _probe(session, run, 0, display)
        save()
    stop = processes.any(interrupted.is_set())
    while state.step < recipe.train.steps and not stop:
        state.step += 1
        try:
            step(session, run, optimizer, state, display, ahead)
        except (SamplerError, NonFiniteError):  # before anything was trained
            state.step -= 1
            if processes.count == 1:  # the others are elsewhere, and a checkpoint needs all
                save()
            raise
        if state.skipped_in_a_row >= PATIENCE:
            state.skipped_in_a_row = 0
            save()
            raise NonFiniteError(NOT_FINITE)
        last = state.step == recipe.train.steps
        if last or (recipe.eval.every and state.step % recipe.eval.every == 0):
            state.evaluations[state.step] = _evaluate(session, run, state.step, display)
            _keep_best(session, run, state)
        if last or (recipe.probe.every and state.step % recipe.probe.every == 0):
            _probe(session, run, state.step, display)
        stop = processes.any(interrupted.is_set())
        if last or stop or state.step % recipe.train.save_every == 0:
            save()
    finished = state.step >= recipe.train.steps
    weights = policy.state(processes.main)
    return processes.on_main(lambda: _finish(session, run, state, data, finished, weights, display))


def step(
    session: Session,
    run: RunFolder,
    optimizer: torch.optim.Optimizer,
    state: Progress,
    display: Display,
    ahead: Ahead | None,
) -> None:
    """One training step: sample, grade, credit, update, record."""
    recipe, policy, processes = session.recipe, session.policy, session.processes
    clock = Clock()
    early = ahead.take() if ahead else None
    sampled = early or _sample_now(session, state, clock, display)
    session.sync_weights(state.step - 1)
    clock.lap("sample")
    if ahead:
        state.weights_before, following = policy.state(), state.step + 1
        if state.step < recipe.train.steps:
            ahead.start(lambda: sample(session, _questions(session, following), following, Clock(), display))
    trees = processes.gather_in_order(sampled.trees)
    if processes.count > 1:
        clock.lap("wait")  # until the last process had its trees
    questions = [tree.question for tree in trees]
    counts = [assign(tree, recipe.credit) for tree in trees]
    rate = learning_rate(state.step, recipe)
    for group in optimizer.param_groups:
        group["lr"] = rate
    samples = collect(trees, recipe)
    budget = Budget(recipe.train.microbatch_tokens, state.fits)
    stats = update(policy, optimizer, samples, recipe, processes, budget)
    if warning := budget.pop_warning(state.step):
        display.message(warning)
    state.fits = budget.fits
    state.skipped += stats.skipped
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if stats.skipped else 0
    clock.lap("update")
    if ahead:
        ahead.wait()
        clock.lap("sample")  # what was left of it
    run.trees(trees)
    clock.lap("record")
    state.drawn.update(sampling_key(question.text) for question in questions)
    state.ledger.questions += len(questions)
    state.ledger.distinct_questions = len(state.drawn)
    _charge(state.ledger, session, sampled.usage, stats, clock)
    metrics: dict[str, Any] = (
        {"step": state.step} | step_metrics(trees, counts, recipe.rollout.rounds) | _update_metrics(stats)
    )
    if lags := [state.step - 1 - node.version for tree in trees for node in tree.walk() if node.version is not None]:
        metrics |= {"sampler/lag": max(lags)} | ({"time/sampled_ahead": early.seconds} if early else {})
    metrics |= (
        components(trees).metrics() | {"learning_rate": rate} | ledger_dict(state.ledger, "ledger/") | clock.metrics()
    )
    if processes.count > 1:
        metrics["processes/waiting"] = processes.total([clock.laps["wait"] / clock.total()])[0] / processes.count
    run.metrics(metrics)
    display.step(metrics, recipe.train.steps)


def _questions(session: Session, step: int) -> list[Question]:
    """This process's share of the step's questions."""
    recipe = session.recipe
    drawn = draw_questions(session.task.train, step, recipe.rollout.questions_per_step, recipe.train.seed)
    return session.processes.share(drawn)


def _sample_now(session: Session, state: Progress, clock: Clock, display: Display) -> Sampled:
    """The step's trees, from the weights as they are, or as they were where a run with overlap is gone on with."""
    if state.weights_before is None:
        session.sync_weights(state.step - 1)
    else:
        with session.policy.swapped_weights(state.weights_before):
            session.sync_weights(state.step - 2)
    return sample(session, _questions(session, state.step), state.step, clock, display)


def sample(session: Session, questions: Sequence[Question], step: int, clock: Clock, display: Display) -> Sampled:
    """Grow the step's trees, grading the leaves of some while others are being sampled."""
    recipe, used = session.recipe, replace(session.sampler.usage)
    shape, begun = recipe.rollout, time.perf_counter()
    with (
        display.sampling(len(questions) * shape.responses * shape.trajectories) as advance,
        grading_beside(session.grader, advance) as on_leaf,
    ):
        parts = (session.sampler, session.rounds, shape)
        trees = grow(questions, *parts, seed=recipe.train.seed, step=step, on_leaf=on_leaf)
        clock.lap("sample")
    clock.lap("grade")  # what was left of it when the last leaf had been sampled
    return Sampled(trees, session.sampler.usage.since(used), time.perf_counter() - begun)


def draw_questions(questions: Sequence[Question], step: int, count: int, seed: int) -> list[Question]:
    """The questions of a step (counted from 1): the data in an order shuffled anew for each epoch, by seed.

    A question that comes twice in one step, where an epoch ends, gets the id of its second place, so that its two
    trees differ.
    """
    drawn: list[Question] = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, len(questions))
        question = questions[_order(len(questions), epoch, seed)[index]]
        if any(question.id == other.id for other in drawn):
            question = replace(question, id=f"{question.id}@{position}")
        drawn.append(question)
    return drawn


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def learning_rate(step: int, recipe: Recipe) -> float:
    """The learning rate of a step (counted from 1): linear warm-up, then constant, linear or cosine to zero."""
    train = recipe.train
    warm = math.ceil(train.warmup * train.steps)
    if step <= warm:
        return train.learning_rate * step / warm
    done = (step - 1 - warm) / max(1, train.steps - warm)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[train.schedule]
    return train.learning_rate * factor


@dataclass
class Progress:
    """Where a run stands: all of the loop's state besides the weights and the optimiser.

    `drawn` holds a 64-bit key of the text of each question drawn so far. `skipped`: updates that were not made because
    their gradient was not finite, and steps in a row with such ones. `weights_before`: with `sampler.overlap`, what
    the last step started from, and the next step's trees are sampled with. `fits`: tokens of a micro-batch, if those of
    the recipe did not fit in memory.
    """

    step: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    evaluations: dict[int, dict[str, Any]] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    drawn: set[int] = field(default_factory=set)
    skipped: int = 0
    skipped_in_a_row: int = 0
    weights_before: dict[str, Tensor] | None = None
    fits: int | None = None

    def extra(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, besides the step."""
        kept = {"ledger": ledger_dict(self.ledger), "evaluations": self.evaluations, "best": self.best}
        kept |= {"drawn": sorted(self.drawn), "skipped": [self.skipped, self.skipped_in_a_row]}
        return kept | {"weights_before": self.weights_before, "fits": self.fits}

    @classmethod
    def restore(cls, step: int, extra: dict[str, Any]) -> Progress:
        """The inverse of `extra`.

        Raises:
            RecipeError: the checkpoint is of an older version, see `ledger_from`.
        """
        ledger = ledger_from(extra["ledger"])
        drawn, skipped = set(extra["drawn"]), extra["skipped"]
        rest = (extra["evaluations"], extra["best"], drawn, *skipped, extra["weights_before"], extra["fits"])
        return cls(step, ledger, *rest)


class Clock:
    """Wall-clock seconds of the parts of a step."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the part that has been going on."""
        now = time.perf_counter()
        self.laps[name], self.last = self.laps.get(name, 0.0) + now - self.last, now

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.start

    def metrics(self) -> dict[str, float]:
        """All parts and the total, under `time/`."""
        return {f"time/{name}": seconds for name, seconds in self.laps.items()} | {"time/total": self.total()}


def default_folder(name: str) -> Path:
    """`runs/NAME`, where the name of a recipe can name a folder there: it may come from a stranger's file.

    Raises:
        RecipeError: it cannot.
    """
    if not re.fullmatch(r"\w[\w .,+-]*", name) or len(name) > 100:
        raise RecipeError(f"the recipe's name {name[:100]!r} is no name for a folder: give one with --out")
    return Path("runs") / name


def _evaluate(session: Session, run: RunFolder, step: int, display: Display) -> dict[str, Any]:
    recipe = session.recipe
    questions = session.task.test[: recipe.eval.questions]
    if not questions:
        return {}
    session.sync_weights(step)
    share = len(session.processes.share(questions))
    with display.evaluating(answers_in(recipe, share)) as on_answer:
        parts = (session.sampler, session.rounds, session.grader, recipe)
        found = evaluate(questions, *parts, on_answer, processes=session.processes)
    display.evaluated(step, found)
    result = {name: accuracy.to_dict() for name, accuracy in found.items()}
    run.metrics({"step": step, "eval": result})
    run.outcomes({"step": step} | accuracy.outcomes_dict(name) for name, accuracy in found.items())
    return result


def _probe(session: Session, run: RunFolder, step: int, display: Display) -> None:
    questions = probe_questions(session.task, session.recipe)
    if questions:
        session.sync_weights(step)
        parts = (session.sampler, session.rounds, session.grader, session.recipe)
        found = probe(questions, *parts, display.probing, session.processes)
        display.probed(step, found)
        run.metrics({"step": step, "probe": found.to_dict()})


def _keep_best(session: Session, run: RunFolder, state: Progress) -> None:
    """Save the weights under best/ if no earlier evaluation at the training rounds was higher."""
    here = state.evaluations[state.step].get(f"rounds_{session.recipe.eval_rounds[-1]}")
    if here and here["accuracy"] is not None and (state.best is None or here["accuracy"] > state.best["accuracy"]):
        state.best = {"step": state.step, "accuracy": here["accuracy"]}
        weights = session.policy.state(session.processes.main)
        if session.processes.main:
            save_weights(run.path / BEST, session.policy, weights)


def _charge(ledger: Ledger, session: Session, usage: Usage, stats: UpdateStats, clock: Clock) -> None:
    """Add a step's work and time; `usage` is what sampling this process's trees took."""
    parameters = session.policy.parameter_count
    spent = (usage.generated_tokens, usage.prefill_tokens, usage.requested_prompt_tokens)
    generated, prefill, requested = map(int, session.processes.total(spent))
    ledger.updates += stats.updates
    ledger.generated_tokens += generated
    ledger.prefill_tokens += prefill
    ledger.prefill_saved += requested - prefill
    ledger.trained_tokens += stats.tokens
    per_update_token = 6 if session.recipe.model.adapter == "full" else 4
    ledger.flops += parameters * (2.0 * (generated + prefill) + per_update_token * stats.computed_tokens)
    ledger.seconds += clock.total()
    ledger.sampling_seconds += clock.laps["sample"] + clock.laps.get("wait", 0.0)
    ledger.grading_seconds += clock.laps.get("grade", 0.0)
    ledger.training_seconds += clock.laps["update"]


def _update_metrics(stats: UpdateStats) -> dict[str, Any]:
    skipped: dict[str, Any] = {"update/skipped": stats.skipped}
    if stats.skipped:
        skipped["update/causes"] = stats.causes[:CAUSES]
    if not stats.tokens:
        return skipped | {
            "loss": None,
            "grad_norm": None,
            "entropy": None,
            "kl": None,
            "clip_ratio": None,
            "sampler/mean_gap": None,
            "sampler/max_gap": None,
            "sampler/capped": None,
        }
    return skipped | {
        "loss": stats.loss / stats.updates,
        "grad_norm": stats.grad_norm / stats.updates,
        "entropy": stats.entropy / stats.tokens,
        "kl": stats.kl / stats.tokens,
        "clip_ratio": stats.clipped / stats.tokens,
        "sampler/mean_gap": stats.sampler_gap / stats.tokens,
        "sampler/max_gap": stats.sampler_gap_max,
        "sampler/capped": stats.capped / stats.tokens,
    }


def _finish(
    session: Session,
    run: RunFolder,
    state: Progress,
    data: Data,
    finished: bool,
    weights: dict[str, Tensor],
    display: Display,
) -> Result:
    checkpoint.prune(run.path, state.step, session.recipe.train.keep_checkpoints)  # a crash may have come before it
    save_weights(run.path, session.policy, weights)
    before = state.evaluations.get(0, {})
    after = state.evaluations.get(state.step, {}) if finished and state.step else {}
    run.summary(
        {
            "status": "finished" if finished else "stopped",
            "steps": state.step,
            "before": before,
            "after": after,
            "best": state.best,
            "ledger": ledger_dict(state.ledger),
            "skipped_rows": len(session.task.skipped),
            "skipped_updates": state.skipped,
            "versions": versions(),
            "environment": environment(session.policy.device),
            "data": data.summary(),
            "seed": session.recipe.train.seed,
            "processes": session.processes.count,
        }
    )
    report = write_report(run.path)
    result = Result(run.path, state.step, finished, before, after, state.ledger)
    display.finished(result, report)
    return result
