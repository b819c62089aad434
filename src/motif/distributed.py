"""Several training processes that act as one.

`accelerate launch -m motif train …` (or torchrun) starts the same program several times. Every process holds the model,
grows whole trees for its share of the questions, and receives the trees of all others. So all of them see the same
step, compute the same advantages, weights and minibatches, and take the same optimiser step on the sum of their
gradients. (With `train.shard` each holds a piece of the model or of the optimiser's state, and takes its part of the
step.) The result of a run therefore does not depend on the number of processes, except for the order in which numbers
are summed. One process, the *main* one, writes. With a single process, nothing here has an effect.

Objects are sent over gloo, and gradients over NCCL where they are on GPUs. If a process dies, every exchange ends at
once for the others.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from motif.config import Recipe
from motif.errors import ModelError, PeerFailed, RecipeError, UsageError, first_line

T = TypeVar("T")

TIMEOUT = timedelta(days=30)
"""How long a process waits for the others. Waiting is normal while one evaluates or samples; a dead process is noticed
by its closed connection."""
BUCKET = 2**24
"""Numbers of gradient that are summed in one exchange: 64 MiB."""
MOMENT = 0.1
"""Seconds in which a thread that has nothing left to do has let go of its tensors."""
FAILED = "failed"
"""The store's key for the error of the first process that failed."""
FSDP_UNSUPPORTED = {
    "FSDP_OFFLOAD_PARAMS": "leave it out; what does not fit the GPUs needs more of them",
    "FSDP_ACTIVATION_CHECKPOINTING": "set train.activation_checkpointing = true instead",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "leave it out",
}
"""Options in accelerate's configuration of FSDP that are refused, with what to do instead."""


@dataclass(frozen=True)
class Processes:
    """This process among all of them; by default it is the only one."""

    rank: int = 0
    count: int = 1
    local_count: int = 1
    """Processes on this machine."""
    store: Any = field(default=None, repr=False)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's items. Shares differ by one item at most; with fewer items than processes some are empty."""
        return list(items[self.rank :: self.count])

    def gather_in_order(self, mine: Sequence[T]) -> list[T]:
        """The inverse of `share`: one result for each item of all processes, in the order before `share`."""
        parts = self.gather(list(mine))
        results: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            results[rank :: self.count] = part
        return results

    def gather(self, item: T) -> list[T]:
        """Every process's item, by rank; all wait for all.

        Raises:
            PeerFailed: one of them has ended.
        """
        if self.count == 1:
            return [item]
        items: list[Any] = [None] * self.count
        with self._exchange():
            dist.all_gather_object(items, item)
        return items

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(self.gather(flag))

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all processes, one for each number."""
        return [sum(column) for column in zip(*self.gather(list(numbers)), strict=True)]

    def largest(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Of each number, the largest of all processes."""
        columns = self.gather(dict(numbers))
        return {name: max(column[name] for column in columns) for name in numbers}

    def assert_same(self, value: object, what: str) -> None:
        """Stop if a value differs between processes.

        Raises:
            RuntimeError: it differs; the message begins with `what`.
        """
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise RuntimeError(f"{what}: {', '.join(map(str, values))} in processes 0 to {self.count - 1}")

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process only, and return its result in every process."""
        if self.count == 1:
            return work()
        box = [work() if self.main else None]
        with self._exchange():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes; a parameter without any gradient keeps none."""
        if self.count == 1:
            return
        has_gradient = self.gather([parameter.grad is not None for parameter in parameters])
        used = [parameter for parameter, *flags in zip(parameters, *has_gradient, strict=True) if any(flags)]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in used if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with self._exchange():
                dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def consolidate(self, optimizer: torch.optim.Optimizer) -> None:
        """Collect the state of a sharded optimiser in the main process, for its `state_dict`."""
        if consolidate := getattr(optimizer, "consolidate_state_dict", None):  # a ZeroRedundancyOptimizer
            with self._exchange():
                consolidate(to=0)

    def failure(self) -> str | None:
        """Which process failed first, and why; None if no failure of another process is known."""
        if self.store is None:
            return None
        with suppress(RuntimeError):  # the store goes when the process that holds it ends
            if self.store.check([FAILED]):
                rank, message = json.loads(self.store.get(FAILED))
                return None if rank == self.rank else f"process {rank} failed: {message}"
        return None

    def report_failure(self, error: BaseException) -> None:
        """Tell the other processes what ended this one."""
        if self.store is not None and self.failure() is None:
            with suppress(RuntimeError):
                self.store.set(FAILED, json.dumps([self.rank, str(error) or type(error).__name__]))

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Report the error of an exchange as the failure of another process."""
        try:
            yield
        except RuntimeError as error:
            raise self._peer_failed(error) from error

    def _peer_failed(self, error: RuntimeError) -> PeerFailed:
        unreported = f"another process ended without a word (killed, or out of memory?): {first_line(error)}"
        return PeerFailed(self.failure() or unreported)


ALONE = Processes()


def launched_process() -> Processes:
    """This process as its launcher describes it, not yet in a group with the others."""
    count, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Processes(int(os.environ.get("RANK", "0")), count, local) if count > 1 else ALONE


def as_launched(recipe: Recipe) -> Recipe:
    """The recipe with what the launcher's configuration adds: FSDP means `train.shard = "weights"`.

    Raises:
        UsageError: the launcher, or an option in its configuration, is not supported.
        RecipeError: quantised weights cannot be sharded.
    """
    if launched_process().count == 1:
        _refuse_unknown_launcher()
        return recipe
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        recipe = recipe.with_settings("train", shard="weights")
    _refuse_unsupported(recipe)
    return recipe


@contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """The processes that the launcher started, as one group inside the block.

    A process that fails inside reports its error and closes its connections, which ends the others.

    Args:
        device: on which they compute; on `cuda` each process takes a GPU of its own.

    Raises:
        RecipeError, ModelError: the processes cannot share the device.
        PeerFailed: another process failed.
    """
    group = launched_process()
    if group.count == 1:
        yield ALONE
        return
    gpus = _take_gpu(device)
    number = next(_groups)
    group_store, failures = (dist.PrefixStore(f"motif/{number}/{name}", _store()) for name in ("group", "failures"))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=group_store, rank=group.rank, world_size=group.count, timeout=TIMEOUT)
    group = replace(group, store=failures)
    try:
        yield group
    except PeerFailed:
        raise
    except BaseException as error:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise group._peer_failed(error) from error  # in an exchange of sharded weights
        group.report_failure(error)
        raise
    finally:
        dist.destroy_process_group()
        _end_threads()


def _end_threads() -> None:
    """Let the threads of the group that was destroyed end.

    One that still gives back the tensors of the last exchange while the interpreter ends would abort the process. They
    are joined when nothing refers to the group, but torch's caches keep the meshes of sharded weights, and these their
    group. Something in the sharded optimiser keeps it as well: its threads get a moment.
    """
    gc.collect()
    for mesh in [found for found in gc.get_objects() if type(found) is DeviceMesh]:
        getattr(mesh, "_pg_registry", {}).clear()
    time.sleep(MOMENT)


_groups = itertools.count()  # a script may train several times, and a failure in one run must not end the next


@functools.cache
def _store() -> Any:
    """The store through which processes find each other: the launcher's, or one that process 0 serves."""
    return next(iter(dist.rendezvous("env://")))[0]


