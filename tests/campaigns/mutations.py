"""Configurations changed at random: whatever motif accepts, it computes as the model's plain forward pass does.

    python tests/campaigns/mutations.py --tries 100 --seed 0 --out runs/campaigns/mutations.jsonl

Each try builds an architecture of the zoo with some of its settings changed (layer types shuffled, windows of odd
sizes, heads that do not divide, tied and untied embeddings, spare words, scalings, partial rotary embeddings, biases).
It is right, refused by one of motif's own messages, wrong, or a crash; the last two are failures. What transformers
itself cannot build or run is drawn again. The same command resumes an interrupted campaign.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import torch
from records import Records

from motif.errors import MotifError, first_line
from support.architectures import build
from support.mutations import mutated
from support.parity import measure

FAILURES = ("wrong", "crash")


def attempt(seed: int, folder: Path) -> dict[str, Any]:
    """What a changed configuration comes to; `not built` if transformers does not take it."""
    name, one, changed = mutated(seed)
    mode = ("lora", "full")[seed % 2]
    record: dict[str, Any] = {"seed": seed, "name": name, "changed": changed, "mode": mode}
    try:
        config = build(one, folder)
    except Exception:  # transformers says no in many ways
        return record | {"result": "not built"}
    try:
        gaps = measure(config.model_copy(update={"adapter": mode}))
    except MotifError as error:
        return record | {"result": "refused", "reason": first_line(error)}
    except Exception as error:  # whatever it is, it is a crash
        return record | {"result": "crash", "reason": f"{type(error).__name__}: {first_line(error)}"}
    return record | {"result": "right" if gaps.fine else "wrong"} | asdict(gaps)


def main() -> int:
    """The campaign; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first try")
    parser.add_argument("--out", type=Path, default=Path("mutations.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = Records(options.out)
    while sum(record["result"] != "not built" for record in records.all) < options.tries:
        with tempfile.TemporaryDirectory() as folder:
            record = attempt(options.seed + len(records), Path(folder))
        gc.collect()
        records.add([record])
        if record["result"] in FAILURES:
            print(record, flush=True)
    counts = Counter(record["result"] for record in records.all)
    print(f"{len(records)} configurations: {dict(counts)}")
    return int(any(counts[kind] for kind in FAILURES))


if __name__ == "__main__":
    sys.exit(main())
