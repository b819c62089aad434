"""Growing round trees on a sampler: a child is requested the moment its parent ends.

There is no barrier between rounds: a response that ends is read, its note makes the next prompt, and that prompt joins
whatever the sampler is computing. This is the only loop that runs rounds. Training, evaluation and the probe grow trees
of many responses; an answer (`motif.sampling.answer`) is a tree of one trajectory that is watched while it grows. Which
tree grows depends only on (seed, step, question) and the model.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from motif.config import RolloutConfig, in_rounds
from motif.method.keys import sampling_key
from motif.method.rounds import Reading, Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import Completion, OnText, Request, Sampler
from motif.sampling.concurrency import run, together

NodePath = tuple[int, ...]


@dataclass(frozen=True)
class RoundLimits:
    """How the responses of one round are drawn: at most so many new tokens, at this temperature (0 is greedy)."""

    tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class TreeShape:
    """What is to be grown.

    `branching` holds the children per node, and `limits` how they are drawn, both one entry per round. A question with
    a number of rounds of its own has the same shape in as many (`in_rounds`). `budget`: at most so many new tokens in
    all rounds of a trajectory (see `allowance`). `early_finish`: the first round that gives an answer is a trajectory's
    last, as with `rounds.may_finish`. `first_index`: the number of the first response to the question. `later`: how
    responses are drawn in rounds that `limits` lacks; None: like the last of those.
    """

    branching: Sequence[int]
    limits: Sequence[RoundLimits]
    continuation_policy: Literal["current", "base"] = "current"
    budget: int | None = None
    early_finish: bool = False
    first_index: int = 0
    later: RoundLimits | None = None

    @property
    def rounds(self) -> int:
        """n, the number of rounds."""
        return len(self.branching)

    def in_rounds(self, count: int) -> TreeShape:
        """The same in another number of rounds (see `motif.config.in_rounds`)."""
        more = count - self.rounds
        if more == 0:
            return self
        limits = [*self.limits[:count], *[self.later or self.limits[-1]] * more]
        return replace(self, branching=in_rounds(self.branching, count), limits=limits)

    @classmethod
    def of(cls, config: RolloutConfig, greedy: bool = False) -> TreeShape:
        """The shape of a recipe's trees; `greedy` overrides its temperatures and top-p."""
        first = RoundLimits(config.tokens_first, config.temperature_first, config.top_p_first)
        later = RoundLimits(config.tokens_continue, config.temperature_continue, config.top_p_continue)
        if greedy:
            first, later = RoundLimits(first.tokens, 0.0), RoundLimits(later.tokens, 0.0)
        limits = [first, *[later] * (config.rounds - 1)]
        return cls(config.branching, limits, config.continuation_policy, later=later)


class Observer:
    """Watches responses as they are sampled; every method may be overridden."""

    async def on_round(self, number: int) -> None:
        """Round `number` (from 1) of a trajectory is requested."""

    def on_text(self, number: int) -> OnText | None:
        """What gets the text of round `number` piece by piece, if anything does."""
        return None

    async def on_response(self, tree: Tree, node: Node, completion: Completion, last: bool) -> None:
        """A response has ended and been read. `last`: its trajectory ends with it."""


def grow(
    questions: Sequence[Question],
    sampler: Sampler,
    rounds: Rounds,
    config: RolloutConfig,
    *,
    seed: int = 0,
    step: int | str = 0,
    greedy: bool = False,
    roots: range | None = None,
    on_response: Callable[[Node], None] | None = None,
    on_leaf: Callable[[Tree, Node], None] | None = None,
) -> list[Tree]:
    """Grow one tree per question with `config.branching` children per node, round by round.

    A question with a number of rounds of its own is grown in as many. With `rounds.may_finish` a trajectory ends with
    the first response that gives an answer.

    Args:
        questions: one tree each; the same question may occur more than once only under different ids.
        step: part of the randomness key, with `seed` and the question's id.
        greedy: decode greedily in all rounds, whatever temperatures the config holds.
        roots: the first-round responses to grow, with all that follows them; None: all.
        on_response: called with each response of any round as it ends.
        on_leaf: called with each final response as it ends, e.g. to grade it while others are still being sampled.

    Returns:
        Trees in the order of `questions`, children in path order, not yet graded.
    """
    trees = [Tree(question, step if isinstance(step, int) else 0) for question in questions]
    shape, observer = TreeShape.of(config, greedy), _Callbacks(on_response, on_leaf)
    if roots is not None:
        shape = replace(shape, branching=[len(roots), *shape.branching[1:]], first_index=roots.start)
    run(Grower(sampler, rounds, shape, seed, step, observer).grow(trees))
    return trees


