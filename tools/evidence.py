"""The table of claims: what each says, by which contrast of which study it is judged, and the verdict in words."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from house import ROOT

STUDIES = ROOT / "studies"
MISSING = "not yet measured"


def verdict(contrast: dict[str, Any] | None, seeds: int) -> str:
    """The verdict on a claim that the first side is better or, with a margin, that it is not worse by that much.

    Args:
        contrast: from a study's summary.json; None: there is none.
        seeds: how many the study has. A difference over fewer is not reported.
    """
    found = contrast["difference"] if contrast else None
    if contrast is None or found is None or found["low"] is None or found["n"] < seeds:
        return MISSING
    margin = f"{-100 * (contrast['margin'] or 0):g} points"
    return {
        "better": "shown",
        "not inferior": f"shown: not worse by {margin}",
        "within margin": f"shown: worse, but by less than {margin}",
        "worse": "**shown against**",
    }.get(contrast["finding"], "not shown")


def rows() -> list[list[str]]:
    """A row for every claim in every study that judges it.

    Raises:
        KeyError: a study has no such contrast: its file is read, so that a slip is found before there are results.
    """
    told = tomllib.loads((STUDIES / "claims.toml").read_text(encoding="utf-8"))
    lines = []
    for claim in told["claims"]:
        for name, wanted in claim["by"].items():
            study = told["studies"][name]
            contrast, planned = _contrast(study, wanted) if "file" in study else (None, 0)
            said = verdict(contrast, planned)
            points, seeds = "–", "–"
            if contrast and said != MISSING:
                mean, low, high = (100 * contrast["difference"][key] for key in ("mean", "low", "high"))
                points, seeds = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−"), str(planned)
            contrasted = f"[{wanted}]({study['file']})" if wanted else "–"
            lines.append(
                [f"{claim['says']} ({claim['of']})", contrasted, points, seeds, study["task"], study["model"], said]
            )
    return lines


def _contrast(study: dict[str, str], wanted: str) -> tuple[dict[str, Any] | None, int]:
    """A contrast as the results have it, None if they do not, and the number of seeds that it should have."""
    plan = tomllib.loads((STUDIES / study["file"]).read_text(encoding="utf-8"))
    if wanted not in [one["name"] for one in plan["contrasts"]]:
        raise KeyError(f"studies/{study['file']} has no contrast {wanted!r}")
    file = STUDIES / study["summary"]
    summary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"contrasts": []}
    return next((one for one in summary["contrasts"] if one["name"] == wanted), None), len(plan["seeds"])
