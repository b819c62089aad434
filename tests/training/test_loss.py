"""The loss, its gradient, and the passes through a model that feed it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import motif.models.policy
import motif.sampling.local.packing
from motif.config import LossConfig, ModelConfig, Recipe
from motif.errors import ModelError, RunFolderError
from motif.method.tree import Question, Tree
from motif.models.policy import Policy
from motif.runs.weights import load_weights, save_weights
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.packing import sampling_weights
from motif.training.batch import Minibatch, UpdateStats, collect
from motif.training.loss import LossInputs, policy_loss, token_weights
from motif.training.update import update
from support.trees import make_node, make_tree
from support.updates import full, lora, samples, sequences, shake

KINDS = ["grpo", "dapo", "dr_grpo"]


@pytest.fixture(scope="module")
def policy(tiny_model):
    return lora(tiny_model)


# -- the loss by itself ------------------------------------------------------------------------------------------------


def problem(tokens: int = 40, seed: int = 0) -> LossInputs:
    """Random float64 inputs in which every branch of the loss is taken, away from its kinks."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(tokens, generator=generator, dtype=torch.float64)

    old = -noise(1.0).abs()
    return LossInputs(
        logprobs_T=old + noise(0.3),
        old_logprobs_T=old,
        sampler_logprobs_T=old + noise(0.4),
        advantages_T=noise(1.0),
        weights_T=noise(1.0).abs() / tokens,
        reference_logprobs_T=old + noise(0.3),
    )


CONFIGS = [
    LossConfig(kl_beta=0.0),
    LossConfig(clip_low=0.1, clip_high=0.28),
    LossConfig(kl_beta=0.2),
    LossConfig(importance_cap=1.2),
    LossConfig(clip_low=0.15, clip_high=0.3, kl_beta=0.1, importance_cap=1.1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_gradient_by_finite_differences(config):
    inputs = problem()
    point = inputs.logprobs_T.clone().requires_grad_(True)
    policy_loss(dataclasses.replace(inputs, logprobs_T=point), config).loss.backward()
    step = 1e-6
    for t in range(len(point)):
        bump = torch.zeros_like(inputs.logprobs_T)
        bump[t] = step
        up, down = (
            policy_loss(dataclasses.replace(inputs, logprobs_T=inputs.logprobs_T + sign * bump), config).loss.item()
            for sign in (1, -1)
        )
        assert point.grad[t].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_the_problem_takes_every_branch():
    config = CONFIGS[-1]
    inputs = problem()
    ratio = (inputs.logprobs_T - inputs.old_logprobs_T).exp()
    gap = (inputs.old_logprobs_T - inputs.sampler_logprobs_T).exp()
    high = (ratio > 1.3) & (inputs.advantages_T > 0)
    low = (ratio < 0.85) & (inputs.advantages_T < 0)
    assert high.any() and low.any() and (gap > 1.1).any() and (gap < 1.1).any()
    assert ((ratio > 1.3) & (inputs.advantages_T < 0)).any()
    assert policy_loss(inputs, config).clipped == (high | low).sum()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_loss_is_the_formula(config):
    inputs = problem(seed=1)
    total = 0.0
    for new, old, sampler, advantage, weight, reference in zip(
        *(getattr(inputs, field.name).tolist() for field in dataclasses.fields(inputs)), strict=True
    ):
        ratio = torch.tensor(new - old).exp().item()
        inside = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        term = -min(ratio * advantage, inside * advantage)
        if config.importance_cap:
            term *= min(config.importance_cap, torch.tensor(old - sampler).exp().item())
        kl = torch.tensor(reference - new).exp().item() - (reference - new) - 1
        total += weight * (term + config.kl_beta * ratio * kl)
    assert policy_loss(inputs, config).loss.item() == pytest.approx(total, rel=1e-5)


def test_on_policy_the_gradient_is_reinforce():
    inputs = problem()
    point = inputs.old_logprobs_T.clone().requires_grad_(True)
    outputs = policy_loss(dataclasses.replace(inputs, logprobs_T=point), LossConfig())
    outputs.loss.backward()
    assert torch.allclose(point.grad, -inputs.weights_T * inputs.advantages_T)
    assert outputs.clipped == 0


def test_numbers_for_the_log():
    inputs = problem()
    outputs = policy_loss(inputs, LossConfig(kl_beta=0.1))
    gap = (inputs.old_logprobs_T - inputs.sampler_logprobs_T).abs().sum()
    assert outputs.sampler_gap.item() == pytest.approx(gap.item())
    assert outputs.kl > 0 and not outputs.kl.requires_grad
    same = dataclasses.replace(inputs, reference_logprobs_T=inputs.logprobs_T)
    assert policy_loss(same, LossConfig(kl_beta=0.1)).kl.item() == pytest.approx(0.0)


# -- weights -----------------------------------------------------------------------------------------------------------

LENGTHS = [3, 1, 8, 8, 20]


@pytest.mark.parametrize(("kind", "total"), [("grpo", 1.0), ("dapo", 1.0), ("dr_grpo", sum(LENGTHS) / (5 * 20))])
def test_token_weights_sum(kind, total):
    weights = token_weights(LENGTHS, kind, 20)
    assert sum(w * n for w, n in zip(weights, LENGTHS, strict=True)) == pytest.approx(total)


def test_token_weights_one_by_one():
    assert token_weights(LENGTHS, "grpo", 20) == pytest.approx([1 / (5 * n) for n in LENGTHS])
    assert token_weights(LENGTHS, "dapo", 20) == pytest.approx([1 / 40] * 5)
    assert token_weights(LENGTHS, "dr_grpo", 20) == pytest.approx([1 / 100] * 5)
    with pytest.raises(ValueError, match="grpo, dapo or dr_grpo"):
        token_weights(LENGTHS, "ppo", 20)


def recipe(**sections) -> Recipe:
    return Recipe.model_validate({"rollout": {"branching": [2, 2], "tokens_first": 20}, **sections})


def test_collect_leaves_dead_groups_out_but_counts_them():
    tree = make_tree([[1, 0], [0, 0]])
    tree.roots[0].advantage, tree.roots[1].advantage = 0.5, -0.5
    dead = Tree(Question("dead", "?", "1"), 0, [make_node((0,), token_ids=[7] * 9), make_node((1,))])
    for node in dead.roots:
        node.advantage = 0.0
    chosen = collect([tree, dead], recipe())
    assert [sample.advantage for sample in chosen] == [0.5, -0.5]
    assert [sample.weight for sample in chosen] == pytest.approx([1 / (4 * 3)] * 2)
    assert len(collect([tree, dead], recipe(loss={"kl_beta": 0.1}))) == 4
    assert collect([make_tree([[1, 0]])], recipe()) == []


def test_collect_takes_each_rounds_temperature_and_limit():
    tree = make_tree([[1, 0], [0, 0]])
    for node in tree.walk():
        node.advantage = 1.0
    rollout = {
        "branching": [2, 2],
        "temperature_first": 0.7,
        "temperature_continue": 0.9,
        "tokens_first": 20,
        "tokens_continue": 50,
    }
    everything = {"rollout": rollout, "credit": {"train_rounds": "all"}, "loss": {"kind": "dr_grpo"}}
    chosen = collect([tree], Recipe.model_validate(everything))
    assert [sample.temperature for sample in chosen] == [0.7, 0.9, 0.9, 0.7, 0.9, 0.9]
    assert [sample.weight for sample in chosen] == pytest.approx([1 / (6 * 50)] * 6)  # each response weighs the same


# -- updates -----------------------------------------------------------------------------------------------------------


class Recorder(torch.optim.SGD):
    """Keeps the (unclipped) gradient of each step."""

    def __init__(self, parameters, lr: float = 0.05):
        super().__init__(parameters, lr=lr)
        self.gradients: list[list[torch.Tensor]] = []

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        self.gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])
        return super().step(closure)


