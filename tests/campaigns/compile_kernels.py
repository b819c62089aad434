"""Whether the Triton kernels compile for GPUs, of which there need be none here: down to machine code, in all forms.

    python tests/campaigns/compile_kernels.py --architectures 80 90      # in an environment with Triton; a minute

The exit status is 1 if one does not.
"""

from __future__ import annotations

import argparse
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from motif.sampling.local import triton_kernels as kernels

NUMBERS = {"ranges": "*i64", "last": "*i64", "bias": "*fp32", "scale": "fp32", "softcap": "fp32", "eps": "fp32"}
"""Arguments that are neither of the model's type nor whole numbers."""
POINTERS = {
    *("query", "keys", "values", "shared", "weighted", "sinks", "output", "product", "up", "cos", "sin"),
    *("query_norm", "key_norm", "residual", "weight", "total", "normed"),
}


def compiled(kernel: Any, architecture: int, kind: str, constants: dict[str, Any], warps: int = 4) -> int:
    """Bytes of machine code; an argument that is None is a constant."""
    known = NUMBERS | dict.fromkeys(POINTERS, f"*{kind}") | dict.fromkeys(constants, "constexpr")
    signature = {name: known.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", architecture, 32)
    return len(triton.compile(source, target=target, options={"num_warps": warps, "num_stages": 2}).asm["cubin"])


def forms(work: Any) -> list[tuple[Any, dict[str, Any], int]]:
    """Kernels with their constants and warps."""
    found: list[tuple[Any, dict[str, Any], int]] = []
    for size in (64, 80, 128, 256):
        padded = triton.next_power_of_2(size)
        block = 64 if padded * (2 if work == tl.bfloat16 else 4) <= 256 else 16
        shape = {"GROUP": 8, "SIZE": size, "WIDTH": size, "GROUPS": 16, "KEYS": padded, "VALUES": padded}
        for full in (False, True):
            flags = {"BIASED": full, "CAPPED": full, "SINKS": full} | ({} if full else {"bias": None, "sinks": None})
            found.append((kernels._attend, shape | flags | {"BLOCK": block, "WORK": work}, 4))
    tile = {"ROWS": 16, "RANKS": 64, "WORK": work}
    heads = {"HEADS": 16, "OWN": 2, "SIZE": 128, "SIZES": 128}
    for normed in (False, True):
        none = {} if normed else {"query_norm": None, "key_norm": None}
        found.append((kernels._turn, tile | heads | none | {"NORMED": normed}, 4))
        none = {} if normed else {"weight": None}
        found.append((kernels._add_norm, tile | none | {"COLUMNS": 64, "NORMED": normed}, 8))
    return [*found, (kernels._swiglu, tile | {"COLUMNS": 64}, 4)]


def main() -> None:
    """Compile, print, raise what fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=[80, 90], help="compute capabilities × 10")
    for architecture in parser.parse_args().architectures:
        for kind, work in (("bf16", tl.bfloat16), ("fp32", tl.float32)):
            for kernel, constants, warps in forms(work):
                size = compiled(kernel, architecture, kind, constants, warps)
                print(f"{kernel.__name__} {architecture} {kind}: {size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