def continue_from(
    trees: Sequence[Tree],
    sampler: Sampler,
    rounds: Rounds,
    config: RolloutConfig,
    *,
    seed: int = 0,
    step: int | str = 0,
    on_leaf: Callable[[Tree, Node], None] | None = None,
) -> None:
    """Grow what `config.branching` asks for and the trees do not have yet, below the first-round responses they have.

    A tree without any response is grown as a whole. Of a response that is there, only path, note and children matter,
    and the answer where it may end a trajectory.
    Arguments as in `grow`; the trees are changed in place.
    """
    run(Grower(sampler, rounds, TreeShape.of(config), seed, step, _Callbacks(None, on_leaf)).grow(trees))


class Grower:
    """Grows trees of one shape. With `threaded`, prompts are built in other threads, for a loop that serves many."""

    def __init__(
        self,
        sampler: Sampler,
        rounds: Rounds,
        shape: TreeShape,
        seed: int = 0,
        step: int | str = 0,
        observer: Observer | None = None,
        threaded: bool = False,
    ):
        self.sampler, self.rounds, self.shape, self.seed, self.step = sampler, rounds, shape, seed, step
        self.observer, self.threaded = observer or Observer(), threaded
        # Equal notes make equal prompts, and equal responses read the same: with a small model many are. The caches do
        # not refer to the grower, so that they go with it, at once.
        self._prompt = functools.cache(functools.partial(_build_prompt, rounds))
        self._in_rounds = functools.cache(functools.partial(_in_rounds, shape))
        self._may_finish = shape.early_finish or rounds.config.may_finish
        self._decode = functools.cache(rounds.spell)
        self._read = functools.cache(rounds.read)

    async def grow(self, trees: Sequence[Tree]) -> None:
        """Grow what the trees do not have yet; they are changed in place, children in path order.

        Raises:
            MotifError: the sampler's first error; what had been sampled stays in the trees.
        """
        async with together() as self._tasks:
            for tree in trees:
                for parent, notes in [(None, ())] if not tree.roots else _with_notes(tree.roots, ()):
                    if parent is None or not self._ends(tree, parent):
                        self._continue(tree, parent, notes, self.shape.budget)
        for tree in trees:
            tree.roots = sorted(
                tree.roots, key=_path
            )  # not in place: a list that is being sorted looks empty to others
            for node in tree.walk():
                node.children = sorted(node.children, key=_path)

    def _shape(self, tree: Tree) -> TreeShape:
        return self._in_rounds(tree.question.rounds)

    def _ends(self, tree: Tree, node: Node) -> bool:
        """Whether a trajectory ends with a response; one that ends early is marked with the rounds that it left out."""
        later = self._shape(tree).branching[node.round :]
        if later and self._may_finish and node.answer is not None:
            node.unused = tuple(later)
        return not later or bool(node.unused)

    def _continue(self, tree: Tree, parent: Node | None, notes: tuple[str, ...], left: int | None) -> None:
        """Request the missing children of a node. `left`: tokens left of the budget."""
        if self.threaded:
            self._tasks.create_task(self._continue_later(tree, parent, notes, left))
        elif (request := self._request(tree, parent, notes, left)).keys:
            stream = self.sampler.sample(request, self.observer.on_text(len(notes) + 1))
            self._tasks.create_task(self._receive(tree, parent, notes, left, stream))

    async def _continue_later(self, tree: Tree, parent: Node | None, notes: tuple[str, ...], left: int | None) -> None:
        request = await asyncio.to_thread(self._request, tree, parent, notes, left)
        stream = self.sampler.sample(request, self.observer.on_text(len(notes) + 1))
        await self._receive(tree, parent, notes, left, stream)

    async def _receive(
        self,
        tree: Tree,
        parent: Node | None,
        notes: tuple[str, ...],
        left: int | None,
        stream: AsyncIterator[Completion],
    ) -> None:
        """Take a node's children as they end, and request theirs at once."""
        number = len(notes) + 1
        await self.observer.on_round(number)
        async with aclosing(stream) as completions:  # type: ignore[type-var]  # iterators of samplers can be closed
            async for completion in completions:
                node = self._node(completion, final=number == self._shape(tree).rounds)
                (parent.children if parent else tree.roots).append(node)
                last = self._ends(tree, node)
                await self.observer.on_response(tree, node, completion, last)
                if not last:
                    spent = completion_tokens(completion)
                    self._continue(tree, node, (*notes, node.note), None if left is None else left - spent)

    def _request(self, tree: Tree, parent: Node | None, notes: tuple[str, ...], left: int | None) -> Request:
        shape, depth, question = self._shape(tree), len(notes), tree.question
        limits = shape.limits[depth]
        path = parent.path if parent else ()
        first = len(parent.children if parent else tree.roots) + (shape.first_index if depth == 0 else 0)
        end = shape.branching[depth] + (shape.first_index if depth == 0 else 0)
        paths = [(*path, index) for index in range(first, end)]
        asked = self.rounds.asked(question, depth + 1)
        return Request(
            prompt_ids=self._prompt(shape.rounds, asked, notes),
            keys=[sampling_key(self.seed, self.step, question.id, child) for child in paths],
            max_tokens=allowance(left, [later.tokens for later in shape.limits[depth:]]),
            temperature=limits.temperature,
            top_p=limits.top_p,
            policy="current" if depth == 0 else shape.continuation_policy,
            messages=functools.partial(self.rounds.messages, asked, list(notes), shape.rounds),
            paths=paths,
        )

    def _node(self, completion: Completion, final: bool) -> Node:
        request = completion.request
        text = self._decode(tuple(completion.token_ids)) if completion.text is None else completion.text
        reading: Reading = self._read(text, completion.truncated, final)
        return Node(
            path=request.paths[completion.index],
            prompt_ids=list(request.prompt_ids),
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            text=text,
            truncated=completion.truncated,
            note=reading.note,
            answer=reading.answer,
            well_formed=reading.well_formed,
            policy=request.policy,
            version=completion.version,
        )


