"""Several training processes that act as one.

`accelerate launch -m motif train …` (or torchrun) starts the same program several times. Every process holds the model,
grows whole trees of its share of the questions, and gets everybody's trees; so all of them see the same step, compute
the same advantages, weights and minibatches, and take the same optimiser step on the sum of their gradients. (With
`train.shard` each holds a piece of the model or of the optimiser's state, and takes its part of the step.) What a run
does therefore does not depend on how many processes there are, up to the order in which numbers are summed. One
process, the *main* one, writes. With a single process nothing here does anything.

Objects travel over gloo, gradients over NCCL where they lie on GPUs. Every exchange ends at once for the processes that
live when one of them dies.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from motif.config import Recipe
from motif.errors import PeerFailed, RecipeError
from motif.models.policy import pick_device

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the others: while one evaluates or samples, that is no sign of trouble. A dead one is
noticed by its closed connection."""
BUCKET = 2**24
"""Numbers of gradient that are summed in one exchange: 64 MiB."""
FAILED = "failed"
"""The store's key for what ended the first process that failed."""


FSDP_UNHEEDED = {
    "FSDP_OFFLOAD_PARAMS": "leave it out; what does not fit the GPUs needs more of them",
    "FSDP_ACTIVATION_CHECKPOINTING": "set train.activation_checkpointing = true instead",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "leave it out",
}
"""What accelerate's configuration of FSDP may ask for and does not get, with what to do instead."""


@dataclass(frozen=True)
class Processes:
    """This process among all of them. The default is the only one."""

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
        """This process's items; shares differ by one at most, and are empty where there are fewer than processes."""
        return list(items[self.rank :: self.count])

    def gather_in_order(self, mine: Sequence[T]) -> list[T]:
        """The inverse of `share`: what every process made of each of its items, in the order of all."""
        parts = self.gather(list(mine))
        whole: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.count] = part
        return whole

    def gather(self, item: T) -> list[T]:
        """Every process's item, by rank; all wait for all.

        Raises:
            PeerFailed: one of them has ended.
        """
        if self.count == 1:
            return [item]
        found: list[Any] = [None] * self.count
        with self._peers():
            dist.all_gather_object(found, item)
        return found

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return any(self.gather(flag))

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all processes, one for each number."""
        return [sum(column) for column in zip(*self.gather(list(numbers)), strict=True)]

    def assert_same(self, value: object, what: str) -> None:
        """Stop if a value that should be the same everywhere is not.

        Raises:
            RuntimeError: it differs; `what` begins the sentence.
        """
        found = self.gather(value)
        if any(other != found[0] for other in found):
            raise RuntimeError(f"{what}: {', '.join(map(str, found))} in processes 0 to {self.count - 1}")

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the main process, which alone does it while the others wait."""
        if self.count == 1:
            return work()
        box = [work() if self.main else None]
        with self._peers():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes; what has none anywhere keeps none."""
        if self.count == 1:
            return
        there = self.gather([parameter.grad is not None for parameter in parameters])
        used = [parameter for parameter, *flags in zip(parameters, *there, strict=True) if any(flags)]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in used if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with self._peers():
                dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def consolidate(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the state of an optimiser that is spread over the processes to the main one, for its `state_dict`."""
        if consolidate := getattr(optimizer, "consolidate_state_dict", None):  # a ZeroRedundancyOptimizer
            with self._peers():
                consolidate(to=0)

    def failure(self) -> str | None:
        """Which process has failed first, and of what; None while none is known to."""
        if self.store is None:
            return None
        with suppress(RuntimeError):  # the store goes when the process that holds it ends
            if self.store.check([FAILED]):
                rank, message = json.loads(self.store.get(FAILED))
                return None if rank == self.rank else f"process {rank} failed: {message}"
        return None

    def report_failure(self, error: BaseException) -> None:
        """Leave word of what ends this process, for the others."""
        if self.store is not None and self.failure() is None:
            with suppress(RuntimeError):
                self.store.set(FAILED, json.dumps([self.rank, str(error) or type(error).__name__]))

    @contextmanager
    def _peers(self) -> Iterator[None]:
        """Errors of an exchange are said in terms of processes."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PeerFailed:
        silent = f"another process ended without a word (killed, or out of memory?): {_first_line(error)}"
        return PeerFailed(self.failure() or silent)


ALONE = Processes()


def launched_process() -> Processes:
    """This process as its launcher describes it, not joined with the others."""
    count, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Processes(int(os.environ.get("RANK", "0")), count, local) if count > 1 else ALONE


def as_launched(recipe: Recipe) -> Recipe:
    """The recipe with what the launcher's configuration says besides: FSDP means `train.shard = "weights"`.

    Raises:
        RecipeError: it asks for something that these processes do not do.
    """
    if launched_process().count == 1:
        _refuse_unknown_launcher()
        return recipe
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"shard": "weights"})})
    _refuse_unsupported(recipe)
    return recipe


@contextmanager
def process_group(recipe: Recipe) -> Iterator[Processes]:
    """The processes that the launcher started, joined for as long as the block lasts.

    A process that fails inside leaves word of it and closes its connections, which ends the others.

    Raises:
        RecipeError: the processes cannot share the device.
        PeerFailed: another process failed.
    """
    group = launched_process()
    if group.count == 1:
        yield ALONE
        return
    gpus = _take_device(recipe)
    number = next(_joined)
    group_store, own_store = (dist.PrefixStore(f"motif/{number}/{name}", _store()) for name in ("group", "words"))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=group_store, rank=group.rank, world_size=group.count, timeout=PATIENCE)
    group = replace(group, store=own_store)
    try:
        yield group
    except PeerFailed:
        raise
    except BaseException as error:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise group._lost(error) from error  # of an exchange of sharded weights
        group.report_failure(error)
        raise
    finally:
        dist.destroy_process_group()


_joined = itertools.count()  # a script may train several times; what was said in one run must not be heard in the next


@functools.cache
def _store() -> Any:
    """Where the processes find each other: the launcher's own store, or one that process 0 serves."""
    return next(iter(dist.rendezvous("env://")))[0]


