"""Options: every bad value is refused at construction with field, value and remedy.

Policies take them as one object, or single ones as keywords.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from chassis.core.errors import ConfigError

_LEAST = 1e-9
"""Of durations, fractions and rates: no clock tells less than a nanosecond, and no sum notices it.

What a number near the smallest or largest float does in a machine (a window of 1e-310 s overflows when
time is divided by it) is thereby no question in any of them.
"""
_LONGEST = 36_525 * 86_400.0  # a century; a thread cannot be told to wait for three of them
_MOST = 2**63 - 1
_FASTEST = 1e9  # per second


class Unit:
    """Marks what a number counts, so that settings can also be written as ``"200ms"``."""

    def __init__(self, name: str) -> None:
        self.name = name


Seconds: TypeAlias = Annotated[float, Unit("seconds")]
"""A duration. In code a number of seconds; in settings also ``"200ms"``, ``"1.5s"``, ``"2m"``, ``"1h"``."""


AS_IN_OPTIONS: Any = type("AsInOptions", (), {"__repr__": lambda _: "<as in options>"})()
"""The default of a keyword that stands for one field of a policy's options: not given, the field stays as it is.

So a signature tells which options there are, to ``help()`` as to a type checker, and their defaults are
written once, in the options.
"""


def given_fields(**fields: Any) -> dict[str, Any]:
    """Those of ``fields`` that were given: what :func:`dataclasses.replace` shall change."""
    return {field: value for field, value in fields.items() if value is not AS_IN_OPTIONS}


def check_options(options: Any, defaults: object) -> None:
    """Refuse what is not options of the kind of ``defaults``: a policy given them at run time keeps its own."""
    kind = type(defaults)
    if not isinstance(options, kind):
        raise ConfigError(
            f"{type(options).__name__} is not {kind.__name__}",
            setting="options",
            remedy=f"give {kind.__name__}(...), or dataclasses.replace(policy.options, ...) to change some of them",
        )


def _number(field: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        raise ConfigError(f"{_shown(value)} is not a number", setting=field, remedy="give a number")
    return number


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python prints no number of more than 4,300 digits
        return "a number of thousands of digits"


def check_seconds(field: str, value: Any, *, zero: bool = False) -> None:
    """Refuse what is not a duration from a nanosecond to a century (or is zero, unless that will do)."""
    number = _number(field, value)
    if zero and number == 0:
        return
    if not _LEAST <= number <= _LONGEST:
        least = "at least 0" if zero else "above 0"
        if 0 < number < _LEAST:
            least += f", and at least {_LEAST:g} if not 0" if zero else f": at least {_LEAST:g}"
        elif number > _LONGEST:
            least += f" and at most {_LONGEST:.0f}, a century"
        raise ConfigError(
            f"{_shown(value)} is not a duration", setting=field, remedy=f"give seconds, {least}"
        )


def check_count(field: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least`` that 64 bits hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        remedy = f"give a whole number, at least {least}"
        if isinstance(value, int) and value > _MOST:
            remedy += f" and at most {_MOST}"
        raise ConfigError(f"{_shown(value)} is not a count", setting=field, remedy=remedy)


def check_fraction(field: str, value: Any) -> None:
    """Refuse what is not above 0 (in fact, at least 1e-9) and at most 1."""
    number = _number(field, value)
    if not _LEAST <= number <= 1:
        remedy = "give a fraction above 0 and at most 1"
        if 0 < number < _LEAST:
            remedy = f"give a fraction from {_LEAST:g} to 1"
        elif 1 < number <= 100:
            remedy += f", e.g. {number / 100:g} for {number:g} %"
        raise ConfigError(f"{_shown(value)} is not a fraction", setting=field, remedy=remedy)


def check_rate(field: str, value: Any) -> None:
    """Refuse what is not a number per second, 0 or from 1e-9 to 1e9."""
    number = _number(field, value)
    if number != 0 and not _LEAST <= number <= _FASTEST:
        remedy = "give a number per second, at least 0"
        if number > 0:
            remedy += f", and from {_LEAST:g} to {_FASTEST:g} if not 0"
        raise ConfigError(f"{_shown(value)} is not a rate", setting=field, remedy=remedy)
