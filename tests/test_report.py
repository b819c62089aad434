"""The run report: complete in one file, honest in its sentence, calm about missing parts, deaf to hostile texts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from motif.diagnostics import Components, of_question
from motif.report import write_report
from motif.report.charts import moving_average, rate_levels
from motif.report.data import report_data
from motif.report.page import to_json
from motif.report.trees import choose, select_trees

HOSTILE = (
    "</script><img src=x onerror=\"document.documentElement.dataset.error='ran'\"><!-- <script>alert(1)</script> "
    "<!--<script> \u2028\u2029 \u202egnp.exe \x00 \ud800 🂡 日本語 &lt; [[script]] [[data]] \\u003c"
)
MakeRun = Callable[..., Path]


# -- a run folder as a real run would leave it ------------------------------------------------------------------------


def fake_run(
    folder: Path,
    *,
    steps: int = 60,
    planned: int = 60,
    branching: tuple[int, ...] = (8, 4, 1),
    questions: int = 4,
    after: float | None = 0.72,
    text: str | None = None,
    probed: bool = False,
    seed: int = 0,
) -> Path:
    """A run that goes from about 40 % to about 70 %: recipe, metrics with evaluations, trees, summary."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(
        'name = "demo"\nabout = "Two-digit multiplication in three rounds."\n[model]\n'
        'name = "embedded"\nadapter = "lora"\n'
        f'lora_rank = 64\n[data]\ntask = "arithmetic"\n[rollout]\nquestions_per_step = {questions}\n'
        f"branching = {list(branching)}\ntokens_first = 256\ntokens_continue = 128\n"
        f"[train]\nsteps = {planned}\nseed = {seed}\n"
    )
    rounds = len(branching)
    before_rate = 0.41
    ledger: dict[str, Any] = dict.fromkeys(("questions", "updates", "generated_tokens", "prefill_tokens"), 0)
    ledger |= {"prefill_saved": 0, "trained_tokens": 0, "flops": 0.0, "seconds": 0.0}
    before, end = _evaluation(before_rate, rounds), _evaluation(after or 0.5, rounds)
    metrics: list[dict[str, Any]] = [{"step": 0, "eval": before}]
    with (folder / "trees.jsonl").open("w") as trees:
        for step in range(1, steps + 1):
            skill = before_rate + ((after or 0.5) - before_rate) * (1 - math.exp(-3 * step / max(planned, 1)))
            grown = [_tree(rng, step, index, branching=branching, skill=skill, text=text) for index in range(questions)]
            trees.writelines(json.dumps(tree) + "\n" for tree in grown)
            metrics.append(_training_line(rng, step, grown, ledger, branching=branching, skill=skill))
            if step % 20 == 0:
                metrics.append({"step": step, "eval": _evaluation(skill, rounds)})
    if probed:
        metrics += [{"step": 0, "probe": _probe(0.4)}, {"step": steps, "probe": _probe(0.7)}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    summary: dict[str, Any] = {"before": before, "ledger": ledger, "seed": seed, "status": "stopped"}
    summary["versions"] = {"motif-rl": "0.1.0", "torch": "2.13.0", "transformers": "5.13.0", "python": "3.11.7"}
    if after is not None:
        summary |= {"after": end, "status": "finished", "best": {"step": 40, "accuracy": 0.731}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _evaluation(rate: float, rounds: int, n: int = 500) -> dict[str, Any]:
    found = {}
    for count in {1, rounds}:
        share = rate if count == rounds else 0.75 * rate
        half = 1.96 * math.sqrt(share * (1 - share) / n)
        found[f"rounds_{count}"] = {
            "accuracy": share,
            "low": share - half,
            "high": share + half,
            "n": n,
            "truncated": 0.03,
            "mean_tokens": 90.0 * count,
        }
    return found


def _tree(
    rng: random.Random, step: int, index: int, *, branching: tuple[int, ...], skill: float, text: str | None
) -> dict[str, Any]:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    ease = min(1.0, max(0.0, rng.gauss(1.3 * skill - 0.2, 0.6)))

    def node(path: tuple[int, ...], quality: float) -> dict[str, Any]:
        final = len(path) == len(branching)
        right = rng.random() < quality
        answer = str(a * b if right else a * b + rng.choice([-100, -10, 10, 90]))
        note = (
            f"{a} × {b} = {a} × {b // 10 * 10} + {a} × {b % 10}. So far: {a * (b // 10) * 10}."
            if not final
            else f"\\boxed{{{answer}}}"
        )
        formed = rng.random() < 0.6 + 0.35 * skill
        body = text or (
            f"<reasoning>\nI split {b} into {b // 10 * 10} and {b % 10}.\n{a} × {b // 10 * 10} = {a * (b // 10) * 10}\n"
            f"{a} × {b % 10} = {a * (b % 10)}\n</reasoning>\n<answer>\n{note}\n</answer>"
        )
        record: dict[str, Any] = {
            "path": list(path),
            "text": body if formed else body.replace("</answer>", ""),
            "tokens": 60 + rng.randint(0, 60),
            "prompt_tokens": 48,
            "truncated": rng.random() < 0.05,
            "well_formed": formed,
            "note": text or note,
            "answer": answer if final else None,
            "value": None,
            "reward": None,
            "advantage": None,
        }
        if final:
            verdict = "ungraded" if rng.random() < 0.002 else "right" if right else "wrong"
            reason = (
                text or {"right": "equal", "wrong": f"{answer} ≠ {a * b}", "ungraded": "the grader timed out"}[verdict]
            )
            record |= {"verdict": verdict, "reason": reason, "value": None if verdict == "ungraded" else float(right)}
        else:
            count = branching[len(path)]
            record["children"] = [node((*path, child), quality) for child in range(count)]
            values = [child["value"] for child in record["children"] if child["value"] is not None]
            record["value"] = sum(values) / len(values) if values else None
        return record

    responses = [
        node((response,), min(1.0, max(0.0, ease + rng.gauss(0, 0.25) * (0 < ease < 1))))
        for response in range(branching[0])
    ]
    for response in responses:
        response["reward"] = (response["value"] or 0.0) + response["well_formed"]
    mean = sum(response["reward"] for response in responses) / len(responses)
    for response in responses:
        response["advantage"] = response["reward"] - mean
    question = {"id": f"arithmetic-{step}-{index}", "text": text or f"What is {a} × {b}?", "gold": text or str(a * b)}
    return {"step": step, "question": question, "responses": responses}


def _training_line(
    rng: random.Random,
    step: int,
    trees: list[dict[str, Any]],
    ledger: dict[str, Any],
    *,
    branching: tuple[int, ...],
    skill: float,
) -> dict[str, Any]:
    rounds, k = len(branching), math.prod(branching[1:])
    responses = [response for tree in trees for response in tree["responses"]]
    values = [response["value"] for response in responses if response["value"] is not None]
    counts = [0] * (k + 1)
    for value in values:
        counts[round(value * k)] += 1
    solved = [[response["value"] or 0 for response in tree["responses"]] for tree in trees]
    ledger["questions"] += len(trees)
    ledger["updates"] += 1
    for key, amount in (
        ("generated_tokens", 24_000),
        ("prefill_tokens", 9_000),
        ("prefill_saved", 60_000),
        ("trained_tokens", 7_000),
        ("flops", 3.1e12),
    ):
        ledger[key] += amount * len(trees)
    ledger["seconds"] += 21.0
    line: dict[str, Any] = {
        "step": step,
        "reward": sum(response["reward"] for response in responses) / len(responses),
        "reward_std": 0.4,
        "frac_reward_zero_std": 0.1,
        "completions/mean_length": 88.0,
        "completions/clipped_ratio": 0.05,
        "entropy": 0.9 - 0.4 * skill + rng.gauss(0, 0.03),
        "kl": None,
        "clip_ratio": 0.0,
        "grad_norm": abs(rng.gauss(0.6, 0.15)),
        "learning_rate": 5e-6,
        "loss": rng.gauss(0, 0.01),
        "sampler/mean_gap": abs(rng.gauss(2e-6, 5e-7)),
        "outcome/mean": sum(values) / len(values),
        "outcome/rate_counts": counts,
        "outcome/ungraded": sum(response["value"] is None for response in responses),
        "outcome/never": sum(max(row) == 0 for row in solved) / len(solved),
        "outcome/always": sum(min(row) == 1 for row in solved) / len(solved),
        "note/mean_tokens": 31 + rng.gauss(0, 2),
        "note/empty": 0.04,
        "note/early_answer": min(1, 0.2 + 0.3 * skill),
        "groups": len(trees),
        "dead_groups": sum(len(set(row)) == 1 for row in solved),
        "time/sample": 12.1,
        "time/grade": 0.8,
        "time/update": 7.5,
        "time/record": 0.1,
        "time/total": 21.0,
    }
    line["outcome/sometimes"] = 1 - line["outcome/never"] - line["outcome/always"]
    for count in range(1, rounds + 1):
        line[f"format/rate_{count}"] = min(1, 0.5 + 0.45 * skill + 0.03 * count + rng.gauss(0, 0.03))
        line[f"length/round_{count}"] = 120 - 14 * count + 30 * skill + rng.gauss(0, 4)
        line[f"truncated/round_{count}"] = max(0, 0.12 - 0.1 * skill - 0.01 * count + rng.gauss(0, 0.01))
    parts = Components()
    if k > 1:
        parts = sum((of_question(_outcomes(tree)) for tree in trees), parts)
    return line | parts.metrics() | {f"ledger/{key}": value for key, value in ledger.items()}


def _outcomes(tree: dict[str, Any]) -> list[list[float]]:
    return [
        [child["value"] for child in response["children"] if child["value"] is not None]
        for response in tree["responses"]
    ]


def _probe(own: float) -> dict[str, Any]:
    def estimate(value: float, half: float = 0.05) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    values = {"own": own, "empty": 0.05, "shuffled": 0.02, "own_minus_empty": own - 0.05}
    return {
        "questions": 20,
        "correlation": estimate(0.7),
        "icc": estimate(0.3),
        "trained_bias": estimate(0.01),
        "rewards": [{"k": k, "bias": estimate(0.0), "variance": 0.2 / k, "reliability": 0.3} for k in (1, 2, 4, 8)],
        "values": {name: estimate(value) for name, value in values.items()},
    }


class Elements(HTMLParser):
    """The start tags of a page with their attributes, and the content of its data block."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "run", **settings: Any) -> Path:
        return fake_run(tmp_path / name, **settings)

    return make


def report(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


# -- the file ---------------------------------------------------------------------------------------------------------


def test_is_one_self_contained_file(make_run: MakeRun) -> None:
    run = make_run(steps=12)
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "://" not in page and "@import" not in page and "url(" not in page
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and not any(key.startswith("on") for key in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_policy_admits_the_one_script_and_nothing_else(make_run: MakeRun) -> None:
    page = report(make_run(steps=2))
    policy = next(a["content"] for t, a in Elements(page).tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_data_survives_the_way_into_the_page(make_run: MakeRun) -> None:
    run = make_run(steps=3)
    assert json.loads(Elements(report(run)).data) == json.loads(json.dumps(report_data(run)))


def test_hostile_text_stays_inert(make_run: MakeRun) -> None:
    run = make_run(steps=3, text=HOSTILE)
    (run / "recipe.toml").write_text('name = "</title><script>alert(1)</script>"\n[model]\nname = "<b>x</b>"\n')
    page = report(run)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags if tag == "script"] == ["script", "script"]
    assert not [tag for tag, _ in elements.tags if tag in ("img", "b")] and "<!--" not in page
    block = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in block and ">" not in block and "&" not in block
    texts = json.loads(block)["forest"]["trees"][0]["responses"][0]["text"]
    assert texts == HOSTILE.replace("\ud800", "?")
    assert html.escape("</title><script>alert(1)</script>") in page


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
    with pytest.raises(NotADirectoryError, match="not a run folder"):
        write_report(tmp_path / "nowhere")


def test_run_stopped_after_two_steps(make_run: MakeRun) -> None:
    run = make_run(steps=2, after=None)
    data = report_data(run)
    assert "not evaluated after training" in data["result"]["reading"]
    facts = {fact["name"]: fact["value"] for fact in data["head"]["facts"]}
    assert facts["Status"] == "stopped, 2 of 60 steps"
    assert data["sections"][0]["charts"][0]["steps"] == [1, 2]
    assert data["forest"]["all_trees"] == 8


def test_half_written_and_broken_lines(make_run: MakeRun) -> None:
    run = make_run(steps=3, after=None)
    whole_trees = report_data(run)["forest"]["all_trees"]
    for name in ("metrics.jsonl", "trees.jsonl"):
        text = (run / name).read_text()
        lines = text.splitlines(keepends=True)
        (run / name).write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    data = report_data(run)
    assert data["sections"][0]["charts"][0]["steps"] == [1, 2]
    assert data["forest"]["all_trees"] == whole_trees - 1
    assert data["notices"] == []
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 3, "reward": NaN}\n[1]\n{"step": null}\n')
    data = report_data(run)
    assert data["sections"][0]["charts"][0]["steps"] == [1, 2, 3]
    assert data["notices"] == ["metrics.jsonl: 3 lines could not be read and left out."]
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
    assert report_data(run)["forest"]["trees"][-1]["responses"][0]["advantage"] is None


def test_resumed_run_counts_the_repeated_steps_once(make_run: MakeRun) -> None:
    run = make_run(steps=5, questions=1)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    again = [line | {"reward": 9.0} for line in lines if line["step"] in (3, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + again))
    trees = (run / "trees.jsonl").read_text().splitlines(keepends=True)
    (run / "trees.jsonl").write_text("".join(trees + trees[2:4]))
    data = report_data(run)
    chart = data["sections"][0]["charts"][0]
    assert chart["steps"] == [1, 2, 3, 4] and chart["series"][1]["raw"][2:] == [9.0, 9.0]
    assert [tree["step"] for tree in data["forest"]["trees"]] == [1, 2, 3, 4]


# -- size -------------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_with_a_mark(make_run: MakeRun) -> None:
    run = make_run(steps=1, questions=1, branching=(4, 1), text="a" * 50_000 + "é<" + "z" * 50_000)
    forest = report_data(run)["forest"]
    text = forest["trees"][0]["responses"][0]["text"]
    assert len(text) < 4_100 and "96,002 characters left out here" in text
    assert text.startswith("a" * 3_000) and text.endswith("z" * 1_000)
    assert forest["cut_texts"] > 0 and forest["text_limit"] == 4_000
    assert (run / "report.html").exists() is False and write_report(run).stat().st_size < 1_000_000


def test_page_is_bounded_and_says_what_it_shows(make_run: MakeRun) -> None:
    run = make_run(steps=40, questions=2, branching=(4, 2, 1))
    every = select_trees(run / "trees.jsonl")
    assert every["all_trees"] == len(every["trees"]) == 80
    some = select_trees(run / "trees.jsonl", budget=100_000)
    assert len(to_json(some["trees"])) < 101_000
    assert 8 <= some["steps"] < some["all_steps"] == 40 and some["all_trees"] == 80
    shown = [tree["step"] for tree in some["trees"]]
    assert shown[0] == 1 and shown[-1] == 40
    few = select_trees(run / "trees.jsonl", budget=4_000)
    assert few["trees"] == [] or few["text_limit"] < 4_000


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
    assert len(chart["steps"]) <= 600 and chart["steps"][-1] == 5_000 and "mean of 9 steps" in chart["caption"]
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
    assert [section["id"] for section in data["sections"]] == ["learning", "outcomes", "responses", "stability"]


def test_diagnostics_say_what_the_trees_hold(make_run: MakeRun) -> None:
    run = make_run(steps=40)
    section = report_data(run)["sections"][-1]
    trees = [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]
    whole = sum((of_question(_outcomes(tree)) for tree in trees), Components())
    assert f"explains {100 * whole.icc:.1f} % [" in section["text"][0]
    [chart] = section["charts"]
    points = chart["series"][0]["points"]
    assert len(points) == 8 and points[0]["title"] == "steps 1–5" and points[-1]["step"] == 38
    assert all(point["low"] < point["value"] < point["high"] for point in points)


def test_one_round_has_no_diagnostics(make_run: MakeRun) -> None:
    assert report_data(make_run(steps=5, branching=(8,)))["sections"][-1]["id"] == "stability"


def test_a_probe_is_read_out(make_run: MakeRun) -> None:
    run = make_run(steps=8, probed=True)
    section = report_data(run)["sections"][-1]
    assert "correlate with r = 0.70 [0.65, 0.75]" in "".join(section["text"])
    assert "The own note is worth 65.0 points [60.0, 70.0] more than no note." in section["text"]
    charts = {chart["id"]: chart for chart in section["charts"]}
    assert [point["value"] for point in charts["note-value"]["series"][0]["points"]] == [0.4, 0.7]
    assert charts["rewards"]["rows"][1] == ["2", "0.000 [−0.050, 0.050]", "0.100", "0.300"]
    # One made afterwards replaces that of its step.
    (run / "probe.json").write_text(json.dumps({"step": 8, "probe": _probe(0.9)}))
    section = report_data(run)["sections"][-1]
    [values] = [chart for chart in section["charts"] if chart["id"] == "note-value"]
    assert [point["value"] for point in values["series"][0]["points"]] == [0.4, 0.9]


@pytest.mark.parametrize("probe", [{}, {"rewards": 3, "values": [], "icc": 1}, {"rewards": [None, {"k": "x"}]}])
def test_a_broken_probe_does_not_stop_the_report(make_run: MakeRun, probe: dict[str, Any]) -> None:
    run = make_run(steps=2, branching=(8,))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "probe": probe}) + "\n" + '{"step": 2, "probe": 7, "diag/icc": "x"}\n')
    report(run)


# -- in a browser -----------------------------------------------------------------------------------------------------

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def dump_dom(page: Path, profile: Path) -> str:
    """The page's document after its script has run."""
    assert CHROME is not None
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    command = [
        CHROME,
        "--headless",
        "--no-sandbox",
        *quiet,
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=4000",
        "--window-size=1280,900",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no Chromium or Chrome found")
@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 40},
        {"steps": 20, "probed": True},
        {"steps": 2, "after": None},
        {"steps": 2, "text": HOSTILE},
        {"steps": 2, "branching": (8,)},
        {"steps": 12, "branching": (2, 2, 2, 1)},
        {"steps": 0, "after": None},
    ],
    ids=["finished", "probed", "stopped", "hostile", "one round", "deep", "nothing"],
)
def test_page_draws_itself_without_errors(make_run: MakeRun, tmp_path: Path, settings: dict[str, Any]) -> None:
    run = make_run(**settings)
    if settings["steps"] == 0:
        for file in run.iterdir():
            file.unlink()
    dom = dump_dom(write_report(run), tmp_path / "profile")
    root = re.search(r"<html[^>]*>", dom)
    assert root and 'data-ready="true"' in root[0] and "data-error" not in root[0]
    assert "<img" not in dom.partition("<script")[0]
    if settings["steps"]:
        assert dom.count('class="plot"><svg') >= 10
        assert dom.count('class="stack"') == 2
        assert ("What the note is worth" in dom) == bool(settings.get("probed"))
        assert 'class="diagram"' in dom and 'class="response"' in dom and 'class="leaf' in dom
    else:
        assert "No tree has been recorded." in dom


