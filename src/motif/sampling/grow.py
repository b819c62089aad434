"""Growing round trees on a sampler: a child starts the moment its parent ends.

There is no barrier between rounds: a response that ends is read, its note makes the next prompt, and that prompt joins
whatever the sampler is computing. Which tree grows depends only on (seed, step, question) and the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

from motif.config import RolloutConfig
from motif.method.keys import sampling_key
from motif.method.rounds import Reading, Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import Completion, Request, Sampler


def grow(
    questions: Sequence[Question],
    sampler: Sampler,
    rounds: Rounds,
    config: RolloutConfig,
    *,
    seed: int = 0,
    step: int | str = 0,
    greedy: bool = False,
    on_response: Callable[[Node], None] | None = None,
    on_leaf: Callable[[Tree, Node], None] | None = None,
) -> list[Tree]:
    """Grow one tree per question with `config.branching` children per node, round by round.

    Args:
        questions: one tree each; the same question may occur more than once only under different ids.
        step: part of the randomness key, with `seed` and the question's id.
        greedy: decode greedily in all rounds, whatever temperatures the config holds.
        on_response: called with each response of any round as it ends.
        on_leaf: called with each final response as it ends, e.g. to grade it while others are still being sampled.

    Returns:
        Trees in the order of `questions`, children in path order, not yet graded.
    """
    trees = [Tree(question, step if isinstance(step, int) else 0) for question in questions]
    continue_from(
        trees,
        sampler,
        rounds,
        config,
        seed=seed,
        step=step,
        greedy=greedy,
        on_response=on_response,
        on_leaf=on_leaf,
    )
    return trees


def continue_from(
    trees: Sequence[Tree],
    sampler: Sampler,
    rounds: Rounds,
    config: RolloutConfig,
    *,
    seed: int = 0,
    step: int | str = 0,
    greedy: bool = False,
    on_response: Callable[[Node], None] | None = None,
    on_leaf: Callable[[Tree, Node], None] | None = None,
) -> None:
    """Grow what `config.branching` asks for and the trees do not have yet, below the first-round responses they have.

    A tree without any response is grown as a whole. Of a response that is there, only path, note and children matter.
    Arguments as in `grow`; the trees are changed in place.
    """

    # Equal notes make equal prompts, and equal responses read the same: with a small model many are.
    @functools.cache
    def prompt(question: str, notes: tuple[str, ...]) -> list[int]:
        return rounds.prompt(question, list(notes), config.rounds)

    @functools.cache
    def read(token_ids: tuple[int, ...], truncated: bool, final: bool) -> tuple[str, Reading]:
        text = str(rounds.tokenizer.decode(list(token_ids), skip_special_tokens=True))
        return text, rounds.read(text, truncated, final)

    def request(tree: Tree, parent: Node | None, notes: list[str]) -> Request:
        depth = len(notes)
        path = parent.path if parent else ()
        there = len(parent.children if parent else tree.roots)
        paths = [(*path, index) for index in range(there, config.branching[depth])]
        first = depth == 0
        temperature = config.temperature_first if first else config.temperature_continue
        return Request(
            prompt_ids=prompt(tree.question.text, tuple(notes)),
            keys=[sampling_key(seed, step, tree.question.id, child) for child in paths],
            max_tokens=config.tokens_first if first else config.tokens_continue,
            temperature=0.0 if greedy else temperature,
            top_p=1.0 if greedy else (config.top_p_first if first else config.top_p_continue),
            policy="current" if first else config.continuation_policy,
            tag=(tree, parent, notes, paths),
        )

    def then(completion: Completion) -> Iterable[Request]:
        tree, parent, notes, paths = completion.request.tag
        final = len(notes) + 1 == config.rounds
        text, reading = read(tuple(completion.token_ids), completion.truncated, final)
        node = Node(
            path=paths[completion.index],
            prompt_ids=list(completion.request.prompt_ids),
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            text=text,
            truncated=completion.truncated,
            note=reading.note,
            answer=reading.answer,
            well_formed=reading.well_formed,
            policy=completion.request.policy,
            version=completion.version,
        )
        (parent.children if parent else tree.roots).append(node)
        if on_response:
            on_response(node)
        if not final:
            return [request(tree, node, [*notes, node.note])]
        if on_leaf:
            on_leaf(tree, node)
        return []

    starts: list[Request] = []
    for tree in trees:
        starts += [] if tree.roots else [request(tree, None, [])]
        inner = ((node, notes) for node, notes in _with_notes(tree.roots, []) if len(notes) < config.rounds)
        starts += [request(tree, node, notes) for node, notes in inner]
    sampler.run([start for start in starts if start.keys], then)
    for tree in trees:
        tree.roots.sort(key=_path)
        for node in tree.walk():
            node.children.sort(key=_path)


def _with_notes(nodes: Sequence[Node], before: list[str]) -> Iterator[tuple[Node, list[str]]]:
    """Every node with the notes of all rounds up to its own."""
    for node in nodes:
        notes = [*before, node.note]
        yield node, notes
        yield from _with_notes(node.children, notes)


def _path(node: Node) -> tuple[int, ...]:
    return node.path
