"""What an estimate is put together from: the rounds of a step, and a copy of the model that works on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motif.planning.devices import Device

MBU, MFU, TRAINING_MFU = 0.6, 0.4, 0.1
"""Shares of a device's peak that are reached: of memory bandwidth in decoding, of matrix products in sampling and in
updates. The last was measured on one H200 (docs/performance.md); the others are assumed."""
PARALLEL_EFFICIENCY = 0.8
"""Speed of several devices that hold one model, relative to the sum of their speeds alone."""


@dataclass(frozen=True)
class Level:
    """One round of a step: requests with different prompts, each answered `forks` times."""

    requests: int
    forks: int
    lengths: np.ndarray  # a sample of response lengths in tokens
    prompt: float  # tokens
    fresh: float  # tokens of the prompt that no earlier round has computed

    @property
    def responses(self) -> int:
        """Responses in this round."""
        return self.requests * self.forks

    @property
    def tokens(self) -> float:
        """Generated tokens."""
        return self.responses * float(self.lengths.mean())

    @property
    def context(self) -> float:
        """Mean number of tokens before the one being computed."""
        return self.prompt + float(self.lengths.mean()) / 2

    @property
    def computed(self) -> float:
        """Tokens of an update pass: prompts once per request, and responses."""
        return self.requests * self.fresh + self.tokens


@dataclass(frozen=True)
class Replica:
    """One copy of the model: on a device, or on several that work as one."""

    device: Device
    devices: int = 1
    server: bool = False
    rows: int = 256

    @property
    def _factor(self) -> float:
        return 1.0 if self.devices == 1 else PARALLEL_EFFICIENCY * self.devices

    def bandwidth(self) -> float:
        """Memory bandwidth that is reached, in bytes per second."""
        return MBU * 1e12 * self.device.bandwidth * self._factor

    def rate(self, half: bool) -> float:
        """FLOP per second that decoding and prompts reach."""
        mfu = MFU if self.device.mfu is None else self.device.mfu
        return mfu * self.device.rate(half) * self._factor

    def training_rate(self, half: bool) -> float:
        """FLOP per second that updates reach."""
        mfu = TRAINING_MFU if self.device.training_mfu is None else self.device.training_mfu
        return mfu * self.device.rate(half) * self._factor

    def tokens_time(self, tokens: np.ndarray | float, layers: int) -> np.ndarray | float:
        """Seconds that tokens cost beside matrix products."""
        return 1e-3 * self.device.token_overhead * layers * tokens
