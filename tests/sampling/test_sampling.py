"""Sampling: the same tree whatever the batching, and the distribution that was asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import motif.sampling.local.memory
from motif.config import ModelConfig, RolloutConfig, RoundsConfig
from motif.errors import RecipeError
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.grow import grow
from motif.sampling.local import drawing
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.drawing import draw, uniforms
from support.sampling import expand
from support.tiny import char_tokenizer
from support.updates import shake
from support.wordings import COMPACT

QUESTIONS = [
    Question("a", "What is 15 × 24?", "360"),
    Question("b", "2+2", "4"),
    Question("c", "A longer question, so that prompts are of unequal length: 7 * 8 = ?", "56"),
]
ROUNDS = Rounds(RoundsConfig(**COMPACT), char_tokenizer())
SHAPE = RolloutConfig(branching=[3, 2, 1], tokens_first=14, tokens_continue=10, temperature_continue=0.8)


@pytest.fixture(scope="module")
def policy(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, lora_alpha=8, device="cpu"))
    shake(policy, 1, 0.1)
    return policy


def trees(policy: Policy, rows: int = 256, questions: list[Question] = QUESTIONS, **options: Any) -> list[Tree]:
    return grow(questions, LocalSampler(policy, rows), ROUNDS, options.pop("config", SHAPE), **options)


def nodes(grown: list[Tree]) -> list[Node]:
    return [node for tree in grown for node in tree.walk()]


def same(one: list[Tree], other: list[Tree]) -> None:
    assert len(nodes(one)) == len(nodes(other)) > 0
    for a, b in zip(nodes(one), nodes(other), strict=True):
        assert (a.path, a.prompt_ids, a.token_ids, a.note) == (b.path, b.prompt_ids, b.token_ids, b.note)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def ids(grown: list[Tree]) -> list[list[int]]:
    return [node.token_ids for node in nodes(grown)]


def sample(policy: Policy, requests: list[Request], rows: int = 256) -> list[Completion]:
    return complete(LocalSampler(policy, rows), requests)


# -- the same tree whatever the batching -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown(policy):
    return trees(policy)


def test_the_shape_of_the_trees(grown):
    assert [tree.question.id for tree in grown] == ["a", "b", "c"]
    paths = [(i, *rest) for i in range(3) for rest in ((), (0,), (0, 0), (1,), (1, 0))]
    for tree in grown:
        assert [node.path for node in tree.walk()] == paths
    for node in nodes(grown):
        assert len(node.token_ids) == len(node.logprobs) <= (14 if node.round == 1 else 10)
        assert node.truncated == (node.token_ids[-1] != 1)
        assert 1 not in node.token_ids[:-1]
    assert len({tuple(node.token_ids) for node in nodes(grown)}) > 40  # not the same text again and again
    assert {node.truncated for node in nodes(grown)} == {True, False}


@pytest.mark.parametrize("rows", [1, 5, 7])
def test_the_number_of_rows_does_not_change_the_trees(policy, grown, rows):
    same(grown, trees(policy, rows))


def test_questions_alone_grow_as_together(policy, grown):
    same(grown, [tree for question in QUESTIONS for tree in trees(policy, questions=[question])])
    same(grown[::-1], trees(policy, questions=QUESTIONS[::-1]))


def test_small_prefills_change_nothing(policy, grown, monkeypatch):
    monkeypatch.setattr(motif.sampling.local.memory, "PREFILL_TOKENS", 30)
    same(grown, trees(policy))


def test_a_child_sees_its_parents_note(grown):
    for node in nodes(grown):
        for child in node.children:
            tree = next(tree for tree in grown if any(node is other for other in tree.walk()))
            earlier = [n.note for n in tree.walk() if child.path[: n.round] == n.path and n is not child]
            assert child.prompt_ids == ROUNDS.prompt(tree.question.text, earlier, 3)


@pytest.mark.parametrize("what", ["seed", "step", "question", "path"])
def test_randomness_is_keyed(policy, grown, what):
    if what == "path":
        first = grown[0].roots
        assert first[0].prompt_ids == first[1].prompt_ids and first[0].token_ids != first[1].token_ids
        return
    question = QUESTIONS[0] if what != "question" else Question("another id", QUESTIONS[0].text, "360")
    other = trees(policy, questions=[question], **({what: 1} if what != "question" else {}))
    changed = [a.token_ids != b.token_ids for a, b in zip(grown[0].roots, other[0].roots, strict=True)]
    assert all(changed)


def test_keys_are_64_bits_and_differ():
    keys = {sampling_key(seed, step, q, (i,)) for seed in (0, 1) for step in (0, 1) for q in ("a", "b") for i in (0, 1)}
    assert len(keys) == 16
    assert all(0 <= key < 2**64 for key in keys)
    assert sampling_key(1, 23, "a", ()) != sampling_key(12, 3, "a", ())


def test_greedy_ignores_keys(policy):
    one, other = (trees(policy, greedy=True, seed=seed) for seed in (0, 1))
    assert ids(one) == ids(other)
    assert all(len({tuple(root.token_ids) for root in tree.roots}) == 1 for tree in one)


# -- what the trainer sees ---------------------------------------------------------------------------------------------


def test_the_trainer_computes_the_samplers_logprobs(policy, grown):
    every = nodes(grown)
    temperatures = [SHAPE.temperature_first if node.round == 1 else SHAPE.temperature_continue for node in every]
    with torch.no_grad():
        flat, _ = policy.token_logprobs([n.prompt_ids for n in every], [n.token_ids for n in every], temperatures)
    assert flat.tolist() == pytest.approx([logprob for node in every for logprob in node.logprobs], abs=1e-4)


def test_base_continues_later_rounds_only(policy, grown):
    config = SHAPE.model_copy(update={"continuation_policy": "base"})
    based = trees(policy, config=config)
    for a, b in zip(grown, based, strict=True):
        assert [root.token_ids for root in a.roots] == [root.token_ids for root in b.roots]
    later = [node for node in nodes(based) if node.round > 1]
    assert ids(grown) != ids(based)
    assert all(node.policy == ("base" if node.round > 1 else "current") for node in nodes(based))
    arguments = ([n.prompt_ids for n in later], [n.token_ids for n in later], [0.8] * len(later))
    with torch.no_grad():
        current = policy.token_logprobs(*arguments)[0]
        with policy.adapter_disabled():
            base = policy.token_logprobs(*arguments)[0]
    theirs = [logprob for node in later for logprob in node.logprobs]
    assert base.tolist() == pytest.approx(theirs, abs=1e-4)
    assert current.tolist() != pytest.approx(theirs, abs=1e-2)


# -- greedy decoding ---------------------------------------------------------------------------------------------------


def test_greedy_is_the_models_own_generate(policy):
    prompts = [ROUNDS.prompt(text, [], 3) for text in ("1", "What is 15 × 24?", "x" * 90, "two\nlines", "7*8")]
    done = sample(policy, [Request(prompt, [i], 40, temperature=0.0) for i, prompt in enumerate(prompts)])
    assert sorted(completion.request.keys[0] for completion in done) == [0, 1, 2, 3, 4]
    for completion in done:
        prompt = torch.tensor([completion.request.prompt_ids])
        output = policy.wrapped.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=40,
            pad_token_id=0,
            use_cache=True,
        )
        assert completion.token_ids == output[0, prompt.shape[1] :].tolist()


# -- the distribution --------------------------------------------------------------------------------------------------


def drawn(logits: torch.Tensor, count: int, temperature: float, top_p: float, seed: int = 0) -> np.ndarray:
    keys = np.array([sampling_key(seed, i) for i in range(count)], dtype=np.uint64)
    uniform = torch.from_numpy(uniforms(keys, np.zeros(count, dtype=np.int64)))
    row = torch.zeros(count, dtype=torch.long)
    tokens, _ = draw(logits[None].clone(), np.float32([temperature]), np.float32([top_p]), uniform, row)
    return tokens.numpy()


LOGITS = torch.tensor([2.0, 1.0, 0.0, 0.5, -1.0, -2.0, 1.5, -8.0])


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_are_the_softmax(temperature):
    counts = np.bincount(drawn(LOGITS, 40_000, temperature, 1.0), minlength=8)
    probabilities = torch.softmax(LOGITS / temperature, 0).numpy()
    kept = probabilities * 40_000 > 5
    assert chi_square(counts[kept], probabilities[kept] / probabilities[kept].sum()) < 24.3  # 99.9 %, 7 degrees
    wrong = torch.softmax(LOGITS / (temperature * 1.1), 0).numpy()
    assert chi_square(counts[kept], wrong[kept] / wrong[kept].sum()) > 24.3  # the test would notice


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.75, 0.9])
def test_top_p_stays_in_the_nucleus_and_fills_it(top_p):
    probabilities = torch.softmax(LOGITS, 0).numpy()
    order = np.argsort(-probabilities)
    size = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1  # the fewest that reach top_p
    counts = np.bincount(drawn(LOGITS, 20_000, 1.0, top_p), minlength=8)
    nucleus = order[:size]
    assert set(np.flatnonzero(counts)) == set(nucleus)
    assert size == 1 or chi_square(counts[nucleus], probabilities[nucleus] / probabilities[nucleus].sum()) < 24.3


@pytest.mark.parametrize(("most", "sorts"), [(64, 0), (3, 1)])
def test_a_nucleus_is_found_among_the_likeliest_without_sorting_all(most, sorts, monkeypatch):
    probabilities = torch.softmax(3 * torch.randn(5, 200, generator=torch.Generator().manual_seed(0)), -1)
    top_p = torch.tensor([0.2, 0.5, 0.8, 0.9, 0.5])
    wanted, calls, sort = drawing._nucleus(probabilities, top_p), [], torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda *args, **kwargs: calls.append(1) or sort(*args, **kwargs))
    assert torch.equal(drawing._nucleus(probabilities, top_p, most), wanted)
    assert len(calls) == sorts


def test_logprobs_are_those_before_top_p():
    chosen, logprobs = draw(
        LOGITS[None].clone(), np.float32([0.7]), np.float32([0.1]), torch.tensor([0.5]).double(), torch.tensor([0])
    )
    assert chosen.tolist() == [0]
    assert logprobs.item() == pytest.approx(torch.log_softmax(LOGITS / 0.7, 0)[0].item(), abs=1e-6)


def test_temperature_zero_is_the_maximum_row_by_row():
    temperature, uniform = np.float32([0.0, 1.0, 0.0]), torch.tensor([0.999, 0.999999, 0.0]).double()
    chosen, logprobs = draw(LOGITS.repeat(3, 1), temperature, np.ones(3, np.float32), uniform, torch.arange(3))
    assert chosen.tolist()[::2] == [0, 0] and chosen[1] != 0
    assert logprobs[0].item() == pytest.approx(torch.log_softmax(LOGITS, 0)[0].item(), abs=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_impossible_tokens_are_never_drawn(uniform):
    logits = torch.full((1, 50), -math.inf)
    logits[0, 20:23] = 0.0
    chosen, _ = draw(
        logits,
        np.ones(1, np.float32),
        np.ones(1, np.float32),
        torch.tensor([uniform], dtype=torch.float64),
        torch.tensor([0]),
    )
    assert 20 <= chosen.item() <= 22


def test_uniform_numbers_are_uniform_and_independent():
    keys = np.array([sampling_key(i) for i in range(2000)], dtype=np.uint64)
    table = np.stack([uniforms(keys, np.full(2000, token)) for token in range(20)])
    assert table.min() >= 0 and table.max() < 1
    assert chi_square(np.bincount((table * 20).astype(int).ravel(), minlength=20), np.full(20, 1 / 20)) < 43.8
    correlations = np.corrcoef(table)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 0.11
    assert len(np.unique(table)) == table.size


def test_the_models_first_token_has_the_models_distribution(policy):
    prompt = ROUNDS.prompt("2+2", [], 3)
    done = sample(policy, [Request(prompt, [sampling_key(i) for i in range(4000)], 1)], rows=1000)
    counts = np.bincount([completion.token_ids[0] for completion in done], minlength=policy.vocabulary)
    with torch.no_grad():
        logits = policy.wrapped(input_ids=torch.tensor([prompt])).logits[0, -1]
    probabilities = torch.softmax(logits, 0).numpy()
    likely = probabilities * 4000 > 5
    rest = counts[~likely].sum(), probabilities[~likely].sum()
    counts, probabilities = np.append(counts[likely], rest[0]), np.append(probabilities[likely], rest[1])
    degrees = len(counts) - 1
    assert chi_square(counts, probabilities) < degrees + 4 * math.sqrt(2 * degrees)


# -- bookkeeping -------------------------------------------------------------------------------------------------------


def test_each_prompt_is_computed_once_for_its_forks(policy):
    sampler = LocalSampler(policy)
    every = nodes(grow(QUESTIONS, sampler, ROUNDS, SHAPE))
    beginnings = {tuple(node.prompt_ids[:length]) for node in every for length in range(1, len(node.prompt_ids) + 1)}
    # Beginnings too short to be worth a pass of their own are computed more than once.
    assert len(beginnings) <= sampler.usage.prefill_tokens < 1.25 * len(beginnings)
    assert sampler.usage.requested_prompt_tokens == sum(len(node.prompt_ids) for node in every)
    assert sampler.usage.generated_tokens == sum(len(node.token_ids) for node in every)


def test_more_forks_than_rows_are_answered_in_turns(policy):
    sampler = LocalSampler(policy, max_rows=4)
    request = Request(ROUNDS.prompt("2+2", [], 3), [sampling_key(i) for i in range(10)], 6)
    done = complete(sampler, [request])
    assert sorted(completion.index for completion in done) == list(range(10))
    assert sampler.usage.prefill_tokens == len(request.prompt_ids)  # nothing is run again for the later turns


def test_a_prompt_that_does_not_fit_is_refused(policy):
    with pytest.raises(RecipeError, match=r"600 tokens and 10 new ones do not fit the model's 512.*note_tokens"):
        sample(policy, [Request([5] * 600, [1], 10)])
    sample(policy, [Request([5] * 502, [1], 10)])
    with pytest.raises(RecipeError, match="do not fit"):
        sample(policy, [Request([5] * 503, [1], 10)])


@pytest.mark.parametrize("rows", [2, 3, 256])
def test_children_do_not_wait_for_all_parents(policy, rows):
    """There is no barrier: a row that one parent frees is its child's while another parent is still being written."""
    names: dict[Request, str] = {}

    def request(name: str, tokens: int) -> Request:
        asked = Request(ROUNDS.prompt(name, [], 3), [sampling_key(name)], tokens)
        names[asked] = name
        return asked

    def then(completion: Completion) -> list[Request]:
        name = names[completion.request]
        return [request(name + "'", 4)] if name[0] == "s" and len(name) < 7 else []

    done = expand(LocalSampler(policy, rows), [request("long", 60), request("short", 4)], then)
    ended = [names[completion.request] for completion in done]
    assert ended == ["short", "short'", "short''", "long"]


