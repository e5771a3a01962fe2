"""The one view of a path that matching and forwarding share."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.gateway._path import MalformedPath, canonical_path, check_query


def refused(raw: bytes) -> str:
    with pytest.raises(MalformedPath) as caught:
        canonical_path(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        (b"/", ("",)),
        (b"/a", ("a",)),
        (b"/a/b/", ("a", "b", "")),
        (b"/%61dmin", ("admin",)),
        (b"/caf%C3%A9/x%20y", ("café", "x y")),
        (b"/a.b/.well-known/...", ("a.b", ".well-known", "...")),
        (b"/a;v=1/b", ("a;v=1", "b")),
        (b"/!$&'()*+,;=:@~-_", ("!$&'()*+,;=:@~-_",)),
    ],
)
def test_a_path_is_decoded_once_and_kept_as_it_came(raw, segments):
    """Matched is what a server sees that decodes once; forwarded are the bytes."""
    path = canonical_path(raw)
    assert path.segments == segments
    assert b"/" + b"/".join(path.raw) == raw


@pytest.mark.parametrize("raw", [b"", b"a", b"*", b"http://evil.test/a", b"evil.test:443", b"?a"])
def test_row_14_a_target_that_is_no_absolute_path_is_refused(raw):
    """An absolute-form target that a server passes on as a path never reaches a route."""
    assert refused(raw) == "the request target is no absolute path"


@pytest.mark.parametrize("raw", [b"/pub/../admin", b"/..", b"/pub/..", b"/./a", b"/a/.", b"/pub/./../admin"])
def test_row_19_dot_segments_are_refused(raw):
    """They mean one thing to a server that resolves them and another to one that does not."""
    assert refused(raw) == "the path holds a dot segment"


@pytest.mark.parametrize(
    "raw", [b"/pub/%2e%2e/admin", b"/pub/%2E%2E/admin", b"/pub/.%2e/admin", b"/%2e/a", b"/pub/%2e%2e", b"/pub/%2e%2e;x"]
)  # fmt: skip
def test_row_20_encoded_dot_segments_are_refused(raw):
    """Encoded or not is the same."""
    assert refused(raw) == "the path holds a dot segment"


@pytest.mark.parametrize(
    "escape", [b"%2f", b"%2F", b"%5c", b"%5C", b"%00", b"%3b", b"%3B", b"%23", b"%3f", b"%3F"]
)
def test_row_20_encoded_delimiters_are_refused(escape):
    """Whoever decodes first would see another path."""
    assert refused(b"/pub/.." + escape + b"admin") == "the path holds a broken or ambiguous escape"
    refused(b"/" + escape)


def test_row_21_a_doubly_encoded_segment_is_decoded_once_and_forwarded_as_it_came():
    """``%252e`` is the text ``%2e``, not a dot."""
    path = canonical_path(b"/pub/%252e%252e/%252fadmin")
    assert path.segments == ("pub", "%2e%2e", "%2fadmin")
    assert path.raw == (b"pub", b"%252e%252e", b"%252fadmin")


@pytest.mark.parametrize("raw", [b"//evil.test/a", b"///evil.test//a", b"/evil.test////a"])
def test_row_22_repeated_slashes_are_merged_and_never_an_authority(raw):
    """What is matched is forwarded."""
    path = canonical_path(raw)
    assert path.raw == (b"evil.test", b"a")
    assert path.segments == ("evil.test", "a")


@pytest.mark.parametrize(
    "raw",
    [b"/a\\b", b"/..\\admin", b"/a#frag", "/café".encode(), b"/a\xff", b"/a b", b"/a\x00", b"/a\x7f", b"/a\r\nX-I: 1",
     b"/a\t", b"/a?b"],
)  # fmt: skip
def test_row_23_characters_that_no_path_holds_are_refused(raw):
    """Backslash, fragment, raw non-ASCII, blanks and controls."""
    assert refused(raw) == "the path holds a character that must be encoded"


@pytest.mark.parametrize("raw", [b"/pub/..;/admin", b"/pub/..;a=b/admin", b"/pub/.;/admin", b"/%2e%2e;x"])
def test_row_23_path_parameters_do_not_hide_a_dot_segment(raw):
    """Java servers drop what follows the semicolon."""
    assert refused(raw) == "the path holds a dot segment"


@pytest.mark.parametrize("escape", [b"%0d%0a", b"%0A", b"%01", b"%1f", b"%1F", b"%7f", b"%7F"])
def test_row_24_encoded_control_characters_are_refused(escape):
    """They would end up in a log line or a header once somebody decodes them."""
    assert refused(b"/a" + escape + b"X-I:1") == "the path holds a broken or ambiguous escape"


@pytest.mark.parametrize("raw", [b"/%", b"/%z", b"/%zz", b"/a%2", b"/%2", b"/%%41", b"/a%2/b"])
def test_broken_escapes_are_refused(raw):
    """Every server repairs them in its own way."""
    assert refused(raw) == "the path holds a broken or ambiguous escape"


@pytest.mark.parametrize("raw", [b"/%ff", b"/%c0%ae%c0%ae/admin", b"/%c0%af", b"/%ed%a0%80"])
def test_escapes_that_are_not_utf_8_are_refused(raw):
    """Overlong forms were used to hide dots and slashes."""
    assert refused(raw) == "the path is not UTF-8"


@pytest.mark.parametrize("query", [b"", b"a=%zz", b"1?2", b"a=1&a=2", b"%2e%2e/..//\\", b'a=b|c{d}"<>^`'])
def test_row_25_a_query_passes_whatever_it_holds(query):
    """It is nobody's to repair."""
    check_query(query)


@pytest.mark.parametrize("query", [b"a b", b"a\r\nX: 1", b"a\x00", "é".encode(), b"a#b", b"\x7f"])
def test_a_query_with_what_no_uri_holds_is_refused(query):
    """Such bytes split requests."""
    with pytest.raises(MalformedPath, match="query"):
        check_query(query)


pieces = st.sampled_from(
    [b"/", b"//", b".", b"..", b";", b"%2e", b"%2E", b"%25", b"%252e", b"%2f", b"%5c", b"\\", b"a", b"admin", b"%61",
     b"%c3%a9", b"%ff", b"%00", b"%", b"%2", b"~", b"\xe9", b"#", b"?", b" "]
)  # fmt: skip


@given(raw=st.lists(pieces, max_size=8).map(b"".join).map(lambda rest: b"/" + rest))
@example(raw=b"/a//b/%2e%2e")
def test_whoever_decodes_what_is_forwarded_sees_what_was_matched(raw):
    """The promise of the whole module, for any combination of the tricks."""
    try:
        path = canonical_path(raw)
    except MalformedPath:
        return
    forwarded = b"/" + b"/".join(path.raw)
    decoded = unquote_to_bytes(forwarded)
    # Decoding before or after splitting gives the same segments: no delimiter was hidden.
    assert decoded.decode() == "/" + "/".join(path.segments)
    assert decoded.decode()[1:].split("/") == list(path.segments)
    assert not {".", ".."} & {segment.partition(";")[0] for segment in path.segments}
    assert "" not in path.segments[:-1]
    assert b"\\" not in decoded
    # Reading what is forwarded once more changes nothing.
    assert canonical_path(forwarded) == path
