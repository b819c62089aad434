"""Several processes train as one: same trees, same weights, same record, and they end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from motif.config import load_recipe
from motif.display import Display
from motif.distributed import ALONE, Processes, as_launched, process_group
from motif.errors import RecipeError, UsageError
from motif.models.device import pick_device
from motif.models.path import GENERAL
from motif.planning.plan import make_plan
from motif.training.batch import Sample, split_by_work
from motif.training.loop import train
from support import ROOT, forked
from support.paths import taken

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=3",  # not divisible by two
    "rollout.branching=[3,2]",
    "train.save_every=1",
    "train.steps=4",
    "eval.questions=5",
    "data.arithmetic.smallest=10",
    "data.arithmetic.largest=40",
    "eval.every=2",
    "probe.questions=2",
    "probe.continuations=16",
]
MANY = ["rollout.rounds_vary=[2,3,4]", "rounds.may_finish=true"]
OTHERS = [  # minibatches of the global list, over two passes, a reference pass, every round of any number, all weights
    ["loss.minibatches=3", "loss.inner_epochs=2", "loss.kl_beta=0.1", "train.shard=optimizer"],
    ["credit.train_rounds=all", "loss.kind=dr_grpo", *MANY],
    ["model.adapter=full", "rollout.questions_per_step=1"],  # whose tree they share
]
SHARDED = [  # a pass more in one process than in the other, groups of passes too; one tree for both; the ways of a pass
    ["model.adapter=full", "rollout.questions_per_step=1", "train.activation_checkpointing=true"],
    ["loss.minibatches=3", "loss.inner_epochs=2", "loss.kl_beta=0.1", "train.microbatch_tokens=300"],
]
SHORT = ["probe.questions=0", "eval.questions=2", "eval.rounds=[2]", "train.steps=1"]
TOLERANCE = 2e-6
"""Largest difference of a weight: gradients are summed in another order (relative rounding 1e-7), Adam divides by their
size, and four steps of at most 1.5e-4 amplify what little there is. Weights move by about 6e-4."""
OUTLIER = 1.5e-5
"""The same for weights whose gradient is next to zero, so that Adam divides one rounding error by another: a tenth of a
step."""
CLOCK = ("time/", "memory/", "processes/")
WORK = ("prefill", "flops")  # sequences on two processes share no prompts


def numbers(run: Path) -> list[dict[str, Any]]:
    """The metrics without what is a matter of the clock and the machine, or of what shared a batch."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            k: v
            for k, v in line.items()
            if not k.startswith(CLOCK) and not k.endswith(("seconds", "mean_gap", "path_gap"))
        }
        for line in lines
    ]


def close(one: Any, other: Any, key: str = "") -> bool:
    if any(word in key for word in WORK):
        return one == pytest.approx(other, rel=0.5)
    if key == "sampler/max_gap":  # the largest of many rounding errors
        return one is other is None or max(one, other) < 1e-4
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k], k) for k in one)
    return one == pytest.approx(other, rel=1e-4, abs=1e-6) if isinstance(one, float) else one == other


def assert_same_run(one: Path, two: Path) -> None:
    assert (one / "trees.jsonl").read_text() == (two / "trees.jsonl").read_text()
    assert (one / "outcomes.jsonl").read_text() == (two / "outcomes.jsonl").read_text()
    for mine, theirs in zip(numbers(one), numbers(two), strict=True):
        assert {k for k in mine if not close(mine[k], theirs[k], k)} == set()
    assert_same_weights(one, two)


def assert_same_weights(one: Path, two: Path) -> None:
    name = "adapter/adapter_model.safetensors" if (one / "adapter").exists() else "model/model.safetensors"
    mine, theirs = load_file(one / name), load_file(two / name)
    assert mine.keys() == theirs.keys()
    apart = torch.cat([(mine[key] - theirs[key]).abs().flatten() for key in mine])
    assert (apart > TOLERANCE).float().mean() < 1e-3
    assert apart.max() < OUTLIER


