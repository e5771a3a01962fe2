"""What requests can be sent to, and what only looks so."""

from __future__ import annotations

import pytest

from chassis.core import ConfigError
from chassis.discovery import is_host, parse_urls


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a",
        "catalog.svc.cluster.local",
        "a_b-1",
        "10.0.0.1",
        "::1",
        "fe80::1%eth0",
        "1.2.3",
        "bücher.example",
    ],
)
def test_a_name_or_an_address_is_a_host(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        "a\\b",
        "a@b",
        "a?",
        "a#",
        "a\x00",
        "a\x7f",
        "\ud800",
        "999.1.1.1",
        "1.2.3.04",
        "10.0.0.1:80",
        "a:b",
        "[::1]",
    ],
)
def test_case_37_what_no_client_takes_is_no_host(host: str) -> None:
    """It would raise in the callers' faces, and not fail as an instance after which another is tried."""
    assert not is_host(host)


def test_case_37_a_written_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="no usable host"):
        parse_urls("catalog", "http://999.1.1.1:80")
