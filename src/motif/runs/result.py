"""What training returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.runs.ledger import Ledger


@dataclass(frozen=True)
class Result:
    """What a run came to. `before` and `after` map `rounds_1`, `rounds_3`, … to accuracy, low, high and n."""

    run: Path
    steps: int
    finished: bool
    before: dict[str, Any]
    after: dict[str, Any]
    ledger: Ledger
    standstill: str = ""
    """Why the last steps made no update, if three or more in a row made none, or none at all was made."""
    paths: str = ""
    """How sampler and updates computed, in words."""
    stopped_dead: bool = False
    """Whether the run stopped because of it (`train.stop_when_dead`)."""
