"""The server of `sampler.colocate` and its run: the log in the run folder, and the memory that it gives back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from motif.display import Display
from motif.errors import RunFolderError
from motif.run_files import SERVER_LOG, WRITER_LOCK
from motif.runs.disk import is_locked
from motif.sampling.vllm.launch import Colocation

SECONDS = 60.0
"""Until a server that should have ended with its run is reported."""


def wait_for_memory(run: Path, display: Display) -> None:
    """Wait until the server has ended that an earlier process of this run has left behind, by `kill -9` for example.

    Raises:
        RunFolderError: it does not end.
    """
    log, deadline, told = run / SERVER_LOG, time.monotonic() + SECONDS, False
    while is_locked(log) and not is_locked(run / WRITER_LOCK):  # else the run goes on, and this process is refused
        if time.monotonic() > deadline:
            raise RunFolderError(
                f"a vLLM server that was started for {run} does not end: end its processes, which `fuser {log}` names"
            )
        if not told:
            display.message("waiting until the vLLM server of this run's last process has ended")
        told = True
        time.sleep(0.1)


def with_log(colocation: Colocation | None, run: Path, display: Display) -> Colocation | None:
    """The server's share of the device with the file that the server writes to, which is told."""
    if colocation is None:
        return None
    log = run / SERVER_LOG
    display.message(f"loading the model, then starting the vLLM server, which writes to {log}")
    return replace(colocation, log=log)
