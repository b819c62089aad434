"""Decoding, updates and training steps on this GPU, against the forecast of `--dry-run --on` and without each change.

The model has Qwen2.5-3B's shape (3.09 billion parameters, vocabulary 151,936, bfloat16) and random weights, so that
nothing is downloaded. Its tokenizer knows numbers only: a response is a row of numbers up to its limit, the last one is
the answer; half of all answers count as right.

* decoding: milliseconds a step with 8, 32, 72 and 256 rows behind prompts of 330 tokens; with 72 rows also without
  CUDA graphs, without Triton kernels, and then without each of the other ways to launch less too
  (benchmarks/operations.py counts what they save).
* update: seconds of an update of `paper` on 8 responses of 512 tokens, its share of the device's peak (6 operations a
  parameter and computed token), and the same without each change.
* recipes: seconds and memory of steps of `paper` and `recommended` with windows of 512 tokens after the first, which
  warms up, beside the forecast for the named device; `sampler/mean_gap` says how far sampler and trainer are apart.

    python benchmarks/gpu.py --device 1xH200 --repeats 2 --json gpu.json

`ratios`: times without ÷ with, and forecast ÷ measured.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import parser, table, write
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from motif.config import ModelConfig, load_recipe
from motif.display import Display
from motif.models import launches, prefix
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.planning.devices import parse_devices
from motif.planning.plan import make_device_plan
from motif.sampling.base import Request
from motif.sampling.local import packing, pool
from motif.sampling.local.batch import LocalSampler, Queue
from motif.sampling.local.graphs import REPEATS
from motif.training.batch import Sample
from motif.training.loop import train
from motif.training.update import make_optimizer, update

WIDE = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CHAT = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}model {% endif %}"
)


def make_tokenizer(numbers: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the numbers from 0 on."""
    words = ["<pad>", "<end>", "<unk>", *map(str, range(numbers))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32_768, **special)
    tokenizer.chat_template = CHAT
    return tokenizer


