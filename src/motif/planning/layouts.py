"""Ways to use several devices, and the fastest of them; `motif.planning.costs` estimates what each takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """A way to use the devices, with the seconds of each part of a step, of an evaluation and of the warm start."""

    kind: Literal["local", "servers", "overlap", "colocated"]
    samplers: int
    trainers: int
    devices: int
    sampling: float
    grading: float  # beyond the time of sampling
    weight_sync: float
    training: float
    evaluation: float
    warm: tuple[float, float] = (0.0, 0.0)  # of the whole warm start: sampling and updates

    @property
    def seconds(self) -> float:
        """Seconds of one step."""
        if self.kind == "overlap":
            return max(self.sampling + self.grading, self.training) + self.weight_sync
        return self.sampling + self.grading + self.weight_sync + self.training

    def __str__(self) -> str:
        if self.kind == "local":
            many = f"{self.trainers} processes, each samples" if self.trainers > 1 else "one process samples"
            return f"{many} and trains"
        if self.kind == "colocated":
            return "a server beside the training process on one device, in turns"
        servers = f"{self.samplers} server{'s' if self.samplers > 1 else ''}"
        trainers = f"{self.trainers} training process{'es' if self.trainers > 1 else ''}"
        return f"{servers} + {trainers}, {'overlapped' if self.kind == 'overlap' else 'in turns'}"


def fastest(layouts: Sequence[Layout]) -> Layout:
    """The layout with the shortest step; of equals, the one with the fewest devices."""
    return min(layouts, key=lambda layout: (layout.seconds, layout.devices))


def server_counts(most: int) -> list[int]:
    """Numbers of servers to try: all up to 64, and beyond that powers of two and the largest."""
    beyond = {2**power for power in range(7, most.bit_length())} | ({most} if most > 64 else set())
    return [*range(1, min(most, 64) + 1), *sorted(n for n in beyond if n <= most)]
