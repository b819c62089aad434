"""What a run promises holds on the general path, too: of models that are sent there, and of some that go themselves."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import motif.training.loop
from motif.cli.app import app
from motif.config import RolloutConfig, RoundsConfig
from motif.display import Display
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.models.path import GENERAL
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.check import MEAN
from motif.sampling.local.engine import Engine
from motif.training.loop import train
from support.architectures import ZOO, build, shake_adapter
from support.runs import metric_lines
from support.samples import by_parity

SETTINGS = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2]",
    "rollout.tokens_first=14",
    "rollout.tokens_continue=9",
    "rounds.note_tokens=6",
    "train.learning_rate=0.01",
    "train.microbatch_tokens=600",
    "train.save_every=1",
    "eval.questions=3",
    "eval.every=1",
]
OWN = ("GPT-Neo", "BLOOM")
"""Architectures that sample on the general path because the fast one does not know their attention."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Policy]:
    """Models whose adapter does something, by architecture."""
    policies = {}
    for name in (*OWN, "LFM2"):
        policies[name] = Policy(build(ZOO[name], tmp_path_factory.mktemp("model")))
        shake_adapter(policies[name])
    return policies


@pytest.mark.parametrize(("name", "dtype"), [("GPT-Neo", "float32"), ("BLOOM", "bfloat16")])
def test_a_run_that_goes_on_is_one_that_was_never_interrupted(name, dtype, tmp_path, monkeypatch):
    """Its trees, metrics, evaluations and weights, and the run answers afterwards."""
    monkeypatch.setattr(motif.training.loop, "collect", by_parity)
    build(ZOO[name], tmp_path / "model")
    settings = [*SETTINGS, f"model.name={tmp_path / 'model'}", f"model.dtype={dtype}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train("demo", whole, settings=[*settings, "train.steps=2"], display=Display(quiet=True))
    train("demo", broken, settings=[*settings, "train.steps=1"], display=Display(quiet=True))
    train("demo", broken, settings=[*settings, "train.steps=2"], resume=True, display=Display(quiet=True))
    answered = CliRunner().invoke(app, ["solve", "What is 12 × 3?", "--run", str(whole), "--json"])
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["paths"]["sampler"]["path"] == "general" and summary["ledger"]["updates"] == 2
    for file in ("trees.jsonl", "outcomes.jsonl", "adapter/adapter_model.safetensors"):
        assert (whole / file).read_bytes() == (broken / file).read_bytes(), file
    assert [line for line in metric_lines(whole) if "eval" not in line] == [
        line for line in metric_lines(broken) if "eval" not in line
    ]
    moved = load_file(whole / "adapter" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for key, weight in moved.items() if "lora_B" in key)
    assert answered.exit_code == 0, answered.output
    assert len(json.loads(answered.stdout)["rounds"]) == 2


@pytest.mark.parametrize("name", [*OWN, "LFM2"])
def test_greedy_rounds_are_the_models_own_generate_one_by_one(name, models):
    policy = models[name]
    sampler = LocalSampler(policy, 4, GENERAL if name == "LFM2" else LocalSampler(policy, 4).path)
    assert sampler.path.general
    rounds = Rounds(RoundsConfig(system_prompt="", note_tokens=8), policy.tokenizer)
    questions = [Question(str(place), text, "") for place, text in enumerate(("1", "What is 15?", "x" * 60))]
    shape = RolloutConfig(branching=[1, 1], tokens_first=20, tokens_continue=11)
    shape = shape.model_copy(update={"temperature_first": 0.0, "temperature_continue": 0.0})
    trees = grow(questions, sampler, rounds, shape)
    nodes = [node for tree in trees for node in tree.walk()]
    assert len(nodes) == 6 and len({len(node.prompt_ids) for node in nodes}) > 3
    for node in nodes:
        prompt = torch.tensor([node.prompt_ids])
        output = policy.wrapped.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=20 if node.round == 1 else 11,
            eos_token_id=policy.end_ids,
            pad_token_id=0,
            use_cache=True,
        )
        assert node.token_ids == output[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("name", OWN)
def test_a_server_answers_as_if_each_caller_were_alone(name, models):
    """Callers come while others are being answered, some go, and there are more of them than rows."""
    policy = models[name]
    prompts = [[7, *range(20, 20 + length)] for length in (3, 9, 9, 14, 30, 5)]
    asked = [Request(prompt, [2 * place, 2 * place + 1], 4 + 5 * place) for place, prompt in enumerate(prompts)]
    alone = {
        key: complete(LocalSampler(policy, 1), [Request(one.prompt_ids, [key], one.max_tokens)])[0].token_ids
        for one in asked
        for key in one.keys
    }
    live = Engine(policy, 4)
    assert live.sampler.path.general

    async def ask(request: Request) -> list[Completion]:
        return [completion async for completion in live.sample(request)]

    async def main() -> list[Completion]:
        goes = asyncio.create_task(ask(Request(list(range(30, 60)), [99, 98, 97], 400)))
        stays = []
        for request in asked:
            stays.append(asyncio.create_task(ask(request)))
            await asyncio.sleep(0.01)
        goes.cancel()
        return [completion for found in await asyncio.gather(*stays) for completion in found]

    try:
        done = asyncio.run(main())
    finally:
        live.close()
    assert {one.request.keys[one.index]: one.token_ids for one in done} == alone


@pytest.mark.parametrize("name", OWN)
def test_in_bfloat16_the_sampler_is_as_near_as_rounding_lets_it(name, models):
    policy = Policy(models[name].config.model_copy(update={"dtype": "bfloat16"}))
    shake_adapter(policy)
    sampler = LocalSampler(policy, 4)
    assert sampler.path.general and policy.half
    prompts = [[7, *range(20, 20 + length)] for length in (3, 9, 24)]
    done = complete(sampler, [Request(prompt, [3 * i, 3 * i + 1], 12) for i, prompt in enumerate(prompts)])
    with torch.no_grad():
        ours = policy.token_logprobs(
            [one.request.prompt_ids for one in done], [one.token_ids for one in done], [1.0] * 6
        )
    theirs = torch.tensor([logprob for one in done for logprob in one.logprobs])
    assert (ours[0] - theirs).abs().mean() < MEAN
