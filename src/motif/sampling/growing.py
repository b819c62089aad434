"""One first-round response and all that becomes of it, grown through a host that answers one prompt at a time.

Where a host calls a coroutine per response (verl) or per episode (verifiers), a question's m responses are m calls that
know nothing of each other, and the host compares what they return. Each call grows one branch of the tree with these
functions; prompts, reading, grading and rewards are those of `motif train`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from motif.config import CreditConfig, Recipe, RolloutConfig
from motif.errors import RecipeError
from motif.grading import Grader
from motif.grading.beside import grade_leaf
from motif.method.credit import assign
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree


@dataclass(frozen=True)
class Said:
    """What the host's model answered. Hosts that work on texts leave the token ids out."""

    text: str
    truncated: bool
    prompt_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


Ask = Callable[[tuple[int, ...], list[str]], Awaitable[Said]]
"""The host's model: given a node's path and the notes of all earlier rounds, its response in the next round."""


async def grow_response(
    ask: Ask, rounds: Rounds, shape: RolloutConfig, path: tuple[int, ...] = (0,), notes: Sequence[str] = ()
) -> Node:
    """The response at `path` with everything below it; a child is asked for the moment its parent ends."""
    said = await ask(path, list(notes))
    reading = rounds.read(said.text, said.truncated, final=len(path) == shape.rounds)
    node = Node(
        path=path,
        prompt_ids=said.prompt_ids,
        token_ids=said.token_ids,
        logprobs=said.logprobs,
        text=said.text,
        truncated=said.truncated,
        note=reading.note,
        answer=reading.answer,
        well_formed=reading.well_formed,
    )
    if len(path) < shape.rounds:
        try:
            async with asyncio.TaskGroup() as children:  # one that fails takes the others with it: no stray requests
                below = [
                    children.create_task(grow_response(ask, rounds, shape, (*path, index), [*notes, reading.note]))
                    for index in range(shape.branching[len(path)])
                ]
        except ExceptionGroup as group:  # the first says what happened
            raise group.exceptions[0] from None
        node.children = [task.result() for task in below]
    return node


async def judge(question: Question, root: Node, grader: Grader, credit: CreditConfig) -> Tree:
    """Grade the leaves below a response and give every node its value and its reward."""
    tree = Tree(question, 0, [root])
    await asyncio.gather(*(asyncio.to_thread(grade_leaf, grader, tree, leaf) for leaf in tree.leaves()))
    assign(tree, credit)
    return tree


def refuse(host: str, recipe: Recipe) -> None:
    """Refuse what no host can do that sees one response at a time.

    Raises:
        RecipeError: with the setting that asks for it.
    """
    impossible = {
        "sampler.urls": bool(recipe.sampler.urls),
        "rollout.continuation_policy": recipe.rollout.continuation_policy == "base",
        "rollout.branching": recipe.rollout.responses < 2,
    }
    for name, asked in impossible.items():
        if asked:
            raise RecipeError(f"{host} cannot do what this recipe asks for ({name}): leave it out, or use motif train")
