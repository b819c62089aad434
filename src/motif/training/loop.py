"""The loop: sample and grade, credit, update, record.

`train` reads from top to bottom: what is opened, the evaluation before, the steps, the evaluation after. What a step
does stands in `Trainer.step`; each part of it has an owner: `rollouts` (trees, and sampling ahead), `method.credit`,
`learner` (the optimiser, the ledger), `progress` (what is kept of the loop). With several processes
(`motif.distributed`) each runs this loop, grows its share of the trees, and then sees all of them; the main one writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from motif.config import Recipe, Trust, load_recipe
from motif.config.trust import TRAINING, remember
from motif.display import Display
from motif.distributed import Processes, as_launched, process_group
from motif.errors import NonFiniteError, SamplerError, SamplerMismatch
from motif.evaluation.accuracy import Accuracy
from motif.evaluation.evaluate import evaluate
from motif.evaluation.probe import probe, probe_questions
from motif.evaluation.rows import answers_in
from motif.method.credit import CreditCounts, assign
from motif.method.tree import Tree
from motif.models.device import peak_memory, pick_device
from motif.planning.plan import make_plan
from motif.report import write_report
from motif.run_files import BEST
from motif.runs import checkpoint
from motif.runs.folder import RunFolder, folder_for, only_writer, refuse_used_folder, write_recipe
from motif.runs.metrics import refill_metrics, step_metrics
from motif.runs.provenance import Data, environment, versions
from motif.runs.read import check_run_folder, has_begun, is_finished, recipe_of, resume_command
from motif.runs.result import Result
from motif.runs.trackers import tracking
from motif.runs.weights import check_round_trip, save_weights
from motif.sampling.vllm.launch import Colocation
from motif.session import Session, open_session, with_examples
from motif.statistics.variance import components
from motif.tasks import Task
from motif.text import counted, expanded
from motif.training.batch import UpdateStats, collect
from motif.training.check import choose_update_path
from motif.training.events import Callback, Callbacks, Evaluated, Saved, StepEnded, TrainingEnded, TrainingStarted
from motif.training.learner import Learner
from motif.training.progress import Clock, Progress
from motif.training.resume import as_decided, explain_resume, interruptions, restore, session_environment, tell_changes
from motif.training.rollouts import Rollouts, Sampled
from motif.training.schedule import is_due, learning_rate
from motif.training.server import wait_for_memory, with_log
from motif.training.sources import Demonstrations
from motif.training.speed import measure_slowdown
from motif.training.standstill import Watch
from motif.training.warmstart import Warmstart, read_ahead


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    settings: Iterable[str] = (),
    display: Display | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Fine-tune the recipe's model and write the run folder.

    Args:
        recipe: a `Recipe`, or what `load_recipe` takes: a shipped name, a TOML file, a mapping.
        out: the run folder; default `runs/<recipe name>`, or for the recipe in a run folder that folder.
        resume: resume from the newest good checkpoint in `out` (from the start, if there is none).
        allow_changes: resume although recipe or data have changed, or the record has lost lines; reports which.
        settings: `section.key=value` changes to the recipe.
        display: where progress goes; default: the terminal.
        callbacks: what gets every event of the main process (see `motif.training.events`).

    Raises:
        RecipeError, ModelError, RunFolderError: the recipe, the model or the folder cannot be used (another process
            writes to it, say); nothing has been spent yet.
        BadRows: the data has unusable rows (see `data.skip_bad`).
        PeerFailed: another process of this run failed.
        SamplerError: no server is left to sample on, or sampler and trainer compute different numbers; `resume` later.
        OutOfResources: disk, memory or open files have run out; `resume` later.
        NonFiniteError: the model's numbers are not finite, in sampling or for `PATIENCE` steps in a row in
            training; the last good weights are in the newest checkpoint.
    """
    source, trust = recipe, Trust(uses=TRAINING)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings, trust=trust)
    folder = Path(expanded(str(out))) if out else folder_for(source, recipe.name)
    recipe = as_launched(recipe)
    recipe = with_examples(recipe)
    if resume:
        recipe = as_decided(recipe, folder, trust)
    with process_group(pick_device(recipe.model.device)) as processes:
        # A function of its own: the group ends once nothing refers to a model that is sharded over it.
        watchers = Callbacks(callbacks if processes.main else ())
        return _train(recipe, folder, resume, display or Display(), allow_changes, processes, watchers)


