"""Kernels of one launch, run by Triton's interpreter on a CPU, against plain torch. Skipped where Triton is missing."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import plain_kernels as plain

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, and when it runs a kernel
triton = pytest.importorskip("triton", reason="Triton is not installed; CUDA builds of torch come with it")
if not triton.knobs.runtime.interpret or "Interpreted" not in type(triton.language.zeros).__name__:
    pytest.skip("Triton was imported before its interpreter was asked for", allow_module_level=True)

from motif.sampling.local import triton_kernels as kernels  # noqa: E402


def close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    allowed = 2e-5 if dtype == torch.float32 else 2e-2
    return torch.allclose(found.float(), expected.float(), allowed, allowed) and found.dtype == dtype


def problem(
    seed: int, heads: int, group: int, size: int, depth: int, longest: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Rows behind ragged parts of a table, some of which are empty, and own keys with room to spare."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rows, tokens, room = rng.randint(1, 4), rng.randint(1, longest), rng.randint(1, 70)
    ranges = []
    for _ in range(rows):
        cuts = sorted(rng.randint(0, tokens) for _ in range(2 * depth))
        ranges.append([(a, rng.choice([0, b - a])) for a, b in zip(cuts[::2], cuts[1::2], strict=True)])
    own = [torch.randn(rows + 2, heads, room + 3, size, dtype=dtype)[:rows, :, :room] for _ in range(2)]
    return {
        "query": torch.randn(rows, heads * group, 1, size, dtype=dtype).view(rows, heads, group, size),
        "keys": own[0],
        "values": own[1],
        "table": (torch.randn(heads, tokens, size, dtype=dtype), torch.randn(heads, tokens, size, dtype=dtype)),
        "ranges": torch.tensor(ranges, dtype=torch.long).view(rows, depth, 2),
        "last": torch.tensor([rng.randrange(room) for _ in range(rows)]),
        "bias": None,
        "sinks": None,
        "scale": size**-0.5,
        "softcap": None,
    }


@pytest.mark.parametrize("size", [64, 80, 96, 128])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_attention_over_parts_of_prompts_and_own_keys(size, depth):
    for seed, (heads, group) in enumerate(((1, 3), (2, 8))):
        given = problem(10 * depth + seed, heads, group, size, depth, 150, torch.float32)
        assert close(kernels.attend(**given), plain.attend(**given))


def test_attention_in_bfloat16():
    given = problem(5, 2, 4, 64, 2, 150, torch.bfloat16)
    assert close(kernels.attend(**given), plain.attend(**given), torch.bfloat16)


def test_attention_without_prompts():
    given = problem(3, 2, 4, 16, 0, 10, torch.float32) | {"table": None}
    assert close(kernels.attend(**given), plain.attend(**given))


@pytest.mark.parametrize("kind", ["window", "softcap", "sinks", "all"])
def test_attention_of_other_kinds(kind):
    for seed in range(3):
        given = problem(seed, 2, 3, 16, 2, 100, torch.float32)
        keys = given["table"][0].shape[1] + given["keys"].shape[2]
        if kind in ("window", "all"):
            hidden = torch.rand(len(given["query"]), keys) < 0.5
            hidden[torch.arange(len(hidden)), given["table"][0].shape[1] + given["last"]] = False
            given["bias"] = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
        if kind in ("softcap", "all"):
            given["softcap"] = 1.5
        if kind in ("sinks", "all"):
            given["sinks"] = torch.randn(2, 3)
        assert close(kernels.attend(**given), plain.attend(**given))


def test_values_of_another_size_and_keys_that_do_not_lie_side_by_side():
    given = problem(1, 2, 2, 24, 1, 30, torch.float32)
    given["values"], given["table"] = given["values"][..., :16], (given["table"][0], given["table"][1][..., :16])
    given["keys"] = given["keys"].transpose(2, 3).contiguous().transpose(2, 3)
    assert close(kernels.attend(**given), plain.attend(**given))


def product(rows: int, width: int, ranks: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, width + ranks), torch.randn(ranks, width)


@pytest.mark.parametrize("rows", [1, 16, 21])
@pytest.mark.parametrize("ranks", [0, 5, 80])
@pytest.mark.parametrize("size", [8, 80])
def test_queries_and_keys_are_turned_and_written(rows, ranks, size):
    torch.manual_seed(rows + ranks)
    heads, own, room = 4, 2, 5
    given = product(rows, (heads + 2 * own) * size, ranks)
    angles, last = torch.randn(rows, size // 2).repeat(1, 2), torch.randint(room, (rows,))
    for norms in (None, (torch.randn(size), torch.randn(size))):
        stores = [[torch.zeros(rows + 3, own, room, size) for _ in range(2)] for _ in range(2)]
        queries = [
            run(*given, norms, 1e-6, angles.cos(), angles.sin(), *(s[:rows] for s in store), last, heads)
            for run, store in zip((kernels.turn, plain.turn), stores, strict=True)
        ]
        assert close(*queries) and all(close(*pair) for pair in zip(*stores, strict=True))


@pytest.mark.parametrize("rows", [1, 21])
@pytest.mark.parametrize("ranks", [0, 5, 80])
@pytest.mark.parametrize("width", [24, 130])
def test_sums_with_their_norms_and_gated_products(rows, ranks, width):
    torch.manual_seed(rows + ranks)
    given, residual, weight = product(rows, width, ranks), torch.randn(rows, width), torch.randn(width)
    found, expected = (run(*given, residual, weight, 1e-5) for run in (kernels.add_norm, plain.add_norm))
    assert all(close(*pair) for pair in zip(found, expected, strict=True))
    assert close(kernels.add_norm(*given, residual, None, 0.0)[0], plain.add_norm(*given, residual, None, 0.0)[0])
    assert close(kernels.swiglu(*given), plain.swiglu(*given))
