"""Which of two ways of computing a model takes, and why: prompts shared between responses, or each by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """A way of computing: the fast one, in which prompts are shared, or else the general one.

    reason: why it is not the fast one, in a few words.
    """

    reason: str = ""

    @property
    def general(self) -> bool:
        """Whether prompts are not shared."""
        return bool(self.reason)

    def __str__(self) -> str:
        return f"general ({self.reason})" if self.reason else "fast"


FAST = Path()
GENERAL = Path("asked for")
NOT_COMPARED = Path("not compared with a plain pass yet")
