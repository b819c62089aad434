"""A model whose weights lie in pieces, one in each process: PyTorch's `fully_shard` (FSDP2, what ZeRO stage 3 does).

Every layer is a unit whose weights come together for its own forward and backward pass and go again; what is outside
the layers (embeddings, last norm, output head) is one more, which stays together from a forward pass to the end of a
backward pass, because the head is used after the decoder. Each of these moments is an exchange, so all processes must
make the same passes in the same order, which `motif.training.update` ensures. Decoding cannot, so `unshard` gathers all
weights before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Shards:
    """The pieces of a model, of which this process has one of each parameter.

    Args:
        model: whole, the same in every process; its parameters become pieces on `device`.
        layers: modules of it that are gathered one at a time.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.layers: list[Any] = [fully_shard(layer, mesh=mesh) for layer in layers]
        self.model: Any = fully_shard(model, mesh=mesh, reshard_after_forward=False)
        for unit in self._units:
            unit.set_gradient_divide_factor(1.0)  # gradients are summed, not averaged
            unit.set_force_sum_reduction_for_comms(True)
        # A process whose passes score nothing has no gradient of the head's.
        self.model.set_reduce_scatter_unused_params(True)
        self.whole = False

    @property
    def _units(self) -> list[Any]:
        return [*self.layers, self.model]

    def entered_by(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, some way into the model other than its `forward`, such that weights come and go with it."""
        from torch.distributed.fsdp import register_fsdp_forward_method

        self.model.entered = function
        register_fsdp_forward_method(self.model, "entered")
        entered: Callable[..., Any] = self.model.entered
        return entered

    def unshard(self) -> None:
        """Bring all weights together in every process, until `reshard`; passes exchange nothing meanwhile."""
        if not self.whole:
            for unit in self._units:
                unit.unshard()
            self._keep(True)

    def reshard(self) -> None:
        """Keep this process's pieces only."""
        if self.whole:
            self._keep(False)
        for unit in self._units:
            unit.reshard()

    def _keep(self, whole: bool) -> None:
        self.whole = whole
        for layer in self.layers:
            layer.set_reshard_after_forward(not whole, recurse=False)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor put together from its pieces, which all processes must ask for; any other as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's piece of a whole tensor, if `like` lies in pieces."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return tensor
    mesh, placements = like.device_mesh, like.placements
    # No source rank: each process has the whole tensor already.
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with its tensors put together, on the CPU; all processes must ask for it."""
    state = optimizer.state_dict()
    return state | {"state": {index: _each(entry, _whole_here) for index, entry in state["state"].items()}}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`, whether this optimiser's parameters lie in pieces or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def pieces(index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        parameter = parameters[index]
        return _each(entry, lambda tensor: shard_like(tensor, parameter) if tensor.shape == parameter.shape else tensor)

    optimizer.load_state_dict({**state, "state": {index: pieces(index, e) for index, e in state["state"].items()}})


def _whole_here(tensor: Tensor) -> Tensor:
    return full_tensor(tensor).cpu()


def _each(entry: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: change(value) if isinstance(value, Tensor) else value for name, value in entry.items()}
