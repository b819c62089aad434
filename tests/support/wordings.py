"""How rounds are worded in tests; needs no torch, so that campaigns can take it."""

from __future__ import annotations

from typing import Any

COMPACT: dict[str, Any] = {
    "system_prompt": "",
    "think_tags": ("<think>", "</think>"),
    "note_tags": ("<note>", "</note>"),
    "progress": '\nNote {previous}: "{note}"',
    "counter": "\nRound {round}/{rounds}.",
    "final": "\nRound {round}/{rounds}, final.",
    "note_tokens": 16,
}
"""Rounds in few words, in the tokens of `support.tiny`."""
