"""Weights of whole models: what is saved is read back, whatever names the library saves it under."""

from __future__ import annotations

import pytest
import torch

from motif.config import Recipe
from motif.display import Display
from motif.errors import ModelError, RunFolderError
from motif.models.policy import Policy
from motif.runs import weights
from motif.runs.read import recipe_of
from motif.runs.weights import check_round_trip, load_weights, save_weights
from motif.session import open_session
from motif.training.loop import train
from support.tiny import SMALL, write_model

HEADS = SMALL | {"head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
KINDS = {
    "MixtralConfig": SMALL | {"max_position_embeddings": 256, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2MoeConfig": SMALL | EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "Qwen3MoeConfig": HEADS | EXPERTS | {"num_experts": 4},
    "OlmoeConfig": SMALL | {"num_experts": 4, "num_experts_per_tok": 2},
    "Glm4MoeConfig": HEADS | EXPERTS | ROUTED,
    "MiniMaxM2Config": HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "GPTNeoXConfig": SMALL,
    "ApertusConfig": SMALL,  # numbers of the activation that are saved, but not trained
}


@pytest.fixture
def build(tiny_tokenizer, tmp_path):
    def policy(kind: str) -> Policy:
        config = write_model(tmp_path / kind, kind, KINDS[kind], tiny_tokenizer)
        return Policy(config.model_copy(update={"adapter": "full"}))

    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_are_read_back(kind, build, tmp_path):
    policy = build(kind)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.01 * torch.randn_like(parameter))
    state = policy.state()
    check_round_trip(tmp_path, policy, state)
    folder = save_weights(tmp_path, policy)
    other = build(kind)
    load_weights(tmp_path, other)
    alone = Policy(policy.config.model_copy(update={"name": str(folder)}))  # the folder is a model by itself
    for name, tensor in state.items():
        assert torch.equal(tensor, other.state()[name]) and torch.equal(tensor, alone.state()[name])
    for name, buffer in policy.wrapped.named_buffers():
        assert torch.equal(buffer, alone.wrapped.get_buffer(name))


def test_a_run_of_experts_is_opened_again(build, tmp_path):
    name = build("MixtralConfig").config.name
    settings = [f"model.name={name}", "train.steps=1", "rollout.tokens_first=6", "rollout.tokens_continue=6"]
    settings += ["eval.questions=0", "rollout.questions_per_step=2"]
    train("demo", tmp_path / "run", settings=settings, display=Display(quiet=True))
    trained = sorted((tmp_path / "run").rglob("*.safetensors"))
    assert "experts.0" in " ".join(weights.read_tensors(trained[-1]))  # not what the parameters are called
    with_run = open_session(recipe_of(tmp_path / "run"), run=tmp_path / "run")
    with_run.close()
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".check")]


def test_weights_that_do_not_come_back_are_refused_before_the_first_step(build, tmp_path, monkeypatch):
    policy = build("GPTNeoXConfig")
    read = Policy.read_model
    monkeypatch.setattr(Policy, "read_model", lambda self, folder: {k: v + 1 for k, v in read(self, folder).items()})
    with pytest.raises(ModelError, match=r"'gpt_neox' cannot be trained with model\.adapter = 'full'.*'lora'"):
        check_round_trip(tmp_path, policy, policy.state())
    settings = ["model.adapter=full", "train.steps=1", "eval.questions=0"]
    with pytest.raises(ModelError, match="not the same after saving and loading"):
        train("demo", tmp_path / "run", settings=settings, display=Display(quiet=True))
    assert not (tmp_path / "run" / "trees.jsonl").exists()


def test_another_models_weights_are_refused(build, tmp_path):
    save_weights(tmp_path / "mixtral", build("MixtralConfig"))
    with pytest.raises(ModelError, match="belongs to another model: its weights are"):
        load_weights(tmp_path / "mixtral", build("OlmoeConfig"))
    (tmp_path / "mixtral" / "model" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunFolderError, match="is damaged"):
        load_weights(tmp_path / "mixtral", build("MixtralConfig"))
    assert Recipe().model.adapter == "lora"
