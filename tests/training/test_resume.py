"""A run that is killed and resumed ends exactly as one that was not."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.errors import RunFolderError
from motif.method.tree import Question
from motif.runs import checkpoint
from motif.runs.read import read_metrics, read_outcomes
from motif.training.loop import train
from motif.training.progress import Progress
from motif.training.schedule import draw_questions, learning_rate
from support import forked
from support.runs import metric_lines

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2]",
    "train.save_every=1",
    "eval.questions=6",
    "data.arithmetic.smallest=10",
    "data.arithmetic.largest=40",
    "eval.every=2",
]


def command(out: Path, steps: int, *more: str) -> list[str]:
    settings = [part for setting in [*SMALL, f"train.steps={steps}"] for part in ("--set", setting)]
    return [forked.python(), "-m", "motif", "train", "demo", "--out", str(out), *settings, *more]


def start(out: Path, steps: int, *more: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(out, steps, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(out: Path, steps: int, *more: str) -> str:
    process = start(out, steps, *more)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def assert_same_run(one: Path, two: Path) -> None:
    for name in (
        "adapter/adapter_model.safetensors",
        "trees.jsonl",
        "outcomes.jsonl",
        "best/adapter/adapter_model.safetensors",
    ):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert metric_lines(one) == metric_lines(two)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, float]:
    """A run of six steps that nobody disturbed, and the seconds that it took."""
    forked.python()  # its start is not the run's
    out, begun = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
    finish(out, 6)
    return out, time.monotonic() - begun


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, whole):
    broken = tmp_path / "broken"
    moments, record = random.Random(7), broken / "metrics.jsonl"
    kills = 0
    for lines in (0, 2, 6):  # of ten
        process = start(broken, 6, "--resume")
        while process.poll() is None and lines and (not record.exists() or record.read_bytes().count(b"\n") < lines):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1) * whole[1])
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 2
    finish(broken, 6, "--resume")
    assert_same_run(whole[0], broken)


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, whole):
    broken = tmp_path / "broken"
    process = start(broken, 6)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step 2/6"):
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=300)
    text = "".join(lines) + rest
    if process.returncode != 0:  # the signal may come after the last step has begun
        assert process.returncode == 130
        assert "motif resume" in text
        assert json.loads((broken / "summary.json").read_text())["status"] == "stopped"
        finish(broken, 6, "--resume")
    assert_same_run(whole[0], broken)


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path):
    for step in (3, 4):
        (tmp_path / "checkpoints" / f"step-00000{step}").mkdir(parents=True)
    (tmp_path / "checkpoints/step-000003/state.pt").touch()
    (tmp_path / "checkpoints/step-000004/.state.pt.partial").touch()
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == ["step-000003"]


def test_an_earlier_run_is_never_written_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="motif resume"):
        train("demo", tmp_path, display=Display(quiet=True))


def test_another_recipe_is_refused_on_resume(tmp_path, tiny_model):
    settings = [*SMALL, f"model.name={tiny_model}", "train.steps=1", "eval.questions=0"]
    train("demo", tmp_path / "run", settings=settings, display=Display(quiet=True))
    with pytest.raises(RunFolderError, match="another recipe"):
        train("demo", tmp_path / "run", settings=[*settings, "train.seed=3"], resume=True, display=Display(quiet=True))


def test_more_and_not_fewer_steps_may_be_asked_for_on_resume(tmp_path, tiny_model):
    settings = [*SMALL, f"model.name={tiny_model}", "eval.questions=0"]
    straight, extended = tmp_path / "straight", tmp_path / "extended"
    train("demo", straight, settings=[*settings, "train.steps=3"], display=Display(quiet=True))
    train("demo", extended, settings=[*settings, "train.steps=1"], display=Display(quiet=True))
    train("demo", extended, settings=[*settings, "train.steps=3"], resume=True, display=Display(quiet=True))
    assert (straight / "trees.jsonl").read_bytes() == (extended / "trees.jsonl").read_bytes()
    assert metric_lines(straight) == metric_lines(extended)
    with pytest.raises(RunFolderError, match=r"has made 3 steps, more than train\.steps = 2: raise that"):
        train("demo", extended, settings=[*settings, "train.steps=2"], resume=True, display=Display(quiet=True))


def test_an_extended_run_keeps_its_former_last_evaluation_whole_and_is_otherwise_the_same(tmp_path, tiny_model):
    settings = [*SMALL, f"model.name={tiny_model}", "eval.every=1", "eval.questions_during=2", "eval.rounds=[2]"]
    straight, extended = tmp_path / "straight", tmp_path / "extended"
    for folder, steps, resume in ((straight, 2, False), (extended, 1, False), (extended, 2, True)):
        given = [*settings, f"train.steps={steps}"]
        train("demo", folder, settings=given, resume=resume, display=Display(quiet=True))
    whole, more = (read_metrics(run) for run in (straight, extended))
    assert [made.on_few().results["rounds_2"]["accuracy"] for made in whole.evaluations()] == [
        made.on_few().results["rounds_2"]["accuracy"] for made in more.evaluations()
    ]
    assert [len(read_outcomes(run, 1)["rounds_2"]["outcomes"]) for run in (straight, extended)] == [2, 6]
    few, all_of_them = (read_outcomes(run, 1)["rounds_2"] for run in (straight, extended))
    assert all(few[key] == all_of_them[key][:2] for key in ("questions", "outcomes"))
    lines = [[line for line in metric_lines(run) if "eval" not in line] for run in (straight, extended)]
    assert lines[0] == lines[1] and read_outcomes(straight, 2) == read_outcomes(extended, 2)
    for name in ("trees.jsonl", "adapter/adapter_model.safetensors", "best/adapter/adapter_model.safetensors"):
        assert (straight / name).read_bytes() == (extended / name).read_bytes()


def test_what_was_written_after_the_checkpoint_is_cut(tmp_path):
    from motif.runs.folder import RunFolder

    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.append_metrics({"step": step, "reward": float("nan")})
    offsets = run.offsets()
    for step in (3, 4):
        run.append_metrics({"step": step, "reward": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "half')
    again = RunFolder(tmp_path)
    assert again.damaged(offsets) == []
    again.truncate_to(offsets)
    assert again.offsets() == offsets
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "reward": None},
        {"step": 2, "reward": None},
    ]


def test_checkpoint_keeps_everything(tmp_path, tiny_model):
    from motif.models.policy import Policy

    recipe = load_recipe("demo", [f"model.name={tiny_model}"])
    policy = Policy(recipe.model)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=0.1)
    sum(p.square().sum() for p in policy.trainable()).backward()
    optimizer.step()
    state = Progress(microbatch_tokens=4096)
    state.ledger.updates = 5
    checkpoint.save(tmp_path, 7, policy, optimizer, recipe, state.extra(), keep=1)
    other = Policy(recipe.model)
    fresh = torch.optim.AdamW(other.trainable(), lr=0.1)
    restored = checkpoint.load_latest(tmp_path, other, fresh, recipe)
    assert (restored.step, restored.extra["ledger"]["updates"]) == (7, 5)
    assert all(torch.equal(a, b) for a, b in zip(policy.trainable(), other.trainable(), strict=True))
    old, new = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert all(torch.equal(old[i][k], new[i][k]) for i in old for k in old[i])
    shutil.rmtree(tmp_path / "checkpoints")
    assert checkpoint.load_latest(tmp_path, other, fresh, recipe) is None


def test_questions_of_a_step_depend_on_seed_and_step_only():
    data = [Question(str(i), f"q{i}", str(i)) for i in range(10)]
    epoch = [q.id for step in range(1, 6) for q in draw_questions(data, step, 2, seed=1)]
    assert sorted(epoch) == sorted(q.id for q in data)
    assert epoch != [q.id for step in range(1, 6) for q in draw_questions(data, step, 2, seed=2)]
    again = [q.id for step in range(6, 11) for q in draw_questions(data, step, 2, seed=1)]
    assert sorted(again) == sorted(epoch)
    assert again != epoch
    wrapped = [q.id for q in draw_questions(data[:3], 1, 8, seed=0)]
    assert len(set(wrapped)) == 8


def test_learning_rate_schedules():
    def rates(*settings: str) -> list[float]:
        recipe = load_recipe("demo", ["train.steps=10", "train.learning_rate=1.0", *settings])
        return [learning_rate(step, recipe) for step in range(1, 11)]

    assert rates() == [1.0] * 10
    assert rates("train.warmup=0.2")[:3] == [0.5, 1.0, 1.0]
    assert rates("train.schedule=linear") == pytest.approx([1 - i / 10 for i in range(10)])
    cosine = rates("train.schedule=cosine", "train.warmup=0.1")
    assert cosine[0] == 1.0
    assert cosine[-1] < 0.1
    assert all(a >= b for a, b in itertools.pairwise(cosine))
