"""The warm start: demonstrations are imitated before the first step, until the model keeps the form but is undecided.

A demonstration is a tree whose responses are given, each with advantage 1. The update is that of every step, without a
sampler and so without a ratio: with one update a step its gradient is that of the mean log-probability of the tokens.
"""

from __future__ import annotations

import hashlib
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from motif.config import LossConfig, Recipe, WarmstartConfig
from motif.display import Display
from motif.errors import RunFolderError
from motif.grading import Grader
from motif.method.credit import assign
from motif.method.demonstrations import Demonstrator
from motif.method.rounds import Rounds
from motif.method.tree import Tree
from motif.models.hub import load_config, load_tokenizer
from motif.models.shape import context_limit, window_of
from motif.run_files import OWN_SAMPLES, TEACHER
from motif.runs.folder import RunFolder
from motif.sampling.base import Usage
from motif.session import Session, with_examples
from motif.tasks import Task
from motif.tasks.worked import cutting_of
from motif.text import counted, whole_percent
from motif.training.batch import UpdateStats, collect
from motif.training.learner import Learner
from motif.training.own_samples import sample_demonstrations
from motif.training.progress import Clock, Progress
from motif.training.rollouts import grow_and_grade
from motif.training.schedule import Course
from motif.training.sources import (
    Demonstrations,
    demonstrator,
    from_plain,
    read_demonstrations,
    to_plain,
)
from motif.training.teacher import Lesson, ask_teacher, check_teacher

SURE = 0.95
"""The mean outcome above which there is nothing left to compare."""
NOT_SOLVED = (
    "the model itself solves too few of these questions. Take easier questions or a larger model, more "
    "warmstart.samples or warmstart.tokens, or give demonstrations: source 'solutions', 'teacher' or 'file'"
)
"""Advice where the model's own answers are all left out."""


