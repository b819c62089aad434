"""MOTIF inside TRL's GRPOTrainer: the hook is where we think it is, and what it trains is what we would train."""

from __future__ import annotations

import inspect
import subprocess
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from motif.config import load_recipe
from motif.demo import MODELS
from motif.errors import RecipeError
from motif.grading.own import Answered
from motif.grading.verdict import Grade
from motif.integrations import HostError, require
from motif.session import open_session
from motif.training.batch import Minibatch, UpdateStats, collect
from support import ROOT, forked

trl = pytest.importorskip("trl", minversion="1.16")
from motif.integrations.trl import Motif, make_trainer, train  # noqa: E402
from motif.integrations.trl_arguments import arguments_of  # noqa: E402

pytestmark = pytest.mark.slow

LORA = ["model.adapter=lora", "model.lora_rank=4", "model.lora_alpha=8"]
ALL = ["credit.train_rounds=all", "credit.divide_by_std=false", "credit.baseline=leave_one_out"]


def recipe(*settings: str) -> Any:
    small = ["rollout.branching=[4,2,1]", "rollout.questions_per_step=2", "data.limit=24", "train.steps=1"]
    small += ["data.arithmetic.smallest=10", "data.arithmetic.largest=30"]
    return load_recipe("demo", [*small, "train.max_grad_norm=1000000000", "train.save_every=1", *settings])


@pytest.fixture
def trainer_of(tmp_path):
    """Builds a trainer for some settings; its session is closed afterwards."""
    sessions = []

    def build(*settings: str, **options: Any) -> Any:
        sessions.append(open_session(recipe(*settings)))
        return make_trainer(sessions[-1], tmp_path / "trl", **options)

    yield build
    for session in sessions:
        session.close()


def motif_of(trainer: Any) -> Motif:
    return trainer.rollout_func.__self__


