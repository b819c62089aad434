"""Numbers, durations, intervals and strangers' text as people read them."""

from __future__ import annotations

import re

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text of a model or a stranger for a terminal: what would command it, or turn its reading direction, is shown as
    an escape such as `\\x1b`; line breaks and tabs stay."""
    return _COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `41 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float | None, decimals: int = 1) -> str:
    """A share as `61.2 %`; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{decimals}f} %"


def percent_interval(share: float, low: float | None, high: float | None) -> str:
    """A share with its interval as `61.2 % [58.0–64.1]`; without one where an end is missing."""
    if low is None or high is None:
        return percent(share)
    return f"{percent(share)} [{100 * low:.1f}–{100 * high:.1f}]"
