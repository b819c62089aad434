"""The benchmarks run and write what the documentation reads."""

from __future__ import annotations

import json
import subprocess

import pytest

from support import ROOT, forked

BENCHMARKS = ROOT / "benchmarks"
RATIOS = {
    "rollout": {"serial", "hf_generate", "prefill_over_unique"},
    "step": {"trl", "trl_motif", "update_only"},
    "scaling": set(),
    "overhead": set(),
    "grading": {"gsm8k", "math"},
    "general": set(),
    "precision": {"1 row", "open", "one stream", "1 question", "in a run"},
    "rounding": set(),
    "gpu": {"decoding", "decoding_graphs", "update", "paper_sample", "paper_update"},
}


def test_a_step_with_long_windows_takes_little_besides_its_work():
    found = json.loads((ROOT / "docs/performance/overhead.json").read_text(encoding="utf-8"))
    assert found["shape"] == "8,192 tokens, 256 rows" and found["step"]["tokens"] > 2e6
    assert 0 < found["share"] < 0.02
    assert all(slopes["rest"] < 1 for slopes in found["slopes"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", RATIOS)
def test_a_quick_run_writes_its_numbers(name, tmp_path):
    command = [forked.python(), str(BENCHMARKS / f"{name}.py"), "--quick", "--json", str(tmp_path / "found.json")]
    command += ["--skip-continuous-batching", "--questions", "1"] if name == "rollout" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    ratios = found.get("ratios", {})
    assert RATIOS[name] <= (ratios | ratios.get("embedded", {})).keys()
    assert {"machine", "versions"} <= found.keys()
    for row in found["rows"] if name == "general" else ():
        assert row["over_generate"].keys() == {"siblings", "mixed"} and min(row["over_generate"].values()) > 0
        assert row["fast"].keys() == (
            {"update"} if row["sampler_path"] == "general" else {"siblings", "mixed", "update"}
        )
