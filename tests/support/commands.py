"""`motif` as a command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import ROOT, forked


def motif(*arguments: str, cwd: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(  # noqa: PLW1510
        [forked.python(), "-m", "motif", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
