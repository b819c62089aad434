"""MOTIF as a verl agent loop, driven by verl's own base class and registry with a stub in place of its servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import ROOT

pytest.importorskip("verl", minversion="0.9.1")

import hydra
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, DictConfigWrap
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from motif.config import load_recipe
from motif.errors import RecipeError
from motif.integrations.verl import MotifAgentLoop, write_data
from motif.models.hub import load_tokenizer

EXAMPLE = ROOT / "examples" / "verl_motif.yaml"
QUESTION = "What is 12 × 13?"


class Servers:
    """Answers as verl's server manager does, in token ids: a note in round 1 that says whether it is good, and in the
    last round the right answer for every second trajectory of a good note."""

    def __init__(self, tokenizer: Any, first: str = "good"):
        self.tokenizer, self.first, self.asked, self.finals = tokenizer, first, [], 0

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> TokenOutput:
        prompt = self.tokenizer.decode(prompt_ids)
        self.asked.append((request_id, prompt, dict(sampling_params)))
        sampling_params.clear()  # a server may do what it likes with its own copy
        await asyncio.sleep(0)
        if "final" in prompt:
            self.finals += "good" in prompt
            said = f"<think>.</think><note>\\boxed{{{156 if self.finals % 2 else 1}}}</note>"
        else:
            said = f"<think>hm</think><note>{self.first}</note>"
        ids = [*self.tokenizer(said, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        extra = {"min_global_steps": 3, "max_global_steps": 3}
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=extra)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture
def recipe(tmp_path):
    """Writes a small recipe in the embedded model's wording; returns its path."""

    def write(*settings: str) -> str:
        path = tmp_path / f"recipe-{len(list(tmp_path.iterdir()))}.toml"
        small = [
            "rollout.branching=[8,2,1]",
            "data.arithmetic.smallest=11",
            "data.arithmetic.largest=13",
            "rollout.tokens_first=64",
        ]
        path.write_text(load_recipe("demo", [*small, "rollout.temperature_continue=0.7", *settings]).to_toml())
        return str(path)

    return write


def loop_of(recipe: str, tokenizer: Any, servers: Any, **rollout: Any) -> AgentLoopBase:
    """An agent loop made as verl's worker makes it from the example's config."""
    [entry] = OmegaConf.load(EXAMPLE)
    entry.recipe = recipe
    settings = {"n": 8, "temperature": 1.0, "top_p": 1, "prompt_length": 128, "response_length": 64} | rollout
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": settings}, "data": {}})
    return hydra.utils.instantiate(
        config=entry,
        trainer_config=DictConfigWrap(config=config),
        server_manager=servers,
        tokenizer=tokenizer,
        processor=None,
        hf_model_type="llama",
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
    )


def run(recipe: str, tokenizer: Any, servers: Servers, **sampling: Any) -> Any:
    async def go() -> Any:
        loop = loop_of(recipe, tokenizer, servers)
        row = {"raw_prompt": [{"role": "user", "content": QUESTION}], "reward_model": {"ground_truth": "156"}}
        given = {"temperature": 1.0, "top_p": 1, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True} | sampling
        return await loop.run(given, uid="q-1", index=0, priority=4, **row)

    return asyncio.run(go())


def test_it_is_an_agent_loop_named_in_the_example(recipe, tokenizer):
    loop = loop_of(recipe(), tokenizer, Servers(tokenizer))
    assert isinstance(loop, MotifAgentLoop) and isinstance(loop, AgentLoopBase)


@pytest.mark.parametrize(("note", "outcome"), [("good", 0.5), ("bad", 0.0)])
def test_round_1_is_returned_with_the_mean_outcome_of_its_trajectories(recipe, tokenizer, note, outcome):
    servers = Servers(tokenizer, note)
    output = run(recipe(), tokenizer, servers)
    fields = output.as_dict()
    said = tokenizer.decode(output.response_ids, skip_special_tokens=True)
    assert said == f"<think>hm</think><note>{note}</note>"
    assert output.response_ids[-1] == tokenizer.eos_token_id
    assert QUESTION in tokenizer.decode(output.prompt_ids) and "Round 1/3." in tokenizer.decode(output.prompt_ids)
    assert output.reward_score == pytest.approx(outcome + 0.2)  # format_weight of the demo recipe
    assert fields["rm_scores"].sum().item() == pytest.approx(outcome + 0.2)
    assert fields["rm_scores"][-1] != 0
    assert output.response_mask == [1] * len(output.response_ids)
    assert output.response_logprobs == [-0.5] * len(output.response_ids)
    info = output.extra_fields["reward_extra_info"]
    assert info == {"outcome": outcome, "well_formed": 1.0, "truncated": 0.0, "ungraded": 0.0}
    assert output.extra_fields["min_global_steps"] == 3 and output.extra_fields["turn_scores"] == []


