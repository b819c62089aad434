"""A stand-in for CUDA graphs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Tape(TorchDispatchMode):
    """Like a CUDA graph: the operations that ran, on the tensors they ran on. Python is not asked again."""

    replays = 0

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        Tape.replays += 1
        for function, args, kwargs, results in self.operations:
            again = tree_flatten(function(*args, **kwargs))[0]
            for old, new in zip(tree_flatten(results)[0], again, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # not a view
                    old.copy_(new)


def tape(run: Callable[[], Tensor]) -> tuple[Tape, Tensor]:
    with Tape() as recording:
        states = run()
    states.fill_(float("nan"))  # a recording says nothing until it is replayed
    return recording, states
