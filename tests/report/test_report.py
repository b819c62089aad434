"""The run report: complete in one file, honest in its sentence, calm about missing parts, deaf to hostile texts."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from motif.errors import RunFolderError
from motif.report import write_report
from motif.report.charts import moving_average, rate_levels
from motif.report.data import RunView, differences, run_names
from motif.report.page import to_json
from motif.report.trees import Cutter, Forest, choose
from motif.runs.folder import RunFolder
from motif.runs.read import Tail
from motif.statistics.variance import Components, question_components
from support.runs import HOSTILE, fake_run, made_up_probe, offsets_at, outcomes_of

MakeRun = Callable[..., Path]


class Elements(HTMLParser):
    """The start tags of a page with their attributes, and the content of its data blocks."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str | None, str] = {}
        self._block: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._block = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._block = None

    def handle_data(self, data: str) -> None:
        if self._block:
            self.data[self._block] = self.data.get(self._block, "") + data


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "run", **settings: Any) -> Path:
        return fake_run(tmp_path / name, **settings)

    return make


def report_data(run: Path) -> dict[str, Any]:
    view = RunView(run)
    view.refresh()
    return view.data("run")


def forest_of(run: Path) -> Forest:
    forest = Forest(run / "trees.jsonl")
    forest.refresh()
    return forest


def unpacked(pack: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(zlib.decompress(base64.b64decode(tree))) for tree in pack["packed"]]


def report(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


# -- the file ---------------------------------------------------------------------------------------------------------


def test_is_one_self_contained_file(make_run: MakeRun) -> None:
    run = make_run(steps=12)
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "@import" not in page and "url(" not in page
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and not any(key.startswith("on") for key in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_policy_admits_the_one_script_and_nothing_else(make_run: MakeRun) -> None:
    page = report(make_run(steps=2))
    policy = next(a["content"] for t, a in Elements(page).tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    style = page.partition("<style>")[2].partition("</style>")[0]
    for text in (script, style):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert "unsafe" not in policy and "connect-src" not in policy


def test_data_survives_the_way_into_the_page(make_run: MakeRun) -> None:
    run = make_run(steps=3)
    elements = Elements(report(run))
    [shown] = json.loads(elements.data["data"])["runs"]
    told = json.loads(json.dumps(report_data(run)))
    assert {key: value for key, value in shown.items() if key != "trees"} == {
        key: value for key, value in told.items() if key != "trees"
    }
    written = [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]
    trees = unpacked({"packed": json.loads(elements.data["packed"])[0]})
    assert [tree["question"] for tree in trees] == [tree["question"] for tree in written]
    assert trees[0]["responses"][0]["text"] == written[0]["responses"][0]["text"]
    assert [head["id"] for head in shown["trees"]["heads"]] == [tree["question"]["id"] for tree in written]


def test_hostile_text_stays_inert(make_run: MakeRun) -> None:
    run = make_run(steps=3, text=HOSTILE)
    (run / "recipe.toml").write_text('name = "</title><script>alert(1)</script>"\n[model]\nname = "<b>x</b>"\n')
    page = report(run)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags if tag == "script"] == ["script"] * 3
    assert not [tag for tag, _ in elements.tags if tag in ("img", "b")] and "<!--" not in page
    for block in elements.data.values():
        assert not set("<>&\u2028") & set(block)
    [shown] = json.loads(elements.data["data"])["runs"]
    assert shown["head"]["about"] == "</title><script>alert(1)</script>"
    [tree, *_] = unpacked({"packed": json.loads(elements.data["packed"])[0]})
    assert tree["responses"][0]["text"] == HOSTILE.replace("\ud800", "?")


def test_json_escapes_what_could_end_a_script() -> None:
    value = {"</script>": "<!--<script>\u2028&amp;", "n": [1, 2.5, None, True]}
    assert not set("<>&\u2028") & set(to_json(value))
    assert json.loads(to_json(value)) == value


# -- partial runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["recipe.toml", "metrics.jsonl", "trees.jsonl", "summary.json"])
def test_names_a_missing_file(make_run: MakeRun, missing: str) -> None:
    run = make_run(steps=2)
    (run / missing).unlink()
    report(run)
    assert any(notice.startswith(f"{missing} is missing") for notice in report_data(run)["notices"])


def test_empty_folder_gives_a_page(tmp_path: Path) -> None:
    assert "Not evaluated" in report(tmp_path)
    with pytest.raises(RunFolderError, match="not a run folder"):
        write_report(tmp_path / "nowhere")


def test_run_stopped_after_two_steps(make_run: MakeRun) -> None:
    run = make_run(steps=2, after=None)
    data = report_data(run)
    assert "not evaluated after training" in data["result"]["reading"]
    assert data["state"] == {"word": "stopped", "activity": "", "reason": "", "step": 2, "steps": 60}
    assert any("motif resume" in notice for notice in data["notices"])
    assert data["axes"]["step"] == [1, 2]
    assert data["trees"]["count"] == 8


def test_half_written_and_broken_lines(make_run: MakeRun) -> None:
    run = make_run(steps=3, after=None)
    whole_trees = report_data(run)["trees"]["count"]
    for name in ("metrics.jsonl", "trees.jsonl"):
        text = (run / name).read_text()
        lines = text.splitlines(keepends=True)
        (run / name).write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    data = report_data(run)
    assert data["axes"]["step"] == [1, 2]
    assert data["trees"]["count"] == whole_trees - 1
    assert not any("could not be read" in notice for notice in data["notices"])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 3, "reward": NaN}\n[1]\n{"step": null}\n')
    data = report_data(run)
    assert data["axes"]["step"] == [1, 2, 3]
    assert data["notices"][-1] == "metrics.jsonl: 3 lines could not be read, and were left out."
    report(run)


def test_wrong_types_do_not_stop_it(make_run: MakeRun) -> None:
    run = make_run(steps=2)
    (run / "summary.json").write_text(
        '{"before": 3, "after": {"rounds_3": {"accuracy": null}}, "ledger": [], "best": 1, "versions": "x"}'
    )
    (run / "recipe.toml").write_text('name = 3\nmodel = "m"\n[rollout]\nbranching = ["a"]\n')
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 3, "reward": "x", "outcome/rate_counts": [1, null], "time/total": Infinity, "groups": 0}\n'
        )
    with (run / "trees.jsonl").open("a") as file:
        file.write(
            '{"step": 3, "question": {"text": 5}, "responses": [7, {"children": {}, "text": null, "advantage": NaN}]}\n'
        )
        file.write('{"step": 3}\n{"step": "x", "question": {}, "responses": []}\n')
    report(run)
    assert unpacked(forest_of(run).pack())[-1]["responses"][0]["advantage"] is None


