"""The one view of a request's path that matching, guarding, stripping and forwarding share.

Gateways were broken again and again by seeing one path when they chose the route and another when
they forwarded (``/public/../admin``, ``%2e%2e``, ``//``). Here a path is read once. What two readers
might read differently is refused; the rest is decoded once for matching and forwarded as it came,
so that a server which decodes once sees exactly what was matched.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# Not in any URI (RFC 3986, 2), or read as a separator by some servers (backslash), or never part of
# a request target (fragment).
_ILLEGAL = re.compile(rb"[^\x21-\x7e]|[\\#?]")
_ILLEGAL_IN_QUERY = re.compile(rb"[^\x21-\x7e]|#")
# A broken escape; an encoded delimiter (/ \ ; # ?), which would be one only after decoding; a control.
_REFUSED_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})|%(?:2[fF]|5[cC]|3[bB]|23|3[fF]|[01][0-9a-fA-F]|7[fF])")
_SLASHES = re.compile(rb"/{2,}")


class MalformedPath(ValueError):
    """The path is refused; the message is one sentence for the caller."""


class CanonicalPath(NamedTuple):
    """A path that means the same to every reader.

    :param raw: its segments as they came, without the slashes; forwarded.
    :param segments: the same segments decoded once; matched. ``/`` is one empty segment, and a
        trailing slash another: ``/a/`` is ``("a", "")``.
    """

    raw: tuple[bytes, ...]
    segments: tuple[str, ...]


def canonical_path(raw: bytes) -> CanonicalPath:
    """Read ``raw``, the path of a request target as it came over the wire, without the query.

    Repeated slashes are merged. Dot segments are refused, encoded or not and with path parameters
    (``/..;x/``) too: honest clients resolve them before they send (RFC 3986, 5.2.4).

    :raises MalformedPath: it is not absolute, or can be read in more than one way.
    """
    if not raw.startswith(b"/"):
        raise MalformedPath("the request target is no absolute path")
    if _ILLEGAL.search(raw):
        raise MalformedPath("the path holds a character that must be encoded")
    encoded = b"%" in raw
    if encoded and _REFUSED_ESCAPE.search(raw):
        raise MalformedPath("the path holds a broken or ambiguous escape")
    if b"//" in raw:
        raw = _SLASHES.sub(b"/", raw)
    pieces = tuple(raw[1:].split(b"/"))
    if encoded:
        try:
            segments = tuple(unquote_to_bytes(piece).decode() for piece in pieces)
        except UnicodeDecodeError:
            raise MalformedPath("the path is not UTF-8") from None
    else:
        segments = tuple(piece.decode("ascii") for piece in pieces)
    for segment in segments:
        if segment.startswith(".") and segment.partition(";")[0] in (".", ".."):
            raise MalformedPath("the path holds a dot segment")
    return CanonicalPath(pieces, segments)


def check_query(raw: bytes) -> None:
    """Refuse a query that holds what no URI holds. Everything else passes byte for byte.

    :raises MalformedPath: it does.
    """
    if _ILLEGAL_IN_QUERY.search(raw):
        raise MalformedPath("the query holds a character that must be encoded")
