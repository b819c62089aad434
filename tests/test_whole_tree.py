"""What is said of training the whole tree: equal notes, balanced rounds, settled questions."""

from __future__ import annotations

import pytest

from conftest import make_node
from motif.config import CreditConfig, LossConfig, RecipeError, RolloutConfig, load_recipe
from motif.credit import assign
from motif.diagnostics import components
from motif.rollout import continue_from, grow
from motif.tree import Question, Tree
from motif.update import _weights

MERGED = CreditConfig(merge_notes=True, train_rounds="all", baseline="leave_one_out", divide_by_std=False)
NOTE_A, NOTE_B = [3, 50, 4], [3, 60, 4]


def tree_of(notes: list[list[int]], outcomes: list[list[int]]) -> Tree:
    """Two rounds: first responses whose notes make these prompts, and the outcomes of their continuations."""
    roots = []
    for index, (prompt, below) in enumerate(zip(notes, outcomes, strict=True)):
        leaves = [
            make_node((index, place), verdict="right" if outcome else "wrong", prompt_ids=prompt)
            for place, outcome in enumerate(below)
        ]
        roots.append(make_node((index,), leaves))
    return Tree(Question("q", "?", "1"), step=0, roots=roots)


def test_equal_notes_share_their_continuations():
    tree = tree_of([NOTE_A, NOTE_A, NOTE_B], [[1, 1], [1, 0], [0, 0]])
    assign(tree, MERGED)
    assert [root.value for root in tree.roots] == [0.75, 0.75, 0.0]
    # Each is compared with the mean of the two others.
    assert [root.advantage for root in tree.roots] == pytest.approx([0.375, 0.375, -0.75])
    # The four continuations of the one note are one group; those of the other are all wrong.
    leaves = [leaf.advantage for leaf in tree.leaves()]
    assert leaves == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1.0, 0.0, 0.0])


def test_without_merging_luck_sets_equal_notes_apart():
    tree = tree_of([NOTE_A, NOTE_A], [[1, 1], [1, 0]])
    assign(tree, MERGED.model_copy(update={"merge_notes": False}))
    assert tree.roots[0].advantage == -tree.roots[1].advantage != 0
    assign(tree, MERGED)
    assert [root.advantage for root in tree.roots] == [0.0, 0.0]


def test_different_notes_are_credited_as_without_merging():
    outcomes = [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    merged, apart = (tree_of([NOTE_A, NOTE_B, [3, 70, 4]], outcomes) for _ in range(2))
    assign(merged, MERGED)
    assign(apart, MERGED.model_copy(update={"merge_notes": False}))
    assert [n.advantage for n in merged.walk()] == [n.advantage for n in apart.walk()]


def test_balanced_rounds_weigh_the_same():
    tree = tree_of([NOTE_A, NOTE_B], [[1, 0, 0, 0], [1, 1, 1, 0]])
    nodes = list(tree.walk())
    for kind in ("grpo", "dapo", "dr_grpo"):
        plain = _weights(nodes, LossConfig(kind=kind), 3)
        balanced = _weights(nodes, LossConfig(kind=kind, balance_rounds=True), 3)
        first, last = (sum(w for n, w in zip(nodes, balanced, strict=True) if n.round == r) for r in (1, 2))
        assert first == pytest.approx(last)
        assert sum(balanced) == pytest.approx(sum(plain))


def test_growing_on_gives_the_tree_that_growing_at_once_gives(tiny_policy_parts):
    sampler, rounds = tiny_policy_parts
    questions = [Question(str(n), f"What is {n} + 1?", str(n + 1)) for n in range(3)]
    config = RolloutConfig(branching=[3, 2, 2], tokens_first=6, tokens_continue=6)
    whole = grow(questions, sampler, rounds, config, seed=1, step=2)
    thin = RolloutConfig(branching=[3, 1, 1], tokens_first=6, tokens_continue=6)
    later = grow(questions, sampler, rounds, thin, seed=1, step=2)
    continue_from(later, sampler, rounds, config, seed=1, step=2)
    for one, other in zip(whole, later, strict=True):
        assert [(n.path, n.token_ids) for n in one.walk()] == [(n.path, n.token_ids) for n in other.walk()]


@pytest.fixture
def tiny_policy_parts(tiny_model):
    from motif.config import ModelConfig, RoundsConfig
    from motif.policy import Policy
    from motif.rounds import Rounds
    from motif.sampling.local import LocalSampler

    policy = Policy(ModelConfig(name=tiny_model, device="cpu", lora_rank=4), 0)
    return LocalSampler(policy), Rounds(RoundsConfig(system_prompt="", note_tokens=8), policy.tokenizer)


def test_merging_changes_no_diagnostics():
    found = []
    for merge in (True, False):
        tree = tree_of([NOTE_A, NOTE_A, NOTE_B], [[1, 1], [1, 0], [0, 0]])
        assign(tree, MERGED.model_copy(update={"merge_notes": merge}))
        found.append((components([tree]), [root.mean_outcome() for root in tree.roots]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rollout.skip_settled=true", "rollout.branching=[8]"], "nothing to skip"),
        (["loss.balance_rounds=true"], "several trained rounds"),
        (["credit.merge_notes=true", "rollout.branching=[8]"], "a single round has none"),
        (["credit.merge_notes=true", 'credit.group="round"'], "needs credit.group = 'siblings'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", settings)
