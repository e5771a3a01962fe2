"""The two forms of a line."""

from __future__ import annotations

import json
import re
from typing import Any

from chassis.logs import ExceptionText, Record
from chassis.logs._lines import json_line, text_line


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "time_ns": 1_767_225_600_123_456_789,
        "level": "ERROR",
        "number": 40,
        "message": "no",
        "logger": "shop.orders",
        "trace_id": "ab" * 16,
        "span_id": "cd" * 8,
        "request_id": "r",
        "fields": {"a": 1},
        "exception": ExceptionText("ValueError", "x", "Traceback\n  File\nValueError: x\n"),
    }
    return Record(**values | changes)


def test_the_whole_json_line() -> None:
    """Every member of the schema, in its order, on one line."""
    line = json_line(record(), "orders")
    assert line.endswith("}\n")
    assert "\n" not in line[:-1]
    assert list(json.loads(line).items()) == [
        ("time", "2026-01-01T00:00:00.123457Z"),
        ("level", "ERROR"),
        ("message", "no"),
        ("logger", "shop.orders"),
        ("service", "orders"),
        ("trace_id", "ab" * 16),
        ("span_id", "cd" * 8),
        ("request_id", "r"),
        ("fields", {"a": 1}),
        (
            "exception",
            {"type": "ValueError", "message": "x", "stacktrace": "Traceback\n  File\nValueError: x\n"},
        ),
    ]


def test_the_smallest_json_line() -> None:
    """Nothing empty is written."""
    line = json_line(
        record(trace_id=None, span_id=None, request_id=None, fields={}, exception=None), "orders"
    )
    assert list(json.loads(line)) == ["time", "level", "message", "logger", "service"]


def test_the_text_line() -> None:
    """Local time, level, logger, message, fields, the trace's beginning; the stack trace indented."""
    line = text_line(record(fields={"a": 1, "b": "x y", "c": [1]}), "orders")
    assert re.fullmatch(
        r"\d\d:\d\d:00\.123 ERROR    shop\.orders: no a=1 b=x y c=\[1\] trace=abababab\n"
        r"    Traceback\n      File\n    ValueError: x\n",
        line,
    )
    plain = text_line(record(trace_id=None, exception=None, fields={}), "orders")
    assert plain.endswith(" shop.orders: no\n")


def test_nothing_logged_passes_for_a_line_of_its_own() -> None:
    """Line ends are indented; escape sequences and carriage returns are shown, not obeyed."""
    forged = "x\n12:00:00.000 INFO     admin: login\r\x1b[2Jy"
    line = text_line(record(message=forged, fields={"f": forged}, exception=None), "orders")
    assert [part[:4] for part in line.splitlines()[1:]] == ["    ", "    "]
    assert "\x1b" not in line
    assert "\r" not in line
    assert "\\x1b[2J" in line


def test_levels_are_coloured_on_a_terminal() -> None:
    """Red, yellow, green, dim."""
    codes = [
        text_line(record(number=number), "s", colour=True).split("\x1b[")[1][:3]
        for number in (50, 40, 30, 25, 10)
    ]
    assert codes == ["31m", "31m", "33m", "32m", "2mE"]
