"""Damaged files, full disks, no memory, two runs on one folder, other recipes and data: noticed, said, and survived."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.errors import OutOfResources, RunFolderError, ran_out
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.runs import checkpoint
from motif.runs.disk import check_sums, try_lock, write_sums
from motif.runs.folder import only_writer
from motif.runs.read import recipe_of
from motif.runs.weights import load_weights
from motif.training import batch
from motif.training.loop import train
from support import ROOT, forked

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=1",
    "rollout.branching=[4,1,1]",
    "train.save_every=1",
    "rollout.tokens_first=18",
    "rollout.tokens_continue=16",
    "rounds.note_tokens=12",
    "eval.questions=0",
    "train.microbatch_tokens=512",
    "data.arithmetic.smallest=10",
    "data.arithmetic.largest=16",
]


class Told(Display):
    """A display that keeps what it was given to say."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def settings():
    return SMALL


def run(out: Path, settings, *more, steps=3, **options) -> Told:
    told = Told()
    train("demo", out, settings=[*settings, f"train.steps={steps}", *more], display=told, **options)
    return told


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "whole"
    run(folder, SMALL)
    trained = [json.loads(line)["grad_norm"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(trained)  # or else the same adapter would say nothing
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def assert_same(one: Path, two: Path) -> None:
    for name in ("trees.jsonl", "adapter/adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def damage(file: Path, share: float, zeros: bool) -> None:
    data = file.read_bytes()
    kept = data[: int(share * len(data))]
    file.write_bytes(kept + bytes(len(data) - len(kept)) if zeros else kept)


# -- power loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zeroed"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(copy, settings, whole, share, zeros):
    damage(copy / "checkpoints/step-000003/state.pt", share, zeros)
    told = run(copy, settings, resume=True)
    assert any("step-000003 is damaged" in line for line in told.said)
    assert "resuming after step 2" in told.said
    assert_same(whole, copy)
    assert [folder.name for folder in checkpoint.all_checkpoints(copy)] == ["step-000002", "step-000003"]


def test_one_wrong_byte_in_the_weights_is_noticed(copy, settings):
    file = copy / "checkpoints/step-000003/state.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert any("step-000003 is damaged" in line for line in run(copy, settings, resume=True).said)


@pytest.mark.parametrize("name", ["metrics.jsonl", "trees.jsonl"])
def test_where_the_record_has_lost_lines_an_earlier_checkpoint_is_taken(copy, settings, whole, name):
    damage(copy / name, 0.95, zeros=False)
    told = run(copy, settings, resume=True)
    assert any("step-000003" in line and f"{name} lost lines" in line for line in told.said)
    assert_same(whole, copy)


def test_a_record_damaged_before_all_checkpoints_is_refused_and_gone_on_with_if_told_to(copy, settings):
    damage(copy / "trees.jsonl", 0.1, zeros=False)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match=r"step-000002 .* trees.jsonl lost lines.*--allow-changes"):
        run(copy, settings, resume=True)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    told = run(copy, settings, resume=True, allow_changes=True, steps=4)
    assert "resuming after step 3" in told.said
    steps = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_without_any_good_checkpoint_nothing_is_touched(copy, settings):
    for folder in checkpoint.all_checkpoints(copy):
        damage(folder / "state.pt", 0.5, zeros=False)
    with pytest.raises(RunFolderError, match=r"step-000003 is damaged .*step-000002 is damaged .*Start afresh"):
        run(copy, settings, resume=True)
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 3


def test_saving_again_after_falling_back_keeps_the_new_one(copy, settings):
    """With keep_checkpoints = 1, what is newer and damaged must not be kept in place of what is good."""
    damage(copy / "checkpoints/step-000003/state.pt", 0.5, zeros=False)
    recipe = load_recipe("demo", [*settings, "train.steps=3"])
    policy = Policy(recipe.model)
    optimizer = torch.optim.AdamW(policy.trainable())
    checkpoint.save(copy, 2, policy, optimizer, recipe, {}, keep=1)
    assert [folder.name for folder in checkpoint.all_checkpoints(copy)] == ["step-000002"]


def test_a_checkpoint_too_many_goes_though_nothing_is_left_to_train(copy, settings):
    shutil.copytree(copy / "checkpoints/step-000002", copy / "checkpoints/step-000001")
    run(copy, settings, resume=True)
    assert [folder.name for folder in checkpoint.all_checkpoints(copy)] == ["step-000002", "step-000003"]


@pytest.mark.parametrize("zeros", [False, True])
def test_a_damaged_adapter_is_refused_and_written_again_by_resume(copy, settings, whole, zeros):
    damage(copy / "adapter/adapter_model.safetensors", 0.8, zeros)
    policy = Policy(load_recipe("demo", settings).model)
    with pytest.raises(RunFolderError, match=r"adapter_model.safetensors is damaged .*motif resume"):
        load_weights(copy, policy)
    run(copy, settings, resume=True)
    assert_same(whole, copy)
    load_weights(copy, policy)


def test_damaged_best_weights_are_told_of(copy, settings):
    best = Path(shutil.copytree(copy / "adapter", copy / "best/adapter"))
    assert not any("best/adapter" in line for line in run(copy, settings, resume=True).said)
    damage(best / "adapter_model.safetensors", 0.9, zeros=True)
    assert any(
        "best/adapter/adapter_model.safetensors is damaged" in line for line in run(copy, settings, resume=True).said
    )


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_every_file_that_sums_name_is_checked(copy, settings, name):
    best = Path(shutil.copytree(copy / "adapter", copy / "best/adapter"))
    for folder in (copy / "adapter", best):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    policy = Policy(recipe_of(copy).model)
    with pytest.raises(RunFolderError, match=name.replace(".", r"\.")):
        load_weights(copy, policy)
    assert any(f"best/adapter/{name} is damaged" in line for line in run(copy, settings, resume=True).said)
    load_weights(copy, policy)  # resuming wrote it again
    (copy / "adapter" / name).unlink()
    with pytest.raises(RunFolderError, match="No such file"):
        load_weights(copy, policy)


def test_sums_of_a_stranger_name_files_of_the_folder(tmp_path):
    for line in ("0" * 64 + "  ../x", "0" * 64 + "  /dev/zero", "0" * 64 + "  ", "0" * 64 + "  a\0b", "nonsense"):
        (tmp_path / "SHA256SUMS").write_text(line)
        with pytest.raises(ValueError):
            check_sums(tmp_path)


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a").write_text("some text")
    write_sums(tmp_path)
    check_sums(tmp_path)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    (tmp_path / "a").write_text("some next")
    with pytest.raises(ValueError, match="SHA256SUMS"):
        check_sums(tmp_path)


# -- one process at a time ---------------------------------------------------------------------------------------------


def test_two_runs_on_one_folder_are_refused_until_the_first_is_gone(tmp_path, settings):
    code = (
        f"import time; from motif.runs.folder import only_writer; from pathlib import Path\n"
        f"with only_writer(Path({str(tmp_path / 'run')!r})): print('there', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([forked.python(), "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "there\n"
    with pytest.raises(RunFolderError, match="another process is writing"):
        run(tmp_path / "run", settings, resume=True)
    holder.kill()
    holder.wait()
    run(tmp_path / "run", settings, resume=True, steps=1)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_loaded(tmp_path, settings, monkeypatch):
    (tmp_path / "file").touch()
    loop = sys.modules["motif.training.loop"]
    monkeypatch.setattr(loop, "open_session", lambda *_, **__: pytest.fail("something was loaded"))
    with pytest.raises(RunFolderError, match=r"cannot write to .*choose another --out"):
        run(tmp_path / "file" / "run", settings)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "metrics.jsonl")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    with pytest.raises(RunFolderError, match=r"cannot write to .*metrics.jsonl"):
        run(tmp_path / "run", settings, resume=True)


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with only_writer(tmp_path):
            os.close(try_lock(tmp_path / "other"))


# -- what runs out -----------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_with_a_sentence_and_resume_ends_as_if_nothing_had_been(
    tmp_path, settings, whole, monkeypatch
):
    calls, sync = 0, os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfResources, match=r"the disk is full.* The last checkpoint in .* go on with `motif resume"):
        run(tmp_path / "run", settings)
    run(tmp_path / "run", settings, resume=True)
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "no space", "/a/b"), r"disk is full.*\(/a/b\)"),
        (OSError(errno.EMFILE, "too many"), "ulimit -n"),
        (OSError(errno.EROFS, "ro"), "read-only"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "rollout.max_rows"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "out of memory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_has_run_out_is_said(error, words):
    assert re.search(words, ran_out(error) or "")
    wrapped = ValueError("something else")
    wrapped.__context__ = error
    assert ran_out(wrapped) == ran_out(error)


def test_other_errors_stay_what_they_are():
    assert ran_out(ValueError("bad")) is None
    assert ran_out(OSError(errno.ENOENT, "no such file")) is None
    assert ran_out(RuntimeError("shapes differ")) is None


class Scarce:
    """Memory for so many rows of a batch at once. Counts what it refused."""

    def __init__(self, monkeypatch, rows: int):
        self.refused = 0
        forward = batch.forward

        def limited(policy, segments):
            if len(segments) > rows:
                self.refused += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return forward(policy, segments)

        monkeypatch.setattr(batch, "forward", limited)
        # The sequences of the first check are short.
        monkeypatch.setattr(
            "motif.training.loop.choose_update_path", lambda policy, processes: setattr(policy, "update_path", FAST)
        )


def test_where_memory_runs_out_micro_batches_halve_and_the_update_is_the_same(tmp_path, settings, whole, monkeypatch):
    scarce = Scarce(monkeypatch, rows=1)
    told = run(tmp_path / "run", settings)
    assert scarce.refused > 0
    warned = [line for line in told.said if "out of memory in the update of step" in line]
    sizes = [int(re.search(r"micro-batches of (\d+) tokens", line)[1]) for line in warned]
    assert sizes
    assert sizes == sorted(set(sizes), reverse=True)  # said once for each size, and remembered
    assert (tmp_path / "run/trees.jsonl").read_bytes() == (whole / "trees.jsonl").read_bytes()
    one, two = (Policy(load_recipe("demo", settings).model) for _ in range(2))
    load_weights(whole, one)
    load_weights(tmp_path / "run", two)
    for mine, theirs in zip(one.trainable(), two.trainable(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_a_sequence_that_does_not_fit_ends_the_run_resumably(tmp_path, settings, whole, monkeypatch):
    with monkeypatch.context() as patch:
        Scarce(patch, rows=0)
        with pytest.raises(OutOfResources, match=r"a single sequence of \d+ tokens.*motif resume"):
            run(tmp_path / "run", settings)
    run(tmp_path / "run", settings, resume=True)
    assert_same(whole, tmp_path / "run")


def test_the_smaller_micro_batch_outlives_a_restart(tmp_path, settings, monkeypatch):
    scarce = Scarce(monkeypatch, rows=1)
    run(tmp_path / "whole", settings, steps=2)
    run(tmp_path / "run", settings, steps=1)
    before = scarce.refused
    run(tmp_path / "run", settings, steps=2, resume=True)
    assert scarce.refused == before
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, settings, whole, monkeypatch):
    now = 2e9

    def backwards() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr(time, "time", backwards)
    run(tmp_path / "run", settings)
    assert_same(whole, tmp_path / "run")
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        assert all(value >= 0 for key, value in json.loads(line).items() if "time/" in key or "seconds" in key)


# -- the same recipe, the same data ------------------------------------------------------------------------------------


def test_a_changed_recipe_is_refused_by_name_and_leaves_the_folder_alone(copy, settings):
    before = (copy / "recipe.toml").read_bytes()
    changes = ("train.seed=3", "rollout.branching=[3,1,1]")
    with pytest.raises(RunFolderError, match=r"rollout.branching: \[4, 1, 1\] → \[3, 1, 1\]; train.seed: 0 → 3"):
        run(copy, settings, *changes, resume=True)
    assert (copy / "recipe.toml").read_bytes() == before
    told = run(copy, settings, *changes, resume=True, allow_changes=True, steps=4)
    assert "changed: train.seed: 0 → 3" in told.said
    assert "resuming after step 3" in told.said
    assert "seed = 3" in (copy / "recipe.toml").read_text()
    run(copy, settings, *changes, resume=True, steps=5)  # the change is part of the run now


def test_changed_data_is_refused_and_told(tmp_path, settings):
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(12)]

    def write(rows):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(rows)
    base = {"data": {"task": "file", "train": str(file), "held_out": 2, "grader": "numeric"}}
    recipe = load_recipe("demo", [*settings, "train.steps=1"]).model_dump(mode="json") | base
    train(load_recipe(recipe), tmp_path / "run", display=Told())
    write([*rows[:4], {"question": "What is 4 + 5?", "answer": "9"}, *rows[5:], rows[0] | {"question": "What is 0?"}])
    with pytest.raises(
        RunFolderError, match=r"10 train questions → 11; \d+ of 10 train questions differ, the first is now"
    ):
        train(load_recipe(recipe), tmp_path / "run", resume=True, display=Told())
    told = Told()
    train(load_recipe(recipe), tmp_path / "run", resume=True, allow_changes=True, display=told)
    assert any("train questions differ" in line for line in told.said)


def test_machine_and_data_are_in_the_summary(whole):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["environment"]["device"] == "cpu"
    assert {"processor", "cores", "threads", "cuda", "instructions"} <= summary["environment"].keys()
    assert summary["data"]["train"]["questions"] > 20
    assert len(summary["data"]["train"]["fingerprint"]) == 16


def test_the_paths_are_in_summary_metrics_and_report(whole):
    summary = json.loads((whole / "summary.json").read_text())
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for name in ("sampler", "update"):
        way = summary["paths"][name]
        assert (way["path"], way["reason"], way["times_slower"]) == ("fast", "", None)
        assert 0 < way["mean_gap"] < way["largest_gap"] < 1e-4
        facts = [(line[f"{name}/path"], line[f"{name}/path_gap"]) for line in lines if "loss" in line]
        assert facts and set(facts) == {("fast", way["largest_gap"])}
    gap = summary["paths"]["sampler"]["largest_gap"]
    assert f"sampler fast (at most {gap:.0e} nats from a plain pass)" in (whole / "report.html").read_text()


def test_other_versions_are_said_on_resume(copy, settings, monkeypatch):
    monkeypatch.setattr("motif.training.resume.versions", lambda: {"torch": "1.0"})
    told = run(copy, settings, resume=True, steps=4)
    assert any(line.startswith("changed: torch: ") and "→ 1.0" in line for line in told.said)


@pytest.mark.parametrize("other", ["rollout.max_rows=2", "train.microbatch_tokens=64"])
def test_other_batches_give_the_same_trees(tmp_path, settings, whole, other):
    run(tmp_path / "run", settings, other)
    one, two = (
        [json.loads(line) for line in (folder / "trees.jsonl").read_text().splitlines()]
        for folder in (whole, tmp_path / "run")
    )
    assert len(one) == len(two) == 3
    assert [responses(tree["responses"]) for tree in one] == [responses(tree["responses"]) for tree in two]


def responses(nodes):
    return [(node["path"], node["text"], node["tokens"], responses(node.get("children", []))) for node in nodes]


# -- the campaigns in small --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
@pytest.mark.parametrize(("script", "tries"), [("crash", 2), ("damage", 2), ("full", 2), ("preempt", 1)])
def test_campaign_in_small(tmp_path, script, tries):
    path = ROOT / "tests" / "campaigns" / f"{script}.py"
    arguments = ["--tries", str(tries), "--seed", "1", "--out", str(tmp_path / "out.jsonl")]
    arguments += ["--steps", "5"] if script == "preempt" else ["--only", "lora"]
    done = subprocess.run([forked.python(), str(path), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= tries
