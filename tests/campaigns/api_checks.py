"""A check for schemathesis: what fits the description is refused only for a rule that the description names."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.check
def refused_only_by_a_rule(ctx: Any, response: Any, case: Any) -> None:
    """The built-in check would take every 400 for wrong, and some rules cannot be said in a schema."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code < 400:
        return
    if case.method != "POST":
        return  # a path's id of the right form need not be there
    assert response.status_code == 400, f"status {response.status_code}: {response.text[:300]}"
    rules = case.operation.schema.raw_schema["paths"][case.path]["post"]["responses"]["400"]["description"]
    error = response.json()["error"]
    assert f"`{error['code']}`" in rules, f"refused, and no rule says so: {error}"
