"""Devices to plan for: a small table of data-sheet numbers, and descriptions of others.

The table holds what vendors publish (memory, dense matrix products without sparsity, memory bandwidth), not
measurements. `motif.planning.costs` says which share of it a program reaches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from motif.config import nearest
from motif.errors import UsageError

USABLE = 0.92
"""Share of a device's memory that a program can fill; the rest is taken by the driver and by fragmentation."""


@dataclass(frozen=True)
class Device:
    """One device: peak rates, in the units of data sheets."""

    name: str
    memory: float  # GiB (a data sheet's GB)
    tflops: float  # bfloat16 matrix products, dense
    bandwidth: float  # TB/s of its memory
    tflops_float32: float = 0.0  # the same in float32; 0: unknown, taken as `tflops`
    bfloat16: bool = True  # whether it multiplies in bfloat16; if not, `auto` is float32
    overhead: float | None = None  # ms a layer and decoding step of the local sampler; None: `costs.LOCAL_LAYER`
    token_overhead: float = 0.0  # ms a layer and sampled or prompt token, beside matrix products
    mfu: float | None = None  # share of its peak that sampling reaches; None: `copies.MFU`
    training_mfu: float | None = None  # the same of updates; None: `copies.TRAINING_MFU`

    def rate(self, half: bool) -> float:
        """FLOP per second of matrix products, in bfloat16 or else float32."""
        return 1e12 * (self.tflops if half or not self.tflops_float32 else self.tflops_float32)

    @property
    def bytes(self) -> float:
        """Memory that can be used, in bytes."""
        return USABLE * self.memory * 2**30

    def __str__(self) -> str:
        return f"{self.name} ({self.memory:g} GB, {self.tflops:g} TFLOPS, {self.bandwidth:g} TB/s)"


TABLE = {
    device.name: device
    for device in (
        Device("B200", 180, 2250, 8.0, 75),
        Device("H200", 141, 989, 4.8, 67),
        Device("H100", 80, 989, 3.35, 67),
        Device("H100-PCIe", 80, 756, 2.0, 51),
        Device("A100-80", 80, 312, 2.04, 19.5),
        Device("A100-40", 40, 312, 1.56, 19.5),
        Device("L40S", 48, 362, 0.864, 91.6),
        Device("A10", 24, 125, 0.6, 31.2),
        Device("L4", 24, 121, 0.3, 30.3),
        Device("RTX-5090", 32, 209, 1.79, 105),
        Device("RTX-4090", 24, 165, 1.01, 82.6),
        Device("RTX-3090", 24, 71, 0.936, 35.6),
        Device("T4", 16, 8.1, 0.32, 8.1, bfloat16=False),  # torch emulates it with float32 arithmetic
    )
}
"""By name. H100, H200, B200: SXM modules; A100-80: SXM, A100-40: either."""

KEYS = ("memory", "tflops", "bandwidth", "overhead")


def parse_devices(text: str) -> tuple[int, Device]:
    """Parse `8xH100`, `4090`, or `4x memory=24 tflops=71 bandwidth=0.94`, as `--on` takes them.

    Returns:
        The number of devices, and what they are.

    Raises:
        UsageError: the device is unknown (with the nearest name), or its description is incomplete.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x×*](?=[\s\w])\s*)?(\S.*?)\s*", text, re.IGNORECASE)
    if not match or (match[1] is not None and int(match[1]) == 0):
        raise UsageError(f"--on takes a number of devices and their kind, e.g. 8xH100; got {text!r}")
    count = int(match[1] or 1)
    return count, _described(match[2]) if "=" in match[2] else _named(match[2])


def _named(name: str) -> Device:
    by_plain = {_plain(key): device for key, device in TABLE.items()}
    if device := by_plain.get(_plain(name)):
        return device
    variants = [key for key in TABLE if _plain(key).startswith(_plain(name)) and _plain(name)]
    hint = f"choose {' or '.join(variants)}" if variants else nearest(name, TABLE)
    raise UsageError(
        f"unknown device {name!r}: {hint}{'' if hint.endswith('?') else '.'} Any other can be described, e.g. "
        '--on "4x memory=24 tflops=71 bandwidth=0.94" (GiB, TFLOPS of matrix products, TB/s)'
    )


def _plain(name: str) -> str:
    """A name without case, maker and punctuation: `NVIDIA GeForce RTX 4090` is `4090`."""
    return re.sub(r"nvidia|geforce|rtx|tesla|sxm\d?|gb$|[\s_-]", "", name.lower())


def _described(text: str) -> Device:
    values: dict[str, Any] = {}
    for part in text.replace(",", " ").split():
        key, _, value = part.partition("=")
        if key not in KEYS:
            raise UsageError(f"--on: unknown property {key!r}: {nearest(key, KEYS)}")
        try:
            values[key] = float(value)
        except ValueError:
            raise UsageError(f"--on: {key} needs a number after '=', got {part!r}") from None
        if not 0 < values[key] < float("inf"):
            raise UsageError(f"--on: {key} must be above 0, got {part!r}")
    missing = [key for key in KEYS[:3] if key not in values]
    if missing:
        units = {"memory": "memory= in GiB", "tflops": "tflops=", "bandwidth": "bandwidth= in TB/s"}
        raise UsageError(f"--on: the description also needs {' and '.join(units[key] for key in missing)}")
    return Device("described device", **values)
