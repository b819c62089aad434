"""The studies of the arms that others propose: written from one table, pilots apart, and claims that can be judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evidence
from motif.compare.study import load_study, resolve
from support import ROOT
from support.scripts import loaded

HERE = ROOT / "studies" / "sample_efficiency"


PRETRAINED = ROOT / "studies" / "pretrained"


@pytest.fixture(scope="module")
def arms() -> ModuleType:
    return loaded(HERE / "arms.py")


def test_the_files_are_as_the_table_writes_them(arms):
    for task in arms.TASKS:
        assert (HERE / f"{task.name}.toml").read_text() == arms.study(task)
        assert (HERE / f"{task.name}_rates.toml").read_text() == arms.pilot(task)


def test_the_study_of_a_pretrained_model_is_as_its_table_writes_it():
    p1 = loaded(PRETRAINED / "p1.py")
    for name, study in p1.studies().items():
        assert (PRETRAINED / name).read_text() == p1.toml(study)
    study, pilot = (load_study(PRETRAINED / name) for name in ("p1.toml", "p1_rates.toml"))
    recipes = {arm: resolve(study, arm, PRETRAINED) for arm in study.arms}
    assert len({recipe.model_dump_json() for recipe in recipes.values()}) == len(recipes)  # no arm is there twice
    assert pilot.seeds == [p1.PILOT_SEED] and p1.PILOT_SEED not in study.seeds
    tuned = [name for name, arm in p1.ARMS.items() if arm.rate]
    assert list(pilot.arms) == [f"{name}-{rate:g}" for name in tuned for rate in p1.RATES]


def test_the_table_of_its_pilot_has_the_numbers_of_the_runs():
    p1, page = loaded(PRETRAINED / "p1.py"), (PRETRAINED / "README.md").read_text()
    shown = [
        [cell.strip(" *") for cell in line.split("|")[2:-1]] for line in page.splitlines() if line.startswith("| ")
    ]
    shown = shown[-7:]
    arms = [f"{name}-3e-05" for name in ("recommended", "long-8")]
    runs = {line["arm"]: line["curve"] for line in p1.lines(p1.PILOTS) if "arm" in line}
    for row, place in zip(shown, (0, -1), strict=False):
        accuracies = [runs[arm][place]["rows"][p1.ROW]["accuracy"] for arm in arms]
        assert row[:2] == [f"{100 * accuracy:.1f} %" for accuracy in accuracies]
    tests = p1.lines(p1.PILOTS.with_name("p1_tests.jsonl"))
    for row, test in zip(shown[2:], p1.TESTS, strict=True):
        found = {line.get("arm", "gap"): line for line in tests if line["test"] == test}
        gap = {key: 100 * value for key, value in found["gap"]["difference"].items() if key in ("mean", "low", "high")}
        accuracies = [found[arm]["by_seed"]["103"] for arm in arms]
        interval = "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**gap)
        assert row == [*(f"{100 * accuracy:.1f} %" for accuracy in accuracies), interval]


def test_the_table_of_its_seeds_has_the_numbers_of_the_runs():
    p1 = loaded(PRETRAINED / "p1.py")
    page = (PRETRAINED / "README.md").read_text()
    assert len(p1.table()) == 2 + 2 * (1 + len(p1.TESTS)) and "\n".join(p1.table()) in page
    assert "\n".join(p1.table_by_seed()) in page


def test_results_are_kept_by_seed_and_a_study_goes_on_elsewhere(tmp_path, monkeypatch):
    p1, calls = loaded(PRETRAINED / "p1.py"), []
    monkeypatch.setattr(p1, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(p1, "start", lambda seed, runs: calls.append(seed))

    def compare(*arguments: str) -> None:
        options = dict(argument[2:].split("=", 1) for argument in arguments if argument.startswith("--"))
        calls.append(options["arms"])
        made = [
            {"base": {"a": 1}},
            *({"arm": arm, "seed": int(options["seeds"])} for arm in options["arms"].split(",")),
        ]
        p1.keep([{"base": {"a": 1}}, *made], Path(options["out"]) / "results.jsonl")

    monkeypatch.setattr(p1, "motif", compare)
    for runs in ("runs", "runs", "elsewhere"):  # the second time nothing is left to do, and no run is needed for that
        p1.train("p1.toml", [0, 1], ["warm", "long-8"], tmp_path / runs, 1)
    assert calls == [0, "warm,long-8", 1, "warm,long-8"]
    first, *others = p1.lines(p1.RESULTS / "results.jsonl")
    assert first == {"base": {"a": 1}} and len(others) == 4
    p1.keep([{"arm": "warm", "seed": 2}], p1.RESULTS / "results.jsonl")
    with pytest.raises(SystemExit, match="other settings"):
        p1.keep([{"base": {"a": 2}}, {"arm": "warm", "seed": 3}], p1.RESULTS / "results.jsonl")


@pytest.mark.parametrize("name", ["chains", "sums", "longer"])
def test_every_arm_is_a_recipe_and_every_contrast_names_two(name):
    study = load_study(HERE / f"{name}.toml")
    recipes = {arm: resolve(study, arm, HERE) for arm in study.arms}
    assert len({recipe.model_dump_json() for recipe in recipes.values()}) == len(recipes)  # no arm is there twice
    assert study.contrasts and study.seeds == list(range(10))


def test_pilots_try_the_same_number_of_rates_for_every_arm_on_a_seed_that_is_not_reported(arms):
    for task in arms.TASKS:
        pilot = load_study(HERE / f"{task.name}_rates.toml")
        assert pilot.seeds == [arms.PILOT_SEED] and arms.PILOT_SEED not in arms.SEEDS
        for name in task.arms:
            tried = [arm for arm in pilot.arms if arm.rpartition("-rate-")[0] == name]
            assert len(tried) == (len(arms.RATES) if arms.ARMS[name].rate else 0)


def test_the_best_rate_of_a_pilot_is_taken_and_of_equals_the_smallest(arms, tmp_path, monkeypatch):
    def line(arm: str, place: int, accuracy: float) -> str:
        row = arms.ARMS[arm].row
        return json.dumps({"arm": f"{arm}-rate-{place}", "curve": [{"rows": {row: {"accuracy": accuracy}}}]})

    found = [("long-8", 0.2, 0.6, 0.6), ("recommended", 0.8, 0.7, 0.1)]
    lines = [line(name, place, value) for name, *values in found for place, value in enumerate(values, start=1)]
    (tmp_path / "pilots").mkdir()
    (tmp_path / "pilots" / "chains_rates.jsonl").write_text("\n".join(["{}", *lines, line("tail", 1, 0.9)]))
    monkeypatch.setattr(arms, "HERE", tmp_path)
    chosen = arms.chosen_rates(arms.TASKS[0])
    assert chosen == {"long-8": arms.RATES[1], "recommended": arms.RATES[0]}  # of tail two rates are missing
    assert f"train.learning_rate = {arms.RATES[0]}" in arms.study(arms.TASKS[0])


# -- claims ------------------------------------------------------------------------------------------------------------


def contrast(finding: str, margin: float | None = None, **difference: Any) -> dict[str, Any]:
    found = {"n": 10, "mean": 0.1, "low": 0.05, "high": 0.2} | difference
    return {"finding": finding, "margin": margin, "difference": found}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (contrast("better"), "shown"),
        (contrast("worse"), "**shown against**"),
        (contrast("not shown"), "not shown"),
        (contrast("not inferior", -0.03), "shown: not worse by 3 points"),
        (contrast("within margin", -0.03), "shown: worse, but by less than 3 points"),
        (contrast("better", n=9), evidence.MISSING),  # a seed is missing
        (contrast("one seed", low=None, n=1), evidence.MISSING),
        ({"finding": "none", "margin": None, "difference": None}, evidence.MISSING),
        (None, evidence.MISSING),
    ],
)
def test_the_verdict_in_words(found, said):
    assert evidence.verdict(found, 10) == said


def test_what_has_no_result_has_no_number():
    rows = evidence.rows()
    assert {row[-1] for row in rows} > {"shown", evidence.MISSING}
    assert all(row[2:4] == ["–", "–"] for row in rows if row[-1] == evidence.MISSING)


def test_a_contrast_that_no_study_has_is_found_before_there_are_results():
    with pytest.raises(KeyError, match="has no contrast 'nonsense'"):
        evidence._contrast({"file": "sample_efficiency/chains.toml", "summary": "nowhere.json"}, "nonsense")
