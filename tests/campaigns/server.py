"""The server under test, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path


class Server:
    """`motif serve` on the embedded model, as a process of its own on a free port."""

    def __init__(self, limits: dict[str, float], log: Path, key: str = "only-this-one"):
        command = [sys.executable, "-m", "motif", "serve", "embedded", "--recipe", "demo", "--port", "0"]
        command += [f"--{name}={value:g}" for name, value in limits.items()]
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"MOTIF_API_KEY": key},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}{log.read_text()}")
        self.port, self.pid, self.key = int(found[1]), self.process.pid, key

    def stop(self) -> int | None:
        """SIGTERM; its exit status, or None: it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
