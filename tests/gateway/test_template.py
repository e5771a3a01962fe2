"""Path templates of routes and parts."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import ConfigError
from chassis.gateway._path import canonical_path
from chassis.gateway._template import Target, parse_template


@pytest.mark.parametrize(
    ("text", "segments", "names", "rest"),
    [
        ("/", ("",), (), False),
        ("/a/b", ("a", "b"), (), False),
        ("/a/", ("a", ""), (), False),
        ("/orders/{id}/lines/{line_2}", ("orders", None, "lines", None), ("id", "line_2"), False),
        ("/catalog/{rest:path}", ("catalog",), ("rest",), True),
        ("/{tenant}/{rest:path}", (None,), ("tenant", "rest"), True),
        ("/{rest:path}", (), ("rest",), True),
        ("/café/.well-known", ("café", ".well-known"), (), False),
    ],
)
def test_a_template_is_literals_variables_and_perhaps_a_rest(text, segments, names, rest):
    """A variable is one whole segment."""
    template = parse_template(text)
    assert (template.segments, template.names, template.rest) == (segments, names, rest)
    assert template.text == text


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/b", "/a//b", "//a", "/a/../b", "/.", "/{a}{b}", "/v{n}", "/{a", "/a}", "/{}", "/{A}", "/{1a}", "/{a:int}",
     "/{rest:path}/a", "/{a}/{a}", "/{a}/{a:path}", "/a?b", "/a#b", "/a\\b", "/a%20b", "/a\nb", "/a;b", "/a\x7f"],
)  # fmt: skip
def test_a_path_that_no_request_could_have_is_a_config_error(text):
    """It says why and what to write."""
    with pytest.raises(ConfigError) as caught:
        parse_template(text)
    assert caught.value.setting == "path"
    assert caught.value.remedy


def test_a_parts_path_is_filled_with_encoded_values():
    """No value can add a segment, a query or an escape."""
    target = Target("/for/{user}?page={n}&x=1", parse_template("/home/{user}/{n}"))
    assert target.fill({"user": "ada/../x?y#z&é%2e", "n": "a b"}) == (
        b"/for/ada%2F..%2Fx%3Fy%23z%26%C3%A9%252e?page=a%20b&x=1"
    )


def test_the_value_of_a_rest_keeps_its_slashes():
    """It stands for several segments, in the route and in the part."""
    target = Target("/files/{rest}", parse_template("/f/{rest:path}"))
    assert target.fill({"rest": "a/b c"}) == b"/files/a/b%20c"
    single = Target("/files/{name}", parse_template("/f/{name}"))
    assert single.fill({"name": "a/b"}) == b"/files/a%2Fb"


@pytest.mark.parametrize(
    ("text", "says"),
    [("/for/{usr}", "no variable {usr}"), ("/a{", "brace"), ("/a}", "brace"), ("a", "no path"), ("/a b", "no path"),
     ("/a#b", "no path"), ("/é", "no path"), ("/a\\b", "no path"), ("//a", "no path"), ("/{}", "no variable {}"),
     ("http://evil.test/", "no path"), ("/a\r\n", "no path")],
)  # fmt: skip
def test_a_parts_path_that_cannot_be_filled_in_is_a_config_error(text, says):
    """An unknown variable is answered with those that are known."""
    with pytest.raises(ConfigError) as caught:
        Target(text, parse_template("/home/{user}/{item}"))
    assert says in str(caught.value)
    if "variable" in says:
        assert caught.value.remedy == "known are: {user}, {item}"


@given(value=st.text(min_size=1).filter(lambda text: "\ud800" <= max(text) <= "\udfff" or text.isprintable()))
def test_any_value_comes_back_as_one_segment(value):
    """Whatever a caller writes into a variable."""
    try:
        filled = Target("/for/{user}/x", parse_template("/home/{user}")).fill({"user": value})
    except UnicodeEncodeError:
        return
    assert filled.count(b"/") == 3
    assert unquote(filled.split(b"/")[2].decode()) == value
    if not set("/\\;#?") & set(value) and value not in (".", ".."):
        assert canonical_path(filled).segments == ("for", value, "x")
