"""Runs of a study: each in a process of its own, none twice, all stopped and resumed together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from motif.compare.runner import Runner
from motif.compare.study import StudyRun, load_study, plan_runs
from motif.config import load_recipe
from motif.errors import RunFolderError
from motif.runs.disk import try_lock
from support.studies import SMALL, study_file

FAKE = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
arm, seed = folder.parent.name, int(folder.name.removeprefix("seed-"))
marks = folder.parent.parent
lock = os.open(folder / ".lock", os.O_RDWR)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    sys.exit("nobody holds the lock")
except BlockingIOError:
    pass
with (marks / "began.txt").open("a") as file:
    file.write(f"{arm} {seed}\\n")
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
if arm == "bad":
    sys.exit("it broke: " + str(seed))
metrics = folder / "metrics.jsonl"
done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
steps = 4
for step in range(done + 1, steps + 1):
    with metrics.open("a") as file:
        file.write(json.dumps({"step": step}) + "\\n")
    for _ in range(int(os.environ.get("FAKE_WAIT", "0"))):
        if not stopped:
            time.sleep(0.02)
    if stopped:
        sys.exit(130)
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "trees.jsonl").write_text("{}\\n")
(folder / "summary.json").write_text(json.dumps({"status": "finished", "steps": steps}))
"""


@pytest.fixture
def fake(tmp_path):
    """A quick stand-in for the process of a run, and the runs of a study for it."""
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    text = SMALL + "[arms.bad]\n"
    runs = plan_runs(load_study(study_file(tmp_path, text)), tmp_path, tmp_path / "out")

    def runner(wanted: list[StudyRun], **options: Any) -> Runner:
        return Runner(wanted, command=lambda run: [sys.executable, str(script), str(run.folder)], **options)

    return runner, runs, tmp_path / "out"


def good(runs: list[StudyRun]) -> list[StudyRun]:
    return [run for run in runs if run.arm != "bad"]


def began(out: Path) -> list[str]:
    return (out / "began.txt").read_text().splitlines()


def test_every_run_has_its_folder_and_process_and_none_is_repeated(fake):
    runner, runs, out = fake
    tally = runner(good(runs), workers=2).work()
    assert (len(tally.finished), tally.failed, tally.stopped) == (4, {}, False)
    assert sorted(began(out)) == ["paper 0", "paper 1", "single 0", "single 1"]
    for run in good(runs):
        assert load_recipe(run.folder / "recipe.toml") == run.recipe
        assert (run.folder / "trees.jsonl").exists() and (run.folder / "checkpoints").exists()
    again = runner(good(runs), keep_trees=False).work()
    assert len(again.finished) == 4 and len(began(out)) == 4
    for run in good(runs):
        assert not (run.folder / "trees.jsonl").exists() and not (run.folder / "checkpoints").exists()


def test_a_failed_run_stops_no_other_and_is_told(fake):
    runner, runs, _ = fake
    tally = runner(runs, workers=2).work()
    assert len(tally.finished) == 4
    assert tally.failed.keys() == {"bad seed 0", "bad seed 1"}
    assert "it broke: 1" in tally.failed["bad seed 1"] and "log.txt" in tally.failed["bad seed 1"]


def test_a_folder_with_another_recipe_is_refused_before_anything_runs(fake):
    runner, runs, out = fake
    last = good(runs)[-1]
    last.folder.mkdir(parents=True)
    (last.folder / "recipe.toml").write_text(last.recipe.to_toml().replace("steps = 4", "steps = 5"))
    (last.folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(RunFolderError, match=r"train\.steps: 5 → 4"):
        runner(good(runs)).work()
    assert not (out / "began.txt").exists()


def test_ctrl_c_stops_all_and_the_same_command_resumes(fake, monkeypatch):
    runner, runs, _ = fake
    monkeypatch.setenv("FAKE_WAIT", "1000")
    running = runner(good(runs), workers=2)
    steps = [(run.folder / "metrics.jsonl") for run in good(runs)]

    def interrupt() -> None:
        while not any(path.exists() for path in steps):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    tally = running.work()
    assert tally.stopped and not tally.failed and not tally.finished
    before = [len(path.read_text().splitlines()) if path.exists() else 0 for path in steps]
    assert 0 < sum(before) < 16 and not any(active.process.poll() is None for active in running.active)
    monkeypatch.setenv("FAKE_WAIT", "0")
    assert len(runner(good(runs)).work().finished) == 4
    assert [len(path.read_text().splitlines()) for path in steps] == [4] * 4


def test_ctrl_c_reaches_a_run_that_is_being_started(fake, monkeypatch):
    runner, runs, _ = fake
    monkeypatch.setenv("FAKE_WAIT", "1000")
    begin = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen:
        process = begin(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    tally = runner(good(runs), workers=2).work()
    assert tally.stopped and not tally.failed and not tally.finished


def test_two_invocations_share_the_work(fake, monkeypatch):
    runner, runs, out = fake
    monkeypatch.setenv("FAKE_WAIT", "3")
    program = f"""
    from pathlib import Path
    from motif.compare.runner import Runner
    from motif.compare.study import load_study, plan_runs
    import sys
    file = Path({str(out.parent / "small.toml")!r})
    runs = [run for run in plan_runs(load_study(file), file.parent, Path({str(out)!r})) if run.arm != "bad"]
    fake = str(file.parent / "fake.py")
    print(len(Runner(runs, command=lambda run: [sys.executable, fake, str(run.folder)]).work().finished))
    """
    other = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    mine = runner(good(runs)).work()
    said, _ = other.communicate(timeout=300)
    assert len(mine.finished) == 4 and said.strip() == "4"
    assert sorted(began(out)) == ["paper 0", "paper 1", "single 0", "single 1"]


def test_a_lock_dies_with_its_holder(tmp_path):
    code = f"""
    import time
    from pathlib import Path
    from motif.runs.disk import try_lock
    assert try_lock(Path({str(tmp_path / "lock")!r})) is not None
    print("claimed", flush=True)
    time.sleep(600)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
    assert try_lock(tmp_path / "lock") is None
    holder.kill()
    holder.wait()
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    os.close(lock)


def test_a_run_stops_when_its_study_is_killed(tmp_path):
    """The worker's lifeline, without training: it is interrupted when its standard input ends."""
    code = """
    import signal, threading, time
    from motif.compare import worker
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        threading.Thread(target=worker._follow_parent, daemon=True).start()
        time.sleep(600)
    except KeyboardInterrupt:
        print("interrupted")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    said, _ = process.communicate(timeout=300)  # closes standard input first
    assert said == "interrupted\n"