def test_later_rounds_see_the_note_only_and_have_the_recipes_sampling(recipe, tokenizer):
    servers = Servers(tokenizer)
    run(recipe(), tokenizer, servers)
    assert len(servers.asked) == 1 + 2 + 2
    assert len({request for request, _, _ in servers.asked}) == 5
    for index, (_, prompt, sampling) in enumerate(servers.asked):
        first = index == 0
        assert ("Note" in prompt) == (not first)
        assert "<think>" not in prompt  # nothing but the note came along
        assert sampling["temperature"] == (1.0 if first else 0.7)
        assert sampling["max_tokens"] == (64 if first else 24)
        assert sampling["logprobs"] is True


def test_greedy_validation_follows_one_trajectory(recipe, tokenizer):
    servers = Servers(tokenizer)
    output = run(recipe(), tokenizer, servers, temperature=0)
    assert len(servers.asked) == 3
    assert {sampling["temperature"] for _, _, sampling in servers.asked} == {0}
    assert output.extra_fields["reward_extra_info"]["outcome"] == 1.0


def test_a_response_that_nobody_can_grade_is_masked(recipe, tokenizer, tmp_path):
    (tmp_path / "broken.py").write_text("def grade(gold, answer):\n    raise ValueError('cannot say')\n")
    path = recipe(f"data.grader={tmp_path}/broken.py:grade")
    output = run(path, tokenizer, Servers(tokenizer))
    assert set(output.response_mask) == {0}
    assert output.extra_fields["reward_extra_info"]["ungraded"] == 1.0


def test_a_response_at_its_limit_without_an_end_is_truncated(recipe, tokenizer):
    class Endless(Servers):
        async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: Any) -> TokenOutput:
            count = sampling_params["max_tokens"]
            return TokenOutput(token_ids=self.tokenizer("1" * count)["input_ids"][-count:], log_probs=None)

    output = run(recipe(), tokenizer, Endless(tokenizer))
    assert output.extra_fields["reward_extra_info"]["truncated"] == 1.0
    assert output.reward_score == 0.0 and output.response_logprobs is None


@pytest.mark.parametrize(
    ("settings", "rollout", "said"),
    [
        ([], {"n": 4}, r"branching\[0\]"),
        ([], {"temperature": 0.6}, "temperature_first"),
        ([], {"response_length": 32}, "max_response_length"),
        (["credit.train_rounds=all"], {}, "round 1 only"),
        (['sampler.urls=["http://127.0.0.1:8000"]'], {}, "sampler.urls"),
    ],
)
def test_contradictions_and_what_verl_cannot_do_are_refused(recipe, tokenizer, settings, rollout, said):
    with pytest.raises(Exception, match=said) as caught:
        loop_of(recipe(*settings), tokenizer, Servers(tokenizer), **rollout)
    assert isinstance(caught.value, RecipeError) or isinstance(caught.value.__cause__, RecipeError)


def test_the_data_files_are_read_by_verls_data_set(recipe, tokenizer, tmp_path):
    paths = write_data(load_recipe(recipe()), tmp_path)
    assert paths[0].name == "train.parquet"
    config = OmegaConf.create({"max_prompt_length": 128, "filter_overlong_prompts": True, "cache_dir": str(tmp_path)})
    data = RLHFDataset(data_files=[str(paths[0])], tokenizer=tokenizer, config=config)
    row = data[0]
    assert row["raw_prompt"][-1]["content"].startswith("What is 1")
    assert row["reward_model"]["ground_truth"].isdigit()
    assert len(data) == len({data[i]["raw_prompt"][-1]["content"] for i in range(len(data))})
