"""Checks for options: every bad value is refused at construction with field, value and remedy."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from chassis.core.errors import ConfigError


class Unit:
    """Marks what a number counts, so that settings can also be written as ``"200ms"``."""

    def __init__(self, name: str) -> None:
        self.name = name


Seconds: TypeAlias = Annotated[float, Unit("seconds")]
"""A duration. In code a number of seconds; in settings also ``"200ms"``, ``"1.5s"``, ``"2m"``, ``"1h"``."""


def _number(field: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        raise ConfigError(f"{value!r} is not a number", setting=field, remedy="give a number")
    return number


def check_seconds(field: str, value: Any, *, zero: bool = False) -> None:
    """Refuse what is not a finite duration above zero (or at least zero)."""
    number = _number(field, value)
    if math.isinf(number) or number < 0 or (number == 0 and not zero):
        least = "at least 0" if zero else "above 0"
        raise ConfigError(f"{value!r} is not a duration", setting=field, remedy=f"give seconds, {least}")


def check_count(field: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{value!r} is not a count", setting=field, remedy=f"give a whole number, at least {least}"
        )


def check_fraction(field: str, value: Any) -> None:
    """Refuse what is not above 0 and at most 1."""
    number = _number(field, value)
    if not 0 < number <= 1:
        remedy = "give a fraction above 0 and at most 1"
        if 1 < number <= 100:
            remedy += f", e.g. {number / 100:g} for {number:g} %"
        raise ConfigError(f"{value!r} is not a fraction", setting=field, remedy=remedy)
