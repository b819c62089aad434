"""Runs on the path of the test's choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from motif.models import path
from motif.models.path import Path

CHOOSERS = ("motif.sampling.local.batch.choose", "motif.training.check.choose")


@contextmanager
def taken(way: Path) -> Iterator[None]:
    """Inside the block, with the general path, samplers and updates look at no other; with the fast one, as always."""
    with pytest.MonkeyPatch.context() as patch:
        for chooser in CHOOSERS:
            patch.setattr(chooser, lambda compare, general=False: path.choose(compare, general or way.general))
        yield