def updated(folder: str, budget: int, kind: str = "grpo", adapter: str = "lora", **loss):
    policy = lora(folder) if adapter == "lora" else full(folder)
    train = {"microbatch_tokens": budget, "max_grad_norm": 1e9}
    run = Recipe.model_validate({"loss": {"kind": kind, **loss}, "train": train, "model": {"adapter": adapter}})
    optimizer = Recorder(policy.trainable())
    stats = update(policy, optimizer, samples(policy, kind), run)
    return policy, optimizer.gradients, stats


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float) -> None:
    scale = max(tensor.abs().max().item() for tensor in one)
    assert scale > 0
    for a, b in zip(one, other, strict=True):
        assert (a - b).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_token_budget_does_not_change_the_gradient(tiny_model, kind, adapter):
    loss = {"kl_beta": 0.1 if adapter == "lora" else 0.0, "importance_cap": 1.1}
    _, (whole,), stats = updated(tiny_model, 10**6, kind, adapter, **loss)
    for budget in (1, 40):
        _, (cut,), other = updated(tiny_model, budget, kind, adapter, **loss)
        assert_same(whole, cut, 1e-5)  # float32 rounding
        for name in ("loss", "entropy", "kl", "sampler_gap", "grad_norm"):
            assert getattr(other, name) == pytest.approx(getattr(stats, name), rel=1e-4, abs=1e-6)
        assert other.tokens == stats.tokens
    assert stats.updates == 1


