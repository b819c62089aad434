"""The recipe: every setting of a run, typed, checked before anything is spent, and explained once.

A recipe is a TOML file. Its sections are in `sections`, `data`, `rounds`, `sampler` and `warmstart`, `recipe` checks
them against one another, and `load` reads them: a shipped name or a file, with `section.key=value` settings on top.
Lengths are in tokens, memory in GiB.
"""

from motif.config.data import (
    TASKS,
    ArithmeticConfig,
    ChainConfig,
    CircuitConfig,
    DataConfig,
    LedgerConfig,
    StoriesConfig,
    TaskName,
)
from motif.config.load import RECIPES, flat, load_recipe, nearest, read_toml, shipped_recipes
from motif.config.recipe import Recipe
from motif.config.rounds import Example, RoundsConfig
from motif.config.sampler import SamplerConfig
from motif.config.sections import (
    CreditConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    ProbeConfig,
    RolloutConfig,
    Section,
    TrainConfig,
    in_rounds,
    is_stem,
)
from motif.config.trust import Trust
from motif.config.warmstart import WarmstartConfig

__all__ = [
    "RECIPES",
    "TASKS",
    "ArithmeticConfig",
    "ChainConfig",
    "CircuitConfig",
    "CreditConfig",
    "DataConfig",
    "EvalConfig",
    "Example",
    "LedgerConfig",
    "LossConfig",
    "ModelConfig",
    "ProbeConfig",
    "Recipe",
    "RolloutConfig",
    "RoundsConfig",
    "SamplerConfig",
    "Section",
    "StoriesConfig",
    "TaskName",
    "TrainConfig",
    "Trust",
    "WarmstartConfig",
    "flat",
    "in_rounds",
    "is_stem",
    "load_recipe",
    "nearest",
    "read_toml",
    "shipped_recipes",
]
