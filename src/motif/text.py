"""Numbers, durations, intervals and strangers' text as people read them; files and paths that people give."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NONE = "–"
"""What stands for a value that is missing."""
MARKED = (
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),  # the first begins with UTF-16's
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
"""Byte order marks, and the encodings that they stand for."""


def harmless(text: str) -> str:
    """Text of a model or a stranger, safe for a terminal.

    Control characters, and those that change the reading direction, become escapes such as `\\x1b`; line breaks and
    tabs stay.
    """
    return _COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """A stranger's text as one line of a log: whatever could begin another one, or command a terminal, is an escape."""
    return harmless(text).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def without_user_info(text: str) -> str:
    """A text without the users and passwords that addresses in it name."""
    return re.sub(r"(?<=//)[^/\s]*@", "…@", text)


def brief(text: str, most: int = 300) -> str:
    """Text for a message, cut to so many characters: a value or a name in a file may be megabytes long."""
    return text if len(text) <= most else f"{text[:most]}…"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 round`, `1,200 rounds`, and with a plural of its own `2 trajectories`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def abbreviated(number: int) -> str:
    """A number to three digits, with K, M or B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `41 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount(value: float, currency: str) -> str:
    """An amount of a ledger's currency, without its name: `2,000`, `1.40 M`, `3.10e+12`, `2 min 05 s`."""
    if "seconds" in currency:
        return duration(value)
    if currency == "flops":
        return f"{value:.2e}" if value else "0"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= 10 * size:
            return f"{value / size:,.0f} {letter}"
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after its point, a minus sign where it is negative, and never a negative zero."""
    return NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share as `61.2 %`; a dash where there is none."""
    return NONE if share is None else f"{100 * share:.1f} %"


def whole_percent(share: float | None) -> str:
    """A share as `61 %`; a dash where there is none."""
    return NONE if share is None else f"{100 * share:.0f} %"


def percent_interval(share: float, low: float | None, high: float | None) -> str:
    """A share with its interval as `61.2 % [58.0–64.1]`; without one where an end is missing."""
    if low is None or high is None:
        return percent(share)
    return f"{percent(share)} [{100 * low:.1f}–{100 * high:.1f}]"


def points(difference: float) -> str:
    """The size of a difference of shares: `1 point`, `2.5 points`."""
    text = f"{100 * abs(difference):.3g}"
    return f"{text} point{'s' * (text != '1')}"


def signed(difference: float) -> str:
    """A difference of shares in points, with its sign: `+3.2`, `−0.4`."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def signed_interval(difference: float, low: float | None, high: float | None) -> str:
    """A difference of shares in points, with its interval: `+3.2 [+1.0, +5.4]`."""
    if low is None or high is None:
        return signed(difference)
    return f"{signed(difference)} [{signed(low)}, {signed(high)}]"


def decoded(content: bytes) -> str:
    """The text of a file that a person wrote: UTF-8, or what another byte order mark says that it is.

    Raises:
        ValueError: it is in another encoding; the message begins with the line, to follow the name and a colon.
    """
    encoding = next((name for mark, name in MARKED if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and is_utf16(content):
        raise ValueError("1: UTF-16 or UTF-32 text without a byte order mark: save the file as UTF-8")
    try:
        return content.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(f"1: damaged {encoding.upper()} text: save the file as UTF-8") from None
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start : error.start + 1]
        raise ValueError(
            f"{line}: not UTF-8 (byte 0x{byte.hex()}, {byte.decode('cp1252', 'replace')!r} in Windows-1252): "
            "save the file as UTF-8, in Excel as “CSV UTF-8”, or: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        ) from None


def is_utf16(content: bytes) -> bool:
    """Whether the content of a file is UTF-16 or UTF-32 text."""
    start = content[:1000]
    # Without a mark it is known by its null characters: every other byte of Latin text.
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 4 * start.count(0) > len(start)


def read_text(path: str | Path) -> str:
    """The text of a file that a person wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: see `decoded`.
    """
    return decoded(Path(path).read_bytes())


def expanded(path: str) -> str:
    """A path as a shell would read it: `~`, `~name`, `$HOME` and `${HOME}` at its beginning are home folders.

    No other variable is filled in: a stranger's recipe could send its value away as the name of a model.
    """
    return os.path.expanduser(re.sub(r"^\$(HOME|\{HOME\})(?=/|$)", "~", path))