class Warmstart:
    """The stage of one run. `save` writes a checkpoint. `given`: what `read_ahead` has read, if it has."""

    def __init__(
        self,
        session: Session,
        run: RunFolder,
        display: Display,
        state: Progress,
        learner: Learner,
        save: Callable[[], None],
        given: Demonstrations | None = None,
    ):
        self.session, self.run, self.display, self.state = session, run, display, state
        self.learner, self.save = learner, save
        self.config = session.recipe.warmstart
        self.recipe = session.recipe.model_copy(update={"loss": LossConfig(kind="dapo")})
        # Read at once, so that what is wrong with it is known before anything is spent.
        self.read = given
        if self.config.source in ("solutions", "file"):
            self.read = given or self._read()
            self._refuse_others(self.read)

    def train(self, stopped: Callable[[], bool]) -> bool:
        """Train until the stage ends or the run is stopped, and save then; returns whether it has ended."""
        warm, recipe = self.state.warm, self.session.recipe
        iterations = self.config.iterations if self.config.source == "self" else 1
        while not warm.reason:
            trees = self._demonstrations(stopped)
            if not trees:  # it was stopped while they were sampled
                self.save()
                return False
            if not warm.looks:
                self.look()
            while not warm.reason and warm.in_iteration < self.config.steps:
                if stopped():
                    self.save()
                    return False
                self.step(trees)
                last = warm.in_iteration == self.config.steps
                if last or warm.in_iteration % self.config.look_every == 0:
                    self.look()
                if not warm.reason and not last and warm.steps % recipe.train.save_every == 0:
                    self.save()
            warm.iteration, warm.in_iteration, warm.trained_on = warm.iteration + 1, 0, []
            if not warm.reason and warm.iteration == iterations:
                warm.reason = "all its steps are made"
        self.display.message(f"warm start ended after {counted(warm.steps, 'step')}: {warm.reason}")
        return True

    def _demonstrations(self, stopped: Callable[[], bool]) -> list[Tree]:
        """What this iteration trains on: the same when a run is resumed within it. Empty: it was stopped before."""
        warm, session = self.state.warm, self.session
        if warm.trained_on:
            return from_plain(warm.trained_on)
        if self.config.source == "self":
            session.sync_weights(self.state.version(0))
            own = sample_demonstrations(session, warm.iteration, self.display, self.run.path / OWN_SAMPLES, stopped)
            if not own.complete:
                return []
            found, clock = own.found, Clock()
            clock.start -= own.sampled.seconds
            clock.laps["sample"] = own.sampled.seconds
            self._charge(clock, own.sampled.usage)
            found.refuse_none(NOT_SOLVED)
            warm.trained_on = to_plain(found.trees)
        elif self.config.source == "teacher":
            lesson = self._lesson(stopped)
            if not lesson.complete:
                return []
            found = lesson.found
            found.refuse_none()
            warm.trained_on = to_plain(found.trees)
        else:
            assert self.read is not None
            found = self.read
        if not warm.in_iteration:
            warm.demonstrations += len(found.trees)
            warm.dropped += len(found.dropped)
            self.display.message(f"warm start on {found.words()}")
        return found.trees

    def _lesson(self, stopped: Callable[[], bool]) -> Lesson:
        """Ask the teacher, or take what it has answered, and count what that took."""
        session, clock, ledger = self.session, Clock(), self.state.ledger
        record, alone = self.run.path / TEACHER, session.processes.count == 1
        ask = lambda: ask_teacher(session, self.display, record, lambda: alone and stopped())  # noqa: E731
        lesson = session.processes.on_main(ask)
        clock.lap("sample")
        if lesson.complete:
            ledger.teacher_prompt_tokens = (ledger.teacher_prompt_tokens or 0) + lesson.prompt_tokens
            ledger.teacher_tokens = (ledger.teacher_tokens or 0) + lesson.tokens
        self._charge(clock)
        return lesson

    def _read(self) -> Demonstrations:
        session = self.session
        return read_demonstrations(session.recipe, session.task, demonstrator(session), session.grader)

    def _refuse_others(self, found: Demonstrations) -> None:
        total = hashlib.sha256()
        for tree in found.trees:
            total.update(repr([(node.prompt_ids, node.token_ids) for node in tree.walk()]).encode())
        now, before = total.hexdigest()[:16], self.state.warm.fingerprint
        if before and now != before:
            raise RunFolderError(
                "the demonstrations of the warm start have changed since the checkpoint: restore them, or start afresh "
                "with another --out"
            )
        self.state.warm.fingerprint = now

    def step(self, trees: Sequence[Tree]) -> None:
        """One optimiser step on the next demonstrations."""
        warm, clock, rate = self.state.warm, Clock(), self.config.learning_rate
        chosen = self._drawn(trees)
        warm.steps, warm.in_iteration = warm.steps + 1, warm.in_iteration + 1
        stats = self.learner.learn(collect(chosen, self.recipe), rate, self.recipe)
        clock.lap("update")
        warm.trained_tokens += stats.tokens
        self._charge(clock, stats=stats)
        loss = stats.surprise / stats.tokens if stats.tokens else None
        numbers = {"step": warm.steps, "loss": loss, "entropy": stats.entropy / stats.tokens if stats.tokens else None}
        numbers |= {"grad_norm": stats.grad_norm, "update_skipped": stats.skipped, "learning_rate": rate}
        self._record(numbers | self.state.ledger.to_dict("ledger/") | clock.metrics())
        shown = "-" if loss is None else f"{loss:.3f}"
        self.display.message(
            f"warm start {warm.steps:>3}  loss {shown} nats a token  {counted(len(chosen), 'demonstration')}  "
            f"{clock.total():.1f} s"
        )
        self.learner.refuse_more_skips(self.save)

    def _charge(self, clock: Clock, usage: Usage | None = None, stats: UpdateStats | None = None) -> None:
        """Add work and time to the ledger, and the time to the stage's, too."""
        self.learner.charge(usage or Usage(), stats or UpdateStats(), clock)
        self.state.warm.seconds += clock.total()

    def _drawn(self, trees: Sequence[Tree]) -> list[Tree]:
        """The demonstrations of the next step: all of them in an order shuffled anew for each epoch, by seed."""
        warm, size = self.state.warm, min(self.config.demonstrations_per_step, len(trees))
        orders: dict[int, list[int]] = {}
        chosen = []
        for position in range(warm.in_iteration * size, (warm.in_iteration + 1) * size):
            epoch, index = divmod(position, len(trees))
            if epoch not in orders:
                orders[epoch] = list(range(len(trees)))
                random.Random(f"warmstart/{self.recipe.train.seed}/{warm.iteration}/{epoch}").shuffle(orders[epoch])
            chosen.append(trees[orders[epoch][index]])
        return chosen

    def look(self) -> None:
        """Grow a few trees, see whether they are well formed and what their groups would tell, and decide."""
        session, warm, clock = self.session, self.state.warm, Clock()
        session.sync_weights(self.state.version(0))
        course, seed = Course(session.task.train, self.recipe.data), self.recipe.train.seed
        drawn = [place[0] for place in course.places(0, 1, self.config.look_questions, seed)]
        drawn = list({question.whole: question for question in drawn}.values())
        share = session.processes.share(drawn)
        rollout = self.recipe.rollout
        shape = rollout.model_copy(update={"branching": [rollout.responses, *[1] * (rollout.rounds - 1)]})
        sampled = grow_and_grade(session, share, f"look-{warm.steps}", self.display, clock, shape=shape)
        trees = session.processes.gather_in_order(sampled.trees)
        self._charge(clock, sampled.usage)
        seen = seen_of(trees, session)
        warm.looks.append({"step": warm.steps} | seen)
        self._record({"step": warm.steps, "look": seen})
        self.display.message(
            f"warm start {warm.steps:>3}  look: well formed {whole_percent(seen['well_formed'])}, "
            f"right {whole_percent(seen['right'])}, groups that tell responses apart "
            f"{whole_percent(seen['undecided'])}, entropy {seen['entropy']:.2f} nats a token"
        )
        warm.reason = why_enough(warm.looks, self.config)

    def _record(self, numbers: dict[str, Any]) -> None:
        self.run.append_metrics({"step": 0, "warmstart": numbers})