SCRIPT = """
import importlib, json, os, signal, sys
import torch
torch.set_num_threads(1)
# The launcher's may reach a process that is already saying why it ends.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
module = importlib.import_module("motif.training.loop")
from motif.display import Display

from motif.models.path import choose
from motif.training.rollouts import Rollouts

rank, sample = int(os.environ["RANK"]), Rollouts._sample

for run in json.loads(sys.argv[1]):
    for name in ("motif.sampling.local.batch", "motif.training.check") if run.get("general") else ():
        importlib.import_module(name).choose = lambda compare, general=True: choose(compare, True)
    def troubled(rollouts, step, *others):
        if rank == run.get("rank") and step == run["at"]:
            exec(run["does"], globals() | {"session": rollouts.session})
        return sample(rollouts, step, *others)
    Rollouts._sample = troubled
    options = {"settings": run["settings"], "resume": run.get("resume", False)}
    module.train("demo", run["out"], display=Display(quiet=True), **options)
# A thread of the group that still holds tensors when the interpreter ends would abort the process.
threads = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
assert "train.shard=optimizer" in sys.argv[1] or not any("gloo" in name for name in threads), threads
print(f"process {rank} is through")
"""


def torchrun(folder: Path, runs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """All runs, one after the other, in two processes."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [forked.python(), "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, json.dumps(runs)], capture_output=True, text=True, env=environment, check=False)


STOP = {"rank": 1, "at": 2, "does": "signal.raise_signal(signal.SIGTERM)"}
IN_THE_UPDATE = """
def full(self, *arguments):
    raise RuntimeError("out of memory")
session.policy.score = full
"""  # where the other process waits for its piece of the weights

NOT_A_NUMBER = """
def broken(*arguments, policy=session.policy, whole=session.policy.score):
    policy.score = whole
    logprobs, entropies = whole(*arguments)
    return logprobs * float("nan"), entropies
session.policy.score = broken
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train("demo", out, settings=SMALL, display=Display(quiet=True))
    return out


@pytest.mark.slow
def test_two_processes_are_one_and_each_goes_on_with_what_the_other_began(tmp_path, alone):
    two, begun_by_one, begun_by_two = tmp_path / "two", tmp_path / "one-two", tmp_path / "two-one"
    quiet = Display(quiet=True)
    train("demo", begun_by_one, settings=[*SMALL, "train.steps=2"], display=quiet)
    others = [(tmp_path / f"{index}", [*SMALL, *SHORT, *more]) for index, more in enumerate(OTHERS)]
    general = [*SMALL, *SHORT]
    sharded = [*SMALL, "train.shard=optimizer"]  # the state of both processes must be in one checkpoint, and apart
    done = torchrun(
        tmp_path,
        [
            {"out": str(two), "settings": SMALL},
            {"out": str(begun_by_one), "settings": sharded, "resume": True},
            {"out": str(begun_by_two), "settings": sharded} | STOP,
            *({"out": f"{out}-by-two", "settings": settings} for out, settings in others),
            {"out": str(tmp_path / "general-by-two"), "settings": general, "general": True},
        ],
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(alone, two)
    assert json.loads((two / "summary.json").read_text())["processes"] == 2
    assert [path.name for path in (two / "checkpoints").iterdir() if path.name.startswith(".")] == []

    # A signal to one process stops both after the step in progress, and a single one goes on from there.
    assert json.loads((begun_by_two / "summary.json").read_text())["status"] == "stopped"
    assert [line["step"] for line in numbers(begun_by_two) if "reward" in line] == [1, 2]
    train("demo", begun_by_two, settings=SMALL, resume=True, display=quiet)
    for resumed in (begun_by_one, begun_by_two):
        assert (alone / "trees.jsonl").read_text() == (resumed / "trees.jsonl").read_text()
        assert_same_weights(alone, resumed)
    assert_same_run(alone, begun_by_two)

    for out, settings in others:
        train("demo", out, settings=settings, display=quiet)
        assert_same_run(out, Path(f"{out}-by-two"))
    with taken(GENERAL):
        train("demo", tmp_path / "general", settings=general, display=quiet)
    assert_same_run(tmp_path / "general", tmp_path / "general-by-two")
    paths = json.loads((tmp_path / "general-by-two" / "summary.json").read_text())["paths"]
    assert paths["sampler"]["path"] == paths["update"]["path"] == "general"


@pytest.mark.slow
def test_sharded_weights_train_as_whole_ones_and_go_on_from_each_other(tmp_path, alone):
    whole_first, sharded_first = tmp_path / "whole-sharded", tmp_path / "sharded-whole"
    quiet = Display(quiet=True)
    train("demo", whole_first, settings=[*SMALL, "train.steps=2"], display=quiet)
    sharded = [*SMALL, "train.shard=weights"]
    others = [(tmp_path / f"{index}", [*SMALL, *SHORT, *more]) for index, more in enumerate(SHARDED)]
    done = torchrun(
        tmp_path,
        [
            {"out": str(whole_first), "settings": sharded, "resume": True},
            {"out": str(sharded_first), "settings": sharded} | STOP,
            *({"out": f"{out}-by-two", "settings": [*settings, "train.shard=weights"]} for out, settings in others),
        ],
    )
    assert done.returncode == 0, done.stderr
    train("demo", sharded_first, settings=SMALL, resume=True, display=quiet)
    for resumed in (whole_first, sharded_first):
        assert (alone / "trees.jsonl").read_text() == (resumed / "trees.jsonl").read_text()
        assert_same_weights(alone, resumed)
    assert_same_run(alone, sharded_first)
    for out, settings in others:
        train("demo", out, settings=settings, display=quiet)
        assert_same_run(out, Path(f"{out}-by-two"))


@pytest.mark.slow
def test_ctrl_c_under_accelerate_launch_stops_all_at_a_step_and_saves(tmp_path, alone):
    out = tmp_path / "run"
    settings = [*SMALL, "train.steps=500", "eval.questions=0", "probe.questions=0"]
    config = ROOT / "examples" / "accelerate" / "ddp.yaml"
    launch = [forked.python(), "-m", "accelerate.commands.launch", f"--config_file={config}"]
    command = [*launch, f"--main_process_port={_free_port()}", "-m", "motif", "train", "demo", "--out", str(out)]
    command += [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"},
        start_new_session=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step   2/500"):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and both processes
            break
    lines += process.communicate()[0]
    text = "".join(lines)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "stopped", text
    assert "motif resume" in text
    steps = [line["step"] for line in numbers(out)]
    assert steps == list(range(1, summary["steps"] + 1))
    trees = (out / "trees.jsonl").read_text().splitlines()
    assert len(trees) == 3 * len(steps)
    shared = min(len(trees), 12)
    assert trees[:shared] == (alone / "trees.jsonl").read_text().splitlines()[:shared]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "shard", "said"),
    [
        ("raise ValueError('the disk is full')", "none", "process 1 failed: the disk is full"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "none", "another process ended without a word"),
        (IN_THE_UPDATE, "weights", "process 1 failed: out of memory"),
    ],
)
def test_one_process_that_fails_ends_all(tmp_path, does, shard, said):
    settings = [*SMALL, "eval.questions=0", "probe.questions=0", f"train.shard={shard}"]
    run = {"out": str(tmp_path / "run"), "settings": settings}
    done = torchrun(tmp_path, [run | {"rank": 1, "at": 2, "does": does}])
    assert done.returncode != 0
    assert said in done.stderr
    assert "is through" not in done.stdout
    # What was saved before is whole, and a run can go on from it.
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-000000",
        "step-000001",
    ]


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_process_skips_the_update_of_all(tmp_path):
    settings = [*SMALL, "train.steps=3", "eval.questions=0", "probe.questions=0"]
    troubled = {"at": 2, "does": NOT_A_NUMBER}
    shards = ("none", "optimizer", "weights")
    runs = [
        {"out": str(tmp_path / shard), "settings": [*settings, f"train.shard={shard}"], "rank": 1} | troubled
        for shard in shards
    ]
    done = torchrun(tmp_path, runs)
    assert done.returncode == 0, done.stderr
    alone = {"out": str(tmp_path / "alone"), "settings": settings, "rank": 0} | troubled
    command = [forked.python(), str(tmp_path / "script.py"), json.dumps([alone])]
    subprocess.run(command, check=True, env=os.environ | {"RANK": "0"}, capture_output=True)
    for name in (*shards, "alone"):
        lines = numbers(tmp_path / name)
        assert [line["update/skipped"] for line in lines if "reward" in line] == [0, 1, 0], name
        assert lines[1]["update/causes"]
        assert_same_weights(tmp_path / "alone", tmp_path / name)