def make_model(folder: Path, quick: bool) -> None:
    """Random weights and a tokenizer of numbers."""
    tokenizer = make_tokenizer(997 if quick else 151_933)
    shape = (SMALL if quick else WIDE) | {"num_key_value_heads": 2, "max_position_embeddings": 32_768}
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, **shape)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config).to(torch.float32 if quick else torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settings(folder: Path, recipe: str, tokens: int, steps: int) -> list[str]:
    """What differs from the recipe."""
    data = folder / "questions.jsonl"
    question = " ".join(str(n % 10) for n in range(100))
    rows = [json.dumps({"question": f"{question} {n}", "answer": str(n + 100)}) for n in range(24)]
    data.write_text("\n".join(rows) + "\n")
    return [
        f"model.name={folder}",
        "data.task=file",
        f"data.train={data}",
        "data.held_out=4",
        f"data.grader={Path(__file__).with_name('coin.py').resolve()}:grade",
        "rounds.fallback=last_number",
        "eval.questions=0",
        f"rollout.tokens_first={tokens}",
        f"rollout.tokens_continue={tokens}",
        f"train.steps={steps}",
        "train.save_every=1000",
    ]


WITHOUT: dict[str, tuple[Any, str, Any]] = {
    "fused norms": (launches, "_fused_norm", lambda module: None),
    "fused rotary embeddings": (launches, "_fused_rotary", lambda *_: None),
    "joint products": (packing, "joined_layers", lambda policy: []),
    "one table of prompts": (pool, "LARGEST", 0),
    "copies of the adapter": (launches, "_plain", lambda layer: False),
    "fewer passes": (prefix, "LAUNCH_TOKENS", prefix.MIN_SHARED_TOKENS),
}
"""What is measured without: where it lies, and what takes its place."""


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Leave out one change inside the block; of no name, none."""
    with contextlib.ExitStack() as stack:
        if name:
            stack.enter_context(launches.replaced(*WITHOUT[name]))
        yield


def milliseconds(sampler: LocalSampler, rows: int, steps: int) -> float:
    """Of a decoding step."""
    sampler.max_rows = rows
    numbers = sampler.policy.vocabulary - 3
    stem = [3 + 7 * place % numbers for place in range(300)]
    prompts = [[*stem, *(3 + (31 * row + place) % numbers for place in range(30))] for row in range(8)]
    keys = max(1, rows // 8)
    requests = [Request(prompt, [keys * row + key for key in range(keys)], 63) for row, prompt in enumerate(prompts)]
    queue: Queue = deque((request, range(keys)) for request in requests)
    with sampler.open() as batch:
        batch.ends = batch.ends[:0]
        for _ in range(3 + 2 * REPEATS):  # until steps are replayed
            batch.step(queue)
        _wait()
        start = time.perf_counter()
        for _ in range(steps):
            batch.step(queue)
        _wait()
        return 1000 * (time.perf_counter() - start) / steps


def decoding(policy: Policy, quick: bool) -> dict[str, float]:
    """Milliseconds a step, by what was done."""
    rows_of = (8, 16) if quick else (8, 32, 72, 256)
    usual, steps = rows_of[-2], 3 if quick else 40
    sampler = LocalSampler(policy, rows_of[-1])
    record = sampler.record
    found = {f"{rows} rows": milliseconds(sampler, rows, steps) for rows in rows_of}
    kernels, sampler.kernels = sampler.kernels, None
    found[f"{usual} rows without Triton kernels"] = milliseconds(sampler, usual, steps)
    for name in list(WITHOUT)[:4]:
        with without(name):
            found[f"{usual} rows without Triton kernels and {name}"] = milliseconds(sampler, usual, steps)
    sampler.kernels = kernels
    for name, bound, recorder in (("CUDA graphs", True, None), ("all of it", False, record)):
        policy.launch_bound, sampler.record = bound, recorder
        found[f"{usual} rows without {name}"] = milliseconds(sampler, usual, steps)
    policy.launch_bound = True
    return found


def updates(policy: Policy, device: str, quick: bool, repeats: int) -> dict[str, float]:
    """Seconds of an update, by what was done, and the share of the peak that all of it together reaches."""
    length, numbers = 8 if quick else 512, policy.vocabulary - 3
    prompt = [3 + 7 * place % numbers for place in range(330)]
    samples = [
        Sample(
            prompt, [3 + (row + 13 * place) % numbers for place in range(length)], [-1.0] * length, row - 3.5, 1, 0.01
        )
        for row in range(8)
    ]
    recipe = load_recipe("paper")
    optimizer = make_optimizer(policy.trainable(), recipe.train)
    computed = 0

    def seconds() -> float:
        nonlocal computed
        taken = []
        for _ in range(1 + repeats):
            _wait()
            start = time.perf_counter()
            computed = update(policy, optimizer, samples, recipe).computed_tokens
            _wait()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])

    found = {"all of it": seconds()}
    work = 6 * policy.computed_parameters * computed
    found["share of peak"] = work / found["all of it"] / parse_devices(device)[1].rate(half=True)
    for name in [one for one in WITHOUT if one not in ("joint products", "one table of prompts")]:
        with without(name):
            found[f"without {name}"] = seconds()
    policy.launch_bound = False
    found["without any"] = seconds()
    policy.launch_bound = True
    return found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(folder: Path, recipe: str, changed: list[str]) -> dict[str, Any]:
    """Seconds of sampling and of the update, and the largest memory, of steps after the first."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as out:
        train(load_recipe(recipe, changed), Path(out) / "run", display=Display(quiet=True))
        lines = [json.loads(line) for line in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    later = [line for line in lines if line.get("step", 0) > 1]
    return {
        "sample": statistics.median(line["time/sample"] for line in later),
        "update": statistics.median(line["time/update"] for line in later),
        "gib": peak,
        "sampler/mean_gap": statistics.median(line["sampler/mean_gap"] for line in later),
    }


def parts(folder: Path, device: str, quick: bool, repeats: int) -> dict[str, dict[str, float]]:
    """Decoding and updates by themselves."""
    policy = Policy(ModelConfig(name=str(folder), lora_rank=64, lora_alpha=64))
    policy.update_path, policy.launch_bound = FAST, True
    return {"decoding": decoding(policy, quick), "update": updates(policy, device, quick, repeats)}


def main() -> None:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--device", default="1xH200", help="its name for --on (default: %(default)s)")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    tokens, steps = (8, 2) if chosen.quick else (512, 1 + chosen.repeats)
    result: dict[str, Any] = {"recipes": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), chosen.quick)
        result |= parts(Path(folder), chosen.device, chosen.quick, chosen.repeats)
        for part in ("decoding", "update"):
            table(part, ["", "ms a step" if part == "decoding" else "s"], list(result[part].items()))
        usual = next(iter(name for name in result["decoding"] if "without" in name)).partition(" without")[0]
        steps_ms, seconds = result["decoding"], result["update"]
        result["ratios"]["decoding"] = steps_ms[f"{usual} without all of it"] / steps_ms[usual]
        result["ratios"]["decoding_graphs"] = steps_ms[f"{usual} without CUDA graphs"] / steps_ms[usual]
        result["ratios"]["update"] = seconds["without any"] / seconds["all of it"]
        for recipe in ("paper",) if chosen.quick else ("paper", "recommended"):
            changed = settings(Path(folder), recipe, tokens, steps)
            plan = make_device_plan(load_recipe(recipe, changed), chosen.device).forecast
            found: dict[str, Any] = {
                "measured": measure(Path(folder), recipe, changed),
                "forecast": {
                    "sample": plan.local(1).sampling,
                    "update": plan.local(1).training,
                    "gib": sum(plan.local_memory().values()) / 2**30,
                },
            }
            result["recipes"][recipe] = found
            for part in ("sample", "update"):
                result["ratios"][f"{recipe}_{part}"] = found["forecast"][part] / found["measured"][part]
            lines = [(name, one["sample"], one["update"], one["gib"] or "") for name, one in found.items()]
            table(f"{recipe}: seconds a step", ["", "sampling", "update", "GiB"], lines)
    write(chosen.json, result)


if __name__ == "__main__":
    main()
