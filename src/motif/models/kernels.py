"""Kernels that transformers uses for some layers if a package with them is installed, and what is said if none is."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys

import torch

MISSING = re.compile(r"falling back to its reference PyTorch implementation because `([\w.-]+)` is not installed")
SETTING = "use_mamba_kernels"
"""A setting of older configurations, which transformers says has no effect any more."""


class Notices(logging.Filter):
    """Keeps transformers' warnings about such kernels from the screen, and remembers the packages that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.packages: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown."""
        text = record.getMessage()
        if found := MISSING.search(text):
            self.packages.add(found[1].replace("_", "-"))
        return not found and SETTING not in text


@functools.cache
def notices() -> Notices:
    """The one filter of this process, on whatever shows transformers' messages."""
    from transformers.utils import logging as theirs

    theirs.get_logger()  # makes the handler
    shown = Notices()
    for handler in logging.getLogger("transformers").handlers:
        handler.addFilter(shown)
    return shown


def tell_missing(device: torch.device) -> None:
    """Say once what to install for a model that ran on a GPU without its kernels; on a CPU they would not help."""
    packages = sorted(notices().packages)
    if packages and device.type == "cuda" and int(os.environ.get("RANK", "0")) == 0:
        _tell(" ".join(packages))


@functools.cache
def _tell(packages: str) -> None:
    print(
        f"motif: some layers of this model run without kernels made for them, which is right but slow: pip install "
        f"--no-build-isolation {packages}",
        file=sys.stderr,
    )
