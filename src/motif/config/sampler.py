"""`[sampler]`: where responses are sampled, and what servers need."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from motif.config.sections import Section


class SamplerConfig(Section):
    """Where responses are sampled: in the training process, or on vLLM servers (docs/scaling.md)."""

    added = frozenset({"colocate", "precision", "sleep"})

    urls: list[str] = Field(default_factory=list)
    """vLLM servers, e.g. `["http://gpu1:8000", "http://gpu2:8000"]`; empty: sample in the training process."""
    colocate: bool = False
    """Start one vLLM server on the trainer's own device, and end it with the run."""
    sleep: Literal["auto", "always", "never"] = "auto"
    """With `colocate`: whether the server gives its memory back during updates. `auto`: where there is too little."""
    adapter_dir: str = ""
    """Folder for the adapters of the run, under the same path here and on the servers (with `copy_command`: a folder on
    the servers). Empty: a temporary one, for servers on this machine."""
    copy_command: str = ""
    """Command that copies an adapter to a server without a shared folder, e.g.
    `rsync -a --mkpath {source}/ {host}:{target}/`."""
    remove_command: str = ""
    """Command that removes a copied adapter that is no longer used, e.g. `ssh {host} rm -r {target}`."""
    api_key_variable: str = "VLLM_API_KEY"
    """Environment variable with the API key of the servers; if it is not set, no key is sent."""
    concurrency: Annotated[int, Field(ge=1)] = 1024
    """Limit of requests in flight per server; others wait here."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without data from a server after which its answer counts as lost."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a failed request is sent again, to another server if there is one, before the run stops."""
    patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for a server to return when none is left, before the run stops."""
    max_mean_gap: Annotated[float, Field(ge=0)] = 0.3
    """Largest mean difference (nats) between the trainer's log-probabilities of a step's tokens and the sampler's
    (`sampler/mean_gap`). Beyond it the run stops before it trains on them. Rounding to bfloat16 makes some hundredths.
    0: no limit."""
    precision: Literal["auto", "float32", "int8"] = "float32"
    """Numbers that rollouts in this process are sampled with on a CPU. `int8`: weights and inputs of the linear layers
    in 8 bits; `loss.importance_cap` corrects for the difference, and updates and evaluations stay in float32. `auto`:
    int8 if a timing at the start finds the layers faster; a resumed run keeps what was chosen."""
    overlap: bool = False
    """Sample step t + 1 while step t trains, with the weights from before step t (a lag of one)."""

    @field_validator("urls")
    @classmethod
    def _plain_urls(cls, urls: list[str]) -> list[str]:
        urls = [url.strip().rstrip("/").removesuffix("/v1") for url in urls]
        for url in urls:
            parts = urlsplit(url)
            if "@" in parts.netloc:  # the recipe and messages are shared; a key has its place in api_key_variable
                raise ValueError("names a user or password: give a key by sampler.api_key_variable instead")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is not the address of a server: write it like http://gpu1:8000")
        if len(set(urls)) < len(urls):
            raise ValueError("lists a server twice")
        return urls

    @model_validator(mode="after")
    def _reachable(self) -> SamplerConfig:
        for name in ("copy_command", "remove_command"):
            text = getattr(self, name)
            try:
                shlex.split(text.format(source="", target="", host="", url=""))
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"{name} may hold {{source}}, {{target}}, {{host}} and {{url}} only") from None
            if text and "{target}" not in text:
                raise ValueError(f"{name} needs {{target}}")
        if self.copy_command and not self.adapter_dir:
            raise ValueError("copy_command needs adapter_dir, the folder on the servers that it copies to")
        if self.remove_command and not self.copy_command:
            raise ValueError("remove_command has nothing to remove without copy_command")
        remote = [url for url in self.urls if urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1")]
        if remote and not self.adapter_dir:
            raise ValueError(
                f"{remote[0]} is another machine, which must find the adapters: set adapter_dir to a folder that both "
                "see under the same path, or with copy_command to a folder on the servers"
            )
        if self.precision != "float32" and self.on_servers:
            raise ValueError(
                f"precision = {self.precision!r} is for sampling in this process: with {self.on_servers} leave it out, "
                "and let the servers quantise (vllm serve --quantization)"
            )
        if self.overlap and not self.on_servers:
            raise ValueError("overlap needs servers (sampler.urls): one process cannot sample while it trains")
        return self

    @model_validator(mode="after")
    def _on_one_device(self) -> SamplerConfig:
        if self.colocate and (self.urls or self.copy_command):
            raise ValueError("colocate starts a server of its own on this machine: leave out urls and copy_command")
        if self.sleep != "auto" and not self.colocate:
            raise ValueError("sleep is about the server that colocate starts: set colocate = true, or leave out sleep")
        if self.sleep == "always" and self.overlap:
            raise ValueError("a server that samples during updates (overlap) cannot sleep in them: drop one of the two")
        return self

    @property
    def on_servers(self) -> str:
        """The setting by which vLLM servers sample, `urls` or `colocate`; empty: this process samples."""
        return "urls" if self.urls else "colocate" if self.colocate else ""