def _refuse_unknown_launcher() -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        if int(os.environ.get(name, "1")) > 1:
            raise UsageError(
                "started several times by mpirun, which is not supported: use accelerate launch --multi_gpu or "
                "torchrun (both work on CPUs too)"
            )


def _refuse_unsupported(recipe: Recipe) -> None:
    """Refuse what accelerate's configuration asks for and motif would ignore."""
    environment = os.environ.get
    for name, title in (("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")):
        if environment(f"ACCELERATE_USE_{name}", "false") == "true":
            raise UsageError(
                f"{title} is not supported. PyTorch itself does what ZeRO stage 1 does with train.shard = 'optimizer', "
                "and what stage 3 does with train.shard = 'weights': use examples/accelerate/ddp.yaml with one of "
                "them, or fsdp.yaml beside it for the second"
            )
    for name, advice in FSDP_UNSUPPORTED.items():
        if environment(name, "false") == "true":
            raise UsageError(f"accelerate's {name.lower()} is not supported: {advice}")
    for name in ("FSDP_SHARDING_STRATEGY", "FSDP_RESHARD_AFTER_FORWARD"):
        if (value := environment(name, "true")).lower() not in ("true", "full_shard", "1"):
            raise UsageError(
                f"accelerate's {name.lower()} = {value} is not supported: leave it out, which shards fully, or shard "
                "the optimiser's state only, with train.shard = 'optimizer' and examples/accelerate/ddp.yaml"
            )
    if recipe.train.shard == "weights" and recipe.model.four_bit:
        raise RecipeError("quantised weights cannot be sharded: set model.four_bit = false or train.shard = 'none'")
    precision = environment("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and not (precision == "bf16" and recipe.model.dtype != "float32"):
        raise UsageError(
            f"accelerate's mixed_precision = {precision} is not used: leave it at 'no' and set model.dtype instead"
        )
    if environment("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UsageError("accelerate's dynamo_backend is not used: leave it at 'no'")


def _take_gpu(device: torch.device) -> bool:
    """Make this process's GPU the current one; False on CPUs."""
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise RecipeError(
            f"several processes on the device {device}: set model.device = 'auto' (each process takes a GPU of its "
            "own) or 'cpu'"
        )
    if device.type == "cpu":
        return False
    processes, gpus = launched_process().local_count, torch.cuda.device_count()
    if processes > gpus:
        raise ModelError(
            f"{processes} processes on this machine, which has {gpus} GPUs: start as many processes as there are GPUs, "
            "or set model.device = 'cpu'"
        )
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return True


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
