"""Durations as Go writes them."""

import pytest

from chassis.devagent._durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10), ("1m30s", 90), ("1h", 3600), ("250ms", 0.25), ("1.5s", 1.5), (".5s", 0.5), ("5us", 5e-6),
        ("7ns", 7e-9), ("3µs", 3e-6), ("0", 0), ("-2s", -2), ("+2s", 2), (1_000_000_000, 1),
    ],
)  # fmt: skip
def test_a_duration_is_read(text, seconds):
    """Every unit, several together, and nanoseconds as a number."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "abc", "s", "5 s", "1d", "1s2", None, True, [], "5s\n5s"])
def test_what_is_no_duration_is_refused(text):
    """In Go's words where there are some."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
