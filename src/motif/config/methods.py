"""The method of a shipped recipe, for recipes that say `method = "recommended"` or train on their own data.

A method is what a recipe has in [credit] and [loss], the shape of its trees, and who continues them. What a recipe says
itself comes first. Nothing of this is in a resolved recipe, which spells every setting out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN_DATA = "recommended"
"""The method of a recipe for own data that names none: the best that is known."""
PARTS: dict[str, tuple[str, ...]] = {"credit": (), "loss": (), "rollout": ("branching", "continuation_policy")}
"""The settings of a method, by section; none named: all of the section."""


def method_of(data: dict[str, Any]) -> Any:
    """Take the name of the method out of settings that are not validated yet; None: it is that of the defaults."""
    named = data.pop("method", None)
    source = data.get("data")
    own = isinstance(source, Mapping) and source.get("train") and source.get("task", "file") == "file"
    return OWN_DATA if named is None and own else named


def fill_in(data: dict[str, Any], method: Mapping[str, Any]) -> None:
    """Add a method's settings where the recipe says nothing itself."""
    for name, keys in PARTS.items():
        given = method.get(name, {})
        section = data.setdefault(name, {})
        if not isinstance(section, dict):
            continue  # refused when it is validated
        for key in keys or given:
            if key in given and not (key == "format_weight" and _has_no_form(data)):
                section.setdefault(key, given[key])


def _has_no_form(data: Mapping[str, Any]) -> bool:
    rounds = data.get("rounds")
    return isinstance(rounds, Mapping) and rounds.get("carry") == "tail"