def test_resumed_run_counts_the_repeated_steps_once(make_run: MakeRun) -> None:
    run = make_run(steps=5, questions=1)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    again = [line | {"reward": 9.0} for line in lines if line["step"] in (3, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + again))
    trees = (run / "trees.jsonl").read_text().splitlines(keepends=True)
    (run / "trees.jsonl").write_text("".join(trees + trees[2:4]))
    data = report_data(run)
    chart = data["sections"][0]["charts"][0]
    assert data["axes"]["step"] == [1, 2, 3, 4] and chart["series"][1]["raw"][2:] == [9.0, 9.0]
    assert [head["step"] for head in forest_of(run).heads] == [1, 2, 3, 4]


# -- size -------------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_with_a_mark(make_run: MakeRun) -> None:
    run = make_run(steps=1, questions=1, branching=(4, 1), text="a" * 50_000 + "é<" + "z" * 50_000)
    pack = forest_of(run).pack()
    text = unpacked(pack)[0]["responses"][0]["text"]
    assert len(text) < 8_100 and "92,002 characters left out here" in text
    assert text.startswith("a" * 6_000) and text.endswith("z" * 2_000)
    assert pack["cut_texts"] > 0 and pack["text_limit"] == 8_000
    assert (run / "report.html").exists() is False and write_report(run).stat().st_size < 1_000_000
    assert len(forest_of(run).tree(0)["responses"][0]["text"]) == 100_002  # type: ignore[index]


