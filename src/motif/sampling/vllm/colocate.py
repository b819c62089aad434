"""A vLLM server on the trainer's own device, which lives as long as the run.

The server and the trainer share the device's memory: the plan says how (`Colocation`). Where there is too little for
both, the server sleeps during updates: its weights go to the CPU's memory, and its keys and values are dropped.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import httpx2
import torch

from motif.config import Recipe
from motif.errors import ServiceError
from motif.models.policy import Policy
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.vllm import keeper
from motif.sampling.vllm.client import Fault
from motif.sampling.vllm.launch import ENVIRONMENT, Colocation, arguments, find_program
from motif.sampling.vllm.sampler import ServerSampler
from motif.text import harmless

START_SECONDS = 900.0
"""Until a server that has not answered is given up, if `sampler.patience` is not longer; one that ends is given up at
once."""
READ = 2**20
"""Bytes of the end of its log that are read."""
OWN = ("PYTHONPATH", "PYTHONHOME", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "VLLM_CPU_KVCACHE_SPACE")
"""Variables of this process that are not the server's: it has another environment, and allocates in its own way."""
LAST = 6
"""Lines of a server's log that are shown when it has ended."""
ERROR = re.compile(r"\b[A-Z]\w*(?:Error|Exception): .+")
"""What a line of the log has to say of an error, without the name of the process before it."""


class ColocatedServer:
    """A running server, and what ends it.

    Raises:
        UsageError: there is no vLLM.
        RecipeError: no server can have the recipe's adapter.
    """

    def __init__(self, recipe: Recipe, colocation: Colocation, device: torch.device):
        self.url, self.log = f"http://127.0.0.1:{_free_port()}", colocation.log
        self.key = os.environ.get(recipe.sampler.api_key_variable) or secrets.token_urlsafe()
        self.patience = max(START_SECONDS, recipe.sampler.patience)
        command, environment = command_line(recipe, colocation, device, self.url, self.key)
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        with suppress(OSError):  # a disk without locks; else the lock goes with the last process that can write there
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is the run's, which ends the server when it has saved
        )
        os.close(handle)

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceError: it has ended, or does not answer in time; the message has the last lines that it wrote.
        """
        deadline = time.monotonic() + self.patience
        with httpx2.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise ServiceError(self.explain("did not start"))
                with suppress(httpx2.HTTPError):
                    if client.get(f"{self.url}/v1/models").status_code < 500:
                        return
                time.sleep(0.2)
        raise ServiceError(self.explain(f"did not answer in {self.patience:.0f} s (sampler.patience)"))

    def explain(self, what: str) -> str:
        """What has become of it, and why by its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - READ))
            text = harmless(file.read().decode(errors="replace")).rpartition(keeper.STARTS)[2]
        lines = [line.rstrip() for line in text.splitlines()[1:] if line.strip()] or ["it wrote nothing"]
        errors = [found[0] for line in lines if (found := ERROR.search(line))]
        shown = "\n".join(f"  {line}" for line in lines[-LAST:])
        cause = errors[0] if errors else lines[-1].strip()
        return f"the vLLM server of sampler.colocate {what}: {cause}\nThe end of its log, {self.log}:\n{shown}"

    def close(self) -> None:
        """End the server and all that it has started. Calling it twice is harmless."""
        self.process.terminate()
        try:
            self.process.wait(keeper.GRACE + 20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def command_line(
    recipe: Recipe, colocation: Colocation, device: torch.device, url: str, key: str
) -> tuple[list[str], dict[str, str]]:
    """The command that starts the server, and all of its environment; raises as `ColocatedServer` does."""
    command = [*find_program(), *arguments(recipe, url), "--disable-uvicorn-access-log"]
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | ENVIRONMENT
    environment["VLLM_API_KEY"] = key
    if device.type == "cuda":
        command += ["--gpu-memory-utilization", f"{colocation.share:.3f}"]
        environment["CUDA_VISIBLE_DEVICES"] = _visible(device.index or 0)
    else:
        command += ["--kv-cache-memory-bytes", str(int(colocation.cache))]
    if colocation.sleeps:
        command.append("--enable-sleep-mode")
        environment["VLLM_SERVER_DEV_MODE"] = "1"  # its requests to sleep and wake are there only then
    return command, environment


class ColocatedSampler(ServerSampler):
    """Samples on a server that it starts, lets sleep, wakes and ends.

    Raises:
        ServiceError: the server does not start, or serves another model than the recipe's.
        UsageError: there is no vLLM.
    """

    def __init__(self, policy: Policy, recipe: Recipe, window: int, colocation: Colocation):
        self.sleeps, self.asleep, self._turn = colocation.sleeps, False, threading.Lock()
        _leave_memory()
        self.server = ColocatedServer(recipe, colocation, policy.device)
        try:
            self.server.wait()
            self.key = self.server.key
            self.advice = f"see its log, {self.server.log}, or sample in this process: sampler.colocate = false"
            sampler = recipe.sampler.model_copy(update={"urls": [self.server.url]})
            super().__init__(policy, recipe.model_copy(update={"sampler": sampler}), window)
            threading.Thread(target=self._watch, name="motif-vllm", daemon=True).start()
        except BaseException:
            self.server.close()
            raise

    def _watch(self) -> None:
        """Fail requests at once, not after `sampler.patience`, when the server has ended for good."""
        self.server.process.wait()
        with suppress(RuntimeError):  # the sampler has been closed, and its loop with it
            self._loop.call_soon_threadsafe(lambda: self.pool.give_up(self.server.explain("has ended")))

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """See `ServerSampler.sample`; a server that sleeps is woken."""
        if self.asleep:
            await asyncio.to_thread(self._wake)
        async with aclosing(super().sample(request, on_text)) as completions:  # type: ignore[type-var]
            async for completion in completions:
                yield completion

    def sync_weights(self, version: int) -> None:
        """See `ServerSampler.sync_weights`; a server that sleeps is woken."""
        self._wake()
        super().sync_weights(version)

    def rest(self) -> None:
        """Let the server give its memory back until it is needed again, if it sleeps at all."""
        with self._turn:
            if self.sleeps and not self.asleep:
                self.asleep = True
                with suppress(Fault):  # the next request finds out
                    self._call(self.pool.servers[0].sleep(self.pool.client))

    def _wake(self) -> None:
        with self._turn:
            if self.asleep:
                _leave_memory()
                with suppress(Fault):  # it has ended, and starts again awake; the next request finds out
                    self._call(self.pool.servers[0].wake(self.pool.client))
                self.asleep = False

    def close(self) -> None:
        """End the server. Calling it twice is harmless."""
        super().close()
        self.server.close()


def _leave_memory() -> None:
    """Give what torch keeps of freed memory back to the device, where the server looks for it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _visible(index: int) -> str:
    """The device that this process calls by an index, as another process is told of it."""
    known = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return known[index] if index < len(known) else str(index)
