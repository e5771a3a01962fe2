"""What one record is, between its front and its sinks."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.logs._scrub import TEXT, Scrubber, cut

STACKTRACE = 65_536
"""Characters of a stack trace that are kept."""


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """An exception as text: no object is kept, which would keep frames and request bodies alive."""

    type: str
    message: str
    stacktrace: str

    @classmethod
    def of(cls, error: BaseException, scrubber: Scrubber) -> ExceptionText:
        """Format ``error`` without the values of local variables, and redact the text."""
        kind = type(error)
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        lines = traceback.format_exception(error)
        return cls(
            name,
            scrubber.error_text(cut(printable(error), TEXT)),
            scrubber.error_text(cut("".join(lines), STACKTRACE)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One log record, redacted and plain: texts, numbers, booleans, None, lists and dictionaries.

    :param time_ns: nanoseconds since 1970, UTC.
    :param level: its name, upper case.
    :param number: its number as Python counts: 20 is INFO.
    :param trace_id: 32 hex digits, or None outside a trace; likewise ``span_id``, 16.
    """

    time_ns: int
    level: str
    number: int
    message: str
    logger: str
    trace_id: str | None
    span_id: str | None
    request_id: str | None
    fields: Mapping[str, Any]
    exception: ExceptionText | None


def severity_number(number: int) -> int:
    """OpenTelemetry's severity number for a Python level number (Logs Data Model, appendix B)."""
    if number >= 50:
        return 21
    if number >= 40:
        return 17
    if number >= 30:
        return 13
    if number > 20:
        return 10  # loguru's SUCCESS and a user's NOTICE: above INFO, below WARNING
    if number == 20:
        return 9
    return 5 if number >= 10 else 1


def printable(value: object) -> str:
    """``str(value)``, whatever it is."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - logging never raises
        return f"<unprintable {type(value).__name__}>"