def compare_gradients(trainer: Any) -> list[float]:
    """Train; before each optimiser step compare TRL's gradient with ours on the same trees: relative differences."""
    from transformers import TrainerCallback

    found: list[float] = []
    motif = motif_of(trainer)
    policy = motif.session.policy

    class Compare(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            theirs = [parameter.grad.clone() for parameter in policy.trainable()]
            for parameter in policy.trainable():
                parameter.grad = None
            assert len(motif.trees) == motif.recipe.rollout.questions_per_step
            policy.wrapped.eval()  # with activations recomputed, layers in training mode share no prompts
            samples = collect(motif.trees, motif.recipe)
            if not samples[0].sampler_logprobs:  # TRL's own generation reports none, and the loss does not use them
                samples = [replace(sample, sampler_logprobs=[0.0] * len(sample.token_ids)) for sample in samples]
            batch = Minibatch(policy, samples)
            if motif.recipe.loss.kl_beta:
                with policy.adapter_disabled():
                    batch.reference_T = batch.logprobs(4096)
            batch.gradient(motif.recipe, motif.recipe.train.microbatch_tokens, UpdateStats())
            policy.wrapped.train()
            ours = [parameter.grad for parameter in policy.trainable()]
            for parameter, gradient in zip(policy.trainable(), theirs, strict=True):
                parameter.grad = gradient
            difference = sum((one - other).double().square().sum() for one, other in zip(theirs, ours, strict=True))
            scale = sum(gradient.double().square().sum() for gradient in ours)
            assert scale > 0
            found.append((difference / scale).sqrt().item())

    trainer.add_callback(Compare())
    trainer.train()
    return found


# -- the contract ------------------------------------------------------------------------------------------------------


def test_the_hook_is_where_we_plug_in():
    """Fails when TRL moves the hook: then the range in `motif.integrations.SUPPORTED` and the adapter need work."""
    trainer = trl.GRPOTrainer
    assert "rollout_func" in inspect.signature(trainer.__init__).parameters
    source = inspect.getsource(trainer._generate)
    assert "self.rollout_func(prompts, self)" in source
    assert all(f'"{key}"' in source for key in ("prompt_ids", "completion_ids", "logprobs"))
    single = inspect.signature(trainer._generate_single_turn).parameters
    assert list(single)[:5] == ["self", "prompt_ids", "images", "multimodal_fields", "num_generations"]
    known = inspect.signature(trl.GRPOConfig.__init__).parameters
    assert not arguments_of(recipe()).keys() - known.keys()


def test_prompts_arrive_repeated_and_every_row_reaches_the_reward(trainer_of, monkeypatch):
    trainer = trainer_of()
    motif = motif_of(trainer)
    seen: dict[str, Any] = {}
    own_rollout, own_reward = motif.rollout, motif.reward

    def rollout(prompts: Any, owner: Any) -> Any:
        seen["prompts"], seen["owner"] = prompts, owner
        seen["rows"] = own_rollout(prompts, owner)
        return seen["rows"]

    def reward(**given: Any) -> Any:
        seen["given"] = given
        return own_reward(**given)

    monkeypatch.setattr(trainer, "rollout_func", rollout)
    monkeypatch.setattr(trainer, "reward_funcs", [reward])
    trainer.train()
    assert seen["owner"] is trainer
    assert len(seen["prompts"]) == 8 and len(set(seen["prompts"])) == 2
    assert seen["prompts"][:4] == [seen["prompts"][0]] * 4
    assert seen["given"]["motif_reward"] == seen["rows"]["motif_reward"]
    assert seen["given"]["completion_ids"] == seen["rows"]["completion_ids"]
    assert callable(seen["given"]["log_metric"])


def test_missing_or_other_versions_are_refused_with_the_range(monkeypatch):
    require("trl")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.17.2")
    with pytest.raises(HostError, match=r"trl >= 1\.16, < 1\.17, not 1\.17\.2"):
        require("trl")
    monkeypatch.undo()
    monkeypatch.setitem(__import__("motif.integrations").integrations.SUPPORTED, "no-such-host", ("1", "2"))
    with pytest.raises(HostError, match="pip install"):
        require("no-such-host")


# -- what is trained ---------------------------------------------------------------------------------------------------

CASES = {
    "paper, all weights": [],
    "paper, LoRA": LORA,
    "paper, LoRA, KL": [*LORA, "loss.kl_beta=0.1"],
    "paper, other temperature": ["rollout.temperature_first=0.8"],
    "paper, dapo": ["loss.kind=dapo"],
    "paper, no std": ["credit.divide_by_std=false"],
    "paper, leave one out": ["credit.baseline=leave_one_out", "loss.kind=dr_grpo"],
    "original code's continuations": [*LORA, "rollout.continuation_policy=base"],
    "whole tree, all weights": [*ALL, "loss.kind=dr_grpo"],
    "whole tree, LoRA": [*ALL, *LORA],
    "whole tree, std": ["credit.train_rounds=all"],
    "whole tree, dapo": [*ALL, "loss.kind=dapo"],
    "whole tree, one reward": ["credit.train_rounds=all", "credit.group=round", "rollout.branching=[6,1,1]"],
    "recomputed activations": [*LORA, "train.activation_checkpointing=true"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_steps_gradient_is_ours(trainer_of, case):
    [difference] = compare_gradients(trainer_of(*CASES[case]))
    assert difference < 1e-4


def test_the_comparison_would_notice(trainer_of):
    trainer = trainer_of()
    motif_of(trainer)._worth = lambda node: node.reward + 0.1 * len(node.token_ids)
    [difference] = compare_gradients(trainer)
    assert difference > 0.01


def test_advantages_reach_the_loss_unchanged_on_whole_trees(trainer_of, monkeypatch):
    trainer = trainer_of(*ALL)
    step = trainer._generate_and_score_completions
    seen: list[Any] = []
    monkeypatch.setattr(trainer, "_generate_and_score_completions", lambda rows: seen.append(step(rows)) or seen[-1])
    trainer.train()
    ours = [node.advantage for tree in motif_of(trainer).trees for node in tree.walk()]
    assert seen[0]["advantages"].tolist() == pytest.approx(ours, abs=1e-6)
    assert any(ours)


def test_ungraded_responses_get_no_reward(trainer_of, monkeypatch):
    trainer = trainer_of("rollout.branching=[6,1,1]")
    motif = motif_of(trainer)
    judge = motif.session.grader.judge

    def picky(answered: Answered) -> Grade:
        return judge(answered) if len(answered.answer or "") % 2 else Grade("ungraded", "cannot say")

    monkeypatch.setattr(motif.session.grader, "judge", picky)
    trainer.train()
    roots = [root for tree in motif.trees for root in tree.roots]
    graded = [root.reward for root in roots if root.reward is not None]
    assert 0 < len(graded) < len(roots)
    assert trainer.state.log_history[0]["reward"] == pytest.approx(sum(graded) / len(graded), abs=1e-6)


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [[], LORA], ids=["all weights", "LoRA"])
def test_a_resumed_run_is_the_same_run_bit_for_bit(tmp_path, settings):
    train(recipe("train.steps=4", *settings), tmp_path / "whole")
    train(recipe("train.steps=4", *settings), tmp_path / "cut", max_steps=2, lr_scheduler_type="constant")
    again = train(recipe("train.steps=4", *settings), tmp_path / "cut", resume=True)
    assert again.state.global_step == 4
    whole, cut = (open_session(recipe(*settings), run=tmp_path / name) for name in ("whole", "cut"))
    for name, tensor in whole.policy.state().items():
        assert torch.equal(tensor, cut.policy.state()[name]), name
    whole.close()
    cut.close()


def test_the_folder_is_a_run_and_the_log_has_our_metrics(tmp_path):
    trainer = train("demo", tmp_path, settings=["train.steps=2", "rollout.questions_per_step=2", "data.limit=24"])
    line = trainer.state.log_history[0]
    assert line["rewards/reward/mean"] == pytest.approx(line["motif/reward"], abs=1e-6)
    assert 0 <= line["motif/outcome/mean"] <= 1
    session = open_session(load_recipe(tmp_path / "recipe.toml"), run=tmp_path)
    trained = trainer.rollout_func.__self__.session.policy.state()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in session.policy.state().items())
    session.close()


@pytest.mark.parametrize("settings", [[], [*ALL]], ids=["round 1", "whole tree"])
def test_trls_own_generation_grows_the_same_kind_of_tree(trainer_of, settings):
    trainer = trainer_of(*settings, sampler="trl")
    [difference] = compare_gradients(trainer)
    trees = motif_of(trainer).trees
    assert [[len(level) for level in tree.rounds()] for tree in trees] == [[4, 8, 8]] * 2
    assert difference < 1e-4
    ends = motif_of(trainer).session.policy.end_ids
    assert all(node.truncated == (node.token_ids[-1] not in ends) for tree in trees for node in tree.walk())


def test_two_processes_train_what_one_does(tmp_path):
    settings = [
        "data.limit=24",
        "data.arithmetic.smallest=10",
        "data.arithmetic.largest=30",
        "train.steps=2",
        "rollout.questions_per_step=4",
    ]
    train("demo", tmp_path / "one", settings=settings)
    example = ROOT / "examples" / "trl_motif.py"
    command = [forked.python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(example)]
    command += ["demo", str(tmp_path / "two")] + [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    start = load_file(MODELS["embedded"] / "model.safetensors")
    assert any((one[name].float() - start[name].float()).abs().max() > 1e-4 for name in one)
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-5), name


def test_two_processes_that_share_a_group_draw_different_responses_to_one_question(trainer_of):
    trainer = trainer_of()
    motif = motif_of(trainer)
    prompts = [next(iter(motif.questions))] * 2
    grown = []
    for rank in (0, 1):
        trainer.accelerator.state._shared_state["process_index"] = rank
        assert trainer.accelerator.process_index == rank
        grown.append(motif.rollout(prompts, trainer)["completion_ids"])
    trainer.accelerator.state._shared_state["process_index"] = 0
    assert grown[0] != grown[1]


REFUSED = {
    "sampler.urls": [*LORA, 'sampler.urls=["http://127.0.0.1:8000"]'],
    "loss.minibatches": ["loss.minibatches=2"],
    "loss.importance_cap": ["loss.importance_cap=2.0"],
    "different temperatures": [*ALL, "rollout.temperature_continue=0.5"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_trl_cannot_do_is_refused(name):
    with pytest.raises(RecipeError, match=name):
        arguments_of(recipe(*REFUSED[name]))


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ([], {"temperature": 0.7}, "in the recipe"),
        (ALL, {"scale_rewards": "group"}, "scale_rewards"),
        (ALL, {"num_generations": 10, "per_device_train_batch_size": 10}, "num_generations must be 20"),
        (["rollout.tokens_continue=12"], {"sampler": "trl"}, "one temperature, top-p and limit"),
        (["data.limit=1"], {}, "too few"),
        ([], {"sampler": "vllm"}, "unknown sampler"),
    ],
)
def test_settings_that_would_change_what_is_trained_are_refused(trainer_of, settings, options, said):
    with pytest.raises(RecipeError, match=said):
        trainer_of(*settings, **options)