def test_several_epochs_and_minibatches_do_not_depend_on_the_budget_either(tiny_model):
    loss = {"inner_epochs": 2, "minibatches": 2, "kl_beta": 0.1, "clip_low": 0.02, "clip_high": 0.02}
    one, _, stats = updated(tiny_model, 10**6, **loss)
    for budget in (1, 40):
        other, _, others = updated(tiny_model, budget, **loss)
        for a, b in zip(one.trainable(), other.trainable(), strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
        assert others.clipped == stats.clipped
    assert stats.updates == 4
    assert stats.clipped > 0  # the later updates are off-policy
    before = lora(tiny_model).state()
    assert not any(torch.equal(before[name], tensor) for name, tensor in one.state().items())


def test_minibatches_of_a_step_add_up_to_the_whole(tiny_model):
    """With a learning rate of nothing, the mean of the minibatches' gradients is the batch's."""
    policy = lora(tiny_model)
    gradients = []
    for parts in (1, 3):
        optimizer = Recorder(policy.trainable(), lr=0.0)
        run = Recipe.model_validate({"loss": {"minibatches": parts}, "train": {"max_grad_norm": 1e9}})
        update(policy, optimizer, samples(policy), run)
        gradients.append([torch.stack(parameter).mean(0) for parameter in zip(*optimizer.gradients, strict=True)])
    assert_same(*gradients, 1e-5)


def test_nothing_to_train_on_is_no_update(tiny_model):
    policy = lora(tiny_model)
    assert update(policy, Recorder(policy.trainable()), [], Recipe()).updates == 0


# -- the policy --------------------------------------------------------------------------------------------------------


def plainly(policy: Policy, prompts, responses, temperatures) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence after the other, all logits at once."""
    logprobs, entropies = [], []
    for prompt, response, temperature in zip(prompts, responses, temperatures, strict=True):
        logits = policy.wrapped(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        table = torch.log_softmax(logits / temperature, -1)
        logprobs.append(table.gather(-1, torch.tensor(response)[:, None]).squeeze(-1))
        entropies.append(-(table.exp() * table).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def test_token_logprobs_are_those_of_the_plain_computation(policy):
    batch = sequences()
    ours, theirs = policy.token_logprobs(*batch), plainly(policy, *batch)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape == (sum(map(len, batch[1])),)
        assert (a - b).abs().max() < 1e-5
    assert not ours[1].requires_grad


def test_gradients_of_token_logprobs_too(policy):
    batch = sequences()
    gradients = [
        torch.autograd.grad((f(*batch)[0] * torch.linspace(-1, 1, sum(map(len, batch[1])))).sum(), policy.trainable())
        for f in (policy.token_logprobs, lambda *b: plainly(policy, *b))
    ]
    assert_same(*gradients, 1e-5)


@pytest.mark.parametrize("elements", [1, 300, 1000])
def test_logits_in_chunks_change_nothing(policy, monkeypatch, elements):
    batch = sequences()
    whole = policy.token_logprobs(*batch)
    gradient = torch.autograd.grad(whole[0].sum(), policy.trainable())
    monkeypatch.setattr(motif.models.policy, "LOGIT_ELEMENTS", elements)
    parts = policy.token_logprobs(*batch)
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).abs().max() < 1e-5
    assert_same(gradient, torch.autograd.grad(parts[0].sum(), policy.trainable()), 1e-5)


def test_merged_weights_score_as_unmerged_and_come_back_exactly(policy):
    batch = sequences()
    before = {name: tensor.clone() for name, tensor in policy.wrapped.state_dict().items()}
    with torch.no_grad():
        apart = policy.token_logprobs(*batch)[0]
        with sampling_weights(policy, "current"):
            together = policy.token_logprobs(*batch)[0]
        with policy.adapter_disabled():
            base = policy.token_logprobs(*batch)[0]
        assert torch.equal(policy.token_logprobs(*batch)[0], apart)
    assert (apart - together).abs().max() < 1e-4
    assert (apart - base).abs().max() > 0.01
    after = policy.wrapped.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.requires_grad for parameter in policy.trainable()) and policy.trainable()


def test_merged_weights_come_back_after_an_error(policy):
    before = {name: tensor.clone() for name, tensor in policy.wrapped.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), sampling_weights(policy, "current"):
        raise KeyboardInterrupt
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.wrapped.state_dict().items())


def test_the_adapter_changes_what_is_sampled(policy):
    texts = {}
    for weights in ("current", "base"):
        request = Request([3, 20, 21, 4], [11, 12], 20, policy=weights)
        texts[weights] = sorted(completion.token_ids for completion in complete(LocalSampler(policy), [request]))
    assert texts["current"] != texts["base"]


def test_a_new_adapter_changes_nothing(tiny_model):
    fresh = Policy(ModelConfig(name=tiny_model, lora_rank=4, device="cpu"))
    batch = sequences()
    with torch.no_grad():
        current = fresh.token_logprobs(*batch)[0]
        with fresh.adapter_disabled():
            assert torch.equal(current, fresh.token_logprobs(*batch)[0])


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_save_and_load(tiny_model, tmp_path, adapter):
    make = lora if adapter == "lora" else full
    trained = make(tiny_model)
    shake(trained, seed=5)
    target = save_weights(tmp_path, trained)
    assert target.name == {"lora": "adapter", "full": "model"}[adapter]
    save_weights(tmp_path, trained)  # again, over what is there
    other = make(tiny_model)
    batch = sequences()
    with torch.no_grad():
        wanted = trained.token_logprobs(*batch)[0]
        assert not torch.equal(other.token_logprobs(*batch)[0], wanted)
        load_weights(tmp_path, other)
        assert torch.equal(other.token_logprobs(*batch)[0], wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name]


def test_a_saved_full_model_is_a_model_by_itself(tiny_model, tmp_path):
    trained = full(tiny_model)
    shake(trained, seed=5)
    again = full(str(save_weights(tmp_path, trained)))
    batch = sequences()
    with torch.no_grad():
        assert torch.equal(again.token_logprobs(*batch)[0], trained.token_logprobs(*batch)[0])


def test_state_goes_back_and_forth(tiny_model):
    one, other = lora(tiny_model, 1), lora(tiny_model, 2)
    other.load_state(one.state())
    assert all(torch.equal(a, b) for a, b in zip(one.trainable(), other.trainable(), strict=True))
    with pytest.raises(ModelError, match="another model"):
        other.load_state(full(tiny_model).state())


def test_missing_weights_and_models_are_named(tiny_model, tmp_path):
    for make in (lora, full):
        with pytest.raises(RunFolderError, match="holds no trained"):
            load_weights(tmp_path, make(tiny_model))
    with pytest.raises(ModelError, match=r"no config\.json"):
        Policy(ModelConfig(name=str(tmp_path), device="cpu"))


def test_weights_laid_out_for_few_rows_sample_the_same(policy, monkeypatch):
    def sampled() -> list[Completion]:
        requests = [Request([3, 20, 21, 4, *range(10, 10 + i)], [i, i + 50], 12) for i in range(20)]
        return sorted(
            complete(LocalSampler(policy), requests), key=lambda one: (len(one.request.prompt_ids), one.index)
        )

    monkeypatch.setattr(motif.sampling.local.packing, "LARGE", 1)
    packed = sampled()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for one, other in zip(packed, sampled(), strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


# -- parts of responses ------------------------------------------------------------------------------------------------


class Halves:
    """Finds the note of a response in its last two tokens."""

    def note_begins(self, ids):
        return max(0, len(ids) - 2)


def test_collect_trains_the_part_of_a_response_that_is_asked_for():
    tree = make_tree([[1, 0], [0, 0]])
    for node in tree.walk():
        node.advantage = 1.0
    of = {"rollout": {"branching": [2, 2], "tokens_first": 20}, "loss": {"kind": "grpo"}}
    notes = Recipe.model_validate(of | {"credit": {"train_rounds": "all", "tokens": "notes"}})
    chosen = collect([tree], notes, Halves())
    assert [(sample.part, sample.weight) for sample in chosen] == [((1, 3), 1 / (2 * 2))] * 2  # round 2 writes no note
    reasoning = Recipe.model_validate(of | {"credit": {"train_rounds": "all", "tokens": "reasoning"}})
    parts = [sample.part for sample in collect([tree], reasoning, Halves())]
    assert parts == [(0, 1), (0, 3), (0, 3), (0, 1), (0, 3), (0, 3)]
    assert all(sample.part is None for sample in collect([tree], notes))  # demonstrations are imitated as a whole


def test_the_gradients_of_the_parts_add_up_to_that_of_the_whole(tiny_model):
    policy = lora(tiny_model)
    given = samples(policy)[:3]
    whole = Recipe.model_validate({"loss": {"importance_cap": 0.0}})

    def gradient(parts) -> list[torch.Tensor]:
        policy.model.zero_grad()
        chosen = [dataclasses.replace(one, part=part(one)) for one in given for part in parts]
        stats = UpdateStats()
        Minibatch(policy, chosen).gradient(whole, 4096, stats)
        assert stats.tokens == sum(len(one.token_ids) for one in given)
        return [p.grad.clone() for p in policy.trainable()]

    expected = gradient([lambda one: None])
    found = gradient([lambda one: (0, 2), lambda one: (2, len(one.token_ids))])
    assert any(tensor.abs().max() > 0 for tensor in expected)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
