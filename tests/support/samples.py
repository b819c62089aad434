"""Samples for runs of which something is to be trained, whatever their answers are."""

from __future__ import annotations

from collections.abc import Sequence

from motif.config import Recipe
from motif.method.tree import Tree
from motif.training.batch import Sample


def by_parity(trees: Sequence[Tree], recipe: Recipe, rounds: object = None) -> list[Sample]:
    """Samples of all first responses, of which those with an even sum of tokens are better than the others."""
    return [
        Sample(
            root.prompt_ids,
            root.token_ids,
            root.logprobs,
            1.0 - 2 * (sum(root.token_ids) % 2),
            recipe.rollout.temperature_first,
            0.1 / len(root.token_ids),
            f"{tree.question.id}/{place}",
        )
        for tree in trees
        for place, root in enumerate(tree.roots)
    ]
