"""Studies: what is refused, how runs are worked through, and what becomes of their results."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from motif.compare.analysis import summarise
from motif.compare.results import collect, curve, read_results, read_run, spelled_out, with_computed, write_results
from motif.compare.run import compare, prepare, run_study
from motif.compare.study import Study, StudyRun, load_study, plan_runs, resolve
from motif.compare.words import accuracy_columns, budget_columns
from motif.config import load_recipe
from motif.errors import ModelError, RecipeError, RunFolderError, UsageError
from motif.method.tree import Question
from motif.runs.read import Metrics, read_outcomes
from motif.runs.settings import changed, settings
from motif.training.schedule import draw_questions
from support import ROOT, forked
from support.studies import ARMS, SMALL, STUDY, made_up, study_file


def refused(folder: Path, text: str) -> str:
    with pytest.raises((RecipeError, ModelError)) as caught:
        prepare(load_study(study_file(folder, text)), folder)
    return str(caught.value)


# -- the study file ----------------------------------------------------------------------------------------------------


def test_settings_go_from_recipe_to_study_to_arm_to_seed(tmp_path):
    (tmp_path / "own.toml").write_text('about = "own"\n[train]\nsteps = 7\nlearning_rate = 1e-3\n')
    text = """
    recipe = "own.toml"
    seeds = [3, 5]
    set = { "train.learning_rate" = 2e-3 }
    [arms.a]
    about = "first"
    [arms.b]
    recipe = "demo"
    set = { "train.learning_rate" = 3e-3, "rollout.branching" = [4, 2] }
    """
    study = load_study(study_file(tmp_path, text))
    runs = plan_runs(study, tmp_path, tmp_path / "out")
    assert [(run.arm, run.seed) for run in runs] == [("a", 3), ("b", 3), ("a", 5), ("b", 5)]
    a, b = runs[0].recipe, runs[3].recipe
    assert (a.train.steps, a.train.learning_rate, a.train.seed, a.about) == (7, 2e-3, 3, "first")
    assert (b.rollout.branching, b.train.learning_rate, b.train.seed, b.data.task) == ([4, 2], 3e-3, 5, "arithmetic")
    assert a.train.threads == 1
    assert runs[3].folder == tmp_path / "out" / "b" / "seed-5"


def test_each_seed_may_have_a_model_of_its_own_and_all_are_looked_at_first(tmp_path):
    text = SMALL.replace("= 20", '= 20, "model.name" = "start-{seed}"')
    runs = plan_runs(load_study(study_file(tmp_path, text)), tmp_path, tmp_path)
    assert {run.seed: Path(run.recipe.model.name).name for run in runs} == {0: "start-0", 1: "start-1"}
    shutil.copytree(ROOT / "src" / "motif" / "demo" / "model", tmp_path / "start-0")
    assert "start-1" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("seeds", "seedz"), "unknown key seedz: did you mean 'seeds'?"),
        (SMALL + "abuot = 'x'", "unknown key arms.single.abuot: did you mean 'about'?"),
        (SMALL.replace("train.steps", "train.stepz"), "arm 'paper': unknown key train.stepz: did you mean 'steps'?"),
        (SMALL.replace("train.steps", "train.seed"), "train.seed is set by `seeds`"),
        (SMALL.replace('recipe = "demo"', ""), "arm 'paper' has no recipe"),
        (SMALL.replace('"demo"', '"demoo"'), "Did you mean 'demo'?"),
        (SMALL.replace("seeds", 'reference = "papr"\nseeds'), "no arm 'papr': did you mean 'paper'?"),
        (SMALL.replace("[0, 1]", "[0, 0]"), "seeds: 1 given twice"),
        (SMALL.replace("arms.single", 'arms."a/b"'), "arm 'a/b' names a folder"),
        (SMALL.replace('"small"', '"../small"'), "names a folder"),
        (SMALL.replace("= [8]", "= [1]"), "arm 'single': rollout.branching = [1] leaves nothing to compare"),
        (SMALL + "[[contrasts]]\nname = 'x'\na = { arm = 'paper' }", "contrasts.0.b: is missing"),
        (
            SMALL + "[[contrasts]]\nname = 'x'\na = { arm = 'paper', at = { question = 1 } }\nb = { arm = 'single' }",
            "no currency 'question': did you mean 'questions'?",
        ),
        (
            SMALL + "[[contrasts]]\nname = 'x'\na = { arm = 'paper', raw = 'x' }\nb = { arm = 'single' }",
            "unknown key contrasts.0.a.raw: did you mean 'row'?",
        ),
        (
            SMALL + "[[contrasts]]\nname = 'x'\na = { arm = 'paper', row = 'rounds_2' }\nb = { arm = 'single' }",
            "arm 'paper' has no evaluation row 'rounds_2', only rounds_1, rounds_3",
        ),
        (
            SMALL.replace(", eval.rounds = [1, 3]", "")
            + "[[thresholds]]\nname = 'x'\narms = ['paper', 'single']\ncurrency = 'flops'\ntarget = 0.5",
            "arm 'single' has no evaluation row 'rounds_3', only rounds_1: set eval.rounds",
        ),
        (SMALL.replace("[1, 3]", '[1, 3], "eval.questions" = 10'), "tested on different questions (20 and 10)"),
        (
            SMALL.replace("[1, 3]", '[1, 3], "data.arithmetic.operation" = "add"'),
            "tested on different questions (20 and 20)",
        ),
        (SMALL.replace("= 20", "= 0"), "arm 'paper' is tested on nothing"),
        (SMALL.replace("= 20", '= 20, "model.name" = "/nowhere"'), "arm 'paper': model '/nowhere'"),
        ("seeds = [", "not valid TOML"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(text, message, tmp_path):
    assert message in refused(tmp_path, text)
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def test_a_target_may_be_a_number_or_an_arm(tmp_path):
    head = "[[thresholds]]\nname = 'x'\narms = ['paper']\ncurrency = 'flops'\n"
    for given in ("0.6", "{ arm = 'paper' }"):
        [found] = load_study(study_file(tmp_path, SMALL + head + f"target = {given}")).thresholds
        assert found.target == 0.6 or found.target.arm == "paper"
    message = refused(tmp_path, SMALL + head + "target = { arn = 'paper' }")
    assert "unknown key" in message and "did you mean 'arm'?" in message


def test_arms_draw_the_same_questions_in_the_same_order(tmp_path):
    text = SMALL.replace("[8]", '[8], "rollout.questions_per_step" = 3')
    runs = plan_runs(load_study(study_file(tmp_path, text)), tmp_path, tmp_path)
    questions = [Question(str(index), f"{index}", "0") for index in range(10)]

    def drawn(run: StudyRun) -> list[str]:
        count = run.recipe.rollout.questions_per_step
        steps = range(1, 24 // count + 1)
        found = [q.text for step in steps for q in draw_questions(questions, step, count, run.recipe.train.seed)]
        return found[:24]

    by_seed = [[drawn(run) for run in runs if run.seed == seed] for seed in (0, 1)]
    assert by_seed[0][0] == by_seed[0][1] and by_seed[1][0] == by_seed[1][1]
    assert by_seed[0][0] != by_seed[1][0]


def test_changes_name_the_settings_that_matter():
    one = load_recipe("demo")
    two = load_recipe("demo", ["train.steps=7", "train.save_every=1", "rollout.branching=[8]"])
    changes = changed(settings(one), settings(two))
    assert changes == {"rollout.branching": ([8, 4, 1], [8]), "train.steps": (40, 7)}


# -- working through runs ----------------------------------------------------------------------------------------------


def test_too_many_at_once_for_the_memory_is_refused(tmp_path):
    prepared = prepare(load_study(study_file(tmp_path)), tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match=r"use --workers \d+"):
        run_study(prepared, prepared.runs, workers=1_000_000)
    with pytest.raises(UsageError, match="no arm 'papr'"):
        prepared.select(["papr"])
    with pytest.raises(UsageError, match="no seed 9"):
        prepared.select([], [9])
    assert [str(run) for run in prepared.select(["single"], [1])] == ["single seed 1"]


# -- raw results -------------------------------------------------------------------------------------------------------


def finished_run(folder: Path, arm: str = "paper", seed: int = 0) -> StudyRun:
    study = load_study(study_file(folder))
    [run] = [one for one in plan_runs(study, folder, folder / "out") if (one.arm, one.seed) == (arm, seed)]
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.toml").write_text(run.recipe.to_toml())
    found = {"rounds_1": {"accuracy": 0.1, "low": 0.0, "high": 0.2, "n": 20, "truncated": 0.0, "mean_tokens": 9.0}}
    lines = [
        {"step": 0, "eval": found},
        {"step": 0, "probe": {"value": 1}},
        {"step": 2, "frac_reward_zero_std": 0.5, "ledger/questions": 16, "ledger/new_thing": 3, "diag/icc": 0.2},
        {"step": 4, "frac_reward_zero_std": 0.25, "ledger/questions": 32, "ledger/new_thing": 7, "diag/icc": None},
        {"step": 4, "eval": found},
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "outcomes.jsonl").write_text(
        '{"step": 0, "row": "rounds_1", "questions": ["a", "b", "c"], "outcomes": [0.0, 0.0, 0.0]}\n'
        '{"step": 4, "row": "rounds_1", "questions": ["a", "b", "c"], "outcomes": [1.0, 0.0, null]}\n'
        '{"step": 4, "row": "rounds_3", "questions": ["a", "b", "c"], "outcomes": [0.5, 0.0, null]}\n'
    )
    ledger = {"questions": 32, "new_thing": 7}
    summary = {"status": "finished", "steps": 4, "ledger": ledger, "versions": {"torch": "2"}}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    return run


def test_a_run_becomes_one_line(tmp_path):
    run = finished_run(tmp_path, "single")
    assert run.is_finished
    ids: dict[str, list[str]] = {}
    base = resolve(load_study(tmp_path / "small.toml"), None, tmp_path)
    line = read_run(run, base, ids)
    assert [point["spent"] for point in line["curve"]] == [
        {"questions": 0, "new_thing": 0},
        {"questions": 32, "new_thing": 7},
    ]
    assert line["settings"] == {"rollout.branching": [8], "eval.rounds": [1, 3]}
    assert line["outcomes"] == {"rounds_1": "10-", "rounds_3": [0.5, 0.0, None]}
    assert spelled_out("10-") == [1.0, 0.0, None] and spelled_out([0.5]) == [0.5]
    assert ids["rounds_1"] == ["a", "b", "c"]
    assert line["diagnostics"] == {"step": [2, 4], "icc": [0.2, None]}
    assert line["probes"] == [{"step": 0, "probe": {"value": 1}}]
    assert line["dead_groups"] == pytest.approx(0.375)
    ids["rounds_1"] = ["a", "b"]
    with pytest.raises(RunFolderError, match="other questions"):
        read_run(run, base, ids)


def test_results_name_files_as_the_study_does(tmp_path):
    run = finished_run(tmp_path)
    elsewhere = run.recipe.model.model_copy(update={"name": str(tmp_path / "model")})
    base = run.recipe.model_copy(update={"model": elsewhere})
    head, line = collect(load_study(tmp_path / "small.toml"), base, "rounds_3", [run], tmp_path)
    assert head["base"]["model.name"] == "model" and head["base"]["train.steps"] == 4
    assert head["questions"]["rounds_3"] == ["a", "b", "c"]
    assert line["settings"] == {"model.name": "embedded"}
    assert str(tmp_path) not in json.dumps([head, line])


def test_currencies_are_those_of_the_evaluated_step():
    metrics = Metrics()
    for line in (
        {"step": 0, "eval": {}},
        {"step": 1, "ledger/questions": 8},
        {"step": 1, "eval": {}},
        {"step": 2, "ledger/questions": 16},
    ):
        metrics.add(line)
    assert [point["spent"]["questions"] for point in curve(metrics, {"questions": 16})] == [0, 8]
    assert read_outcomes(Path("/nowhere"), 1) == {}


def test_results_are_read_back_and_others_refused(tmp_path):
    _, lines = made_up(seeds=2)
    write_results(tmp_path / "results.jsonl", lines)
    assert read_results(tmp_path / "results.jsonl") == json.loads(json.dumps(lines))
    for text in ("", "{}\n", '{"study": "x"}\n{"arm": "a"}\n', "not json\n"):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(UsageError, match=r"bad\.jsonl"):
            read_results(tmp_path / "bad.jsonl")
    with pytest.raises(UsageError, match="No such file"):
        read_results(tmp_path / "none.jsonl")


def test_results_of_arms_that_were_added_later_are_put_together(tmp_path):
    _, (head, *runs) = made_up(seeds=2)
    early, late = tmp_path / "early.jsonl", tmp_path / "late.jsonl"
    write_results(early, [head, *runs[:3]])
    write_results(late, [head, *runs[3:]])
    assert read_results(early, late) == read_results_of(tmp_path, [head, *runs])
    with pytest.raises(UsageError, match="another file has"):
        read_results(early, early)
    write_results(late, [head | {"questions": {row: ["other"] for row in head["questions"]}}, *runs[3:]])
    with pytest.raises(UsageError, match="tested on other questions"):
        read_results(early, late)


def read_results_of(folder, lines):
    write_results(folder / "all.jsonl", lines)
    return read_results(folder / "all.jsonl")


# -- from raw results to numbers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return summarise(*made_up())


def test_differences_are_paired_by_seed(summary):
    _, lines = made_up()
    ends = {(line["arm"], line["seed"]): line["curve"][-1]["rows"]["rounds_3"]["accuracy"] for line in lines[1:]}
    found = summary["arms"]["recommended"]["rows"]["rounds_3"]
    gaps = [ends["recommended", seed] - ends["paper", seed] for seed in range(10)]
    assert found["difference"]["mean"] == pytest.approx(sum(gaps) / 10)
    assert found["difference"]["by_seed"][3] == pytest.approx(gaps[3])
    # Pairing takes out the luck that seeds share: the difference is surer than either side.
    width = found["difference"]["high"] - found["difference"]["low"]
    assert width < found["accuracy"]["high"] - found["accuracy"]["low"]
    assert "difference" not in summary["arms"]["paper"]["rows"]["rounds_3"]


def test_contrasts_at_an_amount_and_at_the_end(summary):
    claim, layout, bug, ours = summary["contrasts"]
    assert (claim["finding"], layout["finding"], bug["finding"], ours["finding"]) == (
        "better",
        "worse",
        "worse",
        "better",
    )
    assert "paper at 120 questions, 3 rounds" in claim["sentence"]
    _, lines = made_up()
    run = next(line for line in lines[1:] if (line["arm"], line["seed"]) == ("paper", 0))
    at_80, at_160 = (point["rows"]["rounds_3"]["accuracy"] for point in run["curve"][1:3])
    assert claim["a"]["by_seed"][0] == pytest.approx((at_80 + at_160) / 2)
    assert "mcnemar" not in claim  # outcomes are known at the end of runs only
    assert layout["mcnemar"].keys() == {str(seed) for seed in range(10)}
    wide, narrow = layout["over_questions"], layout["difference"]
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_an_amount_beyond_the_curves_gives_no_number_but_a_note():
    study, lines = made_up()
    data = study.model_dump()
    data["contrasts"] = [STUDY["contrasts"][0] | {"a": {"arm": "paper", "at": {"questions": 900}}}]
    [found] = summarise(Study.model_validate(data), lines)["contrasts"]
    assert found["difference"] is None and found["finding"] == "none"
    assert "paper at 900 questions, 3 rounds: no value for seeds 0, 1, 2" in found["notes"][0]


@pytest.mark.parametrize(
    ("low", "high", "margin", "finding"),
    [
        (0.01, 0.03, None, "better"),
        (-0.01, 0.03, None, "not shown"),
        (-0.005, 0.03, -0.01, "not inferior"),
        (-0.02, 0.03, -0.01, "not shown"),
        (-0.008, -0.002, -0.01, "within margin"),
        (-0.03, -0.01, -0.01, "worse"),
        (None, None, -0.01, "one seed"),
    ],
)
def test_what_a_difference_amounts_to(low, high, margin, finding):
    from motif.compare.analysis import finding as of

    assert of({"low": low, "high": high}, margin) == finding


def test_thresholds_count_who_never_arrives(summary):
    fixed, of_paper = summary["thresholds"]
    assert fixed["arms"]["paper"]["not_reached"] == [] and len(fixed["arms"]["single"]["not_reached"]) == 10
    assert fixed["ratios"]["recommended"]["bound"] is None and fixed["ratios"]["recommended"]["high"] < 0.5
    assert fixed["ratios"]["single"]["bound"] == "lower"
    assert "single never reaches it in 800 questions" in fixed["sentence"]
    assert "single needs at least" in fixed["sentence"] and "∞]" in fixed["sentence"]
    ends = summary["arms"]["paper"]["rows"]["rounds_3"]["accuracy"]["mean"]
    assert of_paper["target"] == pytest.approx(ends)
    late = of_paper["arms"]["paper"]["not_reached"]
    assert 0 < len(late) < 10 and all(of_paper["arms"]["paper"]["by_seed"][seed] == 800 for seed in late)
    assert of_paper["ratios"]["recommended"]["bound"] == "upper"


def test_what_is_missing_is_told():
    study, lines = made_up(arms=ARMS[:-1])
    lines = [line for line in lines if (line.get("arm"), line.get("seed")) != ("paper", 4)]
    lines[1]["versions"] = {"torch": "1"}
    lines.append(lines[1] | {"seed": 77})
    found = summarise(study, lines)
    told = " ".join(found["notes"])
    assert "untrained: no finished run of seeds 0, 1, 2" in told and "paper: no finished run of seed 4." in told
    assert "1 run in the results belong" in told and "different versions of torch" in told
    assert found["contrasts"][1]["difference"]["n"] == 9
    assert 4 not in found["contrasts"][1]["difference"]["by_seed"]
    assert found["arms"]["untrained"]["rows"] == {}


def test_an_arm_is_compared_in_the_row_it_is_used_in(tmp_path):
    study, lines = made_up()
    data = study.model_dump()
    data["arms"]["single"]["row"] = "rounds_1"
    data["contrasts"] = [{"name": "as used", "a": {"arm": "paper"}, "b": {"arm": "single"}}]
    found = summarise(Study.model_validate(data), lines)
    [contrast] = found["contrasts"]
    assert (contrast["a"]["row"], contrast["b"]["row"]) == ("rounds_3", "rounds_1")
    gap = found["arms"]["single"]["rows"]["rounds_1"]["difference"]["mean"]
    assert gap == pytest.approx(-contrast["difference"]["mean"])
    assert "at 1 round" in next(line for line in accuracy_columns(found)[1] if line[0] == "single")[-1]
    assert found["budgets"]["single"]["questions"]["difference"]["mean"] == pytest.approx(gap)


def test_arms_are_compared_at_matched_budgets(summary):
    _, lines = made_up()
    ends = [(line["arm"], line["curve"][-1]["spent"]["generated_tokens"]) for line in lines[1:]]
    most = min(spent for arm, spent in ends if arm in ("paper", "recommended"))
    found = summary["budgets"]["recommended"]
    assert found["generated_tokens"]["amount"] == most and found["generated_tokens"]["difference"]["n"] == 10
    assert "untrained" in summary["budgets"] and not summary["budgets"]["untrained"]  # it spends nothing
    heads, rows = budget_columns(summary)
    assert "at equal generated tokens" in heads and "untrained" not in [line[0] for line in rows]


def test_all_tokens_computed_are_a_currency():
    spent = {"generated_tokens": 5, "prefill_tokens": 3}
    metrics = Metrics()
    metrics.add({"step": 0, "eval": {}})
    assert curve(metrics, spent)[0]["spent"]["computed_tokens"] == 0
    assert with_computed(spent)["computed_tokens"] == 8 and with_computed({"questions": 1}) == {"questions": 1}


def test_screens_are_told_in_the_notes():
    study, lines = made_up(seeds=2)
    lines[0]["overlap"] = "overlap: 3 of 300 held-out questions"
    for line in lines[1:]:
        line["curve"][-1]["rows"]["rounds_3"]["second"] = {"grader": "math", "compared": 300, "disagreements": 2}
    told = summarise(study, lines)["notes"]
    assert (
        "paper: math disagrees on 4 of 600 final verdicts." in told and "overlap: 3 of 300 held-out questions" in told
    )


def test_one_seed_has_means_and_no_intervals():
    found = summarise(*made_up(seeds=1))
    assert found["arms"]["paper"]["rows"]["rounds_3"]["accuracy"]["low"] is None
    assert {one["finding"] for one in found["contrasts"]} == {"one seed"}


def test_pooled_intraclass_correlation():
    from motif.compare.analysis import pooled_icc

    # Two steps of two responses with two outcomes each: (1,1),(0,0) and (1,0),(1,0).
    columns = {"ss_between": [1.0, 0.0], "df_between": [1, 1], "ss_within": [0.0, 1.0], "df_within": [2, 2]}
    within, between = 1 / 4, (1 / 2 - 1 / 4) / 2
    assert pooled_icc(columns | {"n0": [2, 2]}) == pytest.approx(between / (between + within))
    assert pooled_icc({}) is None and pooled_icc(columns | {"n0": [0, None]}) is None


# -- the command -------------------------------------------------------------------------------------------------------


def test_from_results_alone(tmp_path, capsys):
    text = """
    name = "made_up"
    recipe = "a_recipe_that_is_not_there"
    seeds = [0, 1, 2]
    reference = "paper"
    [arms.paper]
    [arms.single]
    [[contrasts]]
    name = "both <ends>"
    a = { arm = "paper" }
    b = { arm = "single" }
    """
    _, lines = made_up(seeds=3)
    write_results(tmp_path / "results.jsonl", lines)
    assert compare(study_file(tmp_path, text), results=[tmp_path / "results.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "both <ends>: paper, 3 rounds" in said and "18 runs in the results belong to no arm" in said
    table = (tmp_path / "table.md").read_text()
    assert "| paper | 3 |" in table and "both &lt;ends>" in table
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["contrasts"][0]["difference"]["n"] == 3
    assert "both" in (tmp_path / "index.html").read_text()


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert compare(study_file(tmp_path), tmp_path / "out", seeds=[1], mode="plan") == 0
    said = capsys.readouterr().out
    assert "paper" in said and "single" in said and "to go" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_example_study_runs_and_is_not_run_twice(tmp_path):
    example = (ROOT / "examples" / "compare_layouts.toml").read_text()
    file, out = tmp_path / "study.toml", tmp_path / "out"
    file.write_text(example.replace("train.steps = 6", "train.steps = 2").replace("questions = 100", "questions = 12"))
    command = [forked.python(), "-m", "motif", "compare", str(file), "--workers", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "index.html" in done.stdout
    found = json.loads((out / "summary.json").read_text())
    assert all(arm["runs"] == 2 for arm in found["arms"].values())
    runs = {(line["arm"], line["seed"]): line for line in read_results(out / "results.jsonl")[1:]}
    for seed in (0, 1):  # arms differ in what they do with the questions, not in the questions
        grown = []
        for arm in ("motif", "single"):
            trees = (out / arm / f"seed-{seed}" / "trees.jsonl").read_text().splitlines()
            grown.append([(tree["step"], tree["question"]["id"]) for tree in map(json.loads, trees)])
        assert grown[0] == grown[1]
        assert runs["motif", seed]["curve"][0]["rows"] == runs["single", seed]["curve"][0]["rows"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "done in" not in done.stdout
