"""The tables of studies/start have the numbers of their results."""

from __future__ import annotations

import json
import re

from motif.statistics.paired import crossed_interval
from support import ROOT
from support.scripts import loaded

START = ROOT / "studies" / "start"


def test_the_table_has_the_numbers_of_the_results():
    records = [json.loads(line) for line in (START / "results" / "rounds.jsonl").read_text().splitlines()]
    page = (START / "rounds.md").read_text()
    for arm in dict.fromkeys(record["arm"] for record in records if "row" in record and "arm" in record):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{arm}`"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        shown = [float(re.findall(r"-?[\d.]+", cell.replace("−", "-"))[0]) for cell in cells]
        of = {record["row"]: record for record in records if record.get("arm") == arm and "row" in record}
        wanted = [of[name][key] * scale for name in ("rounds_3", "rounds_6") for key, scale in KEYS]
        for found, true in zip(shown, wanted, strict=False):
            assert abs(found - true) <= 0.051, (arm, found, true)
        [gap] = [one for one in records if one.get("arm") == arm and one.get("steps") == "2 to 5" and "what" in one]
        assert abs(shown[4] - gap["mean"]) <= 0.051


KEYS = (("accuracy", 100), ("mean_tokens", 1))


def test_stories_shown_whole_have_the_numbers_of_their_runs():
    stories, page = loaded(START / "stories.py"), (START / "texts.md").read_text()
    for seed, found in json.loads((START / "stories_whole.json").read_text()).items():
        assert stories.table_row(seed, found).rsplit("|", 2)[0] in page  # all but the minutes, which the page explains


def test_the_looks_at_half_a_billion_parameters_have_the_numbers_of_the_run():
    page = (START / "gsm8k.md").read_text()
    records = map(json.loads, (START / "gsm8k" / "qwen" / "metrics.jsonl").read_text().splitlines())
    looks = [warm["look"] for record in records if "look" in (warm := record.get("warmstart", {}))]
    assert len(looks) == 3
    for look in looks:
        shares = " | ".join(f"{100 * look[key]:.0f} %" for key in ("well_formed", "right", "cut_off"))
        assert f"| {shares} | {4 * look['undecided']:.0f} of 4 |" in page


def test_the_table_of_word_sums_has_the_numbers_of_the_answers():
    page, before = (START / "words.md").read_text(), []
    for line in map(json.loads, (START / "words" / "learnt" / "outcomes.jsonl").read_text().splitlines()):
        right = [float(outcome) for outcome in line["outcomes"]]
        gaps = [crossed_interval([[x - y for x, y in zip(right, before, strict=True)]])] if before else []
        gain = [f" {100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]" for gap in gaps]
        row = f"| {100 * sum(right) / len(right):.1f} % |{''.join(gain)} |"
        assert re.search(
            rf"^\| {line['stage']}.* \| {100 * line['well_formed']:.0f} % {re.escape(row)}$", page, re.M
        ), line
        before = right
    assert len(before) == 200


def test_the_table_of_other_seeds_has_the_numbers_of_the_answers():
    page, before = (START / "words.md").read_text(), {}
    for line in map(json.loads, (START / "words" / "seeds.jsonl").read_text().splitlines()):
        right, seed = [float(outcome) for outcome in line["outcomes"]], line["seed"]
        row = (
            f"| {seed}, {line['stage']} | {100 * line['well_formed']:.0f} % | {100 * sum(right) / len(right):.1f} % | "
        )
        if seed in before:
            gap = crossed_interval([[x - y for x, y in zip(right, before[seed], strict=True)]])
            row += f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] "
        assert f"{row}|" in page
        before[seed] = right
    assert list(before) == [1, 2] and len(before[2]) == 200
