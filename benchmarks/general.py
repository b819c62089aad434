"""The general path against transformers' `generate`, and what it costs beside the fast path, family by family.

The same rows are sampled from the same weights, each for the same number of tokens, by

* general: motif with `path = GENERAL`, which decodes with transformers' own caches;
* generate: Hugging Face `generate` on one left-padded batch of all rows, of the bare model without an adapter;
* fast: motif with prompts shared, where that is right for the model.

`siblings` are 16 responses to one prompt (8 with the sizes of SmolLM2), `mixed` as many to four prompts of different
lengths that begin alike.
`update` is the forward and backward pass over the rows of `mixed`, on the general and on the fast path.

Seconds are those of the processor, with one thread, so that other programs disturb little. The contenders take turns;
each ratio is the median over these rounds: `over_generate` is the pace of the general path ÷ that of `generate`, `fast`
the pace of the fast path ÷ that of the general one. Models are random, 256 wide with 4 to 8 layers and 8,192 words, and
one has the sizes of SmolLM2-135M.

    python benchmarks/general.py --json docs/performance/general.json        # about eight minutes on one quiet core
    python benchmarks/general.py --only Qwen3 "Gemma 3"
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# ruff: noqa: E402
import torch
from common import interleaved, parser, ratios, table, write
from torch import Tensor
from transformers import GenerationConfig

from motif.errors import ModelError
from motif.models.path import FAST, GENERAL
from motif.models.path import Path as Way
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import Minibatch, Sample, UpdateStats
from motif.training.check import choose_update_path
from support.architectures import ZOO, Architecture, build

WORDS = 8192
SMOLLM2 = "SmolLM2-135M"
SIZES = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
WIDER = (
    "hidden_size", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size",
    "shared_intermediate_size", "intermediate_size_mlp", "block_ff_dim", "head_dim", "mamba_d_head",
)  # fmt: skip
DEEPER = ("num_hidden_layers", "layer_types", "no_rope_layers", "activation_sparsity_pattern", "n_layer")
OTHERS = ("Falcon", "BLOOM", "MPT", "GPT-2")
OF_ONE_SIZE = ("Falcon-H1", "Nemotron-H")  # sizes of their states follow from several others
FAMILIES = [SMOLLM2] + [
    name for name, one in ZOO.items() if (one.everyday or name in OTHERS) and not one.nested and name not in OF_ONE_SIZE
]
Batch = list[tuple[list[int], int]]
"""Prompts, each with its number of responses."""


def larger(one: Architecture) -> Architecture:
    """The architecture four times as wide and twice as deep, with more words than its tokenizer has."""
    options: dict[str, Any] = {}
    for name, size in one.options.items():
        if size is None:  # the family's own default
            options[name] = None
            continue
        wider = 4 if name in WIDER else 1
        new = [wider * part for part in size] if wider > 1 and isinstance(size, list) else wider * size
        options[name] = 2 * new if name in DEEPER or isinstance(size, list) else new
    return replace(one, options=options, spare=WORDS - 281)


def load(name: str, folder: Path) -> Policy:
    """A random model of a family."""
    family = Architecture("LlamaConfig", SIZES, spare=49_152 - 281) if name == SMOLLM2 else larger(ZOO[name])
    policy = Policy(build(family, folder))
    policy.end_ids = [policy.vocabulary]  # no row ends early
    return policy


def batches(policy: Policy, rows: int, size: int) -> dict[str, Batch]:
    """The two batches of rows: all behind one prompt, or behind four that begin alike."""
    rng = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(4, policy.vocabulary - 4) for _ in range(count)]

    stem = tokens(size)
    prompts = [stem + tokens(size * part // 8) for part in (1, 3, 5, 8)]
    return {"siblings": [(prompts[2], rows)], "mixed": [(prompt, rows // 4) for prompt in prompts]}


# -- contenders: each returns its processor seconds --------------------------------------------------------------------


def motif(sampler: LocalSampler, batch: Batch, limit: int) -> Callable[[int], float]:
    """The sampler, on the path that it has."""

    def run(repeat: int) -> float:
        keys = iter(range(1000 * (repeat + 1), 1000 * (repeat + 2)))
        requests = [Request(prompt, [next(keys) for _ in range(count)], limit) for prompt, count in batch]
        start = time.process_time()
        done = complete(sampler, requests)
        seconds = time.process_time() - start
        assert all(len(one.token_ids) == limit for one in done)
        return seconds

    return run


def generate(policy: Policy, batch: Batch, limit: int) -> Callable[[int], float]:
    """Hugging Face `generate`, all rows left-padded."""
    rows = [prompt for prompt, count in batch for _ in range(count)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    settings = GenerationConfig(
        max_new_tokens=limit, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        eos_token_id=policy.end_ids, pad_token_id=0,
    )  # fmt: skip

    @torch.inference_mode()
    def run(repeat: int) -> float:
        torch.manual_seed(repeat)
        start = time.process_time()
        with policy.adapter_disabled():
            out = policy.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, use_cache=True)
        seconds = time.process_time() - start
        assert out.shape[1] == width + limit
        return seconds

    return run


def updating(policy: Policy, way: Way, batch: Batch, limit: int) -> Callable[[int], float]:
    """Forward and backward passes over a response of random tokens to each row."""
    rng = random.Random(1)
    samples = [
        Sample(prompt, [rng.randrange(4, policy.vocabulary - 4) for _ in range(limit)], [0.0] * limit, 1.0, 1.0, 1.0)
        for prompt, count in batch
        for _ in range(count)
    ]
    minibatch = Minibatch(policy, samples)

    def score(states: Tensor, at: Tensor) -> None:
        logprobs_T, _ = policy.score(states, minibatch.targets_T[at], minibatch.temperatures_T_1[at])
        logprobs_T.sum().backward()

    def run(repeat: int) -> float:
        policy.update_path = way
        start = time.process_time()
        minibatch.run_all(4096, score, UpdateStats())
        seconds = time.process_time() - start
        policy.wrapped.zero_grad(set_to_none=True)
        return seconds

    return run


# -- running -----------------------------------------------------------------------------------------------------------


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and ratios of one family."""
    with tempfile.TemporaryDirectory() as place, quiet():
        policy = load(name, Path(place))
        fast = LocalSampler(policy)
        general = LocalSampler(policy, path=GENERAL)
        update_path = choose_update_path(policy)
    rows, size, limit = (4, 16, 4) if options.quick else (8 if name == SMOLLM2 else 16, 64, options.tokens)
    row: dict[str, Any] = {
        "name": name,
        "parameters": policy.parameter_count,
        "sampler_path": "general" if fast.path.general else "fast",
        "update_path": "general" if update_path.general else "fast",
        "seconds": {},
    }
    for case, batch in batches(policy, rows, size).items():
        contenders = {"general": motif(general, batch, limit), "generate": generate(policy, batch, limit)}
        if not fast.path.general:
            contenders["fast"] = motif(fast, batch, limit)
        row["seconds"][case] = interleaved(contenders, options.repeats)
    ways = {"general": GENERAL} if update_path.general else {"general": GENERAL, "fast": FAST}
    mixed = batches(policy, rows, size)["mixed"]
    contenders = {key: updating(policy, way, mixed, limit) for key, way in ways.items()}
    row["seconds"]["update"] = interleaved(contenders, options.repeats)
    return row | figures(row["seconds"])


