"""What a step takes besides sampling, grading and training, with long windows and many rows.

A model of one layer, 32 wide, with random weights writes numbers until its window is full: nothing is downloaded, and
so many tokens cannot be had much more cheaply, so that the shares are larger than any real model's. 16 responses have
16 continuations each, which makes 256 rows at once; half of all answers count as right; round 1 is trained. The run is
`motif train`, with a checkpoint after its step.

Seconds are of this process's processors (graders are processes of their own): neighbours on the machine do not change
them. Waiting for the disk is left out.

* sampling, grading, training: the run's own `time/sample`, `time/grade` and `time/update`.
* text: the part of sampling in which prompts are built, and responses decoded and read.
* rest: all else of the step: credit, samples, trees.jsonl, metrics, the terminal.
* saving: a checkpoint. A run writes one after every tenth step unless told otherwise.
* end: the summary and the page, once in a run.

`share`: (rest + saving) ÷ the step with its saving. `slopes`: of log seconds, and of log bytes that the step needs
at its peak, where the window or the rows are doubled; 1 means proportional.

    python benchmarks/overhead.py --json docs/performance/overhead.json      # two minutes of one core
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from common import console, parser, table, write
from gpu import make_tokenizer
from transformers import PhiConfig, PhiForCausalLM

from motif.config import load_recipe
from motif.display import Display
from motif.method.rounds import Rounds
from motif.models.launches import replaced
from motif.training import progress
from motif.training.loop import Trainer, train

Shape = tuple[int, int, int]
"""Tokens of a window, responses in round 1, and continuations of each."""
FULL: Shape = (8192, 16, 16)
SMALL: Shape = (1024, 8, 8)
QUICK: Shape = (64, 4, 4)
PARTS = ("sampling", "grading", "training", "text", "rest", "saving", "end")
CALLS = {
    "step": [(Trainer, "step")],
    "saving": [(Trainer, "save")],
    "end": [(Trainer, "finish")],
    "text": [(Rounds, "prompt"), (Rounds, "spell"), (Rounds, "read")],
}
"""What is timed besides the run's own clock, by name."""


def make_model(folder: Path, window: int) -> None:
    """Random weights that never write a special token, and a tokenizer of numbers."""
    tokenizer = make_tokenizer(253)
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=8,
        max_position_embeddings=2 * window,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = PhiForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias[:3] = -1e4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settings(folder: Path, shape: Shape) -> dict[str, Any]:
    """The recipe: a prompt with a note and the response to it fill a window."""
    window, responses, continuations = shape
    asked, note = min(100, window // 8), min(256, window // 8)
    question = " ".join(str(number % 10) for number in range(asked))
    rows = [json.dumps({"question": f"{question} {number}", "answer": str(number + 100)}) for number in range(8)]
    data = folder / "questions.jsonl"
    data.write_text("\n".join(rows) + "\n")
    tokens = window - asked - note - 16  # a few words of the scaffold
    return {
        "name": "overhead",
        "model": {"name": str(folder), "device": "cpu", "lora_rank": 4},
        "data": {
            "task": "file",
            "train": str(data),
            "held_out": 2,
            "grader": f"{Path(__file__).with_name('coin.py').resolve()}:grade",
        },
        "rounds": {"system_prompt": "", "note_tokens": note, "fallback": "text"},
        "rollout": {
            "branching": [responses, continuations],
            "tokens_first": tokens,
            "tokens_continue": tokens,
            "questions_per_step": 1,
            "max_rows": responses * continuations,
        },
        "credit": {"train_rounds": "first"},
        "eval": {"questions": 0},
        "train": {"steps": 1, "save_every": 1},
    }


@contextlib.contextmanager
def timing(spent: Counter[str]) -> Iterator[None]:
    """Add up the processor seconds of `CALLS`, and let the run's clock count the same."""

    def timed(own: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return own(*args, **kwargs)
            finally:
                spent[name] += time.process_time() - start

        return call

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(progress, "time", SimpleNamespace(perf_counter=time.process_time)))
        for name, methods in CALLS.items():
            for owner, method in methods:
                stack.enter_context(replaced(owner, method, timed(getattr(owner, method), name)))
        yield


def measure(shape: Shape) -> dict[str, float]:
    """Processor seconds of the parts of a run of one step, and the bytes it takes at its peak beside what is loaded."""
    torch.set_num_threads(1)
    spent: Counter[str] = Counter()
    before: list[int] = []
    own = Trainer.step

    def step(trainer: Trainer) -> None:
        spent["saving"] = 0  # the checkpoint of the start
        before.append(psutil.Process().memory_info().rss)
        own(trainer)

    with tempfile.TemporaryDirectory() as place, replaced(Trainer, "step", step), timing(spent):
        folder, run = Path(place) / "model", Path(place) / "run"
        make_model(folder, shape[0])
        train(load_recipe(settings(folder, shape)), run, display=Display(quiet=True))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    line = next(line for line in lines if "time/sample" in line)
    assert line["groups"] > line["dead_groups"], "nothing was trained"
    parts = {"sampling": line["time/sample"], "grading": line["time/grade"], "training": line["time/update"]}
    parts["rest"] = spent["step"] - sum(parts.values())
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[0]
    tokens = shape[1] * (1 + shape[2]) * line["completions/mean_length"]
    return {name: parts.get(name, spent[name]) for name in PARTS} | {"tokens": tokens, "bytes": peak}


def measured(shape: Shape) -> dict[str, float]:
    """The same in a process of its own, whose peak is this shape's; it need not import torch again."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply(measure, (shape,))
    console.print(f"[dim]{named(shape)}: {share(found):.2%}", highlight=False)
    return found


def share(found: dict[str, float]) -> float:
    """What the rest and saving are of a step."""
    besides = found["rest"] + found["saving"]
    return besides / (besides + sum(found[name] for name in ("sampling", "grading", "training")))


def named(shape: Shape) -> str:
    """A shape in words."""
    return f"{shape[0]:,} tokens, {shape[1] * shape[2]} rows"


def main() -> None:
    """Measure, print, write."""
    chosen = parser(__doc__).parse_args()
    full, (window, responses, continuations) = (QUICK, QUICK) if chosen.quick else (FULL, SMALL)
    small = measured((window, responses, continuations))
    doubled = {
        "window": measured((2 * window, responses, continuations)),
        "rows": measured((window, 2 * responses, continuations)),
    }
    whole = small if chosen.quick else measured(full)
    slopes = {
        name: {part: math.log2(found[part] / small[part]) for part in (*PARTS[:5], "bytes")}
        for name, found in doubled.items()
    }
    rows = [(name, whole[name], f"{whole[name] / sum(whole[one] for one in PARTS[:3]):.2%}") for name in PARTS]
    table(f"One step, {named(full)}", ["part", "seconds of a processor", "of the step"], rows)
    table("Slopes", ["part", *slopes], [(part, *(slopes[one][part] for one in slopes)) for part in slopes["rows"]])
    found = {"shape": named(full), "step": whole, "share": share(whole), "slopes": slopes}
    write(chosen.json, found | {"small": small} | {f"double {name}": one for name, one in doubled.items()})


if __name__ == "__main__":
    main()