def test_page_is_bounded_and_says_what_it_shows(make_run: MakeRun) -> None:
    run = make_run(steps=40, questions=2, branching=(4, 2, 1))
    every = forest_of(run).pack()
    assert every["all_trees"] == len(every["packed"]) == len(every["heads"]) == 80
    some = forest_of(run).pack(budget=sum(map(len, every["packed"])) // 2)
    assert 0.35 < sum(map(len, some["packed"])) / sum(map(len, every["packed"])) < 0.6
    assert 8 <= some["steps"] < some["all_steps"] == 40 and some["all_trees"] == 80
    shown = [head["step"] for head in some["heads"]]
    assert shown[0] == 1 and shown[-1] == 40
    assert [tree["question"]["id"] for tree in unpacked(some)] == [head["id"] for head in some["heads"]]
    assert forest_of(run).pack(budget=10)["packed"] == []


def test_choose_spreads_evenly_and_keeps_within_budget() -> None:
    sizes = [(step, 10) for step in range(1, 101) for _ in range(2)]
    assert choose(sizes, 10_000) == list(range(200))
    steps = sorted({sizes[index][0] for index in choose(sizes, 400)})
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert len(steps) == 20 and steps[0] == 1 and steps[-1] == 100 and gaps <= {5, 6}
    assert len(choose(sizes, 80)) == 8  # one question of each of eight steps
    assert choose(sizes, 5) == [] and choose([], 5) == []


def test_long_runs_are_thinned(make_run: MakeRun) -> None:
    run = make_run(steps=1, after=None)
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    (run / "metrics.jsonl").write_text("".join(json.dumps(line | {"step": step}) + "\n" for step in range(1, 5_001)))
    data = report_data(run)
    chart = data["sections"][0]["charts"][0]
    steps = data["axes"]["step"]
    assert (
        len(steps) == len(chart["series"][0]["raw"]) <= 600
        and steps[-1] == 5_000
        and "mean of 9 steps" in chart["caption"]
    )
    assert len(data["sections"][1]["charts"][0]["bars"]) <= 40


# -- what it says -----------------------------------------------------------------------------------------------------


def _with_summary(run: Path, before: tuple[float, float, float], after: tuple[float, float, float]) -> dict[str, Any]:
    keys = ("accuracy", "low", "high")
    summary = {
        "before": {"rounds_3": dict(zip(keys, before, strict=True)) | {"n": 500}},
        "after": {"rounds_3": dict(zip(keys, after, strict=True)) | {"n": 500}},
    }
    (run / "summary.json").write_text(json.dumps(summary))
    result: dict[str, Any] = report_data(run)["result"]
    return result


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            (0.41, 0.37, 0.45),
            (0.72, 0.68, 0.76),
            "rose from 41.0 % [37.0–45.0] to 72.0 % [68.0–76.0] on 500 held-out questions; "
            "the intervals do not overlap.",
        ),
        ((0.41, 0.37, 0.45), (0.44, 0.40, 0.48), "the intervals overlap: this run does not show a difference."),
        ((0.72, 0.68, 0.76), (0.41, 0.37, 0.45), "fell from 72.0 %"),
    ],
)
def test_reading_is_honest(make_run: MakeRun, before: Any, after: Any, expected: str) -> None:
    assert expected in _with_summary(make_run(steps=2), before, after)["reading"]


def test_evaluation_during_training_is_not_taken_for_the_final_one(make_run: MakeRun) -> None:
    reading = report_data(make_run(steps=25, after=None))["result"]["reading"]
    assert "not evaluated after training" in reading and "The latest evaluation, at step 20," in reading


def test_warnings_name_the_setting_to_change(make_run: MakeRun) -> None:
    run = make_run(steps=12)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bad = {
        "truncated/round_2": 0.3,
        "dead_groups": 9,
        "groups": 10,
        "outcome/never": 0.8,
        "outcome/always": 0.1,
        "outcome/ungraded": 2,
    }
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line | ({} if "eval" in line else bad)) + "\n" for line in lines)
    )
    texts = {warning["title"]: warning["text"] for warning in report_data(run)["warnings"]}
    assert "30.0 % of round-2 responses" in texts["Responses are cut off"]
    assert "rollout.tokens_continue (now 128)" in texts["Responses are cut off"]
    assert texts["Outcomes without a grade"].startswith("24 final responses")
    assert "90.0 %" in texts["Most groups are dead"] and "too hard" in texts["Most groups are dead"]


