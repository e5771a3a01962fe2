"""Row 35: references in an answer that point back into the upstream."""

from __future__ import annotations

import pytest

from chassis.gateway._location import rewrite_references

HOSTS = frozenset({"catalog", "10.0.0.7:8001", "[::1]:8001"})


def rewritten(
    value: str, *, name: str = "location", prefix: str = "/catalog", origin: str | None = "https://shop.test"
):
    [(out, result)] = rewrite_references(
        [(name.encode(), value.encode("latin-1"))], hosts=HOSTS, origin=origin, prefix=prefix
    )
    assert out == name.encode()
    return result.decode("latin-1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/items/1?a=b#c", "/catalog/items/1?a=b#c"),
        ("http://catalog/items/1", "https://shop.test/catalog/items/1"),
        ("http://10.0.0.7:8001/items?x", "https://shop.test/catalog/items?x"),
        ("HTTP://Catalog/items", "https://shop.test/catalog/items"),
        ("//catalog/items", "https://shop.test/catalog/items"),
        ("http://[::1]:8001/", "https://shop.test/catalog/"),
        ("http://catalog", "https://shop.test/catalog/"),
        ("http://catalog?x", "https://shop.test/catalog/?x"),
    ],
)
def test_row_35_a_reference_to_the_same_upstream_is_made_public(value, expected):
    """Neither instance addresses nor stripped paths leak."""
    assert rewritten(value) == expected


@pytest.mark.parametrize(
    "value",
    ["https://elsewhere.test/x", "//evil.test/x", "/\\evil.test", "items/2", "?page=2", "", "http://catalog.evil.test/",
     "http://user@catalog/", "mailto:a@b", "http://[broken", "\xff", "javascript:alert(1)", "ftp://catalog/x"],
)  # fmt: skip
def test_row_35_references_to_elsewhere_stay_as_they_are(value):
    """The gateway neither follows nor invents."""
    assert rewritten(value) == value


def test_row_35_content_location_and_refresh_are_covered():
    """All three headers name places."""
    assert rewritten("/items", name="content-location") == "/catalog/items"
    assert rewritten("5; url=/items", name="refresh") == "5; url=/catalog/items"
    assert rewritten("0;URL='http://catalog/x'", name="refresh") == "0;URL='https://shop.test/catalog/x'"
    assert rewritten("5", name="refresh") == "5"
    assert rewritten("/x", name="x-other") == "/x"


def test_row_35_without_a_prefix_or_a_host_only_what_is_known_is_written():
    """A path stands for itself; the origin may be missing."""
    assert rewritten("/items", prefix="") == "/items"
    assert rewritten("http://catalog/items", prefix="", origin=None) == "/items"
