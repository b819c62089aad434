"""The trees of each step: sampled and graded now, or ahead of time while the step before trains.

    time →     sample 1 │ update 1 │ update 2 │ …
                        │ sample 2 │ sample 3 │ …          sampler.overlap

Step t + 1 is then sampled with the weights that step t starts from, so it lags one update behind, never more: the trees
are waited for before the next step begins. Every response carries the version of the weights it came from, and the loss
corrects for the difference (`loss.importance_cap`).

Where a step has fewer questions than there are processes, several share a tree: each grows a part of the first-round
responses with all that follows them, so that children stay with their parent. Keys of randomness are those of the whole
tree, so it is the same.

With `rollout.refill` a dead question is replaced by another, place by place (DAPO's dynamic sampling, arXiv 2503.14476,
section 3.2; DAPO fills a batch, we each of its places, so that processes need not wait for each other). All trees that
were grown are handed out; those of dead questions are marked as dropped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from motif.config import Recipe, RolloutConfig
from motif.display import Display
from motif.distributed import Processes
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
class Part:
    """What one process grows of a step: the trees of these places, with these of their first-round responses."""

    places: range
    roots: range

    @classmethod
    def of(cls, processes: Processes, recipe: Recipe) -> Part:
        """This process's part: whole trees, or of one tree as many responses as any other process up to one."""
        rank, count, places = processes.rank, processes.count, recipe.rollout.questions_per_step
        responses = recipe.rollout.responses
        if not recipe.divides_trees(count):
            return cls(range(rank, places, count), range(responses))
        place, number = rank % places, rank // places
        sharing = len(range(place, count, places))
        roots = range(responses * number // sharing, responses * (number + 1) // sharing)
        return cls(range(place, place + 1 if roots else place), roots)


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
        self.part = Part.of(session.processes, session.recipe)
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
        places = joined(processes.gather(list(zip(self.part.places, sampled.by_place(), strict=True))))
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
        whole = self.course.places(stage, step, rollout.questions_per_step, recipe.train.seed, rollout.tries)
        places = [whole[place] for place in self.part.places]
        grown: list[list[Tree]] = [[] for _ in places]
        left = list(range(len(places)))
        for attempt in range(rollout.tries):
            left = [place for place in left if len(places[place]) > attempt]
            questions = [draw_rounds(places[place][attempt], step, recipe) for place in left]
            if not questions and attempt:
                break
            replay = self.state.replay
            begun = [replay.begin(question, step, recipe) for question in questions] if rollout.replay else None
            parts = (session, questions, step, self.display, clock)
            trees = grow_and_grade(*parts, begun=begun, roots=self.part.roots).trees
            for place, tree in zip(left, trees, strict=True):
                grown[place].append(tree)
                tree.dropped = rollout.refill > 0 and assign(tree, recipe.credit).dead
            left = [place for place in left if grown[place][-1].dropped]
        spent, seconds = session.sampler.usage.since(usage), time.perf_counter() - start
        trees = [tree for place in grown for tree in place]
        return Sampled(trees, spent, seconds, tried=tuple(map(len, grown)))


def joined(parts: Sequence[Sequence[tuple[int, list[Tree]]]]) -> list[list[Tree]]:
    """The trees of all places, in order, from those of each process; parts of one tree become one."""
    places: dict[int, list[Tree]] = {}
    for place, trees in chain(*parts):
        for whole, part in zip(places.setdefault(place, trees), trees, strict=True):
            if part is not whole:
                whole.roots += part.roots
    return [places[place] for place in sorted(places)]


def grow_and_grade(
    session: Session,
    questions: Sequence[Question],
    step: int | str,
    display: Display,
    clock: Clock,
    rounds: Rounds | None = None,
    shape: RolloutConfig | None = None,
    begun: list[Tree] | None = None,
    roots: range | None = None,
) -> Sampled:
    """Grow trees of these questions, by default in the recipe's form; leaves are graded while others are sampled.

    Args:
        begun: trees of the questions, which have their first rounds perhaps.
        roots: of trees that have nothing yet, the first-round responses to grow; None: all.
    """
    shape, recipe = shape or session.recipe.rollout, session.recipe
    responses = shape.responses if roots is None else len(roots)
    usage, start = replace(session.sampler.usage), time.perf_counter()
    with (
        display.sampling(len(questions) * responses * shape.trajectories) as advance,
        grading_beside(session.grader, advance) as on_leaf,
    ):
        parts = (session.sampler, rounds or session.rounds, shape)
        if begun is None:
            trees = grow(questions, *parts, seed=recipe.train.seed, step=step, roots=roots, on_leaf=on_leaf)
        else:
            trees = begun
            continue_from(trees, *parts, seed=recipe.train.seed, step=step, on_leaf=on_leaf)
        clock.lap("sample")
    clock.lap("grade")  # what was left of it when the last leaf had been sampled
    return Sampled(trees, session.sampler.usage.since(usage), time.perf_counter() - start)
