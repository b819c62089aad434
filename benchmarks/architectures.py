"""The matrix of architectures: tiny random models of each, with a LoRA adapter and with all weights, through motif.

For each architecture and way of training:

* sampler and update are compared with the model's own plain forward pass, one sequence at a time: mean and largest
  difference of log-probabilities (nats), and the relative error of the gradient. Prompts share a beginning and fork in
  the middle, and the longest is at least four windows long;
* the commands run as a user runs them: train two steps, evaluate, export the merged model, answer a question. The
  merged model is read by plain transformers and its logits are compared with those of the trained model.

An architecture is *refused* if a command ends with one of motif's own messages, *crashes* if with any other, is
*silently wrong* if it trains although a difference is larger than rounding, and *works* otherwise.

    python benchmarks/architectures.py --json docs/performance/architectures.json     # half an hour on one core
    python benchmarks/architectures.py --only Qwen3 "Gemma 3" --records /path/to/records.jsonl

Results are appended to --records as they come, and an interrupted run resumes after the last of them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "campaigns")]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# ruff: noqa: E402
import torch
from common import console, write
from records import Records
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import ModelConfig, load_recipe
from motif.errors import MotifError, first_line
from motif.models.policy import Policy
from motif.runs.weights import load_weights
from support.architectures import ZOO, build
from support.parity import TOLERANCE, measure

MODES = ("lora", "full")
SETTINGS = [
    "data.task=file",
    "data.held_out=4",
    f"data.grader={ROOT / 'benchmarks' / 'coin.py'}:grade",
    "model.device=cpu",
    "model.lora_rank=4",
    "rounds.system_prompt=Think.",
    "rounds.fallback=text",
    "rounds.note_tokens=8",
    "rollout.tokens_first=12",
    "rollout.tokens_continue=12",
    "rollout.window=0",
    "rollout.branching=[2,2,1]",
    "rollout.questions_per_step=2",
    "train.steps=2",
    "train.learning_rate=1e-3",
    "train.threads=1",
    "eval.questions=2",
]


def matrix_row(name: str, mode: str, place: Path, run_commands: bool) -> dict[str, Any]:
    """Everything that is found out about one architecture and one way of training it."""
    row: dict[str, Any] = {"name": name, "mode": mode, "everyday": ZOO[name].everyday, "window": ZOO[name].window}
    start = time.perf_counter()
    try:
        config = build(ZOO[name], place / "model")
    except Exception as error:  # the zoo is wrong, not motif
        return row | {"verdict": "not built", "reason": first_line(error)}
    try:
        gaps = measure(config.model_copy(update={"adapter": mode}))
        row |= asdict(gaps) | {"right": gaps.fine}
    except MotifError as error:
        row |= {"verdict": "refused", "reason": first_line(error)}
    except Exception as error:  # whatever it is, it is a crash
        row |= {"verdict": "crash", "reason": f"{type(error).__name__}: {first_line(error)}"}
    gc.collect()
    row["commands"] = commands(config, mode, place) if run_commands else {}
    return row | {"seconds": round(time.perf_counter() - start, 1)} | verdict(row)


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    """What a row comes to, and why."""
    ends = row["commands"]
    crashed = [f"{name}: {end}" for name, end in ends.items() if str(end).startswith("crash")]
    stopped = [f"{name}: {end}" for name, end in ends.items() if str(end).startswith("exit")]
    if row.get("verdict") == "crash" or crashed:
        return {"verdict": "crash", "reason": crashed[0] if crashed else row["reason"]}
    if ends.get("train") == "ok" or (not ends and "right" in row):
        wrong = [key for key in ("sampler_max", "update_max") if not row.get(key, 0) <= TOLERANCE]
        wrong += ["read_back"] if not ends.get("read_back", 0) <= TOLERANCE else []
        if wrong or row.get("right") is False:
            return {"verdict": "silently wrong", "reason": ", ".join(wrong) or "gradient"}
    if stopped or row.get("verdict") == "refused":
        return {"verdict": "refused", "reason": stopped[0] if stopped else row["reason"]}
    return {"verdict": "works", "reason": row.get("reason", "")}


def commands(config: ModelConfig, mode: str, place: Path) -> dict[str, Any]:
    """How each command ends: `ok`, `exit N: its message`, or `crash: the exception`; `read_back` is a difference."""
    data, run = place / "questions.jsonl", place / "run"
    rows = [{"question": f"What is {n} plus {n + 3}?", "answer": str(2 * n + 3)} for n in range(24)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [*SETTINGS, f"model.name={config.name}", f"model.adapter={mode}", f"data.train={data}"]
    ends: dict[str, Any] = {}

    def call(name: str, *words: str) -> bool:
        result = CliRunner().invoke(app, list(words))
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            ends[name] = f"crash: {type(error).__name__}: {first_line(error)}"
        elif result.exit_code:
            said = [line for line in result.output.splitlines() if line.startswith("motif:")]
            ends[name] = f"exit {result.exit_code}: {(said or result.output.strip().splitlines() or ['nothing'])[-1]}"
        else:
            ends[name] = "ok"
        gc.collect()
        return bool(ends[name] == "ok")

    options = [word for setting in settings for word in ("--set", setting)]
    if call("train", "train", "recommended", *options, "--out", str(run)):
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ends["trained"] = sum(step.get("grad_norm") is not None for step in steps)
        ends["gap"] = max((step.get("sampler/max_gap") or 0.0 for step in steps), default=None)
        call("eval", "eval", str(run), "--questions", "2")
        if call("export", "export", str(run), "--to", "merged"):
            ends["read_back"] = read_back(run)
        call("solve", "solve", "What is 2 plus 5?", "--run", str(run))
    return ends


@torch.no_grad()
def read_back(run: Path) -> float:
    """The largest difference of log-probabilities (nats) between the trained model and the merged one."""
    policy = Policy(load_recipe(str(run / "recipe.toml")).model)
    load_weights(run, policy)
    merged = AutoModelForCausalLM.from_pretrained(run / "export" / "merged", dtype=torch.float32).eval()
    ids = torch.randint(4, 270, (1, 48), generator=torch.Generator().manual_seed(0))
    both = [model(input_ids=ids, use_cache=False).logits.float() for model in (policy.wrapped, merged)]
    ours, theirs = (logits.log_softmax(-1) for logits in both)
    return (ours - theirs).abs().max().item()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what libraries print inside the block."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        yield


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many architectures train, and how many crash or are wrong in either mode."""
    verdicts: dict[str, set[str]] = {}
    for row in rows:
        verdicts.setdefault(row["name"], set()).add(row["verdict"])
    return {
        "architectures": len(verdicts),
        "in at least one mode": sum("works" in found for found in verdicts.values()),
        "in both": sum(found == {"works"} for found in verdicts.values()),
        "crashes": sum("crash" in found for found in verdicts.values()),
        "silently wrong": sum("silently wrong" in found for found in verdicts.values()),
    }


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="write the matrix to this file")
    options.add_argument("--records", type=Path, default=Path("runs/architectures.jsonl"), help="results as they come")
    options.add_argument("--no-commands", action="store_true", help="compare only: a third of the time")
    options.add_argument("--only", nargs="+", choices=ZOO, default=list(ZOO), metavar="NAME", help="some of them")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    records = Records(chosen.records)
    known = {(row["name"], row["mode"]) for row in records.all}
    todo = [(name, mode) for name in chosen.only for mode in MODES if (name, mode) not in known]
    for number, (name, mode) in enumerate(todo, 1):
        with tempfile.TemporaryDirectory() as place, quiet():
            row = matrix_row(name, mode, Path(place), not chosen.no_commands)
        records.add([row])
        gap = max(row.get("sampler_max", 0), row.get("update_max", 0))
        paths = f"{row.get('sampler_path', '')}/{row.get('update_path', '')}"
        console.print(
            f"{number}/{len(todo)} {name}, {mode}: {row['verdict']} {paths} {gap:.1e} "
            f"{row['reason']} ({row.get('seconds', 0)} s)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    found = summary(records.all)
    console.print(", ".join(f"{count} {what}" for what, count in found.items()), highlight=False)
    write(chosen.json, {"summary": found, "tolerance": TOLERANCE, "rows": records.all})
    sys.exit(bool(found["crashes"] or found["silently wrong"]))


if __name__ == "__main__":
    main()