def _train(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    display: Display,
    allow_changes: bool,
    processes: Processes,
    tell: Callbacks,
) -> Result:
    display = display if processes.main else Display(quiet=True)
    with ExitStack() as held, explain_resume(folder):
        recipe, task, given, colocation = processes.on_main(
            lambda: _prepare(recipe, folder, resume, allow_changes, display, processes, held)
        )
        session = open_session(recipe, task, processes=processes, colocation=colocation)
        held.callback(session.close)
        choose_update_path(session.policy, processes)
        measure_slowdown(session.policy, session.sampler)
        display.plan(session.ways())
        display.messages(*session.paths.warnings())
        run = RunFolder(folder, processes.main)
        with display, tracking(recipe, run, display.message), interruptions(processes) as interrupted:
            trainer = Trainer(session, run, display, allow_changes, given, tell)
            tell(TrainingStarted(folder, trainer.state.step, recipe.train.steps))
            result = trainer.finish(trainer.train(interrupted))
            tell(TrainingEnded(result))
            tell.raise_error(folder, result.steps)
            return result


def _prepare(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    allow_changes: bool,
    display: Display,
    processes: Processes,
    held: ExitStack,
) -> tuple[Recipe, Task, Demonstrations | None, Colocation | None]:
    """Load questions and given demonstrations, and check what can be; the recipe comes back with what `auto` left."""
    refuse_used_folder(folder, resume)
    if resume:
        tell_changes(folder, recipe, allow_changes, display)
    wait_for_memory(folder, display)
    plan, task = make_plan(recipe, processes)
    display.plan(plan.rows())
    plan.refuse_if_too_big()
    recipe = recipe.as_begun(plan.workload.recipe)
    held.enter_context(only_writer(folder))
    if not has_begun(folder):  # whoever looks at it while the model is loaded sees what it will be
        write_recipe(folder, recipe)
    remember(recipe)
    return recipe, task, None if resume else read_ahead(recipe, task), with_log(plan.colocation, folder, display)


