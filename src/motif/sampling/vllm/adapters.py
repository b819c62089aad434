"""Adapters on disk for servers: one folder per version, written whole or not at all, removed when no longer used."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from torch import Tensor

from motif.config import SamplerConfig
from motif.models.policy import Policy
from motif.sampling.vllm.client import Fault

COPY_SECONDS = 600.0
"""Timeout for a copy command."""


@dataclass(frozen=True)
class Adapter:
    """One version of the trained adapter: its name on the servers, and its folder here."""

    name: str
    version: int
    folder: Path


class AdapterFolder:
    """Where a run keeps its adapters.

    A name is never used twice, not even by another run: servers cache what they computed with the weights of a name.
    """

    def __init__(self, config: SamplerConfig):
        self.config = config
        self.prefix = f"motif-{uuid.uuid4().hex[:8]}-"
        self._serial = itertools.count(1)
        shared = config.adapter_dir and not config.copy_command
        self._temporary = None if shared else tempfile.TemporaryDirectory(prefix="motif-adapters-")
        place = self._temporary.name if self._temporary else config.adapter_dir
        self.path = Path(place).expanduser().resolve()
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, policy: Policy, version: int, state: dict[str, Tensor]) -> Adapter:
        """Write the policy's adapter from `state`, which `Policy.state` returned."""
        name = f"{self.prefix}v{version:06d}-{next(self._serial)}"
        partial = self.path / f".{name}.partial"
        policy.save_pretrained(partial, state)
        partial.rename(self.path / name)
        return Adapter(name, version, self.path / name)

    async def bring(self, adapter: Adapter, url: str) -> str:
        """Copy the adapter to a server if it shares no disk, and return its path there.

        Raises:
            Fault: the copy command failed.
        """
        if not self.config.copy_command:
            return str(adapter.folder)
        await self._command(self.config.copy_command, adapter, url)
        return self._target(adapter)

    async def remove(self, adapter: Adapter, urls: list[str]) -> None:
        """Remove an adapter here and its copies on servers; a copy that cannot be removed stays."""
        if self.config.remove_command:
            commands = (self._command(self.config.remove_command, adapter, url) for url in urls)
            await asyncio.gather(*commands, return_exceptions=True)
        shutil.rmtree(adapter.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._temporary:
            self._temporary.cleanup()

    def _target(self, adapter: Adapter) -> str:
        return f"{self.config.adapter_dir.rstrip('/')}/{adapter.name}"

    async def _command(self, template: str, adapter: Adapter, url: str) -> None:
        values = {
            "source": str(adapter.folder),
            "target": self._target(adapter),
            "host": urlsplit(url).hostname or "",
            "url": url,
        }
        words = [word.format(**values) for word in shlex.split(template)]
        try:
            done = await asyncio.to_thread(
                subprocess.run, words, capture_output=True, text=True, timeout=COPY_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Fault(f"the command {shlex.join(words)} failed: {error}") from error
        if done.returncode:
            raise Fault(f"the command {shlex.join(words)} failed ({done.returncode}): {done.stderr.strip()[-300:]}")
