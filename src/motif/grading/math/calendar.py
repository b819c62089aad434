"""Dates and times of day, as people write them."""

from __future__ import annotations

import re

from motif.grading.math.values import Date, Time

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_NAMES = {name: index for index, name in enumerate(_MONTHS, start=1)} | {
    name[:3]: index for index, name in enumerate(_MONTHS, start=1)
} | {"sept": 9}  # fmt: skip
_MONTH = rf"(?P<month>{'|'.join(sorted(_NAMES, key=len, reverse=True))})\.?"
_WEEKDAY = r"(?:(?:on )?(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?"
_DAY = r"(?P<day>\d{1,2})"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_WEEKDAY}(?:on )?{_MONTH} {_DAY}(?:,? (?P<year>\d{{4}}))?",
        rf"{_WEEKDAY}(?:on )?(?:the )?{_DAY}(?: of)? {_MONTH}(?:,? (?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})[-–](?P<month>\d{1,2})[-–](?P<day>\d{1,2})",
        r"(?P<year>\d{4})[/.](?P<month>\d{1,2})[/.](?P<day>\d{1,2})",
    )
)
_NUMBERS = re.compile(r"(\d{1,2})([-–/.])(\d{1,2})\2(\d{4})")
_TIME = re.compile(
    r"(?:at )?(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2}))?)?"
    r"\s*(?P<half>[ap]\s?\.?\s?m\.?)?(?: o'clock)?",
    re.IGNORECASE,
)


def read(text: str) -> Date | Time | None:
    """The date or time in a text; None if it is something else.

    Of dates in numbers, the one that could be a day or a month (1/5/2023) is read as written: day 100 + 1, month 5.
    """
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            month = match["month"].casefold()
            return _valid(int(match["year"] or 0), int(month) if month.isdigit() else _NAMES[month], int(match["day"]))
    match = _NUMBERS.fullmatch(text)
    if match:
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        if first <= 12 and second <= 12 and first != second:
            return Date(year, second, 100 + first) if match[2] != "." else Date(year, second, first)
        return _valid(year, min(first, second), max(first, second)) if min(first, second) <= 12 else None
    match = _TIME.fullmatch(text)
    if match and (match["minute"] or match["half"] or "o'clock" in text):
        half = (match["half"] or "")[:1].lower()
        hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
        if hour > 24 or minute > 59 or second > 59 or (half and not 1 <= hour <= 12):
            return None
        return Time(hour, minute, second, f"{half}m" if half else "")
    return None


def _valid(year: int, month: int, day: int) -> Date | None:
    return Date(year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None
