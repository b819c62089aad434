"""What the integrations share: hosts are asked for clearly, and a branch grown response by response is our tree's."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys

import pytest
from motif.sampling.growing import Said, grow_response, judge, refuse

from motif.config import CreditConfig, ModelConfig, RolloutConfig, RoundsConfig, load_recipe
from motif.errors import RecipeError
from motif.grading import Grader
from motif.integrations import SUPPORTED, HostError, require
from motif.method.credit import assign
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler


@pytest.mark.parametrize("host", SUPPORTED)
def test_a_missing_host_is_asked_for_with_its_range(host, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    first, end = SUPPORTED[host]
    with pytest.raises(HostError, match=f"{host} >= {first}, < {end}, and none is installed: pip install"):
        require(host)


@pytest.mark.parametrize(("version", "fits"), [("1.15.9", False), ("1.16.0", True), ("1.17.0", False), ("dev", False)])
def test_versions_out_of_range_are_refused(version, fits, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    if fits:
        return require("trl")
    with pytest.raises(HostError, match=f"not {version}"):
        require("trl")


@pytest.mark.parametrize("host", ["verl", "verifiers"])
def test_modules_of_hosts_that_are_not_there_say_so(host):
    if importlib.util.find_spec(host):
        pytest.skip(f"{host} is installed here")
    with pytest.raises(HostError, match=host):
        importlib.import_module(f"motif.integrations.{host}")


def test_motif_imports_no_host():
    code = "import sys, motif.training.loop, motif.sampling.growing\n"
    code += "print({'trl', 'verl', 'verifiers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_branch_grown_response_by_response_is_the_trees(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, adapter="full", device="cpu"))
    sampler = LocalSampler(policy)
    rounds = Rounds(RoundsConfig(system_prompt="", note_tokens=8), policy.tokenizer)
    shape = RolloutConfig(branching=[2, 3, 1], tokens_first=12, tokens_continue=9, temperature_continue=0.8)
    question = Question("q", "What is 3 × 4?", "12")
    [whole] = grow([question], sampler, rounds, shape, seed=5, step=7)

    async def ask(path: tuple[int, ...], notes: list[str]) -> Said:
        done = []
        prompt = rounds.prompt(question.text, notes, shape.rounds)
        limit, temperature = (12, 1.0) if len(path) == 1 else (9, 0.8)
        request = Request(prompt, [sampling_key(5, 7, "q", path)], max_tokens=limit, temperature=temperature)
        sampler.run([request], lambda completion: done.append(completion) or [])
        text = policy.tokenizer.decode(done[0].token_ids, skip_special_tokens=True)
        return Said(text, done[0].truncated, prompt, done[0].token_ids, done[0].logprobs)

    credit = CreditConfig(train_rounds="all")
    with Grader("numeric") as grader:
        for index, root in enumerate(whole.roots):
            mine = asyncio.run(grow_response(ask, rounds, shape, (index,)))
            for node, other in zip(mine.walk(), root.walk(), strict=True):
                told = ("path", "prompt_ids", "token_ids", "text", "note", "answer", "well_formed", "truncated")
                assert [getattr(node, name) for name in told] == [getattr(other, name) for name in told]
                assert node.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            asyncio.run(judge(question, mine, grader, credit))
            for leaf in root.leaves():
                leaf.verdict = grader.grade(question.gold, leaf.answer).verdict
            assign(Tree(question, 0, [root]), credit)
            assert [node.reward for node in mine.walk()] == [node.reward for node in root.walk()]


def test_one_failed_response_stops_its_branch(tiny_tokenizer):
    asked = []

    async def ask(path: tuple[int, ...], notes: list[str]) -> Said:
        asked.append(path)
        await asyncio.sleep(0.001 * sum(path))
        if path == (0, 0):
            raise ConnectionError("gone")
        return Said("<answer>x</answer>", False)

    rounds = Rounds(RoundsConfig(), tiny_tokenizer)
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(grow_response(ask, rounds, RolloutConfig(branching=[2, 2, 1])))
    assert (0, 1, 0) not in asked


@pytest.mark.parametrize(
    "setting",
    ['sampler.urls=["http://127.0.0.1:8000"]', "rollout.continuation_policy=base"],
)
def test_what_needs_the_whole_tree_is_refused(setting):
    with pytest.raises(RecipeError, match=setting.partition("=")[0]):
        refuse("verl", load_recipe("demo", ["model.adapter=lora", setting]))
