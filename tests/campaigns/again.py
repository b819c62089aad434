"""The same recipe and seed again: in two fresh copies of the package, and with other batches.

    python tests/campaigns/again.py --out runs/campaigns/again.json

Two copies of `src/` in folders of different names, each run by the command line from a working directory of its own,
must end with the same trees and adapter, byte for byte. Then the same run with smaller decoding batches, and with
smaller micro-batches: the responses must be the same, and how far the weights are apart is written down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
SETTINGS = ["model.adapter=lora", "model.lora_rank=8", "rollout.questions_per_step=4", "eval.questions=20"]
OTHERS = {
    "rollout.max_rows": ["rollout.max_rows=8"],
    "train.microbatch_tokens": ["train.microbatch_tokens=128"],
}


def run(package: Path, place: Path, name: str, settings: list[str]) -> Path:
    """A run folder, made by the command line with this copy of the package."""
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "motif", "train", "demo", "--out", name]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    return place / name


def responses(folder: Path) -> list[str]:
    """The text of every response of every tree, in order."""

    def texts(nodes: list[dict]) -> list[str]:
        return [text for node in nodes for text in (node["text"], *texts(node.get("children", [])))]

    lines = (folder / "trees.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in lines for text in texts(json.loads(line)["responses"])]


def apart(one: Path, two: Path) -> dict[str, float]:
    """How far two adapters are apart: the largest difference, and the norm of all over the norm of one's."""
    import torch
    from safetensors.torch import load_file

    a, b = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (one, two))
    first, second = (torch.cat([tensors[name].double().flatten() for name in sorted(a)]) for tensors in (a, b))
    gap = first - second
    return {"largest": float(gap.abs().max()), "relative": float(gap.norm() / first.norm())}


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("again.json"))
    options = parser.parse_args()
    settings = [*SETTINGS, f"train.steps={options.steps}"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        one, two = place / "a", place / "another checkout" / "deeper"
        for copy in (one, two):
            shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        first = run(one, place / "here", "run", settings)
        second = run(two, place / "there" / "and there", "same", settings)
        files = ("trees.jsonl", "outcomes.jsonl", "adapter/adapter_model.safetensors")
        same = {file: (first / file).read_bytes() == (second / file).read_bytes() for file in files}
        found: dict[str, object] = {"steps": options.steps, "copies": same}
        good = all(same.values())
        for key, change in OTHERS.items():
            other = run(one, place / key, "run", settings + change)
            mine, theirs = responses(first), responses(other)
            differ = sum(a != b for a, b in zip(mine, theirs, strict=True))
            good &= not differ
            found[change[0]] = {"responses": len(mine), "other_responses": differ, "weights": apart(first, other)}
        found["environment"] = json.loads((first / "summary.json").read_text())["environment"]
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
