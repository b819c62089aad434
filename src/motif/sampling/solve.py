"""Answer one question in rounds, showing each round as it is thought."""

from __future__ import annotations

from collections.abc import Callable

from motif.method.tree import Node, Question
from motif.sampling.grow import grow
from motif.session import Session


def solve(
    question: str,
    session: Session,
    *,
    rounds: int | None = None,
    greedy: bool = True,
    seed: int = 0,
    on_round: Callable[[Node, int], None] | None = None,
) -> Node:
    """Think about `question` in `rounds` rounds (default: the recipe's) and return the first response, with the others
    below it; the last one's `answer` is the answer (None: the model gave none).

    Args:
        on_round: called with each round's response as soon as it ends, and the number of rounds.
    """
    recipe = session.recipe
    count = rounds or recipe.rollout.rounds
    shape = recipe.rollout.model_copy(update={"branching": [1] * count, "continuation_policy": "current"})

    def on_response(node: Node) -> None:
        if on_round:
            on_round(node, count)

    asked = Question(id=f"solve/{question}", text=question, gold="")
    [tree] = grow(
        [asked], session.sampler, session.rounds, shape, seed=seed, step="solve", greedy=greedy, on_response=on_response
    )
    return tree.roots[0]
