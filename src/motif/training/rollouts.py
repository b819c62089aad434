"""The trees of each step: sampled and graded now, or ahead of time while the step before trains.

    time →     sample 1 │ update 1 │ update 2 │ …
                        │ sample 2 │ sample 3 │ …          sampler.overlap

Step t + 1 is then sampled with the weights that step t starts from, so it lags one update behind, never more: the trees
are waited for before the next step begins. Every response carries the version of the weights it came from, and the loss
corrects for the difference (`loss.importance_cap`).

With `rollout.refill` a dead question is replaced by another, place by place (DAPO's dynamic sampling, arXiv 2503.14476,
section 3.2; DAPO fills a batch, we each of its places, so that processes need not wait for each other). All trees that
were grown are handed out; those of dead questions are marked as dropped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from motif.config import RolloutConfig
from motif.display import Display
from motif.grading.beside import grading_beside
from motif.method.credit import assign
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.sampling.base import Usage
from motif.sampling.grow import continue_from, grow
from motif.session import Session
from motif.training.progress import Clock, Progress
from motif.training.schedule import Course, draw_rounds


@dataclass(frozen=True)
class Sampled:
    """A step's graded trees, and what sampling and grading this process's share of them took.

    `ahead`: they were sampled while the step before trained. `tried`: how many trees in a row are of one place of the
    step; all but the last of them were replaced.
    """

    trees: list[Tree]
    usage: Usage
    seconds: float
    ahead: bool = False
    tried: tuple[int, ...] = ()

    def by_place(self) -> list[list[Tree]]:
        """The trees of each place."""
        trees = iter(self.trees)
        return [list(islice(trees, count)) for count in self.tried]

    def lag(self, version: int) -> dict[str, Any]:
        """How many updates the oldest response is behind, and the seconds of sampling ahead, where there are any.

        version: of the weights that are trained (`Progress.version`).
        """
        lags = [version - node.version for tree in self.trees for node in tree.walk() if node.version is not None]
        if not lags:
            return {}
        return {"sampler/lag": max(lags)} | ({"time/sampled_ahead": self.seconds} if self.ahead else {})


class Rollouts:
    """Hands out the trees of one step after the other; a context that gives up what is being sampled ahead."""

    def __init__(self, session: Session, state: Progress, display: Display):
        self.session, self.state, self.display = session, state, display
        self.course = Course(session.task.train, session.recipe.data)
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Sampled] | None = None

    def __enter__(self) -> Rollouts:
        if self.session.recipe.sampler.overlap:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        return self

    def __exit__(self, *error: object) -> None:
        if self._future and not self._future.done():
            self.session.sampler.close()  # which ends the work
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def take(self, clock: Clock) -> Sampled:
        """The current step's trees of all processes; with overlap, the next step's begin to be sampled.

        Raises:
            SamplerError: see `Sampler.sample`.
        """
        future, self._future = self._future, None
        sampled = future.result() if future else self._sample_now(clock)
        self.session.sync_weights(self.state.version(self.state.step - 1))
        clock.lap("sample")
        self._start_next()
        processes = self.session.processes
        places = processes.gather_in_order(sampled.by_place())
        if processes.count > 1:
            clock.lap("wait")  # until the last process had its trees
        trees = [tree for place in places for tree in place]
        return replace(sampled, trees=trees, tried=tuple(map(len, places)), ahead=future is not None)

    def wait(self, clock: Clock) -> None:
        """Wait for the trees that are being sampled ahead; an error in it is raised by `take`."""
        if self._future:
            wait([self._future])
        if self._pool:
            clock.lap("sample")  # what was left of it

    def _start_next(self) -> None:
        if self._pool:
            self.state.weights_before = self.session.policy.state()
            following = self.state.step + 1
            if self.state.step < self.session.recipe.train.steps:
                stage = self.state.curriculum.ahead = self.state.curriculum.stage
                self._future = self._pool.submit(self._sample, following, stage, Clock())

    def _sample_now(self, clock: Clock) -> Sampled:
        """The step's trees, from the weights as they are, or as they were where a run with overlap is resumed."""
        session, step = self.session, self.state.step
        if self.state.weights_before is None:
            stage = self.state.curriculum.stage
            session.sync_weights(self.state.version(step - 1))
        else:
            stage = self.state.curriculum.ahead
            with session.policy.swapped_weights(self.state.weights_before):
                session.sync_weights(self.state.version(step - 2))
        return self._sample(step, stage, clock)

    def _sample(self, step: int, stage: int, clock: Clock) -> Sampled:
        """Grow this process's trees of a step, and those that replace dead ones (`rollout.refill`).

        A place's next question is tried when the trees of all places have been graded.
        """
        session, recipe = self.session, self.session.recipe
        rollout, usage, start = recipe.rollout, replace(session.sampler.usage), time.perf_counter()
        places = session.processes.share(
            self.course.places(stage, step, rollout.questions_per_step, recipe.train.seed, rollout.tries)
        )
        grown: list[list[Tree]] = [[] for _ in places]
        left = list(range(len(places)))
        for attempt in range(rollout.tries):
            left = [place for place in left if len(places[place]) > attempt]
            questions = [draw_rounds(places[place][attempt], step, recipe) for place in left]
            if not questions and attempt:
                break
            replay = self.state.replay
            begun = [replay.begin(question, step, recipe) for question in questions] if rollout.replay else None
            trees = grow_and_grade(session, questions, step, self.display, clock, begun=begun).trees
            for place, tree in zip(left, trees, strict=True):
                grown[place].append(tree)
                tree.dropped = rollout.refill > 0 and assign(tree, recipe.credit).dead
            left = [place for place in left if grown[place][-1].dropped]
        spent, seconds = session.sampler.usage.since(usage), time.perf_counter() - start
        trees = [tree for place in grown for tree in place]
        return Sampled(trees, spent, seconds, tried=tuple(map(len, grown)))


def grow_and_grade(
    session: Session,
    questions: Sequence[Question],
    step: int | str,
    display: Display,
    clock: Clock,
    rounds: Rounds | None = None,
    shape: RolloutConfig | None = None,
    begun: list[Tree] | None = None,
) -> Sampled:
    """Grow trees of these questions, by default in the recipe's form; leaves are graded while others are sampled.

    Args:
        begun: trees of the questions, which have their first rounds perhaps.
    """
    shape, recipe = shape or session.recipe.rollout, session.recipe
    usage, start = replace(session.sampler.usage), time.perf_counter()
    with (
        display.sampling(len(questions) * shape.responses * shape.trajectories) as advance,
        grading_beside(session.grader, advance) as on_leaf,
    ):
        parts = (session.sampler, rounds or session.rounds, shape)
        if begun is None:
            trees = grow(questions, *parts, seed=recipe.train.seed, step=step, on_leaf=on_leaf)
        else:
            trees = begun
            continue_from(trees, *parts, seed=recipe.train.seed, step=step, on_leaf=on_leaf)
        clock.lap("sample")
    clock.lap("grade")  # what was left of it when the last leaf had been sampled
    return Sampled(trees, session.sampler.usage.since(usage), time.perf_counter() - start)
