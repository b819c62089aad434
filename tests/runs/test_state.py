"""How runs stand: from their files, and from the lock of the process that writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from motif.errors import RecipeError, RunFolderError, SamplerError
from motif.report.data import RunView
from motif.runs.folder import folder_for, only_writer
from motif.runs.read import Metrics, main_row
from motif.runs.state import KILLED, activity, find_runs, state_of
from motif.text import percent
from support.runs import fake_run


def test_a_run_that_has_finished(tmp_path):
    state = state_of(fake_run(tmp_path / "run"))
    assert (state.state, state.step, state.steps, state.model) == ("finished", 60, 60, "embedded")
    assert state.evaluated[:2] == (60, "")
    assert state.accuracy["n"] == 500 and 0.6 < state.accuracy["accuracy"] < 0.8  # the row of three rounds
    assert json.loads(json.dumps(state.to_dict()))["accuracy"]["step"] == 60


def test_questions_with_other_numbers_are_not_what_a_run_is_about():
    assert main_row(["rounds_1", "rounds_1_twin"], 3) == "rounds_1"
    assert main_row(["pieces", "pieces_twin"], 3) == "pieces"
    assert main_row(["rounds_1", "rounds_3", "rounds_5"], 3) == "rounds_3"
    assert main_row([], 3) is None


def test_a_run_that_goes_on(tmp_path):
    run = fake_run(tmp_path / "run")
    with only_writer(run):
        assert state_of(run).state == "running"
    assert state_of(run).state == "finished"


STEP, EVAL = {"reward": 0.5}, {"eval": {"rounds_3": {"accuracy": 0.5}}}


@pytest.mark.parametrize(
    ("lines", "doing"),
    [
        ([], "evaluating before training"),
        ([{"step": 0} | EVAL], "warm start"),
        ([{"step": 0} | EVAL, {"step": 0, "warmstart": {"step": 7, "loss": 1.0}}], "warm start, step 7 of 30"),
        ([{"step": 0, "warmstart": {"step": 8} | EVAL}], ""),
        ([{"step": 1} | STEP], ""),
        ([{"step": 2} | STEP], "evaluating after training"),
        ([{"step": 2} | STEP, {"step": 2} | EVAL], "saving"),
    ],
)
def test_what_a_run_does_when_it_makes_no_step(lines, doing):
    metrics = Metrics()
    for line in lines:
        metrics.add(line)
    recipe = {"train": {"steps": 2}, "eval": {"questions": 10}, "warmstart": {"source": "self", "steps": 30}}
    assert activity(metrics, recipe) == doing
    assert activity(Metrics(), recipe | {"eval": {"questions": 0}, "warmstart": {}}) == ""


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SamplerError("no server answers"), "failed", "no server answers"),
        (KeyboardInterrupt(), "stopped", "interrupted before the step was saved"),
        (RunFolderError("other data"), "stopped", ""),  # refused: the run is as it was
        (None, "stopped", ""),
    ],
)
def test_the_lock_says_how_a_run_has_ended(tmp_path, error, state, reason):
    run = fake_run(tmp_path / "run", steps=3, after=None)
    try:
        with only_writer(run):
            if error:
                raise error
    except BaseException as raised:
        assert raised is error
    found = state_of(run)
    assert (found.state, found.reason) == (state, reason)


def test_a_killed_process_is_noticed(tmp_path):
    run = fake_run(tmp_path / "run", steps=3, after=None)
    code = (
        "import os; from pathlib import Path; from motif.runs.folder import only_writer\n"
        f"with only_writer(Path({str(run)!r})): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (state_of(run).state, state_of(run).reason) == ("failed", KILLED)


def test_a_finished_run_that_is_prolonged_and_killed_has_failed(tmp_path):
    run = fake_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text()) | {"steps": 40}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / ".writer").write_text('{"process": 1}\n')
    assert state_of(run).state == "failed"


def test_runs_are_found_at_any_depth_and_before_they_compute_anything(tmp_path):
    fake_run(tmp_path / "runs/study/arm/seed-0", steps=1)
    fake_run(tmp_path / "runs/one", steps=1)
    (tmp_path / "runs/one/export/adapter").mkdir(parents=True)
    (tmp_path / "runs/one/export/adapter/summary.json").write_text("{}")  # belongs to its run
    (tmp_path / "runs/link").symlink_to(tmp_path / "runs/one")
    (tmp_path / "recipe.toml").write_text("")  # a recipe alone is not a run
    with only_writer(tmp_path / "runs/new"):
        found = find_runs(tmp_path)
        assert [str(path.relative_to(tmp_path)) for path in found] == ["runs/new", "runs/one", "runs/study/arm/seed-0"]
        assert state_of(found[0]).state == "running"
    assert state_of(found[0]).state == "not started"
    assert find_runs(tmp_path / "runs/one") == [tmp_path / "runs/one"]
    assert find_runs(tmp_path / "nowhere") == []


def test_the_evaluation_after_a_warm_start_counts(tmp_path):
    run = fake_run(tmp_path / "run", steps=3, after=None)
    warm = {"rounds_3": {"accuracy": 0.76, "low": 0.7, "high": 0.8, "n": 100, "truncated": 0.2}}
    before, *lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    rows = json.loads(before)["eval"]
    line = json.dumps({"step": 0, "warmstart": {"eval": warm}}) + "\n"
    (run / "metrics.jsonl").write_text("".join([before, line, *lines]))
    assert state_of(run).to_dict()["accuracy"] == {"accuracy": 0.76, "low": 0.7, "high": 0.8, "n": 100} | {
        "step": 0,
        "stage": "warmstart",
    }
    view = RunView(run)
    view.refresh()
    data = view.data("run")
    held = next(entry for entry in data["now"] if entry["name"] == "Held out")
    first = percent(rows["rounds_3"]["accuracy"])
    assert (held["value"], held["change"]) == ("76.0 %", f"from {first}")
    assert "The latest evaluation, after the warm start, gave 76.0 %" in data["result"]["reading"]
    assert any("After the warm start, 20.0 %" in warning["text"] for warning in data["warnings"])
    [chart] = (chart for part in data["sections"] for chart in part["charts"] if chart["id"] == "evals")
    at_zero = {line["name"]: line["points"][0]["value"] for line in chart["series"]}
    assert at_zero["3 rounds"] == 0.76 and at_zero["3 rounds, before the warm start"] == rows["rounds_3"]["accuracy"]


def test_strange_files_do_not_hide_a_run(tmp_path):
    run = fake_run(tmp_path / "run", steps=2)
    (run / "recipe.toml").write_text("= 1")
    (run / "summary.json").write_text("[")
    (run / ".writer").unlink(missing_ok=True)
    (run / ".writer").symlink_to("/etc/passwd")
    state = state_of(run)
    assert (state.state, state.step, state.steps) == ("stopped", 2, None)


def test_a_recipe_in_a_run_folder_never_leads_to_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = fake_run(tmp_path / "runs/copy", steps=1)
    own = tmp_path / "mine.toml"
    own.write_text("")
    assert folder_for(copy / "recipe.toml", "demo") == folder_for(str(copy), "demo") == copy
    assert folder_for("runs/copy/recipe.toml", "demo") == Path("runs/copy")
    assert folder_for("demo", "demo") == Path("runs/demo")
    assert folder_for(own, "mine") == folder_for({"name": "mine"}, "mine") == Path("runs/mine")
    (copy / "adapter").mkdir()
    (copy / "adapter/recipe.toml").write_text("")
    with pytest.raises(RecipeError, match="--out"):
        folder_for(copy / "adapter/recipe.toml", "demo")
