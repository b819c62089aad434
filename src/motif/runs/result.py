"""The outcome of a run: how far its weights were trained, and what a probe of them found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motif.errors import RunFolderError
from motif.runs.folder import write_atomically


def steps_of(run: Path) -> int:
    """How many steps the weights in a run folder have been trained for.

    Raises:
        RunFolderError: the run has not ended, so it holds no weights but those in checkpoints.
    """
    try:
        return int(json.loads((run / "summary.json").read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"{run} has not ended (it holds no summary.json): resume it with motif train --resume"
        ) from None


def write_probe(run: Path, step: int, numbers: dict[str, Any]) -> None:
    """Write probe.json: a probe that was made after training, with the step of the weights it is of."""
    write_atomically(run / "probe.json", json.dumps({"step": step, "probe": numbers}, indent=2) + "\n")
