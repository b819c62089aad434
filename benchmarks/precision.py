"""Rollouts in 8 bits against float32, by processor time, so that a busy machine changes little but the caches.

The two samplers share one policy (SmolLM2-135M with a LoRA adapter, folded in) and take turns.

* steps: a decoding step of so many rows of one question, the least of several; `open`: making the sampler's weights.
* stream: tokens per second of one response after its prompt, as `motif solve` has it, which makes the weights once.
* trees: useful tokens per second of processor time in growing whole trees (m = 8, k = 4, n = 3) of one and of eight
  questions; making the weights is included.
* run: tokens per second of sampling in a run of words-smollm2 (studies/real_models/words.toml).
* mean_gap: mean |log p| difference from the trainer's over tokens that each sampler has drawn itself, in nats.
* llama.cpp: tokens per second of its Q8_0 weights (all matrices in 8 bits) on the same core, alone and in 32 rows,
  through the package xllamacpp, by the clock: it needs a quiet machine. Its wheel on PyPI is built without AVX-512.

    python benchmarks/precision.py --json docs/performance/precision.json         # ten minutes on one quiet core
    python benchmarks/precision.py --only steps gap                               # two minutes
    python -m venv llama && llama/bin/pip install xllamacpp                       # beside it: the other part
    python benchmarks/precision.py --llamacpp llama/lib/python3.*/site-packages --json docs/performance/precision.json
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import interleaved, parser, ratios, table, write
from rollout import Setting, embedded, smollm2

from motif.config import load_recipe
from motif.display import Display
from motif.export.base_model import describe
from motif.export.formats import merge
from motif.export.gguf import write_gguf
from motif.method.keys import sampling_key
from motif.models.int8 import Precision
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler, Queue
from motif.sampling.local.precision import choose_precision
from motif.training.loop import train

ROWS = (1, 8, 32, 128)
PARTS = ("steps", "gap", "stream", "trees", "run")
STUDY = Path(__file__).parents[1] / "studies" / "real_models"
Samplers = dict[str, LocalSampler]


def samplers(setting: Setting) -> Samplers:
    """One in each precision."""
    asked = load_recipe({"sampler": {"precision": "int8"}})
    small = setting.name == "embedded"  # none of its layers is large enough: a smoke test
    precision = Precision("int8", True) if small else choose_precision(asked, setting.policy)
    plain = LocalSampler(setting.policy)
    return {"float32": plain, "int8": LocalSampler(setting.policy, path=plain.path, precision=precision)}


def steps(setting: Setting, both: Samplers, count: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of processor time: the least decoding step of each turn, by rows, and of opening a batch."""
    prompt = setting.rounds.prompt(setting.questions[0].text, [], setting.shape.rounds)
    found: dict[str, dict[str, list[float]]] = {}

    def one(sampler: LocalSampler, rows: int) -> tuple[float, float]:
        keys = [sampling_key(0, row) for row in range(rows)]
        queue: Queue = deque([(Request(prompt, keys, count + 40), range(rows))])
        start = time.process_time()
        with sampler.open() as batch:
            opened, taken = time.process_time() - start, []
            batch.ends = batch.ends[:0]
            for _ in range(1 + (9 if rows > 1 else 1)):  # until all have parted
                batch.step(queue)
            for _ in range(count):
                start = time.process_time()
                batch.step(queue)
                taken.append(time.process_time() - start)
            batch.cancel(lambda request: True)
        return 1000 * opened, 1000 * min(taken)

    for rows in ROWS:
        turns = interleaved(
            {name: lambda _, s=sampler, r=rows: one(s, r) for name, sampler in both.items()}, repeats, False
        )
        found[f"{rows} row{'s' * (rows > 1)}"] = {name: [step for _, step in turn] for name, turn in turns.items()}
        opened = found.setdefault("open", {name: [] for name in both})
        for name, turn in turns.items():
            opened[name] += [seconds for seconds, _ in turn]
    return found


@torch.no_grad()
def gaps(setting: Setting, both: Samplers, count: int) -> dict[str, float]:
    """Mean difference from the trainer's log-probabilities, over responses that each sampler has drawn."""
    found = {}
    for name, sampler in both.items():
        prompts = [setting.rounds.prompt(one.text, [], setting.shape.rounds) for one in setting.questions]
        requests = [
            Request(prompt, [sampling_key(index, fork) for fork in range(2)], count)
            for index, prompt in enumerate(prompts)
        ]
        done = complete(sampler, requests)
        given, said = [one.request.prompt_ids for one in done], [one.token_ids for one in done]
        logprobs, _ = setting.policy.token_logprobs(given, said, [1.0] * len(done))
        drawn = torch.tensor([value for one in done for value in one.logprobs])
        found[name] = (logprobs - drawn).abs().mean().item()
    return found


def stream(setting: Setting, both: Samplers, tokens: int, repeats: int) -> dict[str, list[float]]:
    """Tokens per second of processor time of one response, its prompt included, the weights not."""
    prompt = setting.rounds.prompt(setting.questions[0].text, [], setting.shape.rounds)

    def pace(sampler: LocalSampler) -> Callable[[int], float]:
        def run(repeat: int) -> float:
            queue: Queue = deque([(Request(prompt, [sampling_key(repeat, 0)], tokens), range(1))])
            with sampler.open() as batch:
                batch.ends, start = batch.ends[:0], time.process_time()
                while queue or batch.count:
                    batch.step(queue)
                return tokens / (time.process_time() - start)

        return run

    return interleaved({name: pace(sampler) for name, sampler in both.items()}, repeats, warm_up=False)