def test_leaves_are_handed_over_as_they_end(policy):
    responses: list[Node] = []
    leaves: list[tuple[str, Node, int]] = []
    grown = trees(
        policy,
        on_response=responses.append,
        on_leaf=lambda tree, node: leaves.append((tree.question.id, node, len(responses))),
    )
    assert {id(node) for _, node, _ in leaves} == {id(leaf) for tree in grown for leaf in tree.leaves()}
    assert len(responses) == len(nodes(grown))
    assert all(responses[seen - 1] is node for _, node, seen in leaves)
    assert leaves[0][2] < len(responses)


def test_no_requests_is_no_work(policy):
    assert sample(policy, []) == []
    assert trees(policy, questions=[]) == []


def test_forks_that_have_said_the_same_are_computed_once(policy):
    sampler = LocalSampler(policy)
    prompt = ROUNDS.prompt("2+2", [], 3)
    requests = [Request(prompt, [1, 2, 3], 9, temperature=0.0), Request(prompt, [4], 9, temperature=0.0)]
    done = complete(sampler, requests)
    assert len(done) == 4 and len({tuple(completion.token_ids) for completion in done}) == 1
    assert sampler.usage.generated_tokens == 4 * len(done[0].token_ids)
    assert sampler.usage.decoded_rows == len(done[0].token_ids) - 1  # the prompt's pass gives the first one


def test_forks_part_when_they_draw_differently(policy):
    prompt, keys = ROUNDS.prompt("2+2", [], 3), [sampling_key(i) for i in range(24)]
    sampler = LocalSampler(policy)
    done = complete(sampler, [Request(prompt, keys, 12, temperature=0.2)])
    done.sort(key=lambda completion: completion.index)
    said = [completion.token_ids for completion in done]
    beginnings = {tuple(tokens[:length]) for tokens in said for length in range(1, len(tokens))}
    assert sampler.usage.decoded_rows == len(beginnings) < sampler.usage.generated_tokens - len(done)
    for completion, key in zip(done, keys, strict=True):
        (alone,) = sample(policy, [Request(prompt, [key], 12, temperature=0.2)])
        assert completion.token_ids == alone.token_ids
        assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
