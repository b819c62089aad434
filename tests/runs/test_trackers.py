"""Trackers get every line of the metrics at least once, under the same names, and never stop a run."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.errors import RecipeError, ServiceError
from motif.runs import trackers as track
from motif.runs.folder import RunFolder
from motif.runs.settings import settings
from motif.runs.trackers import Sink, Trackers, numbers, tracking
from motif.training.loop import train
from support.runs import offsets_at
from support.waiting import until

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=2",
    "rollout.questions_per_step=2",
    "rollout.branching=[2,2]",
    "rollout.tokens_first=4",
    "rollout.tokens_continue=4",
    "eval.questions=4",
    "eval.every=2",
]
Rows = list[tuple[int, dict[str, float]]]


def lines_of(run: Path) -> Rows:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], values) for line in lines if (values := dict(numbers(line)))]


def from_trackio(run: Path) -> tuple[Rows, dict]:
    from trackio.sqlite_storage import SQLiteStorage

    name = f"{run.name}-{json.loads((run / 'trackers.json').read_text())['id']}"
    assert SQLiteStorage.get_runs("sums").count(name) == 1
    rows = SQLiteStorage.get_logs("sums", name)
    return [(row.pop("step"), {k: v for k, v in row.items() if k != "timestamp"}) for row in rows], (
        SQLiteStorage.get_run_config("sums", name)
    )


def from_wandb(run: Path) -> tuple[Rows, dict]:
    rows: Rows = []
    config: dict = {}
    ids = set()
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(file):
            if record.HasField("run"):
                ids.add((record.run.run_id, record.run.project, record.run.display_name))
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                rows.append((row.pop("step"), {k: v for k, v in row.items() if not k.startswith("_")}))
    assert ids == {(json.loads((run / "trackers.json").read_text())["id"], "sums", run.name)}
    return rows, config


def wandb_records(file: Path):
    """The records of a .wandb file: a 7-byte head, then blocks of 32 KiB of pieces (checksum, length, kind, bytes)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + length > len(data):
            return  # wandb's own process is still writing
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete, or the last piece
            yield Record.FromString(whole)
            whole = b""


