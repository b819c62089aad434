"""What sequences begin with in common is computed once, and nothing changes for it."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motif.config import ModelConfig, Recipe
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.models.prefix import MIN_SHARED_TOKENS, ImplicitMask, Segment, batches, build_prefix_tree, forward
from motif.training.batch import Sample, groups
from motif.training.update import update
from support.updates import Keep, plain_gradient, sample, shake

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=12)


def spelled(end: Segment) -> list[int]:
    return [token for segment in end.path() for token in segment.tokens]


def every(root: Segment) -> list[Segment]:
    return [segment for child in root.children for segment in (child, *every(child))]


@given(SEQUENCES)
def test_the_tree_spells_every_sequence(sequences):
    root = Segment()
    ends = build_prefix_tree(root, sequences)
    for sequence, end in zip(sequences, ends, strict=True):
        assert spelled(end) == sequence
        assert end.end == len(sequence)
        for segment in end.path():
            assert segment in segment.parent.children
            assert segment.start == segment.parent.end
            assert segment.tokens
    distinct = {tuple(sequence) for sequence in sequences}
    assert len({id(end) for end in ends}) == len(distinct)
    used = {id(segment) for end in ends for segment in end.path()}
    assert {id(segment) for segment in every(root)} == used  # nothing is computed in vain


def test_sharing_saves_what_is_worthwhile_and_only_that():
    system, rng = list(range(100, 130)), random.Random(0)
    questions = [[q, *(rng.randrange(50) for _ in range(20))] for q in (1, 2)]
    notes = [[[7, n, *(rng.randrange(50) for _ in range(10))] for n in (60, 61, 62)] for _ in questions]
    root = Segment()
    build_prefix_tree(root, [[*system, *q, *note] for q, three in zip(questions, notes, strict=True) for note in three])
    (top,) = root.children
    assert top.tokens == system
    # The token 7 before the notes is shared by three, which would save two tokens: not worth a pass.
    assert sorted(len(child.tokens) for child in top.children) == [22, 22]
    assert all(len(note.tokens) == 11 for child in top.children for note in child.children)
    lonely = Segment()
    build_prefix_tree(lonely, [[1] * (MIN_SHARED_TOKENS - 1) + [token] for token in (2, 3)])
    assert len(lonely.children) == 2
    assert [len(child.tokens) for child in lonely.children] == [MIN_SHARED_TOKENS] * 2


def test_degenerate_text_does_not_exhaust_the_stack():
    sequences = [[5] * length + [6] for length in range(1, 1500)]
    root = Segment()
    ends = build_prefix_tree(root, sequences)
    assert [end.end for end in ends] == [len(sequence) for sequence in sequences]


@given(st.lists(st.integers(1, 300), max_size=30), st.integers(1, 2000))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    segments = [Segment([0] * length) for length in lengths]
    cut = list(batches(segments, budget))
    assert sorted(id(s) for batch in cut for s in batch) == sorted(map(id, segments))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(len(s.tokens) for s in batch) <= budget


def tree_of_samples(seed: int = 0, vocabulary: tuple[int, int] = (6, 100)) -> list[Sample]:
    """Two questions after one system prompt; responses, notes' prompts and responses to these, as all rounds train."""
    rng = random.Random(seed)

    def words(count: int) -> list[int]:
        return [rng.randrange(*vocabulary) for _ in range(count)]

    samples = []
    system = words(20)
    for length in (9, 21):
        question = [*system, *words(length)]
        samples += [sample(question, words(rng.choice([1, 2, 5, 12])), rng) for _ in range(3)]
        for _ in range(2):
            note = [*question, *words(8)]
            samples += [sample(note, words(rng.choice([1, 6, 7])), rng) for _ in range(3)]
    samples.append(sample(words(3), words(4), rng))  # shares nothing
    samples.append(sample(samples[0].prompt_ids, samples[0].token_ids, rng))  # sampled twice
    rng.shuffle(samples)
    return samples


def build(folder: str, adapter: str, targets: str | list[str] = "all-linear") -> Policy:
    policy = Policy(ModelConfig(name=folder, adapter=adapter, lora_rank=4, lora_targets=targets, device="cpu"))
    policy.update_path = FAST
    shake(policy, 1)
    return policy