def trees(setting: Setting, both: Samplers, repeats: int) -> dict[str, list[float]]:
    """Useful tokens per second of processor time."""

    def pace(sampler: LocalSampler) -> Callable[[int], float]:
        def run(repeat: int) -> float:
            before, start = sampler.usage.generated_tokens, time.process_time()
            grow(setting.questions, sampler, setting.rounds, setting.shape, seed=repeat)
            return (sampler.usage.generated_tokens - before) / (time.process_time() - start)

        return run

    return interleaved({name: pace(sampler) for name, sampler in both.items()}, repeats, warm_up=False)


def in_a_run(repeats: int, quick: bool) -> dict[str, list[float]]:
    """Tokens per second of sampling in the second step of a run, by the run's own clock.

    Whole steps cannot be compared: with other numbers other responses are drawn, and other groups are dead.
    """

    def run(precision: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            settings = ["train.steps=2", "eval.questions=0", f"sampler.precision={precision}"]
            if quick:
                settings = [*settings[:2], "sampler.precision=float32", "rollout.questions_per_step=1"]
            recipe = "demo" if quick else _words(Path(folder))
            train(recipe, Path(folder) / "run", settings=settings, display=Display(quiet=True))
            lines = map(json.loads, (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines())
            before, step = (line for line in lines if "reward" in line)
        tokens = step["ledger/generated_tokens"] - before["ledger/generated_tokens"]
        return float(tokens / step["time/sample"])

    return interleaved({name: lambda _, n=name: run(n) for name in ("float32", "int8")}, repeats, warm_up=False)


def _words(folder: Path) -> str:
    """The study's recipe, with its questions made beside it."""
    subprocess.run([sys.executable, STUDY / "word_problems.py", folder / "words"], check=True, capture_output=True)
    return str(shutil.copy(STUDY / "words.toml", folder))


def llama(setting: Setting, packages: Path, tokens: int) -> dict[str, float]:
    """Tokens per second of llama.cpp with Q8_0 weights, one response alone and 32 at once."""
    sys.path.append(str(packages))
    import xllamacpp

    policy, found = smollm2(1, tokens).policy, {}
    text = policy.tokenizer.decode(setting.rounds.prompt(setting.questions[0].text, [], setting.shape.rounds))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_gguf(merge(policy), policy.tokenizer, policy.end_ids, file, "q8_0", describe(policy.config.name))
        for rows in (1, 32):
            parameters = xllamacpp.CommonParams()
            parameters.model.path, parameters.n_parallel = str(file), rows
            parameters.n_ctx = 512 * rows
            parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = torch.get_num_threads()
            server = xllamacpp.Server(parameters)
            ask = {"prompt": text, "n_predict": tokens, "ignore_eos": True, "temperature": 1.0, "cache_prompt": True}
            server.handle_completions(ask)  # what it does once
            start = time.perf_counter()
            with ThreadPoolExecutor(rows) as pool:
                list(pool.map(server.handle_completions, [ask | {"seed": row} for row in range(rows)]))
            found["one stream" if rows == 1 else f"{rows} rows"] = rows * tokens / (time.perf_counter() - start)
            del server
    return found


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts only")
    options.add_argument("--tokens", type=int, default=32, help="limit of each response (default: %(default)s)")
    options.add_argument("--llamacpp", type=Path, help="also llama.cpp: the folder where xllamacpp is installed")
    options.set_defaults(repeats=2)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    quick, repeats, only = arguments.quick, 1 if arguments.quick else arguments.repeats, arguments.only

    told = vars(arguments) | {"json": None, "llamacpp": None}
    result: dict[str, Any] = {"setting": told, "ratios": {}}
    setting = embedded(8) if quick else smollm2(8, arguments.tokens)
    both, questions = samplers(setting), setting.questions
    result["precision"] = both["int8"].precision.to_dict()
    if "steps" in only:
        result["milliseconds"] = found = steps(setting, both, 2 if quick else 6, repeats)
        result["ratios"] |= {name: ratios(one["float32"], one["int8"]) for name, one in found.items()}
    if "gap" in only:
        result["mean_gap"] = gaps(setting, both, arguments.tokens)
    paces = result["tokens_per_second"] = {}
    if "stream" in only:
        paces["one stream"] = stream(setting, both, 3 * arguments.tokens, repeats + 1)
    if "trees" in only:
        for name, count, turns in (("1 question", 1, repeats), ("8 questions", 8, 1)):  # the latter takes minutes
            setting.questions = questions[:count]
            paces[name] = trees(setting, both, turns)
    if "run" in only:
        paces["in a run"] = in_a_run(repeats, quick)
    result["ratios"] |= {name: ratios(pace["int8"], pace["float32"]) for name, pace in paces.items()}
    if arguments.llamacpp:
        result["llama.cpp, tokens per second"] = llama(setting, arguments.llamacpp, 3 * arguments.tokens)
        table("llama.cpp, Q8_0", ["what", "tokens/s"], list(result["llama.cpp, tokens per second"].items()))
    table("int8 against float32", ["what", "times as fast"], list(result["ratios"].items()))
    if "gap" in only:
        table("difference from the trainer", ["sampler", "nats, mean"], list(result["mean_gap"].items()))
    write(arguments.json, result)


if __name__ == "__main__":
    main()
