"""Ways to use the devices there are, and the fastest of them: what `motif train --dry-run` says of time and memory.

What the parts of a run take is estimated in `motif.planning.costs`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from motif.errors import RecipeError
from motif.planning import warmstart
from motif.planning.colocation import BACK, OUT, shared_by
from motif.planning.copies import Replica
from motif.planning.costs import Costs
from motif.planning.layouts import Layout, fastest, server_counts
from motif.planning.memory import GIB, way_out
from motif.sampling.vllm.launch import Colocation


@dataclass(frozen=True)
class Forecast(Costs):
    """The cost of a recipe on `count` devices of one kind, however they are used."""

    def local(self, processes: int) -> Layout:
        """Every process samples and trains its share of the questions."""
        replica = Replica(self.device, rows=self.recipe.rollout.max_rows)
        one = replace(self, recipe=self.recipe.model_copy(update={"rollout": self.recipe.rollout_of_one(processes)}))
        waves = one.step_waves()
        sampling = self.rollout_time(waves, replica)
        return Layout(
            kind="local",
            samplers=processes,
            trainers=processes,
            devices=processes,
            sampling=sampling,
            grading=self.grading_time(waves, sampling),
            weight_sync=0.0,
            training=self.update_time(one.step_levels(), replica, processes),
            evaluation=self.evaluation_time(replica, processes),
            warm=warmstart.seconds(self, (replica, processes), (replica, processes)),
        )

    def served(self, servers: int, trainers: int, server: Replica | None = None) -> Layout:
        """Servers sample and training processes train, in turns; `server`: one that has less than its devices."""
        per_server, per_trainer = self.devices_per_server or 1, self.devices_per_trainer or 1
        replica = server or Replica(self.device, per_server, True, self.server_rows(per_server))
        waves = self.step_waves()
        sampling = self.rollout_time(waves, replica, servers)
        share = self.step_levels(math.ceil(self.recipe.rollout.questions_per_step / trainers))
        training = Replica(self.device, per_trainer)
        return Layout(
            kind="servers",
            samplers=servers,
            trainers=trainers,
            devices=servers * per_server + trainers * per_trainer,
            sampling=sampling,
            grading=self.grading_time(waves, sampling),
            weight_sync=self.weight_sync_time,
            training=self.update_time(share, training, trainers),
            evaluation=self.evaluation_time(replica, servers),
            warm=warmstart.seconds(self, (replica, servers), (training, trainers)),
        )

    def colocated(self, shared: Colocation) -> Layout:
        """A server beside the training process on one device."""
        rows = max(1, int(shared.cache / self.row_bytes))
        alone = self.served(1, 1, Replica(self.device, 1, True, rows))
        weights = self.server_memory()["weights"]
        turns = weights / OUT + weights / BACK if shared.sleeps else 0.0
        return replace(alone, kind="colocated", devices=1, weight_sync=alone.weight_sync + turns)

    def colocations(self) -> list[Layout]:
        """The same, of the whole device: none, if the two do not fit or all weights are trained."""
        if not self.lora:
            return []
        try:
            return [self.colocated(shared_by(self, self.device.bytes, self.device.bytes))]
        except RecipeError:
            return []

    @functools.cached_property
    def layouts(self) -> list[Layout]:
        """The fastest layout of each kind that fits, fewest devices first among equals.

        Raises:
            RecipeError: none fits; the message says how many devices are needed.
        """
        questions = self.recipe.rollout.questions_per_step
        per_server, per_trainer = self.devices_per_server, self.devices_per_trainer
        layouts: list[Layout] = []
        if self.min_processes and self.min_processes <= self.count:
            most = max(self.min_processes, min(self.count, self.recipe.parts))
            layouts.append(fastest([self.local(n) for n in range(self.min_processes, most + 1)]))
        if self.lora and per_server and per_trainer:
            pairs = [
                self.served(servers, trainers)
                for trainers in range(1, min(self.count // per_trainer, questions) + 1)
                for servers in server_counts((self.count - trainers * per_trainer) // per_server)
            ]
            if pairs:
                layouts += [fastest(pairs), fastest([replace(pair, kind="overlap") for pair in pairs])]
        layouts += self.colocations()
        if not layouts:
            raise RecipeError(self._too_big())
        return layouts

    @property
    def best(self) -> Layout:
        """The fastest layout."""
        return fastest(self.layouts)

    def run_seconds(self, layout: Layout, evaluations: float) -> float:
        """Seconds of the whole run."""
        return sum(layout.warm) + self.recipe.train.steps * layout.seconds + evaluations * layout.evaluation

    def _too_big(self) -> str:
        parts = self.local_memory(self.count)
        memory_of = functools.partial(self.memory_of, processes=self.count)
        largest, advice = way_out(self.recipe, self.held_out, memory_of, self.device.bytes)
        text = (
            f"this does not fit one {self.device}: a process that samples and trains needs about "
            f"{sum(parts.values()) / GIB:.1f} GiB, and {self.device.bytes / GIB:.1f} can be used (largest "
            f"part: {largest}, {parts[largest] / GIB:.1f} GiB: {advice})"
        )
        if fewest := self.min_processes or self.sharded().min_processes:
            sharding = "" if self.recipe.train.shard == "weights" else " and train.shard = 'weights'"
            text = f"{text}. {fewest} such devices{sharding} would be enough"
        if not self.lora:
            return f"{text}. Servers need model.adapter = 'lora'; or see the hosts in docs/scaling.md"
        if self.devices_per_server and self.devices_per_trainer:
            fewest = self.devices_per_server + self.devices_per_trainer
            return (
                f"{text}. At least {fewest} such devices are needed: {self.devices_per_server} for a vLLM server and "
                f"{self.devices_per_trainer} for the training process; --on names {self.count}"
            )
        return f"{text}, and 64 of them for one copy of the model are not enough: use another device or a smaller model"
