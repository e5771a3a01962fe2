"""When to try again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chassis.adapters.otlp._retry import Backoff, retry_after

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def test_the_backoff_doubles_to_half_a_minute_with_full_jitter() -> None:
    """Anywhere from nothing to the limit: a fleet does not come back all at once."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 4

    backoff = Backoff(uniform)
    waits = [backoff.next() for _ in range(9)]
    assert asked == [(0.0, limit) for limit in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]
    assert waits[:2] == [0.125, 0.25]
    backoff.reset()
    assert backoff.next() == 0.125


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("30", 30.0),
        (" 7 ", 7.0),
        ("0", None),
        ("-1", None),
        ("1.5", None),
        ("abc", None),
        ("1000000000", 300.0),
        ("Sun, 22 Nov 2026 12:00:10 GMT", 10.0),
        ("Sun, 22 Nov 2026 12:00:10 -0000", 10.0),
        ("Sun, 22 Nov 2026 11:59:50 GMT", None),
        ("Mon, 23 Nov 2026 12:00:00 GMT", 300.0),
    ],
)
def test_case_6_what_a_receiver_asks_for(value: str | None, seconds: float | None) -> None:
    """Seconds or a date; capped; what says nothing is left to the backoff."""
    assert retry_after(value, NOW) == seconds


def test_a_date_is_measured_against_the_clock_of_the_wall() -> None:
    """A date long past asks for nothing."""
    assert retry_after("Sun, 22 Nov 2020 12:00:00 GMT") is None
