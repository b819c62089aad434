"""Our loss and its gradients against TRL's GRPOTrainer, on the same weights and the same tokens."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from motif.config import CreditConfig, LossConfig, ModelConfig
from motif.method.credit import group_advantages
from motif.models.policy import Policy
from motif.training.loss import LossInputs, policy_loss, token_weights
from support.updates import shake

trl = pytest.importorskip("trl", minversion="1.16")
pytestmark = pytest.mark.slow

LIMIT = 24  # max_completion_length, the constant of dr_grpo
TEMPERATURE = 0.9
PAD = 0


@pytest.fixture(scope="module")
def policy(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, lora_rank=4, lora_alpha=8, device="cpu"))
    shake(policy, 1)
    policy.wrapped.double()  # so that left padding, which shifts TRL's positions, does not drown the comparison
    return policy


@pytest.fixture(scope="module")
def batch() -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Eight prompts and completions of unequal length (one of a single token, one at the limit), and advantages."""
    rng = random.Random(0)
    prompts = [[rng.randrange(6, 100) for _ in range(rng.randint(2, 12))] for _ in range(8)]
    lengths = [1, LIMIT, 3, 17, 8, 8, 5, 20]
    completions = [[rng.randrange(6, 100) for _ in range(length)] for length in lengths]
    return prompts, completions, [rng.gauss(0, 1.5) for _ in lengths]


def trainer(policy: Policy, folder: Any, **settings: Any) -> Any:
    from datasets import Dataset

    def no_reward(completions: list[str], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    defaults = {"num_generations": 2, "per_device_train_batch_size": 8, "steps_per_generation": 1}
    config = trl.GRPOConfig(
        output_dir=str(folder),
        max_completion_length=LIMIT,
        temperature=TEMPERATURE,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        **defaults | settings,
    )
    built = trl.GRPOTrainer(
        model=policy.wrapped,
        args=config,
        reward_funcs=no_reward,
        train_dataset=Dataset.from_list([{"prompt": "2+2"}] * 8),
        processing_class=policy.tokenizer,
    )
    if "ref" in policy.wrapped.peft_config:  # a copy of the adapter as TRL's reference; ours is the adapter-off model
        policy.wrapped.delete_adapter("ref")
    return built


def padded(rows: list[list[int]], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    pads = [[PAD] * (width - len(row)) for row in rows]
    marks = [[0] * len(pad) for pad in pads]
    ids = [pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)]
    mask = [m + [1] * len(row) if left else [1] * len(row) + m for row, m in zip(rows, marks, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def old_logprobs(policy: Policy, batch: Any, spread: float) -> list[torch.Tensor]:
    """One vector per completion: the current log-probabilities, off by some noise."""
    prompts, completions, _ = batch
    with torch.no_grad():
        flat, _ = policy.token_logprobs(prompts, completions, [TEMPERATURE] * len(prompts))
    noise = spread * torch.randn(flat.shape, generator=torch.Generator().manual_seed(2))
    return list((flat + noise).split([len(completion) for completion in completions]))


def reference_logprobs(policy: Policy, batch: Any) -> torch.Tensor:
    prompts, completions, _ = batch
    with torch.no_grad(), policy.adapter_disabled():
        return policy.token_logprobs(prompts, completions, [TEMPERATURE] * len(prompts))[0]


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    named = {name: p.grad.clone() for name, p in policy.wrapped.named_parameters() if p.requires_grad}
    policy.wrapped.zero_grad(set_to_none=True)
    return named


def ours(policy: Policy, batch: Any, old: list[torch.Tensor] | None, config: LossConfig, size: int = 8) -> Any:
    """Loss and gradients in micro-batches of `size` sequences."""
    prompts, completions, advantages = batch
    policy.wrapped.zero_grad(set_to_none=True)
    weights = token_weights([len(completion) for completion in completions], config.kind, LIMIT)
    lengths = [len(completion) for completion in completions]
    reference = reference_logprobs(policy, batch).split(lengths)
    total = 0.0
    for start in range(0, len(prompts), size):
        part = range(start, min(start + size, len(prompts)))
        chosen = torch.tensor([lengths[i] for i in part])
        logprobs, _ = policy.token_logprobs(
            [prompts[i] for i in part], [completions[i] for i in part], [TEMPERATURE] * len(part)
        )
        before = torch.cat([old[i] for i in part]) if old else logprobs.detach()
        outputs = policy_loss(
            LossInputs(
                logprobs_T=logprobs,
                old_logprobs_T=before,
                sampler_logprobs_T=before,
                advantages_T=torch.tensor([advantages[i] for i in part]).repeat_interleave(chosen),
                weights_T=torch.tensor([weights[i] for i in part]).repeat_interleave(chosen),
                reference_logprobs_T=torch.cat([reference[i] for i in part]),
            ),
            config,
        )
        outputs.loss.backward()
        total += outputs.loss.item()
    return total, gradients(policy)


def theirs(policy: Policy, batch: Any, old: list[torch.Tensor] | None, trainer: Any, size: int = 8) -> Any:
    """The same through TRL, accumulated over micro-batches as its training loop does."""
    prompts, completions, advantages = batch
    policy.wrapped.zero_grad(set_to_none=True)
    policy.wrapped.train()  # the mode in which TRL divides by the accumulation steps; there is no dropout
    trainer.current_gradient_accumulation_steps = len(prompts) // size
    total = 0.0
    for start in range(0, len(prompts), size):
        part = slice(start, start + size)
        prompt_ids, prompt_mask = padded(prompts[part], left=True)
        completion_ids, completion_mask = padded(completions[part])
        inputs = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
            "advantages": torch.tensor(advantages[part]),
            "num_items_in_batch": torch.tensor(sum(map(len, completions))),
        }
        if old:
            inputs["old_per_token_logps"] = torch.nn.utils.rnn.pad_sequence(old[part], batch_first=True)
        if trainer.beta:
            with torch.no_grad(), policy.wrapped.disable_adapter():
                scored = trainer._get_per_token_logps_and_entropies(
                    policy.wrapped,
                    torch.cat([prompt_ids, completion_ids], dim=1),
                    torch.cat([prompt_mask, completion_mask], dim=1),
                    completion_ids.size(1),
                )
            inputs["ref_per_token_logps"] = scored[0]
        loss = trainer._compute_loss(policy.wrapped, inputs)
        loss.backward()
        total += loss.item()
    policy.wrapped.eval()
    return total, gradients(policy)


def assert_equal(one: Any, other: Any) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-6, rel=1e-6)
    assert one[1].keys() == other[1].keys() and one[1]
    for name, gradient in one[1].items():
        scale = other[1][name].norm().item()
        assert scale > 0, name
        assert (gradient - other[1][name]).norm().item() <= 1e-5 * scale, name


CASES = {
    "plain": ({}, {}, 0.0),
    "ratio": ({}, {}, 0.3),
    "clip-higher": ({"epsilon": 0.1, "epsilon_high": 0.28}, {"clip_low": 0.1, "clip_high": 0.28}, 0.3),
    "kl": ({"beta": 0.2}, {"kl_beta": 0.2}, 0.0),
    "kl and ratio": ({"beta": 0.2, "epsilon_high": 0.28}, {"kl_beta": 0.2, "clip_high": 0.28}, 0.3),
}


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_trl(policy, batch, tmp_path, kind, case):
    settings, mine, spread = CASES[case]
    old = old_logprobs(policy, batch, spread) if spread else None
    config = LossConfig(kind=kind, **mine)
    oracle = theirs(policy, batch, old, trainer(policy, tmp_path, loss_type=kind, **settings))
    assert_equal(ours(policy, batch, old, config), oracle)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
def test_accumulated_over_micro_batches_too(policy, batch, tmp_path, kind):
    old = old_logprobs(policy, batch, 0.3)
    accumulating = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 4}
    config = LossConfig(kind=kind, kl_beta=0.1)
    whole = ours(policy, batch, old, config)
    oracle = theirs(policy, batch, old, trainer(policy, tmp_path, loss_type=kind, beta=0.1, **accumulating), size=2)
    assert_equal(whole, oracle)
    for size in (1, 2, 3):
        assert_equal(ours(policy, batch, old, config, size), oracle)


