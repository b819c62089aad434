"""The table of studies/start/rounds.md has the numbers of its results."""

from __future__ import annotations

import json
import re

from support import ROOT

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