def test_shares_make_the_whole():
    items = list("abcde")
    for count in (1, 2, 3, 7):
        shares = [Processes(rank, count).share(items) for rank in range(count)]
        assert sorted(item for share in shares for item in share) == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.gather_in_order(items) == items


def test_a_batch_is_cut_into_parts_of_about_equal_work():
    def sample(question: int, length: int) -> Sample:
        return Sample([question] * 20, [1] * length, [0.0] * length, 1.0, 1.0, 1.0)

    samples = [sample(question, 5 + question) for question in (3, 1, 2, 0) for _ in range(8)]
    for count in (2, 3, 5):
        parts = split_by_work(samples, count)
        assert sorted(map(id, (s for part in parts for s in part))) == sorted(map(id, samples))
        work = [sum(len(s.token_ids) for s in part) + 20 * len({s.prompt_ids[0] for s in part}) for part in parts]
        assert max(work) - min(work) <= 20 + 20  # a prompt that is in two parts, and a sample
    assert [len(part) for part in split_by_work(samples[:1], 3)].count(0) == 2
    assert split_by_work([], 2) == [[], []]
    assert split_by_work(samples, 1) == [samples]


def test_the_plan_is_for_each_process():
    recipe = load_recipe("demo", SMALL)
    (one, _), (two, _) = make_plan(recipe), make_plan(recipe, Processes(0, 4, 4))
    assert two.memory["sampling"] < one.memory["sampling"]
    sharded, _ = make_plan(load_recipe("demo", [*SMALL, "train.shard=optimizer"]), Processes(0, 4, 4))
    assert sharded.memory["optimiser"] == pytest.approx(10 / 16 * one.memory["optimiser"])
    sharded, _ = make_plan(load_recipe("demo", [*SMALL, "train.shard=weights"]), Processes(0, 4, 4))
    assert sharded.memory["optimiser"] == pytest.approx(1 / 4 * one.memory["optimiser"])
    assert sharded.memory["weights"] < one.memory["weights"]
    assert "a piece of the model" in dict(sharded.rows())["processes"]
    assert two.available < 0.5 * one.available
    assert "up to 2 of 3 questions" in dict(make_plan(recipe, Processes(0, 2, 2))[0].rows())["processes"]
    divided = make_plan(recipe, Processes(0, 8, 8))[0]
    assert "up to 2 of the 3 responses to a question" in dict(divided.rows())["processes"]
    assert divided.forecast.step_levels()[0].responses == 2
    refilled = make_plan(load_recipe("demo", [*SMALL, "rollout.refill=2"]), Processes(0, 4, 4))[0]
    assert "1 of them have nothing to sample" in dict(refilled.rows())["processes"]
    assert "nothing to sample" not in dict(two.rows())["processes"]
    assert "processes" not in dict(one.rows())