def figures(seconds: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Ratios of paces by case: of the general path to `generate`, and of the fast path to the general one."""
    found: dict[str, dict[str, float]] = {"over_generate": {}, "fast": {}}
    for case, taken in seconds.items():
        if "generate" in taken:
            found["over_generate"][case] = ratios(taken["generate"], taken["general"])
        if "fast" in taken:
            found["fast"][case] = ratios(taken["general"], taken["fast"])
    return found


@contextlib.contextmanager
def quiet() -> Any:
    """Hide what libraries say of missing kernels inside the block."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        yield


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the ratios."""
    table(
        "pace: the general path ÷ generate, and the fast path ÷ the general one",
        ["family", "÷ generate: siblings", "mixed", "fast ÷ general: siblings", "mixed", "update"],
        [
            [row["name"], *(row["over_generate"][case] for case in ("siblings", "mixed"))]
            + [row["fast"].get(case, "-") for case in ("siblings", "mixed", "update")]
            for row in rows
        ],
    )


def main() -> None:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="NAME", help="some families")
    options.add_argument("--tokens", type=int, default=32, help="of each response (default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.only, arguments.repeats = [name for name in arguments.only if name in ("Qwen3", "Falcon")], 1
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        try:
            rows.append(measure(name, arguments))
        except ModelError as error:  # random weights may be so harsh at this size that rounding is no longer small
            print(f"{name} is left out: {error}")
        write(arguments.json, {"tokens": arguments.tokens, "repeats": arguments.repeats, "rows": rows})
    show(rows)


if __name__ == "__main__":
    main()
