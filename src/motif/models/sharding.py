"""A model whose weights are sharded over the processes by PyTorch's `fully_shard` (FSDP2, what ZeRO stage 3 does).

Every layer is a unit whose weights are gathered for its own forward and backward pass and then freed. What is outside
the layers (embeddings, last norm, output head) is one more unit, which stays gathered from a forward pass to the end of
a backward pass, because the head is used after the decoder. Gathering is an exchange, so all processes must make the
same passes in the same order, which `motif.training.batch` ensures. Decoding cannot, so `unshard` gathers all weights
before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Shards:
    """The shards of a model that this process keeps, one of each parameter.

    Args:
        model: complete, the same in every process; its parameters become shards on `device`.
        layers: modules of it that are gathered one at a time.
        apart: parameters that stay as and where they are.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device, apart: set[nn.Parameter]):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.layers: list[Any] = [fully_shard(layer, mesh=mesh) for layer in layers]
        self.model: Any = fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=apart)
        for unit in self._units:
            unit.set_gradient_divide_factor(1.0)  # gradients are summed, not averaged
            unit.set_force_sum_reduction_for_comms(True)
        # A process whose passes score nothing has no gradient for the head.
        self.model.set_reduce_scatter_unused_params(True)
        self.gathered = False

    @property
    def _units(self) -> list[Any]:
        return [*self.layers, self.model]

    def forward_method(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that enters the model other than by its `forward`: weights are gathered for it as well."""
        from torch.distributed.fsdp import register_fsdp_forward_method

        self.model.entry = function
        register_fsdp_forward_method(self.model, "entry")
        entry: Callable[..., Any] = self.model.entry
        return entry

    def unshard(self) -> None:
        """Gather all weights in every process; until `reshard`, passes exchange nothing."""
        if not self.gathered:
            for unit in self._units:
                unit.unshard()
            self._set_gathered(True)

    def reshard(self) -> None:
        """Keep only this process's shards."""
        if self.gathered:
            self._set_gathered(False)
        for unit in self._units:
            unit.reshard()

    def _set_gathered(self, gathered: bool) -> None:
        self.gathered = gathered
        for layer in self.layers:
            layer.set_reshard_after_forward(not gathered, recurse=False)


def full_tensor(tensor: Tensor) -> Tensor:
    """The complete tensor of a sharded one, for which all processes must call this; any other tensor as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a complete tensor, if `like` is sharded; otherwise the tensor as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return tensor
    mesh, placements = like.device_mesh, like.placements
    # No source rank: each process has the complete tensor already.
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with complete tensors, on the CPU; with sharded weights all processes must call this."""
    state = optimizer.state_dict()
    complete = {
        index: _map_tensors(entry, lambda tensor: full_tensor(tensor).cpu()) for index, entry in state["state"].items()
    }
    return state | {"state": complete}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore what `optimizer_state` returned, whether this optimiser's parameters are sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def sharded(tensor: Tensor, parameter: Tensor) -> Tensor:
        return shard_like(tensor, parameter) if tensor.shape == parameter.shape else tensor

    entries = {
        index: _map_tensors(entry, functools.partial(sharded, parameter=parameters[index]))
        for index, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": entries})


def _map_tensors(entry: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: change(value) if isinstance(value, Tensor) else value for name, value in entry.items()}
