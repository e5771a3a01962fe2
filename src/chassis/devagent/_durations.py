"""Durations as Go writes them: ``10s``, ``1m30s``, ``250ms``."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")


def parse_duration(value: Any) -> float:
    """Seconds in a Go duration; a JSON number counts nanoseconds, as in Go.

    :raises ValueError: it is no duration, in Go's words.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value * 1e-9
    if not isinstance(value, str):
        raise ValueError(f"cannot read {value!r} as a duration")  # noqa: TRY004 - one error for all bad input
    text = value.strip()
    if text in ("0", "+0", "-0"):
        return 0.0
    if not _WHOLE.fullmatch(text):
        raise ValueError(f'time: invalid duration "{value}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds
