"""An estimate of what a run takes on given devices: a model, not a measurement. Expect a factor of 2 either way.

With P parameters of w bytes, of which a token's products take the C that are not looked up nor of experts that it does
not pass, L layers of width D that attend to at most their window, and a device of F FLOP/s and M bytes/s, by its data
sheet or description:

* A decoding step of b rows with a mean context of x tokens, one token a row:
      overhead + max((w·P' + b·cache(x)) / (MBU·M), b·(2C + 4·L·D·x) / (MFU·F))
  cache(x) are the bytes that x tokens keep (motif.models.shape), P' the weights read: of experts those that at least
  one of b rows passes, if each passes any as likely as another.
  `overhead` is SERVER_STEP for an inference server (CUDA graphs), and LOCAL_LAYER a layer for the local sampler, which
  replays its operations as CUDA graphs and launches from Python those that change.
* A round of R responses takes as many steps as its longest response, whichever server that is on; at step t those
  longer than t are alive. If only B rows fit at once, the rest comes first: (R - B)·(mean length)/B full steps. B is
  how many of the longest possible sequences fit into the memory beside the weights, at most `rollout.max_rows`. Rounds
  follow one another: that children start when their own parent ends is left out, and saves what `studies/scaling` says.
* Prompts: (2C + 2·L·D·x) FLOP a token at MFU·F; the question's prompt once, then only what notes add.
* Update: (4C with a frozen base, 6C without, + 2C if activations are recomputed, + 2C for reference or old
  log-probabilities) and 3 or 4 times 2·L·D·x for attention, a token of trained responses and their prompts, per inner
  epoch, at TRAINING_MFU·F; the optimiser moves 32 bytes a trained parameter. All groups count as alive, dead ones cost
  less; with `right`, as many are as if answers were right with this chance, independently.
* With `rollout.refill` a share d of the questions is replaced, d² once more, and so on, each time when all trees of the
  step have been graded: d as a run has measured it (--lengths), or from `right`, or else 1, so that all are tried.
* On a CPU the peak is measured, the shares of it are others, and every token costs `token_overhead` a layer.
* Several training processes share a step's questions, or the responses to fewer, and add up gradients at LINK.
* Grading: GRADING seconds a final response on 2 workers, beside sampling; what exceeds the time of sampling is added.
* Servers: requests for questions and notes are spread evenly (siblings are one request, so a question's first round is
  on one server). After an update the adapter is written and read at DISK, plus ADAPTER_LOAD.
* With overlap (lag 1), the next step is sampled during the update: a step takes the longer of the two.
* A model that needs several devices per server (tensor parallel) or training process (sharded) gets their sum times
  PARALLEL_EFFICIENCY.
* A warm start makes all its steps and looks, on demonstrations that use up their limits (`motif.planning.warmstart`).
* With `rounds.may_finish` no trajectory ends early, unless a run has measured how many do (--lengths).

Left out: start-up, loading the model, checkpoints, failures; for devices elsewhere also dead groups and cached prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from motif.config import Recipe
from motif.evaluation.rows import decoding_modes, eval_rows
from motif.models.shape import Shape
from motif.planning.copies import Level, Replica
from motif.planning.devices import Device
from motif.planning.lengths import Lengths
from motif.planning.memory import GIB, longest_sequence, memory, trainable, weight_size

SERVER_STEP = 2e-3
"""Overhead of a server's decoding step, in seconds."""
LOCAL_LAYER = 4e-4
"""Overhead of the local sampler on a GPU, in seconds a layer and decoding step, for any number of rows: measured on one
H200."""
LINK, DISK, ADAPTER_LOAD = 10e9, 1e9, 0.5
"""Bytes per second between training processes and of shared storage; seconds in which a server loads an adapter."""
GRADING = {"exact": 1e-4, "numeric": 1e-4, "math": 6e-3, "code": 0.05, "circuit": 0.1}
"""Seconds a verdict (docs/grading.md); a grader of the user's own counts like math."""
GRADER_WORKERS = 2
RESERVED = 2 * GIB
"""Memory of a server for activations and CUDA graphs, in bytes."""