def test_healthy_run_has_no_warnings(make_run: MakeRun) -> None:
    titles = [warning["title"] for warning in report_data(make_run())["warnings"]]
    assert [title for title in titles if title != "Outcomes without a grade"] == []


def test_moving_average_skips_gaps() -> None:
    assert moving_average([1.0, None, 3.0, 5.0], 3) == [1.0, 2.0, 4.0, 4.0]


def test_many_trajectories_share_levels() -> None:
    assert rate_levels(2) == (["0 of 2", "1 of 2", "2 of 2"], [[0], [1], [2]])
    names, groups = rate_levels(16)
    assert len(names) == 6 and sorted(index for group in groups for index in group) == list(range(17))
    assert groups[0] == [0] and groups[-1] == [16] and groups[1] == [1, 2, 3, 4]


@pytest.mark.parametrize("branching", [(8,), (24, 1, 1), (2, 2, 2, 1)])
def test_other_shapes(make_run: MakeRun, branching: tuple[int, ...]) -> None:
    run = make_run(steps=3, branching=branching)
    report(run)
    words = next(fact["value"] for fact in report_data(run)["head"]["facts"] if fact["name"] == "Tree")
    assert f"m {branching[0]} × k {math.prod(branching[1:])} × n {len(branching)}" in words


# -- cost and diagnostics ----------------------------------------------------------------------------------------------


def test_where_time_and_tokens_went(make_run: MakeRun) -> None:
    run = make_run(steps=10)
    data = report_data(run)
    seconds = {part["name"]: part["value"] for part in data["time"]["parts"]}
    assert list(seconds.values()) == pytest.approx([121, 8, 75, 6])
    assert sum(seconds.values()) == pytest.approx(210)
    tokens = [part["value"] for part in data["tokens"]]
    assert tokens == pytest.approx([280_000, 680_000, 360_000, 2_400_000])
    # Two passes train the same tokens twice.
    (run / "recipe.toml").write_text("[loss]\ninner_epochs = 2\n")
    assert [part["value"] for part in report_data(run)["tokens"]][:2] == pytest.approx([140_000, 820_000])


def test_a_run_of_an_older_version_still_has_its_pictures(make_run: MakeRun) -> None:
    run = make_run(steps=3)
    new = ("prefill_saved", "diag/")
    for name in ("metrics.jsonl", "summary.json"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        for line in lines:
            line.get("ledger", {}).pop("prefill_saved", None)
        kept = [{k: v for k, v in line.items() if not any(key in k for key in new)} for line in lines]
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in kept))
    data = report_data(run)
    assert len(data["tokens"]) == 3
    assert [one["id"] for one in data["sections"]] == ["learning", "outcomes", "responses", "stability", "cost"]


def test_diagnostics_say_what_the_trees_hold(make_run: MakeRun) -> None:
    run = make_run(steps=40)
    section = report_data(run)["sections"][-2]
    trees = [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]
    whole = sum((question_components(outcomes_of(tree)) for tree in trees), Components())
    assert f"explains {100 * whole.icc:.1f} % [" in section["text"][0]
    [chart] = section["charts"]
    points = chart["series"][0]["points"]
    assert len(points) == 8 and points[0]["title"] == "steps 1–5" and points[-1]["step"] == 38
    assert all(point["low"] < point["value"] < point["high"] for point in points)


def test_one_round_has_no_diagnostics(make_run: MakeRun) -> None:
    assert report_data(make_run(steps=5, branching=(8,)))["sections"][-2]["id"] == "stability"


def test_a_probe_is_read_out(make_run: MakeRun) -> None:
    run = make_run(steps=8, probed=True)
    section = report_data(run)["sections"][-2]
    assert "correlate with r = 0.70 [0.65, 0.75]" in "".join(section["text"])
    assert "The own note is worth 65.0 points [60.0, 70.0] more than no note." in section["text"]
    charts = {chart["id"]: chart for chart in section["charts"]}
    assert [point["value"] for point in charts["note-value"]["series"][0]["points"]] == [0.4, 0.7]
    assert charts["rewards"]["rows"][1] == ["2", "0.000 [−0.050, 0.050]", "0.100", "0.300"]
    # One made afterwards replaces that of its step.
    (run / "probe.json").write_text(json.dumps({"step": 8, "probe": made_up_probe(0.9)}))
    section = report_data(run)["sections"][-2]
    [values] = [chart for chart in section["charts"] if chart["id"] == "note-value"]
    assert [point["value"] for point in values["series"][0]["points"]] == [0.4, 0.9]


