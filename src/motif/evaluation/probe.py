"""The true value of notes, measured by hundreds of continuations of each.

In training, the reward of a first-round response comes from k trajectories, which are few. The probe grows trees in the
training shape on held-out questions and credits them as a training step would. Then it continues every note afresh with
the policy as deployed (the current one, at the training temperatures). The mean outcome of these continuations is the
*true value* V of the note. From V follow

* the correlation of the advantages with V, within questions: does training push towards the better notes?
* the bias and variance of a k-trajectory reward against V, and the share of its variance that is not due to chance;
* the share of the outcome's variance that the notes explain (the intraclass correlation of V);
* the counterfactual value: the value of a question with its own note, with an empty note, and with a note to another
  question. The note matters as far as these differ.

A response that gave the answer and ended its trajectory (`rounds.may_finish`) left no note and is not probed.

All probes of a run have the same questions (drawn by its seed) and the same random numbers, so probes before and after
training can be compared in pairs. Equal notes to one question have the same true value and are continued once. A probe
trains nothing and does not count in the ledger.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motif.config import Recipe
from motif.distributed import ALONE, Processes
from motif.errors import RecipeError
from motif.grading import Grader
from motif.grading.beside import grading_beside
from motif.method.credit import assign
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import TrainingSampler
from motif.sampling.grow import continue_from, grow
from motif.statistics.variance import Estimate, jackknife
from motif.tasks import Task
from motif.text import counted

TRAJECTORIES = (1, 2, 4, 8)
"""The numbers of trajectories k whose rewards are compared with V."""
FEWEST = 2 * max(TRAJECTORIES)
"""The fewest graded continuations of a note that counts: two rewards of the largest k."""

Progress = Callable[[int], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True)
class ProbedQuestion:
    """The measurements of one question. Response i of M wrote note number `notes_M[i]`.

    `outcomes[n]` holds the outcomes, from 0 to 1, of the fresh continuations of note number n.
    """

    notes_M: list[int]
    advantages_M: list[float | None]
    values_M: list[float | None]  # as in training: means over the tree's own trajectories
    outcomes: list[np.ndarray]
    empty: int  # the number of the empty note
    shuffled: int  # the number of a note to another question

    def counted(self) -> list[int]:
        """The numbers of the responses whose note has enough graded continuations."""
        return [i for i, note in enumerate(self.notes_M) if len(self.outcomes[note]) >= FEWEST]


@dataclass(frozen=True)
class Reward:
    """A k-trajectory reward against the true value.

    `bias` is E[reward - V], with V from other continuations. `variance` is E[(reward - its expectation)^2].
    `reliability` is the share of the rewards' variance within a question that is not due to chance.
    """

    k: int
    bias: Estimate
    variance: float | None
    reliability: float | None


@dataclass(frozen=True)
class ProbeResult:
    """The results of a probe; intervals are 95 %, over questions (see `motif.statistics.variance.jackknife`).

    `trained_bias` is E[value in the tree - V], which is not 0 where training continues with another policy than the
    deployed one. `values` holds `own`, `empty`, `shuffled` and the paired differences `own_minus_empty` and
    `own_minus_shuffled`.
    """

    questions: int
    responses: int
    notes: int  # distinct ones, counted by question
    continuations: int  # of each note
    ungraded: int
    generated_tokens: int
    correlation: Estimate
    icc: Estimate
    trained_bias: Estimate
    rewards: list[Reward]
    values: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        values = self.values
        return (
            f"advantage and true value r = {self.correlation}; notes explain {self.icc} of the variance; right with "
            f"the own note {values['own']}, an empty one {values['empty']}, another question's {values['shuffled']}"
        )


def probe_questions(task: Task, recipe: Recipe) -> list[Question]:
    """The held-out questions of a recipe's probes: `probe.questions` of them, drawn by the seed.

    Raises:
        RecipeError: there are fewer held-out questions.
    """
    count = recipe.probe.questions
    if count > len(task.test):
        raise RecipeError(
            f"probe.questions = {count}, but there are only {counted(len(task.test), 'held-out question')}"
        )
    return random.Random(f"probe/{recipe.train.seed}").sample(task.test, count)


def probe(
    questions: Sequence[Question],
    sampler: TrainingSampler,
    rounds: Rounds,
    grader: Grader,
    recipe: Recipe,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> ProbeResult:
    """Grow, credit and continue trees of the training shape on at least two `questions`.

    Args:
        progress: from the number of final responses to come, a context whose value is called as each ends.
        processes: each grows the trees of its share of the questions, and all get the results of all.
    """
    progress = progress or (lambda total: nullcontext(lambda *_: None))
    shape, seed, before = recipe.rollout, recipe.train.seed, sampler.usage.generated_tokens
    mine = processes.share(questions)
    leaves = len(mine) * shape.responses * shape.trajectories
    with progress(leaves) as advance, grading_beside(grader, advance) as on_leaf:
        grown = grow(mine, sampler, rounds, shape, seed=seed, step="probe", on_leaf=on_leaf)
    grown = processes.gather_in_order(grown)
    for tree in grown:
        assign(tree, recipe.credit)
    notes = [_notes(grown, index) for index in range(len(grown))]
    continued = [
        Tree(tree.question, 0, [_only_note(index, note) for index, note in enumerate(distinct)])
        for tree, distinct in zip(grown, notes, strict=True)
    ]
    later = [recipe.probe.continuations] + [1] * (shape.rounds - 2)
    deployed = shape.model_copy(update={"branching": [1, *later], "continuation_policy": "current"})
    continued = processes.share(continued)
    leaves = sum(len(tree.roots) for tree in continued) * recipe.probe.continuations
    # The keys differ from those of the trees: the true value must not share the luck of what it judges.
    with progress(leaves) as advance, grading_beside(grader, advance) as on_leaf:
        continue_from(continued, sampler, rounds, deployed, seed=seed, step="probe/continued", on_leaf=on_leaf)
    outcomes = processes.gather_in_order([[_outcomes(root) for root in tree.roots] for tree in continued])
    [generated] = processes.total([sampler.usage.generated_tokens - before])
    probed = [
        ProbedQuestion(
            notes_M=[distinct.index(root.note) for root in _continued(tree)],
            advantages_M=[root.advantage for root in _continued(tree)],
            values_M=[root.value for root in _continued(tree)],
            outcomes=after,
            empty=distinct.index(""),
            shuffled=distinct.index(_note_of_next(grown, index)),
        )
        for index, (tree, distinct, after) in enumerate(zip(grown, notes, outcomes, strict=True))
    ]
    return measure(probed, recipe.probe.continuations, int(generated))


def measure(probed: Sequence[ProbedQuestion], continuations: int, generated_tokens: int = 0) -> ProbeResult:
    """All results of a probe from its outcomes."""
    spread = _sums(_spread(question) for question in probed)
    counted = [question for question in probed if question.counted()]
    outcomes = [note for question in probed for note in question.outcomes]
    return ProbeResult(
        questions=len(probed),
        responses=sum(len(question.notes_M) for question in probed),
        notes=len(outcomes),
        continuations=continuations,
        ungraded=sum(continuations - len(note) for note in outcomes),
        generated_tokens=generated_tokens,
        correlation=_correlation(probed),
        icc=jackknife(spread, lambda s: s[..., 0] / (s[..., 0] + s[..., 1])),
        trained_bias=_mean([_trained_bias(question) for question in probed]),
        rewards=[_reward(counted, spread, k) for k in TRAJECTORIES],
        values=_values(probed),
    )


# -- growing -----------------------------------------------------------------------------------------------------------


def _notes(grown: Sequence[Tree], index: int) -> list[str]:
    """The distinct notes that a question is continued from: its own, the empty one, and one to another question."""
    own_notes = [root.note for root in _continued(grown[index])]
    return list(dict.fromkeys([*own_notes, "", _note_of_next(grown, index)]))


def _note_of_next(grown: Sequence[Tree], index: int) -> str:
    """A note to the next question: from its first response for the first question, its second for the second, …"""
    others = _continued(grown[(index + 1) % len(grown)])
    return others[index % len(others)].note if others else ""


def _continued(tree: Tree) -> list[Node]:
    """The first-round responses that another round follows."""
    return [root for root in tree.roots if not root.unused]


def _only_note(index: int, note: str) -> Node:
    return Node((index,), prompt_ids=[], token_ids=[], logprobs=[], text="", truncated=False, note=note)


def _outcomes(root: Node) -> np.ndarray:
    return np.array([leaf.outcome for leaf in root.leaves() if leaf.outcome is not None], dtype=float)


# -- measuring ---------------------------------------------------------------------------------------------------------


def _correlation(probed: Sequence[ProbedQuestion]) -> Estimate:
    """Pearson's correlation of advantage and V over all responses, both centred within the question.

    The interval uses Fisher's z. V has an error of its own, the variance of the outcomes over their number, which can
    only lower the correlation.
    """
    rows = []
    for question in probed:
        pairs = [
            (advantage, question.outcomes[question.notes_M[i]].mean())
            for i in question.counted()
            if (advantage := question.advantages_M[i]) is not None
        ]
        if len(pairs) > 1:
            x, y = (np.array(side) - np.mean(side) for side in zip(*pairs, strict=True))
            rows.append([x @ y, x @ x, y @ y])
    sums = _sums(rows)

    def pearson(s: np.ndarray) -> np.ndarray:
        return np.clip(s[..., 0] / np.sqrt(s[..., 1] * s[..., 2]), -1, 1)

    value = jackknife(sums, pearson).value
    z = jackknife(sums, lambda s: np.arctanh(pearson(s)))
    bounds = [None if bound is None else float(np.tanh(bound)) for bound in (z.low, z.high)]
    return Estimate(value, *bounds)


def _spread(question: ProbedQuestion) -> list[float] | None:
    """Unbiased estimates of a question's variance between responses (of V) and within them (of one trajectory).

    The finite number of continuations adds to the variance of the measured V, which is subtracted. Responses that share
    a note also share that error.
    """
    counted = question.counted()
    m = len(counted)
    if m < 2:
        return None
    notes = [question.notes_M[i] for i in counted]
    values = np.array([question.outcomes[note].mean() for note in notes])
    sizes = np.array([len(question.outcomes[note]) for note in notes])
    luck = np.array([question.outcomes[note].var(ddof=1) for note in notes])
    shared = Counter(notes)
    apart = np.array([1 - shared[note] / m for note in notes])
    return [float(values.var(ddof=1) - (apart * luck / sizes).sum() / (m - 1)), float(luck.mean())]


def _reward(probed: Sequence[ProbedQuestion], spread: np.ndarray, k: int) -> Reward:
    """Rewards from k continuations each; the bias is measured against the other half of the continuations."""
    biases, variances = [], []
    for question in probed:
        outcomes = [question.outcomes[question.notes_M[i]] for i in question.counted()]
        halves = [(note[: len(note) // 2], note[len(note) // 2 :]) for note in outcomes]
        biases.append(float(np.mean([_rewards(one, k).mean() - other.mean() for one, other in halves])))
        variances.append(float(np.mean([_rewards(note, k).var(ddof=1) for note in outcomes])))
    between, within = spread.sum(0) if len(spread) else (0.0, 0.0)
    total = between + within / k
    return Reward(
        k=k,
        bias=_mean(biases),
        variance=float(np.mean(variances)) if variances else None,
        reliability=float(between / total) if total > 0 else None,
    )


def _rewards(outcomes: np.ndarray, k: int) -> np.ndarray:
    count = len(outcomes) // k
    return outcomes[: count * k].reshape(count, k).mean(1)


def _trained_bias(question: ProbedQuestion) -> float | None:
    errors = [
        value - question.outcomes[question.notes_M[i]].mean()
        for i in question.counted()
        if (value := question.values_M[i]) is not None
    ]
    return float(np.mean(errors)) if errors else None


def _values(probed: Sequence[ProbedQuestion]) -> dict[str, Estimate]:
    """Means over the questions for which all three kinds of note have a value."""
    rows = []
    for question in probed:
        own = [question.outcomes[question.notes_M[i]].mean() for i in question.counted()]
        empty, shuffled = (question.outcomes[note] for note in (question.empty, question.shuffled))
        if own and min(len(empty), len(shuffled)) >= FEWEST:
            rows.append((float(np.mean(own)), float(empty.mean()), float(shuffled.mean())))
    names = ("own", "empty", "shuffled")
    values = {name: _share(_mean([row[place] for row in rows])) for place, name in enumerate(names)}
    for place, name in list(enumerate(names))[1:]:
        values[f"own_minus_{name}"] = _mean([row[0] - row[place] for row in rows])
    return values


def _share(mean: Estimate) -> Estimate:
    """A mean outcome with its interval clipped to [0, 1]."""
    if mean.low is None or mean.high is None:
        return mean
    return Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high))


def _mean(values: Sequence[float | None]) -> Estimate:
    return jackknife(_sums(None if v is None else [v, 1.0] for v in values), lambda s: s[..., 0] / s[..., 1])


def _sums(rows: Any) -> np.ndarray:
    """The (units, features) of the units that have features."""
    kept = [row for row in rows if row is not None]
    return np.array(kept, dtype=float) if kept else np.zeros((0, 3))