def read_ahead(recipe: Recipe, task: Task) -> Demonstrations | None:
    """Look at the source of a warm start before any model is loaded, and return its demonstrations, if they are given.

    Raises:
        RecipeError: the teacher does not answer, or a function of the user's own cannot be loaded.
        DataError, BadRows: see `read_demonstrations`.
    """
    config = recipe.warmstart
    cutting_of(config)
    if config.source in ("", "self"):
        return None
    recipe = with_examples(recipe)
    rounds = Rounds(recipe.rounds, load_tokenizer(recipe.model.name))
    if config.source == "teacher":
        check_teacher(config, rounds)
        return None
    window = window_of(recipe, context_limit(load_config(recipe.model.name)))
    with Grader(task.grader, recipe.data.grader_seconds, workers=2) as grader:
        return read_demonstrations(recipe, task, Demonstrator(rounds, recipe.rollout, window), grader)


def why_enough(looks: Sequence[Mapping[str, Any]], config: WarmstartConfig) -> str:
    """Why the stage should end after these looks; empty: it should not.

    Imitation first makes form more likely and then makes the model sure. Where form is there, it ends because the
    groups tell enough responses apart, or because more imitation would only leave fewer that do: nearly everything is
    right, the model hardly hesitates over a token, or fewer than half as many groups are undecided as before.
    """
    seen, undecided = looks[-1], looks[-1]["undecided"]
    if not config.until or seen["well_formed"] < config.well_formed or undecided is None:
        return ""
    formed = f"{whole_percent(seen['well_formed'])} of responses are well formed"
    most = max((look["undecided"] or 0.0 for look in looks[:-1]), default=0.0)
    if undecided >= config.until:
        return f"{formed}, and {whole_percent(undecided)} of groups tell responses apart"
    if (seen["right"] or 0.0) >= SURE:
        return f"{formed}, and {whole_percent(seen['right'])} end right: there is nothing left to tell apart"
    if seen["entropy"] < config.least_entropy:
        return f"{formed}, and the model is too sure: {seen['entropy']:.3f} nats a token"
    if most >= config.until and undecided < most / 2:
        fell = f"fell from {whole_percent(most)} to {whole_percent(undecided)}"
        return f"{formed}, and groups that tell responses apart {fell}"
    return ""


def seen_of(trees: Sequence[Tree], session: Session) -> dict[str, Any]:
    """What a few grown and graded trees show of a model.

    undecided: the share of groups whose outcomes differ, without the format reward: those that reinforcement learning
    could learn the task from. entropy: the mean of -log p of the sampled tokens, which estimates it without bias.
    """
    credit = session.recipe.credit.model_copy(update={"format_weight": 0.0, "reward": "indicator"})
    counts = [assign(tree, credit) for tree in trees]
    groups, dead = sum(count.groups for count in counts), sum(count.dead_groups for count in counts)
    nodes = [node for tree in trees for node in tree.walk()]
    leaves = [leaf for tree in trees for leaf in tree.leaves()]
    graded = [outcome for leaf in leaves if (outcome := leaf.outcome) is not None]
    surprises = [-logprob for node in nodes for logprob in node.logprobs]
    return {
        "well_formed": statistics.fmean(node.well_formed for node in nodes),
        "answered": statistics.fmean(leaf.answer is not None for leaf in leaves),
        "cut_off": statistics.fmean(node.truncated for node in nodes),
        "right": statistics.fmean(graded) if graded else None,
        "undecided": 1 - dead / groups if groups else None,
        "entropy": statistics.fmean(surprises) if surprises else 0.0,
    }