class Trainer:
    """What trains a run: its session and folder, the optimiser, and where the loop stands."""

    def __init__(
        self,
        session: Session,
        run: RunFolder,
        display: Display,
        allow_changes: bool,
        given: Demonstrations | None = None,
        tell: Callbacks | None = None,
    ):
        self.given, self.tell = given, tell or Callbacks()
        self.session, self.run, self.display = session, run, display
        self.recipe, self.policy, self.processes = session.recipe, session.policy, session.processes
        self.state = Progress(self.recipe.train.pass_tokens)
        self.learner = Learner(session, self.state, display)
        held_out = session.task.test[: self.recipe.eval.questions]
        self.data = Data(session.task.train, held_out, session.task.grader)
        restored = restore(session, run, self.learner.optimizer, self.data, allow_changes, display)
        self.resumed = restored is not None
        if restored:
            self.state.load(restored.step, restored.extra)
        self.rollouts = Rollouts(session, self.state, display)
        self.watch = Watch(session, run, display, self.state)
        run.write_recipe(self.recipe)
        if not self.resumed and self.recipe.model.adapter == "full":
            weights = self.policy.state(self.processes.main)
            self.processes.on_main(lambda: check_round_trip(run.path, self.policy, weights))

    def train(self, interrupted: threading.Event) -> bool:
        """Train to the last step, or until interrupted, and save; returns whether the last step was reached."""
        state, train = self.state, self.recipe.train
        warm = not self.recipe.warmstart.source or bool(state.warm.reason)
        parts = (self.session, self.run, self.display, state, self.learner)
        stage = None if warm else Warmstart(*parts, self.save, self.given)
        if not self.resumed:
            self.evaluate()
            self.probe()
            self.save()
        stopped = lambda: self.processes.any(interrupted.is_set() or self.tell.stopped)  # noqa: E731
        stop = stopped()
        if stage:
            warm = stage.train(stopped)
            stop = not warm
            if warm:
                self.learner.begin()
                state.skips.in_a_row = 0
                self.evaluate("warmstart")
                self.save()
        with self.rollouts:
            while state.step < train.steps and not stop:
                self._step_or_save()
                last = state.step == train.steps
                if last or is_due(state.step, self.recipe.eval.every):
                    self.keep_best(self.evaluate(during=not last))
                if last or is_due(state.step, self.recipe.probe.every):
                    self.probe()
                stop = stopped() or state.standstill.too_long(train.stop_when_dead)
                if last or stop or is_due(state.step, train.save_every):
                    self.save()
        return warm and state.step >= train.steps

    def _step_or_save(self) -> None:
        """Make the next step; where it cannot be made, save what has been trained, then raise."""
        self.state.step += 1
        try:
            self.step()
        except (SamplerError, NonFiniteError) as error:  # before anything was trained
            self.state.step -= 1
            # Most such errors leave the other processes elsewhere, and a checkpoint needs all.
            if self.processes.count == 1 or isinstance(error, SamplerMismatch):
                self.save()
            raise
        self.learner.refuse_more_skips(self.save)

    def step(self) -> None:
        """One training step: sample and grade, credit, update, record."""
        clock = Clock()
        sampled = self.rollouts.take(clock)
        counts = [assign(tree, self.recipe.credit) for tree in sampled.trees]
        stats = self.update(sampled.trees, clock)
        self.record(sampled, counts, stats, clock)

    def update(self, trees: Sequence[Tree], clock: Clock) -> UpdateStats:
        """Take the optimiser's step on the trained nodes; with overlap, wait for the trees of the next one."""
        samples = collect([tree for tree in trees if not tree.dropped], self.recipe, self.session.rounds)
        rate = learning_rate(self.state.step, self.recipe)
        stats = self.learner.learn(samples, rate, self.recipe, self.recipe.sampler.max_mean_gap)
        clock.lap("update")
        self.rollouts.wait(clock)
        return stats

    def record(self, sampled: Sampled, counts: Sequence[CreditCounts], stats: UpdateStats, clock: Clock) -> None:
        """Write the step's trees and its line of metrics, and charge the ledger."""
        state, trees, processes = self.state, sampled.trees, self.processes
        self.run.append_trees(trees)
        clock.lap("record")
        state.count_questions(trees, replaced=self.recipe.rollout.refill > 0)
        self.learner.charge(sampled.usage, stats, clock)
        state.count_dead(trees, self.session.rounds, dead=not stats.updates and not stats.skipped)
        metrics: dict[str, Any] = {"step": state.step}
        metrics |= step_metrics(trees, counts, self.recipe) | stats.metrics()
        metrics |= sampled.lag(state.version(state.step - 1))
        if self.recipe.rollout.refill:
            metrics |= refill_metrics(trees, len(sampled.tried))
        metrics |= state.replay.add(trees, self.recipe.rollout)
        metrics |= components(trees).metrics() | {"learning_rate": learning_rate(state.step, self.recipe)}
        metrics |= self.session.metrics() | state.ledger.to_dict("ledger/") | clock.metrics()
        metrics |= processes.largest(peak_memory(self.policy.device))
        if processes.count > 1:
            metrics["processes/waiting"] = processes.total([clock.laps["wait"] / clock.total()])[0] / processes.count
        told, warning = self.watch.stepped()
        lengths, passed = state.curriculum.add(trees, self.rollouts.course.lengths, self.recipe.data, state.step)
        self.run.append_metrics(metrics | lengths | told)
        self.display.step(metrics | lengths, self.recipe.train.steps)
        self.tell(StepEnded(state.step, self.recipe.train.steps, metrics | lengths | told, trees))
        self.display.messages(warning, passed)

    # -- between steps ---------------------------------------------------------------------------------------------

    def evaluate(self, stage: str = "", during: bool = False) -> dict[str, Accuracy]:
        """Measure the accuracy on the held-out questions, and record it; `stage`: after which stage before step 1;
        `during`: between the first evaluation and the last, where there may be fewer questions."""
        session, step, config = self.session, self.state.step, self.recipe.eval
        questions = session.task.test[: config.questions][: config.questions_during * during or None]
        if not stage:
            self.state.evaluations[step] = {}
        if not questions:
            return {}
        session.sync_weights(self.state.version(step))
        with self.display.evaluating(answers_in(self.recipe, len(self.processes.share(questions)))) as on_answer:
            parts = (session.measuring, session.rounds, session.grader, self.recipe)
            accuracies = evaluate(questions, *parts, on_answer, processes=self.processes)
        self.display.evaluated(step, accuracies, "after the warm start" if stage else "")
        self.tell(Evaluated(step, accuracies, stage))
        result = {name: accuracy.to_dict(config.questions_during) for name, accuracy in accuracies.items()}
        self.run.append_metrics({"step": step} | ({stage: {"eval": result}} if stage else {"eval": result}))
        when = {"step": step} | ({"stage": stage} if stage else {})
        self.run.append_outcomes(when | row.outcomes_dict(name) for name, row in accuracies.items())
        if stage:
            self.state.warm.evaluation = result
        else:
            self.state.evaluations[step] = result
            if not step:
                self.watch.evaluated(accuracies)
        return accuracies

    def probe(self) -> None:
        """Measure what notes are worth, where the recipe asks for it, and record it."""
        session, step = self.session, self.state.step
        if questions := probe_questions(session.task, self.recipe):
            session.sync_weights(self.state.version(step))
            parts = (session.measuring, session.rounds, session.grader, self.recipe)
            result = probe(questions, *parts, self.display.probing, self.processes)
            self.display.probed(step, result)
            self.run.append_metrics({"step": step, "probe": result.to_dict()})

    def keep_best(self, accuracies: Mapping[str, Accuracy]) -> None:
        """Save the weights under best/ if none was better at the training rounds, all on the same questions."""
        state, row = self.state, accuracies.get(self.recipe.best_row)
        accuracy = row.over_first(self.recipe.eval.questions_during) if row else None
        if accuracy is not None and (state.best is None or accuracy > state.best["accuracy"]):
            state.best = {"step": state.step, "accuracy": accuracy}
            weights = self.policy.state(self.processes.main)
            if self.processes.main:
                save_weights(self.run.path / BEST, self.policy, weights)

    def save(self) -> None:
        """Write a checkpoint."""
        extra = self.state.extra() | {"record": self.run.offsets(), "data": self.data.keys()}
        extra["environment"] = session_environment(self.session)
        parts = (
            self.policy,
            self.learner.optimizer,
            self.recipe,
            extra,
            self.recipe.train.keep_checkpoints,
            self.processes,
        )
        self.tell(Saved(self.state.step, checkpoint.save(self.run.path, self.state.step, *parts)))

    def finish(self, finished: bool) -> Result:
        """Write the weights, the summary and the report."""
        weights = self.policy.state(self.processes.main)
        return self.processes.on_main(lambda: self._write_result(finished, weights))

    def _write_result(self, finished: bool, weights: dict[str, Any]) -> Result:
        state, run, session = self.state, self.run, self.session
        checkpoint.prune(run.path, state.step, self.recipe.train.keep_checkpoints)  # a crash may have come before it
        save_weights(run.path, self.policy, weights)
        before = state.evaluations.get(0, {})
        after = state.evaluations.get(state.step, {}) if finished and state.step else {}
        if finished and not state.step:
            after = state.warm.evaluation
        more: dict[str, Any] = {"warmstart": state.warm.summary()} if self.recipe.warmstart.source else {}
        more |= self.watch.summary() | state.curriculum.summary(self.rollouts.course.lengths)
        run.write_summary(
            {
                "status": "finished" if finished else "stopped",
                "steps": state.step,
                "before": before,
                "after": after,
                "best": state.best,
                "ledger": state.ledger.to_dict(),
                "skipped_updates": state.skips.count,
                "versions": versions(),
                "environment": environment(self.policy.device),
                "data": self.data.summary(),
            }
            | session.summary()
            | more
        )
        report = write_report(run.path, ended=True)
        standstill = more.get("standstill", {}).get("text", "")
        dead = not finished and state.standstill.too_long(self.recipe.train.stop_when_dead)
        spent = (before, after, state.ledger, standstill, str(session.paths), dead)
        result = Result(run.path, state.step, finished, *spent)
        self.display.finished(result, report)
        unreached = state.curriculum.unreached(self.rollouts.course.lengths, self.recipe.data) if finished else ""
        self.display.messages(standstill, unreached)
        return result


def resume(
    run: str | Path,
    settings: Iterable[str] = (),
    *,
    allow_changes: bool = False,
    display: Display | None = None,
    trust: Trust | None = None,
) -> Result:
    """Go on with a run, with the recipe in its folder; with `train.steps` raised, beyond its end.

    Args:
        settings: `section.key=value` changes. Those that the run is tied to are refused, unless `allow_changes`.

    Raises:
        RunFolderError: there is no run in the folder.
        Others: see `train`.
    """
    folder, display = Path(expanded(str(run))), display or Display()
    check_run_folder(folder)
    settings = list(settings)
    recipe = recipe_of(folder, settings, trust or Trust(uses=TRAINING))
    if not settings and is_finished(folder, recipe.train.steps):
        more = f"{resume_command(folder)} --set train.steps={2 * recipe.train.steps}"
        display.message(f"{folder} has made all its {counted(recipe.train.steps, 'step')}. For more: {more}")
    return train(recipe, folder, resume=True, allow_changes=allow_changes, display=display)