EXERCISE = """<script>setTimeout(() => {
  const set = (id, value, event) => {
    const input = document.getElementById(id);
    input.value = value;
    input.dispatchEvent(new Event(event, { bubbles: true }));
  };
  const listed = () => document.querySelectorAll(".questions button[data-tree]").length;
  const key = (node, name) => node.dispatchEvent(
    new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const seen = { last: listed() };
  set("tree-step", "all", "change");
  seen.all = listed();
  for (const kind of ["mixed", "never", "always"]) {
    document.querySelector(`input[value=${kind}]`).click();
    seen[kind] = listed();
  }
  document.querySelector("input[value=all]").click();
  set("tree-search", "no such question", "input");
  seen.none = listed();
  set("tree-search", "", "input");
  document.querySelector(".questions button").focus();
  key(document.activeElement, "ArrowDown");
  seen.second = document.querySelectorAll(".questions button")[1].getAttribute("aria-current");
  key(document.querySelector(".root"), "Enter");
  seen.open = document.querySelectorAll("details.response[open]").length;
  seen.texts = document.querySelectorAll("details.response[open] pre").length;
  key(document.querySelector("#chart-rates .plot svg"), "End");
  seen.tip = document.getElementById("tip").textContent;
  document.documentElement.dataset.seen = JSON.stringify(seen);
})</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no Chromium or Chrome found")
def test_tree_browser_by_keyboard_and_filters(make_run: MakeRun, tmp_path: Path) -> None:
    page = write_report(make_run(steps=4, questions=5))
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")).replace("</body>", EXERCISE)
    page.write_text(text, encoding="utf-8")
    dom = dump_dom(page, tmp_path / "profile")
    found = re.search(r'<html[^>]* data-seen="([^"]*)"', dom)
    assert found and not re.search(r"<html[^>]* data-error", dom)
    seen = json.loads(html.unescape(found[1]))
    assert seen["last"] == 5 and seen["all"] == 20 and seen["none"] == 0
    assert seen["mixed"] + seen["never"] + seen["always"] == 20 and seen["mixed"] > 0
    assert seen["second"] == "true" and seen["open"] == 1
    assert seen["texts"] == 1 + 4 * 2  # the response itself, and two rounds of each of its four trajectories
    assert "step 4" in seen["tip"] and "4 of 4" in seen["tip"]
