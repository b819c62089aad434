"""MOTIF: fine-tune language models by reinforcement learning so that they think in rounds (arXiv 2507.02851).

    import motif
    result = motif.train("demo")

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motif.config import Recipe as Recipe
    from motif.config import load_recipe as load_recipe
    from motif.errors import RecipeError as RecipeError
    from motif.method.rounds import Rounds as Rounds
    from motif.method.tree import Node as Node
    from motif.method.tree import Question as Question
    from motif.method.tree import Tree as Tree
    from motif.models.policy import Policy as Policy
    from motif.python import evaluate as evaluate
    from motif.python import solve as solve
    from motif.python import train as train
    from motif.report import write_report as write_report
    from motif.sampling.grow import grow as grow
    from motif.sampling.local.batch import LocalSampler as LocalSampler
    from motif.session import open_session as open_session

__version__ = "0.1.0"
HOME = "https://github.com/motif-rl/motif"
"""Where motif lives: what model cards and the help link to."""

_HOMES = {
    "Recipe": "config",
    "RecipeError": "errors",
    "load_recipe": "config",
    "Question": "method.tree",
    "Node": "method.tree",
    "Tree": "method.tree",
    "Rounds": "method.rounds",
    "grow": "sampling.grow",
    "Policy": "models.policy",
    "LocalSampler": "sampling.local.batch",
    "open_session": "session",
    "train": "python",
    "evaluate": "python",
    "solve": "python",
    "write_report": "report",
}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'motif' has no attribute {name!r}")
    return getattr(importlib.import_module(f"motif.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
