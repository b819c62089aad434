"""The one-screen example computes what the library computes."""

import pytest
import torch

from motif.config import ArithmeticConfig, load_recipe
from motif.grading import Grader
from motif.grading.beside import grading_beside
from motif.method.credit import assign
from motif.method.rounds import Rounds
from motif.models.policy import Policy
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.tasks.arithmetic import questions
from motif.training.batch import Sample, collect
from motif.training.update import update
from support import ROOT
from support.scripts import loaded

EXAMPLE = ROOT / "examples" / "motif_minimal.py"


@pytest.fixture(scope="module")
def minimal():
    return loaded(EXAMPLE)


@pytest.fixture(scope="module")
def grown():
    """Graded and credited trees of the demo recipe, with the weights of format and outcome of the paper."""
    recipe = load_recipe("demo", ["credit.format_weight=1.0", "train.max_grad_norm=1e9"])
    policy = Policy(recipe.model)
    rounds = Rounds(recipe.rounds, policy.tokenizer)
    with Grader("numeric") as grader, grading_beside(grader) as on_leaf:
        four, sampler = questions(ArithmeticConfig(), "train")[:4], LocalSampler(policy)
        trees = grow(four, sampler, rounds, recipe.rollout, seed=5, on_leaf=on_leaf)
    for tree in trees:
        assign(tree, recipe.credit)
    return recipe, policy, rounds, trees


def test_prompts_and_readings_are_the_librarys(minimal, grown):
    _, policy, _, trees = grown
    for tree in trees:
        for node in tree.walk():
            note = None
            if node.round > 1:
                parent = tree.roots[node.path[0]]
                for index in node.path[1:-1]:
                    parent = parent.children[index]
                note = parent.note
            ids = minimal.prompt(policy.tokenizer, tree.question.text, note, node.round)
            assert ids[0].tolist() == node.prompt_ids
            read_note, answer, well_formed = minimal.read(policy.tokenizer, node.token_ids)
            if node.well_formed:  # the example reads broken responses more crudely
                assert (read_note, answer, well_formed) == (node.note, node.answer, True)


def test_rewards_and_advantages_are_the_librarys(minimal, grown):
    *_, trees = grown
    for tree in trees:
        rewards = []
        for root in tree.roots:
            outcomes = [float(leaf.answer == tree.question.gold) for leaf in root.leaves()]
            rewards.append(float(root.well_formed) + sum(outcomes) / len(outcomes))
        assert rewards == pytest.approx([root.reward for root in tree.roots])
        assert minimal.advantages(rewards) == pytest.approx([root.advantage for root in tree.roots], abs=1e-9)


def test_gradients_are_the_librarys(minimal, grown):
    recipe, policy, _, trees = grown
    live = [tree for tree in trees if any(root.advantage for root in tree.roots)]
    assert live
    for parameter in policy.trainable():
        parameter.grad = None
    for tree in live:
        first = torch.tensor([tree.roots[0].prompt_ids])
        responses = [root.token_ids for root in tree.roots]
        (minimal.loss(policy.model, first, responses, [r.advantage for r in tree.roots]) / len(live)).backward()
    expected = {name: parameter.grad.clone() for name, parameter in policy.model.named_parameters()}

    samples: list[Sample] = collect(live, recipe)
    optimizer = torch.optim.SGD(policy.trainable(), lr=0.0)
    update(policy, optimizer, samples, recipe)
    for name, parameter in policy.model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=2e-5 * scale + 1e-9)


@pytest.mark.slow
def test_it_runs(minimal, capsys):
    minimal.main(steps=1, questions_per_step=1)
    assert "step  1  mean reward" in capsys.readouterr().out