@pytest.mark.parametrize(
    ("adapter", "targets"), [("lora", "all-linear"), ("full", "all-linear"), ("lora", ["q_proj"]), ("lora", ["v_proj"])]
)
@pytest.mark.parametrize(("budget", "recompute"), [(10**6, False), (10**6, True), (60, False), (1, True)])
def test_the_gradient_is_that_of_every_sample_alone(tiny_model, adapter, targets, budget, recompute):
    policy, samples = build(tiny_model, adapter, targets), tree_of_samples()
    train = {"microbatch_tokens": budget, "activation_checkpointing": recompute, "max_grad_norm": 1e9}
    run = Recipe.model_validate({"train": train, "loss": {"importance_cap": 1.5}, "model": {"adapter": adapter}})
    wanted = plain_gradient(policy, samples, run)
    optimizer = Keep(policy.trainable(), lr=0.0)
    stats = update(policy, optimizer, samples, run)
    scale = max(gradient.abs().max().item() for gradient in wanted)
    assert scale > 0
    for ours, plain in zip(optimizer.seen, wanted, strict=True):
        assert (ours - plain).abs().max().item() < 1e-5 * scale
    assert stats.tokens == sum(len(one.token_ids) for one in samples)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_mask_in_words_means_the_same(recompute, tiny_model, monkeypatch):
    """On a CPU it is written down by torch. Only segments behind equally long contexts have one."""
    policy, samples, told = build(tiny_model, "lora"), tree_of_samples(), []
    init = ImplicitMask.__init__
    monkeypatch.setattr(ImplicitMask, "__init__", lambda self, *sizes: (told.append(sizes), init(self, *sizes))[1])
    policy.implicit_masks = True
    train = {"microbatch_tokens": 60, "activation_checkpointing": recompute, "max_grad_norm": 1e9}
    run = Recipe.model_validate({"train": train})
    wanted = plain_gradient(policy, samples, run)
    optimizer = Keep(policy.trainable(), lr=0.0)
    update(policy, optimizer, samples, run)
    assert len(told) > 1 and all(0 < queries < keys for queries, keys in told)
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for ours, plain in zip(optimizer.seen, wanted, strict=True):
        assert (ours - plain).abs().max().item() < 1e-5 * scale


def test_all_layers_keep_one_mask(tiny_model):
    policy, rng = build(tiny_model, "lora"), random.Random(0)
    context = Segment().add([rng.randrange(6, 100) for _ in range(300)])
    with torch.no_grad():
        forward(policy, [context])[1].give([context])
    below = [context.add([rng.randrange(6, 100) for _ in range(count)]) for count in (150, 140)]
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(policy, below)
    size = 4 * 150 * 450
    layers = policy.text_config.num_hidden_layers
    assert layers > 1 and sum(size <= storage.nbytes() < 1.2 * size for storage in kept.values()) == 1


def test_a_shared_prompt_is_computed_once(tiny_model):
    policy, rng = build(tiny_model, "lora"), random.Random(0)
    prompt = [rng.randrange(6, 100) for _ in range(40)]
    samples = [sample(prompt, [first, *prompt[:9]], rng) for first in range(10, 18)]
    stats = update(policy, Keep(policy.trainable(), lr=0.0), samples, Recipe())
    assert stats.computed_tokens == 40 + 8 * 9  # the last token of a response predicts nothing


def test_groups_bound_the_prompts_kept():
    samples, budget = tree_of_samples(), 60
    cut = groups(samples, budget)
    assert sorted(index for group in cut for index in group) == list(range(len(samples)))
    assert len(cut) > 1
    for group in cut:
        root = Segment()
        build_prefix_tree(root, [samples[index].prompt_ids for index in group])
        spelled_out = {tuple(p[:i]) for p in (samples[j].prompt_ids for j in group) for i in range(1, len(p) + 1)}
        assert len(spelled_out) <= budget or len({tuple(samples[i].prompt_ids) for i in group}) == 1


def test_a_split_segment_is_what_it_was(tiny_model):
    policy = build(tiny_model, "lora")
    tokens = list(range(10, 40))
    with torch.no_grad():
        whole = Segment().add(tokens)
        states, fresh = forward(policy, [whole])
        whole.states = states[0]
        fresh.give([whole])
        top = whole.split(12)
        child, other = whole.add([50, 51, 52]), top.add([60, 61, 62, 63])
        assert spelled(child) == [*tokens, 50, 51, 52]
        assert spelled(other) == [*tokens[:12], 60, 61, 62, 63]
        together, _ = forward(policy, [child, other])
        for row, segment in enumerate((child, other)):
            alone, _ = forward(policy, [Segment().add(spelled(segment))])
            size = len(segment.tokens)
            torch.testing.assert_close(together[row, :size], alone[0, -size:], atol=1e-5, rtol=1e-4)


def test_a_tree_that_is_cleared_holds_no_tensors():
    root = Segment()
    [end] = build_prefix_tree(root, [[1, 2, 3]])
    below = end.add([4])
    for segment in (end, below):
        segment.keys_values, segment.states = {0: (torch.ones(1), torch.ones(1))}, torch.ones(1)
    root.clear()
    assert not any(segment.keys_values or segment.states is not None for segment in (end, below))
