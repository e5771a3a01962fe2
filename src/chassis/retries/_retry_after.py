from __future__ import annotations

import re
from datetime import UTC, datetime

_MOST_DIGITS = 10
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# The three forms of RFC 9110, section 5.6.7. The standard library's parsers take nearly anything.
_DATES = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z][a-z], (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[A-Z][a-z]{{5,8}}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"[A-Z][a-z][a-z] {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def retry_after_seconds(value: str | None, now_wall: float) -> float | None:
    """What a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    :param value: the header's value: whole seconds, or an HTTP date in any of its three forms.
    :param now_wall: the wall clock, in seconds since the epoch, which a date is compared to.
    :returns: seconds to wait, 0 for a date that has passed; None for no value or one that is
        neither (a sign, a fraction, an exponent, two headers joined by a comma).
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        return float(value) if len(value) <= _MOST_DIGITS else None
    date = _http_date(value, now_wall)
    return None if date is None else max(0.0, date - now_wall)


def _http_date(value: str, now_wall: float) -> float | None:
    for form in _DATES:
        if found := form.fullmatch(value):
            month = _MONTHS.index(found["month"]) + 1
            day, hour, minute, second = (int(found[part]) for part in ("day", "hour", "minute", "second"))
            try:
                year = _full_year(found["year"], datetime.fromtimestamp(now_wall, UTC).year)
                # datetime knows no leap second.
                return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
            except ValueError:
                return None
    return None


def _full_year(digits: str, this_year: int) -> int:
    """Two digits are the year at most 50 years ahead (RFC 9110, section 5.6.7)."""
    year = int(digits)
    if len(digits) == 4:
        return year
    year += this_year - this_year % 100
    return year - 100 if year > this_year + 50 else year