@pytest.mark.parametrize(
    ("environment", "device", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "cpu", "train.shard = 'weights'"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}, "cpu", "fsdp_offload_params"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "false"}, "cpu", "fsdp_reshard_after_forward"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "cpu", "model.dtype"),
        ({}, "cuda:1", "model.device = 'auto'"),
        ({"WORLD_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "4"}, "cpu", "torchrun"),
    ],
)
def test_what_processes_cannot_do_is_refused(monkeypatch, environment, device, said):
    for name, value in ({"WORLD_SIZE": "2", "RANK": "0"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    recipe = load_recipe("demo", [f"model.device={device}"])
    refused = pytest.raises(UsageError if environment else RecipeError, match=said)
    with refused, process_group(pick_device(as_launched(recipe).model.device)):
        pass


def test_fsdp_in_the_launcher_means_sharded_weights(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    assert as_launched(load_recipe("demo")).train.shard == "weights"
    with pytest.raises(RecipeError, match="four_bit = false"):
        as_launched(load_recipe("demo", ["model.adapter=lora", "model.four_bit=true"]))
    monkeypatch.setenv("WORLD_SIZE", "1")  # nobody to share with
    assert as_launched(load_recipe("demo")).train.shard == "none"


def test_other_commands_are_for_one_process(monkeypatch, capsys):
    from typer.testing import CliRunner

    from motif.cli.app import app

    monkeypatch.setenv("WORLD_SIZE", "2")
    found = CliRunner().invoke(app, ["eval", "runs/none"])
    assert found.exit_code == 2
    assert "several processes can train" in found.output


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_weights_that_differ_are_noticed():
    class Two(Processes):
        def gather(self, item):
            return [item, item + 1]

    with pytest.raises(RuntimeError, match="checksums are: 5, 6"):
        Two(0, 2).assert_same(5, "checksums are")


def test_gradients_are_left_alone_in_one_process():
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None
