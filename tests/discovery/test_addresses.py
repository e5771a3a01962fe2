"""Addresses as people write them."""

from __future__ import annotations

import pytest

from chassis.core import ConfigError
from chassis.discovery import parse_urls


def test_addresses_are_separated_by_commas_and_come_out_in_order() -> None:
    found = parse_urls("catalog", "http://b:2, http://a:1,https://c")
    assert [(each.id, each.url) for each in found] == [
        ("a:1", "http://a:1"),
        ("b:2", "http://b:2"),
        ("c:443", "https://c:443"),
    ]
    assert {each.service for each in found} == {"catalog"}


def test_they_may_come_apart_already_with_a_slash_at_the_end_and_without_a_port() -> None:
    (found,) = parse_urls("catalog", ["http://shop.example/"])
    assert (found.host, found.port, found.scheme) == ("shop.example", 80, "http")


def test_case_37_an_ipv6_address_is_in_brackets() -> None:
    (found,) = parse_urls("catalog", "http://[::1]:8001")
    assert (found.host, found.port, found.url) == ("::1", 8001, "http://[::1]:8001")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an address is empty; write http://host:port"),
        ("http://a:1,,http://b:1", "an address is empty"),
        ("localhost:8001", "'localhost:8001' has no scheme; write http://localhost:8001 or"),
        ("http://a:port", "'http://a:port' cannot be parsed"),
        ("http://a:70000", "'http://a:70000' cannot be parsed"),
        ("http://a:0", "'http://a:0' has port 0"),
        ("ftp://a", "'ftp://a' has the scheme 'ftp'; write http://host:port or https://host:port"),
        ("http://", "'http://' has no usable host"),
        ("http://a b:1", "has no usable host"),
        ("http://[::1", "cannot be parsed"),
        ("http://a/path", "'http://a/path' holds more than an address; put the path into the requests"),
        ("http://a?q=1", "holds more than an address"),
        ("http://a#f", "holds more than an address"),
        ("http://a:1,https://a:1", "a:1 is listed twice; remove one"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_with_setting_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_urls("catalog", text, origin="environment CHASSIS_SERVICES__CATALOG")
    assert str(caught.value).startswith("services.catalog: ")
    assert message in str(caught.value).replace(" (from environment CHASSIS_SERVICES__CATALOG)", "")
    assert caught.value.origin == "environment CHASSIS_SERVICES__CATALOG"


@pytest.mark.parametrize("credential", ["me:hunter2", "hunter2"])
def test_a_credential_in_an_address_is_refused_and_not_repeated(credential: str) -> None:
    with pytest.raises(ConfigError, match="user name or password") as caught:
        parse_urls("catalog", f"http://{credential}@a:1", setting="urls")
    assert "hunter2" not in str(caught.value)
    assert caught.value.setting == "urls"
