"""Redaction, and making any value plain."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.logs._scrub import DEPTH, ITEMS, NAME, REDACTED, TEXT, Scrubber, cut

SCRUBBER = Scrubber()


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "db_password",
        "dbPassword",
        "DB_PASSWORD",
        "passwd",
        "secret",
        "client-secret",
        "token",
        "access_token",
        "accessToken",
        "Authorization",
        "cookie",
        "Set-Cookie",
        "api_key",
        "api-key",
        "apiKey",
        "APIKey",
        "apikey",
        "x-api-key",
        "private_key",
        "session_id",
        "credit_card",
        "jwt",
        "ssn",
        "csrf_token",
    ],
)
def test_sensitive_names(key: str) -> None:
    """By their words, however they are joined."""
    assert SCRUBBER.sensitive(key)
    assert SCRUBBER.fields({key: "hunter2"}) == {key: REDACTED}
    assert SCRUBBER.fields({"in": [{"deep": {key: 7}}]}) == {"in": [{"deep": {key: REDACTED}}]}


@pytest.mark.parametrize(
    "key",
    ["", "user", "tokens_used", "secretary", "key", "session_count", "cardinality", "passenger", "keyboard"],
)
def test_harmless_names(key: str) -> None:
    """A word must be the whole word."""
    assert not SCRUBBER.sensitive(key)
    assert SCRUBBER.fields({key: "x"}) == {key: "x"}


def test_further_names_are_given_by_option() -> None:
    """As words or as whole names."""
    scrubber = Scrubber(["iban", "customer_number", "date-of-birth"])
    for key in ("dateOfBirth", "iban", "their_iban", "customerNumber", "the-customer-number"):
        assert scrubber.sensitive(key)
    assert not scrubber.sensitive("customer")
    assert not SCRUBBER.sensitive("iban")


def test_an_absent_secret_is_worth_seeing() -> None:
    """None and booleans tell nothing away."""
    assert SCRUBBER.fields({"password": None, "token": True}) == {"password": None, "token": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://app:hunter2@db/x", f"postgres://app:{REDACTED}@db/x"),
        ("amqp://:hunter2@mq", f"amqp://:{REDACTED}@mq"),
        ("GET http://h/p?a=1&token=hunter2&b=2", f"GET http://h/p?a=1&token={REDACTED}&b=2"),
        ("/p?api_key=hunter2#top", f"/p?api_key={REDACTED}#top"),
        ("see http://h:80/a@b", "see http://h:80/a@b"),
        ("a=1? no", "a=1? no"),
        ("password=hunter2", "password=hunter2"),
    ],
)
def test_secrets_in_urls(text: str, expected: str) -> None:
    """User information and query values; other text is left as it is (that pass is for errors)."""
    assert SCRUBBER.text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ValueError: password=hunter2", f"ValueError: password={REDACTED}"),
        ("Authorization: Bearer hunter2, x", f"Authorization: {REDACTED}, x"),
        ("{'api_key': 'hunter2', 'a': 'b'}", f"{{'api_key': '{REDACTED}', 'a': 'b'}}"),
        ("password=hunter2 and token: hunter2", f"password={REDACTED} and token: {REDACTED}"),
        ('{"token":"hunter2"}', f'{{"token":"{REDACTED}"}}'),
        ("a: b: secret = hunter2; c", f"a: b: secret = {REDACTED}; c"),
        ("http://u:hunter2@h/?token=hunter2", f"http://u:{REDACTED}@h/?token={REDACTED}"),
        ("File x.py, line 3: nothing", "File x.py, line 3: nothing"),
        ("token:", "token:"),
        ("token= passwd=hunter2", f"token= {REDACTED}"),
        ("", ""),
    ],
)
def test_case_24_secrets_in_errors(text: str, expected: str) -> None:
    """Whatever ``name=value`` and ``name: value`` give away, and URLs."""
    assert SCRUBBER.error_text(text) == expected


class Odd:
    def __str__(self) -> str:
        raise RuntimeError


CIRCULAR: dict[str, Any] = {}
CIRCULAR["self"] = CIRCULAR


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (7, 7),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (b"ab\xff", "ab\\xff"),
        (bytearray(b"ab"), "ab"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/a"), "/a"),
        ((1, "a"), [1, "a"]),
        ({1}, [1]),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        pytest.param(Odd(), "<unprintable Odd>", id="odd"),  # whose own text would have its address
        ({Odd: 1}.keys(), [str(Odd)]),
        ("\ud800", "\ud800"),
    ],
    ids=repr,
)
def test_case_23_any_value_becomes_plain(value: object, expected: object) -> None:
    """And JSON can say it."""
    assert SCRUBBER.fields({"v": value}) == {"v": expected}
    json.dumps(expected, allow_nan=False)


def test_case_23_sizes_are_bounded() -> None:
    """Texts, members, nesting: a marker says what is missing."""
    plain = SCRUBBER.fields({"t": "x" * (TEXT + 10), "b": b"y" * (TEXT + 99), "l": list(range(ITEMS + 3))})
    assert plain["t"] == cut("x" * (TEXT + 10), TEXT)
    assert len(plain["b"]) < TEXT + 50
    assert plain["l"] == [*range(ITEMS), "... 3 more"]
    wide = SCRUBBER.fields({str(number): 1 for number in range(ITEMS + 2)})
    assert len(wide) == ITEMS + 1
    assert wide["..."] == "2 more"
    exact = SCRUBBER.fields({str(number): 1 for number in range(ITEMS)})
    assert len(exact) == ITEMS
    assert SCRUBBER.fields({"l": list(range(ITEMS))})["l"] == [*range(ITEMS)]


def depth_of(value: Any) -> int:
    return 1 + depth_of(value["self"]) if isinstance(value, dict) else 0


def test_case_23_what_contains_itself_ends() -> None:
    """After five levels."""
    assert depth_of(SCRUBBER.fields(CIRCULAR)) == DEPTH
    nested: Any = "end"
    for _ in range(10):
        nested = [nested]
    shown = json.dumps(SCRUBBER.fields({"n": nested}))
    assert shown == '{"n": [[[["[...]"]]]]}'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=ITEMS) | st.dictionaries(st.text(max_size=NAME), inner, max_size=ITEMS)
        ),
    )
)
def test_case_23_nothing_raises_and_all_is_json(value: Any) -> None:
    """For any nesting of anything; what is plain and within the limits stays as it is."""
    plain = SCRUBBER.fields({"v": value})
    text = json.dumps(plain, allow_nan=False)
    assert SCRUBBER.fields(json.loads(text)) == json.loads(text)


@pytest.mark.parametrize("unit", ["x", "a-", "?", "&a", "://", "://a:", ": ", " ", "a=", "A", "'", "token="])
def test_a_hostile_text_takes_no_longer_than_another(unit: str) -> None:
    """Sixty thousand characters in well under a second, whatever they are: no pattern goes back."""
    text = (unit * 65_536)[:65_536]
    begun = time.process_time()
    SCRUBBER.error_text(text)
    SCRUBBER.text(text)
    SCRUBBER.fields({text: 1})
    assert time.process_time() - begun < 2


def test_a_long_name_is_cut() -> None:
    """And still judged by what is left of it."""
    assert [len(name) < 200 for name in SCRUBBER.fields({"x" * 1_000: 1, "password" + "_x" * 500: 2})] == [
        True,
        True,
    ]
    assert SCRUBBER.error_text("password" + " " * 3 + "= hunter2") == f"password   = {REDACTED}"


def test_cut_keeps_both_ends() -> None:
    """The middle of a long text says least."""
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abc...[1 characters cut]...efg"


def test_judgements_are_remembered_up_to_a_bound() -> None:
    """A stream of ever new names does not grow the memory for ever."""
    scrubber = Scrubber()
    for number in range(5_000):
        assert not scrubber.sensitive(f"name{number}")
    assert scrubber.sensitive("the_password")
    assert scrubber.sensitive("the_password")
    assert len(scrubber._known) == 4_096
