"""A training step on this GPU against the forecast of `--dry-run --on`, and decoding with and without CUDA graphs.

The model has Qwen2.5-3B's shape (3.09 billion parameters, vocabulary 151,936, bfloat16) and random weights, so that
nothing is downloaded. Its tokenizer knows numbers only: a response is a row of numbers up to its limit, the last one is
the answer; half of all answers count as right. Recipes `paper` and `recommended` with windows of 512 tokens.

    python benchmarks/gpu.py --device 1xH200 --json gpu.json      # about ten minutes on an H200

`seconds`: of steps after the first, which warms up. `forecast`: for the named device. `ratios`: decoding step by step ÷
with graphs, and forecast ÷ measured.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import parser, table, write
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from motif.config import load_recipe
from motif.display import Display
from motif.planning.plan import make_device_plan
from motif.sampling.local.batch import LocalSampler
from motif.training.loop import train

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


def measure(folder: Path, recipe: str, changed: list[str], graphs: bool) -> dict[str, Any]:
    """Seconds of sampling and of the update, and the largest memory, of steps after the first."""
    recorder = LocalSampler.recorder
    if not graphs:
        LocalSampler.recorder = staticmethod(lambda device: None)  # type: ignore[method-assign]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory() as out:
            train(load_recipe(recipe, changed), Path(out) / "run", display=Display(quiet=True))
            lines = [json.loads(line) for line in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    finally:
        LocalSampler.recorder = staticmethod(recorder)  # type: ignore[method-assign]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    later = [line for line in lines if line.get("step", 0) > 1]
    return {
        "sample": statistics.median(line["time/sample"] for line in later),
        "update": statistics.median(line["time/update"] for line in later),
        "gib": peak,
        "sampler/mean_gap": statistics.median(line["sampler/mean_gap"] for line in later),
    }


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
        for recipe in ("paper",) if chosen.quick else ("paper", "recommended"):
            changed = settings(Path(folder), recipe, tokens, steps)
            plan = make_device_plan(load_recipe(recipe, changed), chosen.device).forecast
            found: dict[str, Any] = {
                "graphs": measure(Path(folder), recipe, changed, graphs=True),
                "step by step": measure(Path(folder), recipe, changed, graphs=False),
                "forecast": {
                    "sample": plan.local(1).sampling,
                    "update": plan.local(1).training,
                    "gib": sum(plan.local_memory().values()) / 2**30,
                },
            }
            result["recipes"][recipe] = found
            result["ratios"][f"{recipe}_graphs"] = found["step by step"]["sample"] / found["graphs"]["sample"]
            for part in ("sample", "update"):
                result["ratios"][f"{recipe}_{part}"] = found["forecast"][part] / found["graphs"][part]
            lines = [(name, one["sample"], one["update"], one["gib"] or "") for name, one in found.items()]
            table(f"{recipe}: seconds a step", ["", "sampling", "update", "GiB"], lines)
    write(chosen.json, result)


if __name__ == "__main__":
    main()
