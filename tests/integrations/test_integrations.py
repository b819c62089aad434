"""What the integrations share: hosts are asked for clearly, and a branch grown response by response is our tree's."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from motif.config import CreditConfig, ModelConfig, RolloutConfig, RoundsConfig, load_recipe
from motif.errors import RecipeError
from motif.grading import Grader
from motif.integrations import SUPPORTED, HostError, require
from motif.integrations.branch import grow_branch, judge, refuse
from motif.method.credit import assign
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.models.policy import Policy
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import sample_each
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from support import forked


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
    code = "import sys, motif.training.loop, motif.integrations.branch\n"
    code += "print({'trl', 'verl', 'verifiers'} & {*sys.modules})"
    done = subprocess.run([forked.python(), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_branch_grown_response_by_response_is_the_trees(tiny_model):
    policy = Policy(ModelConfig(name=tiny_model, adapter="full", device="cpu"))
    sampler = LocalSampler(policy)
    rounds = Rounds(RoundsConfig(system_prompt="", note_tokens=8), policy.tokenizer)
    shape = RolloutConfig(branching=[2, 3, 1], tokens_first=12, tokens_continue=9, temperature_continue=0.8)
    question = Question("q", "What is 3 × 4?", "12")
    [whole] = grow([question], sampler, rounds, shape, seed=5, step=7)

    class OneByOne:
        """A host that answers one prompt at a time, with the keys of the tree's response number `index`."""

        def __init__(self, index: int):
            self.index = index

        def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
            return sample_each(request, self.answer)

        async def answer(self, request: Request, index: int) -> Completion:
            key = sampling_key(5, 7, "q", (self.index, *request.paths[index][1:]))
            [completion] = [done async for done in sampler.sample(replace(request, keys=[key]))]
            text = rounds.spell(completion.token_ids)
            return replace(completion, request=request, index=index, text=text)

    credit = CreditConfig(train_rounds="all")
    with Grader("numeric") as grader:
        for index, root in enumerate(whole.roots):
            branch = asyncio.run(grow_branch(question, OneByOne(index), rounds, shape))
            [mine] = branch.roots
            for node, other in zip(mine.walk(), root.walk(), strict=True):
                assert node.path == (0, *other.path[1:])
                told = ("prompt_ids", "token_ids", "text", "note", "answer", "well_formed", "truncated")
                assert [getattr(node, name) for name in told] == [getattr(other, name) for name in told]
                assert node.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            asyncio.run(judge(branch, grader, credit))
            for leaf in root.leaves():
                leaf.verdict = grader.grade(question.gold, leaf.answer).verdict
            assign(Tree(question, 0, [root]), credit)
            assert [node.reward for node in mine.walk()] == [node.reward for node in root.walk()]


def test_one_failed_response_stops_its_branch(tiny_tokenizer):
    asked = []

    class Failing:
        def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
            return sample_each(request, self.answer)

        async def answer(self, request: Request, index: int) -> Completion:
            path = request.paths[index]
            asked.append(path)
            await asyncio.sleep(0.001 * sum(path))
            if path == (0, 0):
                raise ConnectionError("gone")
            return Completion(request, index, [], [], False, text="<answer>x</answer>")

    rounds = Rounds(RoundsConfig(), tiny_tokenizer)
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(grow_branch(Question("q", "?", ""), Failing(), rounds, RolloutConfig(branching=[2, 2, 1])))
    assert (0, 1, 0) not in asked


@pytest.mark.parametrize(
    "setting",
    ['sampler.urls=["http://127.0.0.1:8000"]', "rollout.continuation_policy=base"],
)
def test_what_needs_the_whole_tree_is_refused(setting):
    with pytest.raises(RecipeError, match=setting.partition("=")[0]):
        refuse("verl", load_recipe("demo", ["model.adapter=lora", setting]))