def test_the_oracle_would_notice(policy, batch, tmp_path):
    """Each difference between the kinds shows up: the comparison is not passed by anything."""
    oracle = theirs(policy, batch, None, trainer(policy, tmp_path, loss_type="grpo", beta=0.0))
    for config in (LossConfig(kind="dapo"), LossConfig(kind="dr_grpo"), LossConfig(kind="grpo", kl_beta=0.05)):
        with pytest.raises(AssertionError):
            assert_equal(ours(policy, batch, None, config), oracle)


def generated(count: int) -> tuple[Any, ...]:
    """What TRL's `_generate` returns: token ids, no tools, texts, no log-probabilities, extra fields or images."""
    prompts, completions = [[3, 10, 4]] * count, [[10, 11, 1]] * count
    return prompts, completions, None, ["x"] * count, None, {}, None, None


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_are_trls(policy, tmp_path, monkeypatch, scale):
    """Through TRL's own step from rewards to advantages, with its sampling replaced by fixed completions."""
    rewards = [1.5, 2.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0]
    oracle = trainer(policy, tmp_path, scale_rewards=scale, num_generations=4, num_iterations=1)
    prompts = [{"prompt": "2+2"}] * 8
    monkeypatch.setattr(oracle, "_generate", lambda given, *_: generated(len(given)))
    monkeypatch.setattr(oracle, "_calculate_rewards", lambda *_: torch.tensor(rewards).unsqueeze(1))
    policy.wrapped.train()
    advantages = oracle._generate_and_score_completions(prompts)["advantages"].tolist()
    policy.wrapped.eval()
    config = CreditConfig(divide_by_std=scale == "group")
    expected = group_advantages(rewards[:4], config) + group_advantages(rewards[4:], config)
    assert advantages == pytest.approx(expected, abs=1e-5)