@dataclass(frozen=True)
class Costs:
    """What the parts of a run take: memory, and seconds on one or several copies of the model.

    prompt: tokens of a typical first-round prompt. seam: tokens that the scaffold adds to it in later rounds. held_out:
    number of held-out questions. half: whether matrix products are in bfloat16. right: the chance of a right answer, by
    which groups are dead; None: none is. shared: tokens with which all prompts begin, computed once. train: number of
    training questions; 0: unknown.
    """

    recipe: Recipe
    shape: Shape
    device: Device
    count: int
    lengths: Lengths
    prompt: int
    seam: int
    held_out: int
    grader: str
    half: bool = True
    right: float | None = None
    shared: int = 0
    train: int = 0

    # -- the work --------------------------------------------------------------------------------------------------

    def levels(self, branching: Sequence[int], questions: int, limits: tuple[int, int]) -> list[Level]:
        """The rounds of the trees of `questions`; `limits`: new tokens in round 1 and in later ones."""
        rounds, levels, requests = self.recipe.rounds, [], questions
        note = min(rounds.note_tokens, limits[0])
        for index, forks in enumerate(branching):
            carried = index if rounds.carry == "all" else min(index, 1)
            added = self.lengths.note(index + 1, self.seam + note * carried)
            lengths = self.lengths.of(index + 1, limits[min(index, 1)])
            fresh = added if index else self.prompt - self.shared
            reaching = max(1, round(requests * self.lengths.reaching(index + 1)))
            levels.append(Level(reaching, forks, lengths, self.prompt + added, fresh))
            requests *= forks
        return levels

    def step_levels(self, questions: int | None = None) -> list[Level]:
        """The rounds of one step, or of `questions` of its questions."""
        rollout = self.recipe.rollout
        count = rollout.questions_per_step if questions is None else questions
        limits = (rollout.tokens_first, rollout.tokens_continue)
        levels = self.levels(rollout.branching_in(rollout.longest), count, limits)
        deep = [sum(rounds >= number for rounds in rollout.counts) for number in range(1, len(levels) + 1)]
        return [
            replace(level, requests=max(1, round(level.requests * questions / len(rollout.counts))))
            for level, questions in zip(levels, deep, strict=True)
        ]

    def step_waves(self) -> list[list[Level]]:
        """The rounds of one step: of its questions, of those that replace the dead ones, and so on."""
        rollout, dead = self.recipe.rollout, self.dead
        counts = [math.ceil(rollout.questions_per_step * dead**attempt - 1e-9) for attempt in range(rollout.tries)]
        return [self.step_levels(left) for left in counts if left]

    @cached_property
    def dead(self) -> float:
        """The share of questions whose groups are all dead, where they are replaced."""
        if not self.recipe.rollout.refill or self.lengths.dead is not None:
            return self.lengths.dead or 0.0
        levels = self.step_levels()
        return 1.0 if self.right is None else 1 - self._alive(levels[0], levels[1:])

    @property
    def kept(self) -> float:
        """The share of a step's places whose question is trained on."""
        rollout = self.recipe.rollout
        return 1 - self.dead**rollout.refill if rollout.refill and self.dead < 1 else 1.0

    @property
    def tokens(self) -> float:
        """Tokens generated in one step."""
        return sum(level.tokens for levels in self.step_waves() for level in levels)

    @property
    def _token_flops(self) -> float:
        return 2.0 * (self.shape.counts.computed + (self._active_adapter if self.lora else 0))

    @property
    def _active_adapter(self) -> float:
        """Parameters of the adapter that a token passes."""
        counts = self.shape.counts
        idle = (counts.experts - counts.chosen) / max(1, self.shape.reached) if counts.experts else 0.0
        return trainable(self.recipe, self.shape) * max(0.0, 1 - idle)

    @property
    def lora(self) -> bool:
        """Whether an adapter is trained."""
        return self.recipe.model.adapter == "lora"

    def _attention(self, context: np.ndarray | float) -> np.ndarray | float:
        """FLOP of one pass for a token that has so many before it."""
        flops: np.ndarray | float = 4.0 * self.shape.hidden * self.shape.attended(context)
        return flops

    @property
    def _weights(self) -> float:
        return weight_size(self.recipe, self.half) * self.shape.parameters

    def _read(self, rows: np.ndarray | float) -> np.ndarray | float:
        """Bytes of weights that a decoding step reads."""
        counts = self.shape.counts
        unused: np.ndarray | float = (1 - counts.chosen / counts.experts) ** rows if counts.experts else 0.0
        dense, size = counts.computed - counts.chosen, weight_size(self.recipe, self.half)
        return size * (dense + counts.experts * (1 - unused))

    # -- memory ----------------------------------------------------------------------------------------------------

    def local_memory(self, processes: int = 1) -> dict[str, float]:
        """Bytes of one of `processes` that sample and train, by part."""
        return self.memory_of(self.recipe, processes)

    def memory_of(self, recipe: Recipe, processes: int) -> dict[str, float]:
        """The same of another recipe for the same model and data."""
        return memory(recipe, self.shape, self.prompt, self.held_out, half=self.half, cpu=False, processes=processes)

    def trainer_memory(self, devices: int = 1) -> dict[str, float]:
        """Bytes a device of a training process that does not sample, if `devices` share weights and optimiser."""
        parts = self.sharded().local_memory(devices)
        return {name: size for name, size in parts.items() if name != "sampling"}

    def sharded(self) -> Self:
        """The same with `train.shard = "weights"`."""
        return replace(self, recipe=self.recipe.with_settings("train", shard="weights"))

    def server_memory(self, devices: int = 1) -> dict[str, float]:
        """Bytes a device of a server, by part; the cache takes the rest, up to the need of `rollout.max_rows` rows."""
        adapters = 2 * 2.0 * trainable(self.recipe, self.shape)  # the old and the new one, bfloat16
        parts = {"weights": self._weights / devices, "adapters": adapters / devices, "reserved": float(RESERVED)}
        left = max(0.0, self.device.bytes - sum(parts.values()))
        return parts | {"cache": min(left, self.row_bytes * self.recipe.rollout.max_rows / devices)}

    def server_rows(self, devices: int = 1) -> int:
        """Sequences of the greatest length that fit into a server at once."""
        return int(self.server_memory(devices)["cache"] * devices * (1 + 1e-9) / self.row_bytes)

    @property
    def row_bytes(self) -> float:
        """Bytes of the keys and values of the longest sequence."""
        length = longest_sequence(self.recipe, self.prompt, min(self.held_out, self.recipe.eval.questions) > 0)
        return float(self.shape.cache(length, 2 if self.half else 4))

    @cached_property
    def min_processes(self) -> int | None:
        """The fewest processes, one a device, that can sample and train in its memory; None if more than 64."""
        return next((n for n in range(1, 65) if sum(self.local_memory(n).values()) <= self.device.bytes), None)

    @cached_property
    def devices_per_trainer(self) -> int | None:
        """Devices that a training process needs; None if more than 64."""
        return next((n for n in range(1, 65) if sum(self.trainer_memory(n).values()) <= self.device.bytes), None)

    @cached_property
    def devices_per_server(self) -> int | None:
        """Devices that a server needs, a power of two; None if more than 64."""
        return next((n for n in (1, 2, 4, 8, 16, 32, 64) if self.server_rows(n) >= 1), None)

    # -- seconds ---------------------------------------------------------------------------------------------------

    def step_time(self, replica: Replica, rows_at_once: np.ndarray | float, context: np.ndarray | float) -> np.ndarray:
        """Seconds of one decoding step of `rows_at_once` rows with a mean context, by the roofline model."""
        size = 2 if self.half else 4
        adapter = 2.0 * trainable(self.recipe, self.shape) if replica.server else 0.0
        cache = self.shape.cache(context, size, windows=replica.server)
        moved = self._read(rows_at_once) + adapter + rows_at_once * cache
        flops = rows_at_once * (self._token_flops + self._attention(context))
        seconds = np.maximum(moved / replica.bandwidth(), flops / replica.rate(self.half))
        return self._overhead(replica) + replica.tokens_time(rows_at_once, self.shape.layers) + seconds

    def _overhead(self, replica: Replica) -> float:
        if replica.server:
            return SERVER_STEP
        layer = LOCAL_LAYER if replica.device.overhead is None else 1e-3 * replica.device.overhead
        return layer * self.shape.layers

    def prompt_time(self, replica: Replica, tokens: float, context: float) -> float:
        """Seconds to run prompt tokens through the model."""
        seconds = tokens * (self._token_flops + float(self._attention(context / 2))) / replica.rate(self.half)
        return seconds + float(replica.tokens_time(tokens, self.shape.layers))

    def sampling_time(self, levels: Sequence[Level], replica: Replica, replicas: int = 1) -> float:
        """Seconds in which equal replicas, over which requests are spread evenly, answer them round by round."""
        return sum(self._level_time(level, replica, replicas) for level in levels)

    def _level_time(self, level: Level, replica: Replica, replicas: int) -> float:
        requests = math.ceil(level.requests / replicas)  # of the replica with most
        responses = requests * level.forks
        rows_at_once = min(responses, replica.rows)
        ordered = np.sort(level.lengths)
        position = np.arange(ordered[-1])
        longer = 1 - np.searchsorted(ordered, position, side="right") / len(ordered)
        # The chance that a row is left on any replica: the longest response expected on all of them counts.
        alive = 1 - (1 - longer) ** min(level.responses, rows_at_once * replicas)
        steps = self.step_time(replica, np.maximum(1, rows_at_once * longer), level.prompt + position)
        ending = float((alive * steps).sum())
        full_steps = (responses - rows_at_once) * float(level.lengths.mean()) / rows_at_once
        full = full_steps * float(self.step_time(replica, rows_at_once, level.context)) if full_steps else 0.0
        return self.prompt_time(replica, requests * level.fresh, level.prompt) + full + ending

    def rollout_time(self, waves: Sequence[Sequence[Level]], replica: Replica, replicas: int = 1) -> float:
        """The same of one wave of trees after the other."""
        return sum(self.sampling_time(levels, replica, replicas) for levels in waves)

    def update_time(self, levels: Sequence[Level], replica: Replica, replicas: int = 1) -> float:
        """Seconds of an update on the trained rounds, for one of `replicas` processes with its share of them."""
        recipe = self.recipe
        trained = levels[:1] if recipe.credit.train_rounds == "first" else levels
        recomputed = int(recipe.train.recomputes)
        frozen = 2.0 * self.shape.counts.computed if self.lora else 0.0  # no gradients of the base's weights
        flops = 0.0
        for index, level in enumerate(trained):
            forward = self._token_flops + float(self._attention(level.context / 2))
            passes = (3 + recomputed) * recipe.loss.inner_epochs
            passes += (recipe.loss.kl_beta > 0) + (recipe.loss.minibatches * recipe.loss.inner_epochs > 1)
            computed = level.computed * self._trained(level, levels[index + 1 :])
            flops += computed * (passes * forward - frozen * recipe.loss.inner_epochs)
        numbers = trainable(recipe, self.shape)
        steps = recipe.loss.inner_epochs * recipe.loss.minibatches
        optimiser = steps * 32 * numbers / replica.bandwidth()
        exchange = steps * 8 * numbers / LINK if replicas > 1 else 0.0  # a ring sends every gradient twice
        return flops / replica.training_rate(self.half) + optimiser + exchange

    def _trained(self, level: Level, below: Sequence[Level]) -> float:
        """The share of a round's groups that an update computes."""
        if self.right is None or self.recipe.loss.kl_beta:
            return self.kept
        live = self._alive(level, below)
        return self.kept * min(1.0, live / (1 - self.dead)) if self.dead < 1 else live

    def _alive(self, level: Level, below: Sequence[Level]) -> float:
        """The share of a round's groups whose answers are not all right or all wrong."""
        assert self.right is not None
        answers = max(2, level.forks * math.prod(deeper.forks for deeper in below))
        return 1 - self.right**answers - (1 - self.right) ** answers

    def grading_time(self, waves: Sequence[Sequence[Level]], sampling: float) -> float:
        """Seconds of grading that exceed the time of sampling."""
        each = GRADING.get(self.grader, GRADING["math"])
        responses = sum(levels[-1].responses for levels in waves)
        return max(0.0, responses * each / GRADER_WORKERS - sampling)

    @property
    def weight_sync_time(self) -> float:
        """Seconds until the servers have the adapter of an update."""
        return 2 * 4 * trainable(self.recipe, self.shape) / DISK + ADAPTER_LOAD

    def evaluation_time(self, replica: Replica, replicas: int) -> float:
        """Seconds of one evaluation on all replicas that sample."""
        questions = min(self.recipe.eval.questions, self.held_out)
        if not questions:
            return 0.0
        return sum(
            self.sampling_time(
                self.levels(
                    [mode.samples] + [1] * (row.rounds - 1), questions, (row.tokens_first, row.tokens_continue)
                ),
                replica,
                replicas,
            )
            for row in eval_rows(self.recipe)
            for mode in decoding_modes(self.recipe)
        )
