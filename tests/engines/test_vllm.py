"""Training through real vLLM servers: `make test-vllm`, which makes an environment for them.

MOTIF_VLLM names the bin folder of an environment with vLLM; without it these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.method.rounds import Rounds
from motif.models.policy import Policy
from motif.run_files import METRICS, SERVER_LOG
from motif.runs.disk import is_locked
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.vllm import keeper
from motif.sampling.vllm.client import Server
from motif.sampling.vllm.colocate import ColocatedSampler
from motif.sampling.vllm.launch import Colocation, commands, find_program
from motif.sampling.vllm.sampler import ServerSampler
from motif.training import learner
from motif.training.loop import train

BIN = os.environ.get("MOTIF_VLLM", "")
pytestmark = pytest.mark.skipif(not BIN, reason="MOTIF_VLLM is not set: run `make test-vllm`")

START_SECONDS = 3600
"""Half a minute on a quiet machine."""
TIMES = ["time/total", "time/sample", "time/update", "time/sampled_ahead", "sampler/mean_gap", "sampler/max_gap"]
SMALL = [
    "model.adapter=lora",
    "model.lora_rank=8",
    "rollout.questions_per_step=4",
    "rollout.branching=[4,2,1]",
    "credit.train_rounds=all",
    "train.learning_rate=0.003",
    "train.steps=3",
    "train.save_every=1",
    "eval.questions=8",
]


class RealServer:
    """A vLLM process, started with the command that `motif vllm-command` prints."""

    def __init__(self, folder: Path, core: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.core, self.log = f"http://127.0.0.1:{self.port}", core, folder / f"vllm-{self.port}.log"
        self.start()

    def start(self) -> None:
        [command] = commands(load_recipe("demo", [*SMALL, f'sampler.urls=["{self.url}"]']))
        command = command.replace("vllm serve", shlex.join(find_program()))
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(self.core),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("PYTHONPATH", None)  # its own environment, whatever ours is
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                f"exec env {command} --enforce-eager",
                shell=True,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/v1/models", timeout=5):
                    return
            except OSError:
                time.sleep(1)
        pytest.fail(f"vLLM did not start:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    cores = sorted(os.sched_getaffinity(0))
    begun = time.monotonic()
    found = [RealServer(folder, cores[place % len(cores)]) for place in range(2)]
    try:
        for server in found:
            server.wait()
        print(f"two servers started in {time.monotonic() - begun:.0f} s")
        yield found
    finally:
        for server in found:
            server.kill()


def settings(servers: list[RealServer], *more: str) -> list[str]:
    return [*SMALL, f"sampler.urls={json.dumps([server.url for server in servers])}", *more]


def run(out: Path, servers: list[RealServer], *more: str) -> Path:
    begun = time.monotonic()
    train("demo", out, settings=settings(servers, *more), display=Display(quiet=True))
    print(f"{out.name}: {time.monotonic() - begun:.0f} s")
    return out


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def steps(run: Path) -> list[dict]:
    return [line for line in lines(run, "metrics.jsonl") if "loss" in line]


def nodes(run: Path) -> list[dict]:
    def below(node: dict) -> list[dict]:
        return [node] + [found for child in node.get("children", []) for found in below(child)]

    return [found for tree in lines(run, "trees.jsonl") for root in tree["responses"] for found in below(root)]


def accounting(run: Path) -> dict:
    """What must not depend on what happens to servers, nor on the last bits of their logits."""
    trees = lines(run, "trees.jsonl")
    return {
        "questions": [(tree["step"], tree["question"]["id"]) for tree in trees],
        "paths": [node["path"] for node in nodes(run)],
        "versions": [node["version"] for node in nodes(run)],
        "updates": [line["ledger/updates"] for line in steps(run)],
        "evaluations": [line["step"] for line in lines(run, "metrics.jsonl") if "eval" in line],
    }


def check_ledger(run: Path) -> None:
    """The ledger counts exactly the responses that are in the trees."""
    ledger = steps(run)[-1]
    assert ledger["ledger/generated_tokens"] == sum(node["tokens"] for node in nodes(run))
    requested = ledger["ledger/prefill_tokens"] + ledger["ledger/prefill_saved"]
    assert requested == sum(node["prompt_tokens"] for node in nodes(run))


def check_samples(policy: Policy, sampler: ServerSampler, prompt: list[int]) -> None:
    """What a sampler's servers draw is the policy's own, with the probabilities they tell; also after an update."""

    def answers(*requests: Request) -> list[Completion]:
        return sorted(complete(sampler, requests), key=lambda done: done.index)

    def gap(found: list[Completion], temperature: float) -> float:
        with torch.no_grad():
            own, _ = policy.token_logprobs(
                [prompt] * len(found), [done.token_ids for done in found], [temperature] * len(found)
            )
        return float((own - torch.tensor([value for done in found for value in done.logprobs])).abs().max())

    before = answers(Request(prompt, range(100, 108), 24))
    assert gap(before, 1.0) < 1e-3
    assert any(not done.truncated for done in before)  # an end token was sampled, and is there
    assert len({tuple(done.token_ids) for done in before}) > 1
    alone = [answers(Request(prompt, [100 + place], 24))[0] for place in range(8)]
    same = [one.token_ids == two.token_ids for one, two in zip(before, alone, strict=True)]
    assert sum(same) >= 7  # what is asked for again is the same again, but for the last bits of logits
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert gap(before, 1.0) > 0.1
    sampler.sync_weights(1)
    for temperature in (1.0, 0.7):
        after = answers(Request(prompt, range(100, 108), 24, temperature=temperature))
        assert gap(after, temperature) < 1e-3
        assert {done.version for done in after} == {1}
        assert [done.token_ids for done in after] != [done.token_ids for done in before]
    base = answers(Request(prompt, range(100, 108), 24, policy="base"))
    with policy.adapter_disabled():
        assert gap(base, 1.0) < 1e-3
    greedy = answers(Request(prompt, range(3), 24, temperature=0.0))
    assert [done.token_ids for done in greedy] == [greedy[0].token_ids] * 3


@pytest.fixture(scope="module")
def undisturbed(servers, tmp_path_factory):
    return run(tmp_path_factory.mktemp("vllm") / "undisturbed", servers)


def test_what_it_samples_and_says_is_the_policys(servers):
    recipe = load_recipe("demo", settings(servers, "rollout.temperature_first=0.7"))
    policy = Policy(recipe.model, 0)
    sampler = ServerSampler(policy, recipe, 256)
    check_samples(policy, sampler, Rounds(recipe.rounds, policy.tokenizer).prompt("What is 15 × 24?", [], 3))
    sampler.close()


def test_training_through_two_servers(undisturbed):
    found = steps(undisturbed)
    assert [line["sampler/lag"] for line in found] == [0, 0, 0]
    assert all(line["grad_norm"] > 0 for line in found)
    assert max(line["sampler/max_gap"] for line in found) < 1e-3
    assert {node["version"] for node in nodes(undisturbed)} == {0, 1, 2}
    check_ledger(undisturbed)


def test_a_server_killed_in_mid_tree_and_restarted_changes_no_accounting(servers, undisturbed, tmp_path, monkeypatch):
    victim, asked, taken = servers[0], [], []
    complete, count = Server.complete, ServerSampler._count
    killed_at = len(nodes(undisturbed)) // 3 + 20  # with those of the evaluation before, in the first steps

    def noted(self, *arguments):
        asked.append((time.monotonic(), self.url))
        return complete(self, *arguments)

    def counted(self, *arguments):
        taken.append(time.monotonic())
        if len(taken) == killed_at:
            victim.kill()
            victim.start()
            threading.Thread(target=victim.wait).start()
        return count(self, *arguments)

    update = learner.update

    def after_restart(*arguments, **options):
        if len(taken) > killed_at:
            victim.wait()  # so that steps are left for it
        return update(*arguments, **options)

    monkeypatch.setattr(Server, "complete", noted)
    monkeypatch.setattr(ServerSampler, "_count", counted)
    monkeypatch.setattr(learner, "update", after_restart)
    disturbed = run(tmp_path / "disturbed", servers)
    assert accounting(disturbed) == accounting(undisturbed)
    check_ledger(disturbed)
    assert max(line["sampler/max_gap"] for line in steps(disturbed)) < 1e-3
    assert any(url == victim.url for moment, url in asked if moment > taken[killed_at - 1] + 5)  # it is used again
    equal = (disturbed / "trees.jsonl").read_bytes() == (undisturbed / "trees.jsonl").read_bytes()
    print(f"trees equal to the undisturbed run's: {equal}")


def test_overlap(servers, undisturbed, tmp_path):
    overlapped = run(tmp_path / "overlapped", servers, "sampler.overlap=true", "train.steps=4")
    found = steps(overlapped)
    assert [line["sampler/lag"] for line in found] == [0, 1, 1, 1]
    assert found[0]["sampler/mean_gap"] < 1e-4 < min(line["sampler/mean_gap"] for line in found[1:])
    check_ledger(overlapped)
    for run_ in (undisturbed, overlapped):
        middle = steps(run_)[1:3]
        shown = {key: sum(line[key] for line in middle) / len(middle) for key in TIMES if key in middle[0]}
        print(run_.name, {key: round(value, 6) for key, value in shown.items()})


def test_nothing_is_left_behind(servers, undisturbed):
    for server in servers:
        with urllib.request.urlopen(f"{server.url}/v1/models") as answer:
            names = [card["id"] for card in json.load(answer)["data"]]
        assert not [name for name in names if re.match("motif-", name)]


# -- sampler.colocate --------------------------------------------------------------------------------------------------

SHARED = [
    *SMALL,
    "sampler.colocate=true",
    f"sampler.patience={START_SECONDS}",
    "model.device=cpu",
    "rollout.questions_per_step=2",
]
MIB = 2**20


@pytest.fixture
def one_core(tmp_path, monkeypatch):
    """The program that MOTIF_VLLM names: vLLM with options of the user's, here to start soon and take one core."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    core = sorted(os.sched_getaffinity(0))[0]
    program.write_text(
        f'#!/bin/sh\nshift\nVLLM_CPU_OMP_THREADS_BIND={core} exec {shlex.join(find_program())} "$@" --enforce-eager\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("MOTIF_VLLM", str(program))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return program


def processes_of(log: Path) -> list[int]:
    """Those that can write to a log: the server, its keeper and what it has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samefile(process / "fd" / "1", log):
                found.append(int(process.name))
    return found


def test_a_colocated_server_has_its_share_serves_its_run_alone_and_leaves_nothing_behind(one_core, tmp_path):
    shared_memory = set(os.listdir("/dev/shm"))
    recipe = load_recipe("demo", [*SHARED, "rollout.temperature_first=0.7"])
    policy = Policy(recipe.model, 0)
    log, begun = tmp_path / SERVER_LOG, time.monotonic()
    sampler = ColocatedSampler(policy, recipe, 256, Colocation(0.1, 48 * MIB, sleeps=False, log=log))
    print(f"a colocated server started in {time.monotonic() - begun:.0f} s")
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{sampler.server.url}/v1/models")
        assert "Explicitly set (0.05/" in log.read_text()  # GiB
        assert len(processes_of(log)) >= 3
        check_samples(policy, sampler, Rounds(recipe.rounds, policy.tokenizer).prompt("What is 15 × 24?", [], 3))
    finally:
        begun = time.monotonic()
        sampler.close()
    print(f"it ended in {time.monotonic() - begun:.1f} s")
    assert not processes_of(log) and not is_locked(log)
    assert set(os.listdir("/dev/shm")) <= shared_memory


def test_a_run_with_a_colocated_server_is_killed_and_resumed_at_once(one_core, tmp_path):
    out, log = tmp_path / "run", tmp_path / "run" / SERVER_LOG
    train_it = [sys.executable, "-m", "motif", "train", "demo", "--out", str(out)]
    with subprocess.Popen([*train_it, *(word for text in SHARED for word in ("--set", text))]) as first:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (out / METRICS).exists() or len(steps(out)) < 2:
                assert first.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            server = processes_of(log)
        finally:
            first.kill()
    begun = time.monotonic()
    resumed = subprocess.Popen([sys.executable, "-m", "motif", "resume", str(out)], stdout=subprocess.PIPE, text=True)
    while running := [pid for pid in server if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() - begun < keeper.HASTE + 10, running
        time.sleep(0.02)
    print(f"the server of a killed run was gone after {time.monotonic() - begun:.1f} s")
    said = resumed.communicate(timeout=START_SECONDS)[0]
    assert resumed.returncode == 0, said
    assert "resuming after step" in said
    found = steps(out)
    assert [line["step"] for line in found] == [1, 2, 3]
    assert all(line["grad_norm"] > 0 for line in found)
    assert max(line["sampler/max_gap"] for line in found) < 1e-3
    assert {node["version"] for node in nodes(out)} == {0, 1, 2}
    check_ledger(out)
    assert log.read_text().count(keeper.STARTS) == 2
    assert not processes_of(log) and not is_locked(log)
