"""References in an answer's headers that point back into the same upstream. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_URL_IN_REFRESH = re.compile(
    rb"(\s*\d+\s*[;,]\s*(?:url\s*=\s*)?['\"]?)([^'\"]*)(.*)", re.IGNORECASE | re.DOTALL
)
_REFERENCES = frozenset({b"location", b"content-location"})


def rewrite_references(
    headers: list[tuple[bytes, bytes]], *, hosts: frozenset[str], origin: str | None, prefix: str
) -> list[tuple[bytes, bytes]]:
    """``headers`` with Location, Content-Location and Refresh as the client must see them.

    A reference to the upstream itself, absolute or as a path, gets the public origin and the prefix
    that was stripped on the way in. References to elsewhere, and relative ones, stay as they are.

    :param hosts: under which the upstream may name itself: its service name, ``host:port``.
    :param origin: the public ``scheme://host``; None if the client sent no Host.
    :param prefix: what was stripped from the path, e.g. ``/catalog``.
    """
    rewritten = []
    for name, value in headers:
        if name in _REFERENCES:
            rewritten.append((name, _rewrite(value, hosts, origin, prefix)))
        elif name == b"refresh" and (found := _URL_IN_REFRESH.fullmatch(value)) is not None:
            rewritten.append((name, found[1] + _rewrite(found[2], hosts, origin, prefix) + found[3]))
        else:
            rewritten.append((name, value))
    return rewritten


def _rewrite(value: bytes, hosts: frozenset[str], origin: str | None, prefix: str) -> bytes:
    text = value.decode("latin-1")
    if text.startswith("/") and not text.startswith(("//", "/\\")):
        return (prefix + text).encode("latin-1")
    try:
        parts = urlsplit(text)
    except ValueError:
        return value
    # An absolute reference, or one that begins with "//" and keeps the scheme.
    if parts.scheme not in ("", "http", "https") or parts.netloc.lower() not in hosts:
        return value
    rest = text[text.index(parts.netloc) + len(parts.netloc) :]
    path = rest if rest.startswith("/") else f"/{rest}"
    return f"{origin or ''}{prefix}{path}".encode("latin-1")