def _refuse_unknown_launcher() -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        if int(os.environ.get(name, "1")) > 1:
            raise RecipeError(
                "started several times by mpirun, which motif does not know how to join: use accelerate launch "
                "--multi_gpu or torchrun (both work on CPUs too)"
            )


def _refuse_unsupported(recipe: Recipe) -> None:
    """Refuse what accelerate's configuration asks for and nothing here would heed."""
    environment = os.environ.get
    for name, title in (("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")):
        if environment(f"ACCELERATE_USE_{name}", "false") == "true":
            raise RecipeError(
                f"{title} is not supported. PyTorch itself does what ZeRO stage 1 does with train.shard = 'optimizer', "
                "and what stage 3 does with train.shard = 'weights': use examples/accelerate/ddp.yaml with one of "
                "them, or fsdp.yaml beside it for the second"
            )
    for name, said in FSDP_UNHEEDED.items():
        if environment(name, "false") == "true":
            raise RecipeError(f"accelerate's {name.lower()} is not supported: {said}")
    for name in ("FSDP_SHARDING_STRATEGY", "FSDP_RESHARD_AFTER_FORWARD"):
        if (value := environment(name, "true")).lower() not in ("true", "full_shard", "1"):
            raise RecipeError(
                f"accelerate's {name.lower()} = {value} is not supported: leave it out, which shards fully, or shard "
                "the optimiser's state only, with train.shard = 'optimizer' and examples/accelerate/ddp.yaml"
            )
    if recipe.train.shard == "weights" and recipe.model.four_bit:
        raise RecipeError("quantised weights cannot be sharded: set model.four_bit = false or train.shard = 'none'")
    precision = environment("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and not (precision == "bf16" and recipe.model.dtype != "float32"):
        raise RecipeError(
            f"accelerate's mixed_precision = {precision} is not used: leave it at 'no' and set model.dtype instead"
        )
    if environment("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise RecipeError("accelerate's dynamo_backend is not used: leave it at 'no'")


def _take_device(recipe: Recipe) -> bool:
    """Make this process's GPU the current one; False on CPUs."""
    device = pick_device(recipe.model.device)
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise RecipeError(
            f"several processes on the device {device}: set model.device = 'auto' (each process takes a GPU of its "
            "own) or 'cpu'"
        )
    if device.type == "cpu":
        return False
    wanted, there = launched_process().local_count, torch.cuda.device_count()
    if wanted > there:
        raise RecipeError(
            f"{wanted} processes on this machine, and GPUs for {there}: start as many processes as there are GPUs, or "
            "set model.device = 'cpu'"
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
