"""The device that a model computes on, and the precision of its weights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motif.config import ModelConfig
from motif.config.sections import DEVICE
from motif.errors import ModelError

KEPT = 128 << 20
"""Bytes of freed memory that a process may hold."""
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux says how much memory this process holds, and where it is told to forget the peak (`man 5 proc`)."""


def pick_device(name: str) -> torch.device:
    """The device of a name. `auto` is CUDA, then Apple's MPS, then the CPU, which `accelerate launch --cpu` asks for.

    Raises:
        ModelError: the name is not one of `model.device`, or this machine has no such device.
    """
    if name == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not DEVICE.fullmatch(name):
        raise ModelError(f"model.device = {name!r} is not a device: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")
    kind, _, index = name.partition(":")
    if missing := _missing(kind, int(index or 0)):
        raise ModelError(f"model.device = {name!r}, but {missing}: set model.device = 'auto' or 'cpu'")
    return torch.device(name)


def _missing(kind: str, index: int) -> str:
    """Why a device cannot be used here; empty: it can."""
    if kind == "mps" and not torch.backends.mps.is_available():
        return "this machine has no GPU of Apple's that torch can use"
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return "torch finds no CUDA GPU here"
        if index >= count:
            return f"this machine has {count} CUDA GPU{'s' if count > 1 else ''}, counted from cuda:0"
    return ""


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU with a number the current one of this thread, inside the block: recordings and libraries' kernels
    take the current one, whatever tensors they get."""
    return torch.cuda.device(device) if device.type == "cuda" and device.index is not None else nullcontext()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices itself.

    CUDA GPUs do so from compute capability 8.0 on; on older ones (T4, V100) torch emulates it, slower than float32.
    """
    with current(device):
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def weight_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the base's weights: `auto` is bfloat16 on GPUs that multiply in it, and float32 elsewhere.

    float16 is not used: its gradients overflow without a scaled loss.
    """
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device. MPS has no float64, so the cast to float32 comes before the transfer."""
    if device.type == "mps" and array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(array).to(device)


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library (glibc) keeps more than `KEPT` bytes of it for later.

    It keeps blocks of up to 32 MiB. Passes over varied lengths free blocks of sizes that no later pass asks for, so
    that a process would hold more from update to update. Little is left where it is: it is soon used again, and to get
    it back from the system takes a tenth of a small model's step.
    """
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    trim, info = getattr(library, "malloc_trim", None), getattr(library, "mallinfo2", None)
    if info is not None:
        info.restype = _MallInfo
    if trim is not None and (info is None or info().fordblks > KEPT):
        trim(0)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes that this process held at most since the last call, resident and on its device; the peaks begin again.

    Where the system does not let its peak be forgotten (anything but Linux), it is that since the process began. Of
    Apple's MPS, which keeps no peak, it is what is held now. Processes that this one has started do not count.
    """
    held = {"memory/resident": _resident_peak()}
    if device.type == "cuda":
        held["memory/device"] = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        held["memory/device"] = torch.mps.driver_allocated_memory()
    return held


def _resident_peak() -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        found = None
    with contextlib.suppress(OSError):
        FORGET.write_text("5")
    if found:
        return 1024 * int(found[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`; `fordblks` are the bytes in free blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]
