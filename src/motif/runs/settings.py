"""The settings that decide what a run computes, and which of them differ between two runs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from motif.config import Recipe, flat

FREE = frozenset(
    {"about", "name", "track", "track_project", "sampler.max_mean_gap"}
    | {"train.save_every", "train.stop_when_dead", "train.keep_checkpoints", "train.threads"}
)
"""Settings that change nothing about what a run computes (threads: at most the last bits)."""
UNSET = "unset"
"""The value of a setting that one side does not have."""

Settings = Mapping[str, Any]
Changes = dict[str, tuple[Any, Any]]
"""The old and the new value of each setting that differs."""


def settings(recipe: Recipe) -> dict[str, Any]:
    """All settings that change what a run computes, by their dotted names."""
    return {key: value for key, value in flat(recipe.model_dump(mode="json")) if key not in FREE}


def binding_settings(recipe: Recipe) -> dict[str, Any]:
    """Of `settings`, those that a run cannot be resumed without.

    More steps, a probe or sharding do not make another run; a schedule that depends on the number of steps does tie it
    to that number. Which servers sample, and how they are reached, may change on the way; whether there are any changes
    the random draws, and so does the precision of the sampler in this process. The number of threads changes the last
    bits, and a resumed run equals an uninterrupted one in all.
    """
    bound = {key: value for key, value in settings(recipe).items() if not key.startswith(("probe.", "sampler."))}
    bound["train.threads"] = recipe.train.threads
    del bound["train.shard"]
    if recipe.train.schedule == "constant" and recipe.train.warmup == 0:
        del bound["train.steps"]
    if recipe.sampler.precision != "float32":
        bound["sampler.precision"] = recipe.sampler.precision
    if recipe.sampler.on_servers:
        bound |= {"sampler.urls": "servers", "sampler.overlap": recipe.sampler.overlap}
    return bound


def changed(before: Settings, now: Settings) -> Changes:
    """What differs between two sets of settings.

    A setting that one side does not have differs only where the other departs from its default: a version that adds a
    setting leaves what older runs did as its default.
    """
    defaults = _defaults()
    values = {key: (before.get(key, UNSET), now.get(key, UNSET)) for key in [*before, *now]}
    return {
        key: (old, new)
        for key, (old, new) in values.items()
        if old != new and not (UNSET in (old, new) and key in defaults and defaults[key] in (old, new))
    }


@cache
def _defaults() -> dict[str, Any]:
    return settings(Recipe())


def described(changes: Changes) -> list[str]:
    """Changes as `name: old → new`."""
    return [f"{key}: {old} → {new}" for key, (old, new) in changes.items()]