def allowance(left: int | None, limits: Sequence[int]) -> int:
    """The limit of the round that comes next, when `left` tokens are left for it and the later ones.

    A budget below the sum of the rounds' own limits is shared among them in proportion, at least one token each; what
    a round leaves over goes to the later ones. So a small budget makes all rounds shorter and none fall out.
    """
    own, later = limits[0], len(limits) - 1
    if left is None:
        return own
    return min(own, max(1, min(left * own // sum(limits), left - later)))


def completion_tokens(completion: Completion) -> int:
    """The length of a response in tokens, as the server counts it where there are no token ids."""
    counted = completion.completion_tokens
    return len(completion.token_ids) if counted is None else counted


def _in_rounds(shape: TreeShape, count: int | None) -> TreeShape:
    return shape if count is None else shape.in_rounds(count)


class _Callbacks(Observer):
    def __init__(self, on_response: Callable[[Node], None] | None, on_leaf: Callable[[Tree, Node], None] | None):
        self._on_response, self._on_leaf = on_response, on_leaf

    async def on_response(self, tree: Tree, node: Node, completion: Completion, last: bool) -> None:
        if self._on_response:
            self._on_response(node)
        if last and self._on_leaf:
            self._on_leaf(tree, node)


def _build_prompt(rounds: Rounds, count: int, question: str, notes: tuple[str, ...]) -> list[int]:
    return rounds.prompt(question, list(notes), count)


def _with_notes(nodes: Sequence[Node], before: tuple[str, ...]) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Every node with the notes of all rounds up to its own."""
    for node in nodes:
        notes = (*before, node.note)
        yield node, notes
        yield from _with_notes(node.children, notes)


def _path(node: Node) -> NodePath:
    return node.path