@pytest.mark.parametrize("probe", [{}, {"rewards": 3, "values": [], "icc": 1}, {"rewards": [None, {"k": "x"}]}])
def test_a_broken_probe_does_not_stop_the_report(make_run: MakeRun, probe: dict[str, Any]) -> None:
    run = make_run(steps=2, branching=(8,))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "probe": probe}) + "\n" + '{"step": 2, "probe": 7, "diag/icc": "x"}\n')
    report(run)


# -- a run that goes on ------------------------------------------------------------------------------------------------


def append(file: Path, *records: dict[str, Any]) -> None:
    with file.open("a") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)


def test_a_tail_reads_each_line_once_and_leaves_a_half_written_one(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    tail = Tail(file)
    assert list(tail.records()) == []
    append(file, {"step": 1}, {"step": 2})
    assert [record for _, record in tail.records()] == [{"step": 1}, {"step": 2}]
    with file.open("a") as stream:
        stream.write('{"step": 3, "te')
    assert list(tail.records()) == []
    with file.open("a") as stream:
        stream.write('xt": "é"}\nnot JSON\n')
    assert list(tail.records()) == [(24, {"step": 3, "text": "é"}), (24 + 26, None)]
    assert list(tail.records()) == [] and tail.epoch == 0


@pytest.mark.parametrize("way", ["shorter", "another file", "same length"])
def test_a_tail_starts_over_when_the_file_is_another(tmp_path: Path, way: str) -> None:
    file = tmp_path / "x.jsonl"
    append(file, {"step": 1}, {"step": 2})
    tail = Tail(file)
    assert len(list(tail.records())) == 2
    if way == "another file":
        other = tmp_path / "other"
        append(other, {"step": 1}, {"step": 2}, {"step": 7})
        other.replace(file)
    else:
        file.write_text('{"step": 1}\n' if way == "shorter" else '{"step": 8}\n{"step": 9}\n{"step": 10}\n')
    expected = {"shorter": [1], "another file": [1, 2, 7], "same length": [8, 9, 10]}[way]
    assert [record["step"] for _, record in tail.records() if record] == expected
    assert tail.epoch == 1


def test_a_view_keeps_up_with_a_run(make_run: MakeRun) -> None:
    run = make_run(steps=6, after=None)
    metrics, trees = ((run / name).read_text().splitlines(keepends=True) for name in ("metrics.jsonl", "trees.jsonl"))
    (run / "metrics.jsonl").write_text("".join(metrics[:3]))
    (run / "trees.jsonl").write_text("".join(trees[:8]) + trees[8][:50])
    view = RunView(run)
    view.refresh()
    assert view.data("run")["axes"]["step"] == [1, 2] and len(view.forest.heads) == 8
    epoch = view.forest.epoch
    for name, rest in (("metrics.jsonl", metrics[3:]), ("trees.jsonl", [trees[8][50:], *trees[9:]])):
        with (run / name).open("a") as file:
            file.writelines(rest)
    view.refresh()
    fresh = RunView(run)
    fresh.refresh()
    assert view.data("run") == report_data(run) | {"name": "run", "trees": {"epoch": epoch, "count": 24}}
    assert view.forest.epoch == epoch and view.forest.tree(8) == fresh.forest.tree(8)
    RunFolder(run).truncate_to(offsets_at(run, 4))
    view.refresh()
    assert view.data("run")["axes"]["step"] == [1, 2, 3, 4] and len(view.forest.heads) == 16
    assert view.forest.epoch != epoch


def test_the_index_knows_outcomes_and_disagreement(make_run: MakeRun) -> None:
    run = make_run(steps=1, questions=1, branching=(2, 2, 1))
    tree = json.loads((run / "trees.jsonl").read_text())
    for response, verdicts in zip(tree["responses"], (("right", "right"), ("wrong", "ungraded")), strict=True):
        for child, verdict in zip(response["children"], verdicts, strict=True):
            child["children"][0]["verdict"] = verdict
    (run / "trees.jsonl").write_text(json.dumps(tree) + "\n")
    [head] = forest_of(run).heads
    assert (head["right"], head["wrong"], head["total"]) == (2, 1, 4)
    rewards = [response["reward"] for response in tree["responses"]]
    assert head["spread"] == pytest.approx(abs(rewards[0] - rewards[1]) / 2)


def test_an_early_answer_counts_as_the_trajectories_that_it_left(make_run: MakeRun) -> None:
    """Below response 0 two trajectories ended in one leaf, right; below response 1 one is right and one wrong."""
    run = make_run(steps=1, questions=1, branching=(2, 2, 2))
    tree = json.loads((run / "trees.jsonl").read_text())
    first, second = tree["responses"]
    first["reward"] = second["reward"] = None  # then outcome rates are compared
    first["children"] = [{"text": "", "verdict": "right", "unused": [2]}, *first["children"][:1]]
    for leaf in first["children"][1]["children"]:
        leaf["verdict"] = "wrong"
    for child in second["children"]:
        for leaf in child["children"]:
            leaf["verdict"] = "wrong"
    (run / "trees.jsonl").write_text(json.dumps(tree) + "\n")
    forest = forest_of(run)
    [head] = forest.heads
    assert (head["right"], head["wrong"], head["total"]) == (1, 6, 7)
    assert head["spread"] == pytest.approx(0.25)  # of values 1/2 and 0
    [shown] = [node for node in Cutter(400).tree(tree)["responses"][0]["children"] if "unused" in node]
    assert shown["unused"] == 1


def test_a_text_is_found_anywhere_in_a_tree(make_run: MakeRun) -> None:
    run = make_run(steps=3, questions=1)
    trees = [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]
    trees[1]["responses"][2]["children"][1]["children"][0]["reason"] = "Straße No. 5"
    (run / "trees.jsonl").write_text("".join(json.dumps(tree) + "\n" for tree in trees))
    assert forest_of(run).containing("STRASSE") == [1]
    assert forest_of(run).containing(trees[0]["question"]["text"]) == [0]
    assert forest_of(run).containing("nowhere") == []


# -- several runs ------------------------------------------------------------------------------------------------------


def test_runs_are_named_by_what_tells_them_apart() -> None:
    assert run_names([Path("/a/demo"), Path("/a/control")]) == ["demo", "control"]
    assert run_names([Path("/a/x/demo"), Path("/a/y/demo")]) == ["x/demo", "y/demo"]


def test_differences_are_those_of_the_recipes() -> None:
    one, other = (
        {"name": "a", "train": {"seed": 0, "steps": 5}},
        {"name": "a", "train": {"seed": 1, "steps": 5}, "x": 1},
    )
    assert differences([one, other]) == [
        {"key": "train.seed", "values": ["0", "1"]},
        {"key": "x", "values": ["–", "1"]},
    ]


def test_matched_tokens_have_a_row_of_their_own(make_run: MakeRun) -> None:
    run = make_run(steps=2)
    summary = json.loads((run / "summary.json").read_text())
    matched = {
        "accuracy": 0.5,
        "low": 0.45,
        "high": 0.55,
        "n": 500,
        "pass_at": {"4": {"value": 0.7, "low": 0.6, "high": 0.8}},
    }
    for when in ("before", "after"):
        summary[when]["rounds_1_matched"] = matched
    (run / "summary.json").write_text(json.dumps(summary))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "eval": summary["after"]}) + "\n")
    data = report_data(run)
    assert [row["row"] for row in data["result"]["rows"]] == ["3 rounds", "1 round", "1 round, matched tokens"]
    assert data["result"]["rows"][2]["after"]["also"] == ["pass@4 70.0 % [60.0–80.0]"]
    assert data["result"]["reading"].startswith("3-round accuracy rose")
    [evals] = [chart for chart in data["sections"][0]["charts"] if chart["id"] == "evals"]
    assert [series["name"] for series in evals["series"]] == ["3 rounds", "1 round", "1 round, matched tokens"]
