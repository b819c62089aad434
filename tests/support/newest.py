"""A plugin of pytest: warnings of the packages that motif is built on count as failures (`make test-newest`).

A warning counts where one of these packages gives it, wherever it is said to come from: the packages name a caller's
line, which may lie in torch or in motif. So do lines of their logs that speak of deprecation.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

PACKAGES = ("transformers", "peft", "trl", "openai", "math_verify", "latex2sympy2_extended")
HELPERS = ("warnings", "typing_extensions", "functools", "contextlib", "logging")
"""Modules through which a warning passes on its way."""
EXPECTED = {
    "`is_gradient_checkpointing` is deprecated": "peft and trl ask transformers by its old name",
    "fan_in_fan_out is set to False": "peft says what it has put right by itself",
    "`ensure_weight_tying` is not set": "a head trained apart from its embedding, as was asked",
    "Setting `save_embedding_layers` to `True`": "peft saves the weights of such a head, which is right",
    "_pattern keys did not match any targeted module": "peft made them, for layers that are not trained",
}
"""Parts of warnings that do not count, and why."""
OLD = ("deprecat", "will be removed", "no longer supported")
"""Words of a log that speak of an interface about to go; other lines of a log are about the model at hand."""
heard: list[str] = []
_warn = warnings.warn


def giver(depth: int) -> str:
    """The module that gave a warning; `depth`: frames between this one and `warnings.warn`'s caller."""
    frame: Any = sys._getframe(depth + 1)
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in HELPERS:
        frame = frame.f_back
    return frame.f_globals.get("__name__", "") if frame else ""


def hear(module: str, text: str) -> None:
    """Keep a warning, if it counts."""
    if module.partition(".")[0] in PACKAGES and not any(part in text for part in EXPECTED):
        heard.append(f"{module}: {text}")


def warn(message: Any, category: Any = None, stacklevel: int = 1, *arguments: Any, **options: Any) -> None:
    """`warnings.warn`, heard."""
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    hear(giver(1), f"{kind.__name__}: {message}")
    _warn(message, category, stacklevel + 1, *arguments, **options)


class Heard(logging.Handler):
    """Hears what the packages write to their logs about interfaces."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(word in text for word in OLD):
            hear(record.name, text)


def pytest_configure(config: pytest.Config) -> None:
    warnings.warn = warn
    for package in PACKAGES:
        logging.getLogger(package).addHandler(Heard(logging.WARNING))


@pytest.fixture(autouse=True)
def no_warnings_of_the_packages() -> Iterator[None]:
    heard.clear()
    yield
    assert not heard, "warnings of the newest packages:\n" + "\n".join(heard)
