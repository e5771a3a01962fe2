"""A record as a line: JSON for machines, text for a terminal. Pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from chassis.logs._record import Record

_encode = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = ((40, "\x1b[31m"), (30, "\x1b[33m"), (20, "\x1b[32m"), (0, "\x1b[2m"))


def json_line(record: Record, service: str) -> str:
    """One line of JSON. Members are left out where they would be empty.

    ``time`` (RFC 3339, UTC, microseconds), ``level``, ``message``, ``logger``, ``service``,
    ``trace_id``, ``span_id``, ``request_id``, ``fields`` (an object), ``exception`` (``type``,
    ``message``, ``stacktrace``). Trace members are named as OpenTelemetry asks of logs outside OTLP.
    """
    moment = datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(timespec="microseconds")
    line: dict[str, Any] = {
        "time": f"{moment[:-6]}Z",
        "level": record.level,
        "message": record.message,
        "logger": record.logger,
        "service": service,
    }
    if record.trace_id is not None:
        line["trace_id"] = record.trace_id
        line["span_id"] = record.span_id
    if record.request_id is not None:
        line["request_id"] = record.request_id
    if record.fields:
        line["fields"] = record.fields
    if record.exception is not None:
        error = record.exception
        line["exception"] = {"type": error.type, "message": error.message, "stacktrace": error.stacktrace}
    return _encode(line) + "\n"


def text_line(record: Record, service: str, *, colour: bool = False) -> str:
    """A line for people: local time, level, logger, message, fields; then the stack trace, indented.

    Control characters are shown, not sent to the terminal, and further lines are indented: nothing
    that is logged can pass for a record of its own.
    """
    moment = datetime.fromtimestamp(record.time_ns / 1e9, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    level = f"{record.level:<8}"
    if colour:
        level = next(code for least, code in _COLOURS if record.number >= least) + level + "\x1b[0m"
    parts = [moment, level, f"{record.logger}:", _shown(record.message)]
    parts += [f"{_shown(name)}={_value(value)}" for name, value in record.fields.items()]
    if record.trace_id is not None:
        parts.append(f"trace={record.trace_id[:8]}")
    line = " ".join(parts)
    if record.exception is not None:
        line += "\n" + _shown(record.exception.stacktrace.rstrip())
    return line.replace("\n", "\n    ") + "\n"


def _value(value: Any) -> str:
    return _shown(value if isinstance(value, str) else _encode(value))


def _shown(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
