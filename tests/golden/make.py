"""Freeze what users of motif see and what its runs compute, for `tests/golden/test_golden.py` to compare.

    python tests/golden/make.py --out tests/golden

Interface (any machine): help texts, public names, resolved recipes, files and keys of a run folder. Numbers (the
machine that made them, with its versions): SHA-256 of trees, weights and metrics, seconds left out, of a 3-step demo,
of the same killed and resumed, of two processes, and of an evaluation; the answer of `motif solve --json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

COMMANDS = ("init", "recipes", "show", "train", "resume", "runs", "traces", "vllm-command", "eval", "probe", "solve",
            "serve", "grade", "compare", "view", "report", "export", "doctor")  # fmt: skip
RECIPES = ("circuit", "demo", "demo-control", "gemma3-gsm8k", "gsm8k-smollm2", "multi-round-grpo", "original-code",
           "paper", "qwen3-gsm8k", "qwen35-gsm8k", "recommended", "sums-smollm2", "vanilla-grpo")  # fmt: skip
DEMO = ["train", "demo", "--set", "train.steps=3", "--set", "eval.questions=40", "--set", "train.save_every=1"]
LORA = ["--set", "model.adapter=lora", "--set", "rollout.branching=[4,2,1]"]
ALL_ROUNDS = ["--set", "credit.train_rounds=all", "--set", "loss.kl_beta=0.01", "--set", "loss.minibatches=2"]
BASE = ["--set", "rollout.continuation_policy=base", "--set", "probe.questions=2", "--set", "probe.continuations=16"]
TASKS = ("arithmetic", "chain", "circuit")
"""Tasks whose settings lie in a section of their own, and lay flat in `[data]` before."""
NUMBERS = "numbers.json"
INTERFACE = "interface.json"


python = sys.executable
"""What runs the commands; a test sets another one that does the same."""


def motif(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a command of motif and return what it printed."""
    command = [python, "-m", "motif", *arguments]
    plain = {"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    settings = os.environ | plain | (environment or {})
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=900, check=True)


def interface(folder: Path) -> dict[str, Any]:
    """Help texts, public names, resolved recipes."""
    helps = {"motif": motif("--help", folder=folder).stdout}
    helps |= {command: motif(command, "--help", folder=folder).stdout for command in COMMANDS}
    import motif as package

    recipes = {name: settings(package.load_recipe(name).model_dump(mode="json")) for name in RECIPES}
    return {"help": helps, "all": sorted(package.__all__), "recipes": recipes}


def settings(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted settings; those of a task under the name that they had before tasks had sections of their own."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= settings(value, f"{prefix}{key}.")
        else:
            found[re.sub(rf"^data\.({'|'.join(TASKS)})\.", "data.", prefix + key)] = value
    return found


def numbers(folder: Path) -> dict[str, Any]:
    """What runs leave behind, as hashes."""
    if not (folder / "plain").exists():
        motif(*DEMO, "--out", "plain", folder=folder)
    motif(*DEMO, *LORA, *ALL_ROUNDS, "--out", "lora", folder=folder)
    motif(*DEMO, *LORA, *BASE, "--out", "base", folder=folder)
    killed_and_resumed(folder)
    two_processes(folder)
    motif("eval", "plain", "--samples", "4", "--questions", "20", "--out", "answers", "--json", "eval.json",
          folder=folder)  # fmt: skip
    solved = motif("solve", "What is 15 times 24?", "--run", "plain", "--json", folder=folder).stdout
    found = {name: run_hashes(folder / name) for name in ("plain", "lora", "base", "resumed", "two")}
    numbers = json.loads((folder / "eval.json").read_text())
    plain = {row: {key: value for key, value in one.items() if key != "calibration"} for row, one in numbers.items()}
    found["eval"] = {"numbers": digest(timeless(plain))}  # calibration came later
    found["eval"] |= {file.name: lines_hash(file) for file in sorted((folder / "answers").glob("*.jsonl"))}
    found["solve"] = {"answer": digest(timeless(json.loads(solved)))}
    return found


def folder_keys(run: Path) -> dict[str, Any]:
    """Names of a run's files, keys of its summary and of its metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()),
        "summary": sorted(settings(json.loads((run / "summary.json").read_text()))),
        "metrics": sorted({key for line in lines for key in line}),
    }


def killed_and_resumed(folder: Path) -> None:
    """The demo, killed in its second step, and resumed."""
    command = [python, "-m", "motif", *DEMO, "--out", "resumed"]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    checkpoint = folder / "resumed/checkpoints/step-000001/state.pt"
    while not checkpoint.exists():
        if process.poll() is not None:
            raise RuntimeError("the run ended before it could be killed")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    motif(*DEMO, "--out", "resumed", "--resume", folder=folder)


def two_processes(folder: Path) -> None:
    """The demo in two processes on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [python, "-m", "motif", *DEMO, "--out", "two"]
    group = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        for rank in "01"
    ]
    if any(process.wait(timeout=900) for process in group):
        raise RuntimeError("the run of two processes failed")


def run_hashes(run: Path) -> dict[str, str]:
    """Hashes of what a run computed: trees, metrics, outcomes, weights, the summary's accuracies."""
    found = {name: lines_hash(run / f"{name}.jsonl") for name in ("trees", "metrics", "outcomes")}
    summary = json.loads((run / "summary.json").read_text())
    found["summary"] = digest(timeless({key: summary[key] for key in ("before", "after", "best", "ledger", "data")}))
    weights: Callable[[Path], str] = lambda file: hashlib.sha256(file.read_bytes()).hexdigest()  # noqa: E731
    return found | {file.name: weights(file) for file in sorted(run.glob("[am]*/*.safetensors"))}


def lines_hash(file: Path) -> str:
    """Of a file of JSON lines, without what depends on the clock."""
    return digest([timeless(json.loads(line)) for line in file.read_text().splitlines()])


def timeless(value: Any) -> Any:
    """A value without its seconds."""
    if isinstance(value, dict):
        timed = re.compile(r"^time/|^memory/|seconds$|^created|^processes/waiting$")
        return {key: timeless(item) for key, item in value.items() if not timed.search(key)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """The hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def machine() -> dict[str, str]:
    """What the last bits of numbers depend on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    names = {name: version(name) for name in ("torch", "transformers", "peft", "numpy")}
    instructions = torch.backends.cpu.get_cpu_capability()
    return names | {"processor": processor or platform.machine(), "instructions": instructions}


def main() -> None:
    """Write the frozen files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=("interface", "numbers"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.only != "numbers":
            write(arguments.out / INTERFACE, interface(Path(temporary)))
        if arguments.only != "interface":
            found = {"machine": machine(), "runs": numbers(Path(temporary))}
            write(arguments.out / NUMBERS, found | {"folder": folder_keys(Path(temporary) / "plain")})


def write(file: Path, content: Any) -> None:
    """As JSON that reads well in a diff."""
    file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