def from_tensorboard(run: Path) -> tuple[Rows, dict]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[tuple[int, bool], dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            row = found.setdefault((event.step, tag.startswith("eval/")), {})
            assert tag not in row
            row[tag] = event.value
    [recipe] = events.Tensors("recipe/text_summary")
    assert "branching = [2, 2]" in recipe.tensor_proto.string_val[0].decode()
    return [(step, found[step, is_eval]) for step, is_eval in sorted(found)], {}


READ = {"trackio": from_trackio, "wandb": from_wandb, "tensorboard": from_tensorboard}


@pytest.mark.parametrize("name", READ)
def test_a_resumed_run_is_one_run_with_the_lines_of_metrics_jsonl(name, tmp_path, tiny_model, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (extra `track`)")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    settings = [*SMALL, f"model.name={tiny_model}", f'track=["{name}"]', "track_project=sums"]
    run = tmp_path / "run"
    train("demo", run, settings=[*settings, "train.steps=1"], display=Display(quiet=True))
    train("demo", run, settings=[*settings, "train.steps=2"], resume=True, display=Display(quiet=True))
    expected = lines_of(run)
    until(lambda: len(READ[name](run)[0]) >= len(expected))  # wandb's own process writes on after its run has ended
    rows, config = READ[name](run)
    assert [step for step, _ in rows] == [step for step, _ in expected] == [0, 1, 1, 2, 2]
    for (_, row), (_, line) in zip(rows, expected, strict=True):
        assert row == pytest.approx(line)
    assert {"eval/rounds_2/accuracy", "eval/rounds_2/low", "eval/rounds_2/n"} <= rows[0][1].keys()
    assert not config or config["rollout"]["branching"] == [2, 2]


# -- without any of them -----------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(monkeypatch):
    """A tracker that writes down what it gets, and fails where told to."""
    got: list[tuple[int, dict[str, float]]] = []
    broken: list[Exception] = []

    def log(values, step):
        if broken:
            raise broken[0]
        got.append((step, values))

    kind = track.Kind("json", lambda *_: Sink(log, lambda failed: None), "")
    monkeypatch.setitem(track.KINDS, "wandb", kind)
    return got, broken


def test_a_failing_tracker_is_told_of_once_and_caught_up_on(recorded, tmp_path):
    got, broken = recorded
    said: list[str] = []
    run, recipe = RunFolder(tmp_path), load_recipe("demo", ['track=["wandb"]'])
    with tracking(recipe, run, said.append):
        run.append_metrics({"step": 1, "reward": 1.0})
        broken.append(OSError("disk full"))
        run.append_metrics({"step": 2, "reward": 2.0})
        run.append_metrics({"step": 3, "reward": 3.0})
        assert said == ["warning: tracker wandb failed (OSError: disk full); training continues"]
        broken.clear()
        run.append_metrics({"step": 4, "reward": 4.0})
        assert got == [(step, {"reward": float(step)}) for step in (1, 2, 3, 4)]
        broken.append(OSError("disk full"))
        run.append_metrics({"step": 5, "reward": 5.0})
    assert said[1:] == ["warning: tracker wandb has not taken 1 line of metrics; resuming the run sends them again"]
    broken.clear()
    with tracking(recipe, RunFolder(tmp_path), said.append):
        assert [step for step, _ in got] == [1, 2, 3, 4, 5]


def test_a_resumed_run_sends_again_only_what_it_computes_again(recorded, tmp_path):
    got, _ = recorded
    run, recipe = RunFolder(tmp_path), load_recipe("demo", ['track=["wandb"]'])
    with tracking(recipe, run, print):
        for step in (1, 2, 3):
            run.append_metrics({"step": step, "reward": 0.0})
        run.append_metrics({"step": 3, "eval": {"rounds_1": {"accuracy": 0.5}}})
    run = RunFolder(tmp_path)
    with tracking(recipe, run, print):
        run.truncate_to(offsets_at(tmp_path, 1))  # the checkpoint was of step 1
        for step in (2, 3):
            run.append_metrics({"step": step, "reward": 0.0})
        run.append_metrics({"step": 3, "eval": {"rounds_1": {"accuracy": 0.5}}})
        run.append_metrics({"step": 3, "probe": {"icc": 0.5}})
        run.append_metrics({"step": 4, "reward": 0.0})
    assert [(step, *values) for step, values in got] == [
        (1, "reward"),
        (2, "reward"),
        (3, "reward"),
        (3, "eval/rounds_1/accuracy"),
        (2, "reward"),
        (3, "reward"),
        (3, "eval/rounds_1/accuracy"),
        (3, "probe/icc"),
        (4, "reward"),
    ]


def test_a_tracker_that_is_added_later_gets_all_lines(recorded, tmp_path):
    got, _ = recorded
    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.append_metrics({"step": step, "reward": 0.0})
    with tracking(load_recipe("demo", ['track=["wandb"]']), run, print):
        assert [step for step, _ in got] == [1, 2]
        run.append_metrics({"step": 3, "reward": 0.0})
    assert [step for step, _ in got] == [1, 2, 3]


def test_what_is_not_a_number_is_left_out():
    line = {"step": 3, "loss": None, "outcome/rate_counts": [4, 0, 2], "outcome/ungraded_reason": "timeout", "kl": 0.0}
    assert dict(numbers(line)) == {
        "outcome/rate_counts/0": 4,
        "outcome/rate_counts/1": 0,
        "outcome/rate_counts/2": 2,
        "kl": 0,
    }


def test_only_the_process_that_writes_tracks(recorded, tmp_path):
    got, _ = recorded
    run = RunFolder(tmp_path / "run", writes=False)
    with tracking(load_recipe("demo", ['track=["wandb"]']), run, print):
        run.append_metrics({"step": 1, "reward": 1.0})
    assert got == []
    assert not list((tmp_path / "run").glob("*.jsonl"))


def test_a_tracker_that_cannot_be_imported_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"wandb cannot be imported .*pip install 'motif-rl\[track\]'"):
        train("demo", tmp_path / "run", settings=['track=["wandb"]'], display=Display(quiet=True))
    assert not list((tmp_path / "run").glob("*.jsonl"))


def test_a_tracker_that_cannot_be_opened_is_refused_and_the_others_are_closed(recorded, tmp_path, monkeypatch):
    closed = []
    sink = Sink(lambda values, step: None, closed.append)
    monkeypatch.setitem(track.KINDS, "wandb", track.Kind("json", lambda *_: sink, ""))
    monkeypatch.setitem(track.KINDS, "trackio", track.Kind("json", lambda *_: 1 / 0, ""))
    with pytest.raises(ServiceError, match="trackio could not be opened"):
        Trackers(load_recipe("demo", ['track=["wandb", "trackio"]']), tmp_path, print)
    assert closed == [True]


def test_trackers_are_no_part_of_what_is_trained():
    plain, tracked = load_recipe("demo"), load_recipe("demo", ['track=["wandb", "wandb"]', "track_project=x"])
    assert tracked.track == ["wandb"]
    assert settings(plain) == settings(tracked)
    with pytest.raises(RecipeError, match="track: item 1 must be 'trackio', 'wandb' or 'tensorboard'"):
        load_recipe("demo", ['track=["mlflow"]'])
