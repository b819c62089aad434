"""MOTIF: fine-tune language models by reinforcement learning so that they think in rounds (arXiv 2507.02851).

    import motif
    result = motif.train("demo")

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motif.config import Recipe as Recipe
    from motif.config import RecipeError as RecipeError
    from motif.config import load_recipe as load_recipe
    from motif.evaluate import evaluate as evaluate
    from motif.policy import Policy as Policy
    from motif.report import write_report as write_report
    from motif.rollout import grow as grow
    from motif.rounds import Rounds as Rounds
    from motif.sampling.local import LocalSampler as LocalSampler
    from motif.session import open_session as open_session
    from motif.solve import solve as solve
    from motif.train import train as train
    from motif.tree import Node as Node
    from motif.tree import Question as Question
    from motif.tree import Tree as Tree

__version__ = "0.1.0"

_HOMES = {
    "Recipe": "config",
    "RecipeError": "config",
    "load_recipe": "config",
    "Question": "tree",
    "Node": "tree",
    "Tree": "tree",
    "Rounds": "rounds",
    "grow": "rollout",
    "Policy": "policy",
    "LocalSampler": "sampling.local",
    "open_session": "session",
    "train": "train",
    "evaluate": "evaluate",
    "solve": "solve",
    "write_report": "report",
}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'motif' has no attribute {name!r}")
    return getattr(importlib.import_module(f"motif.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps `motif.train` the function: importing the submodule of that name would otherwise replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
