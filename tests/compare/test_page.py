"""The page of a study: complete in one file, deaf to hostile texts, and it says what the summary says."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from motif.compare.analysis import summarise
from motif.compare.page import arm_curves, page_data, write_page
from support.browser import expect, needs_browser
from support.runs import HOSTILE
from support.studies import ARMS, made_up


def written(folder: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    study, lines = made_up(**options)
    summary = summarise(study, lines)
    write_page(folder / "index.html", summary, lines)
    return folder / "index.html", summary


def embedded(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_needs_nothing_else_and_holds_the_summary(tmp_path):
    page, summary = written(tmp_path)
    text = page.read_text("utf-8")
    assert not re.search(r"<[^>]* (?:src|href)=[\"'](?!#)", text.partition("<script")[0])
    assert "default-src 'none'" in html.unescape(text)
    data = embedded(page)
    assert data["summary"] == json.loads(json.dumps(summary))
    for one in summary["contrasts"]:  # where scripts are off
        assert html.escape(one["sentence"]) in text


def test_texts_cannot_become_markup(tmp_path):
    page, _ = written(tmp_path, text=HOSTILE, seeds=2)
    text = page.read_text("utf-8")
    assert text.count("<script") == 3 and "<img" not in text


def test_curves_have_every_seed_and_the_mean_of_both_axes():
    study, lines = made_up(seeds=3)
    data = page_data(summarise(study, lines), lines)
    curve = data["curves"]["single"]
    assert curve["steps"] == list(range(0, 101, 10)) and curve["seeds"] == [0, 1, 2]
    column = [seed[-1] for seed in curve["rows"]["rounds_3"]["by_seed"]]
    assert curve["rows"]["rounds_3"]["means"][-1]["mean"] == pytest.approx(sum(column) / 3)
    assert curve["spent"]["questions"][0][-1] == 800
    keys = [one["key"] for one in data["currencies"]]
    assert keys == ["questions", "updates", "generated_tokens", "flops", "seconds", "distinct_questions"]
    assert data["curves"]["untrained"]["steps"] == [0]


EXERCISE = """() => {
  const seen = {}, plot = () => document.querySelector(".plot.large svg");
  const axis = () => [...plot().querySelectorAll("text")].map((text) => text.textContent);
  const choose = (id, value) => {
    const select = document.getElementById(id);
    select.value = value;
    select.dispatchEvent(new Event("change"));
  };
  seen.currencies = [...document.getElementById("choose-currency").options].map((option) => option.value);
  seen.lines = plot().querySelectorAll("path.line").length;
  seen.bands = plot().querySelectorAll("path.band").length;
  seen.seeds = plot().querySelectorAll("path.raw").length;
  seen.axes = {};
  for (const currency of seen.currencies) {
    choose("choose-currency", currency);
    seen.axes[currency] = axis().join(" ");
  }
  choose("choose-row", "rounds_1");
  seen.other = plot().getAttribute("aria-label");
  const boxes = document.querySelectorAll("fieldset.arms input");
  boxes[0].click();
  seen.hidden = plot().querySelectorAll("path.line").length;
  boxes[boxes.length - 1].click();
  seen.without_seeds = plot().querySelectorAll("path.raw").length;
  plot().dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
  seen.tip = document.getElementById("tip").textContent;
  return seen;
}"""


@needs_browser
def test_every_currency_and_row_redraws_the_curves(tmp_path, browser):
    page_file, _ = written(tmp_path)
    with browser.open(page_file) as page:
        page.locator(".plot.large svg").wait_for()
        seen = page.evaluate(EXERCISE)
        expect(page.locator(".contrasts .forest svg .mean")).to_have_count(4)
        expect(page.locator(".contrasts .forest svg .seed")).to_have_count(40)
    trained = len(ARMS) - 1
    assert (seen["lines"], seen["bands"], seen["seeds"]) == (trained, trained, 10 * trained)
    assert {"questions", "updates", "generated_tokens", "flops", "seconds", "step"} <= set(seen["currencies"])
    assert len(set(seen["axes"].values())) == len(seen["axes"])
    assert "800 questions" in seen["axes"]["questions"] and "(million)" in seen["axes"]["generated_tokens"]
    assert "TFLOP" in seen["axes"]["flops"] and "minutes" in seen["axes"]["seconds"]
    assert "multi-8 ends at 10.0" in seen["other"]
    assert (seen["hidden"], seen["without_seeds"]) == (trained - 1, 0)
    assert "step 100" in seen["tip"] and "%" in seen["tip"]


@needs_browser
@pytest.mark.parametrize(
    "options",
    [{"text": HOSTILE, "seeds": 2}, {"seeds": 1}, {"arms": ("untrained",)}],
    ids=["hostile", "one", "untrained"],
)
def test_odd_studies_draw_without_errors(options, tmp_path, browser):
    page_file, _ = written(tmp_path, **options)
    with browser.open(page_file) as page:
        page.locator("#nav a").nth(2).wait_for()
        assert page.locator("img").count() == 0


def test_a_curve_keeps_the_evaluation_before_a_warm_start_and_the_one_after_it():
    points = [(0, 0, 0.1), (0, 50, 0.4), (5, 90, 0.6)]
    curve = [{"step": s, "spent": {"tokens": t}, "rows": {"rounds_3": {"accuracy": a}}} for s, t, a in points]
    drawn = arm_curves([{"seed": seed, "curve": curve} for seed in (0, 1)])
    assert drawn["steps"] == [0, 0, 5] and drawn["spent"]["tokens"] == [[0, 50, 90]] * 2
    assert drawn["rows"]["rounds_3"]["by_seed"][0] == [0.1, 0.4, 0.6]
