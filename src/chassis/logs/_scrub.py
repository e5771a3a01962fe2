"""Makes values plain, small and free of secrets. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from itertools import islice, pairwise
from typing import Any

REDACTED = "[redacted]"

TEXT = 8_192
"""Characters of one text that are kept."""
NAME = 128
"""Characters of a name that are kept."""
ITEMS = 64
"""Members of one dictionary or list that are kept."""
DEPTH = 5
"""Levels of nesting that are kept."""

_WORDS = frozenset(
    [
        "password",
        "passwords",
        "passwd",
        "pwd",
        "passphrase",
        "secret",
        "secrets",
        "token",
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "jwt",
        "csrf",
        "xsrf",
        "ssn",
        "apikey",
        "privatekey",
        "accesskey",
        "sessionid",
        "creditcard",
        "cardnumber",
        "cvv",
    ]
)
_SEGMENT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_USERINFO = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_QUERY = re.compile(r"([?&;]([\w.\-]+)=)[^&#\s\"']+")
_SIGN = re.compile(r"""\s{0,3}[:=]\s*["']?""")
_NAME_BEFORE = re.compile(r"""([A-Za-z][\w\-]*)["']?$""")
_ASSIGNED = re.compile(r"""(?:(?:bearer|basic)\s+)?[^\s"',;&)}\]]+""", re.IGNORECASE)
_KNOWN_KEYS = 4_096


class Scrubber:
    """Redacts by the names of keys, and makes any value one that JSON can say.

    A name is sensitive if one of its words is (``db_password``, ``accessToken``), or two words in
    a row are (``api_key``, ``private-key``).

    :param keys: further sensitive words or names.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._words = _WORDS | {"".join(_SEGMENT.findall(key)).lower() for key in keys}
        self._known: dict[str, bool] = {}

    def sensitive(self, key: str) -> bool:
        """Whether what stands under ``key`` is a secret."""
        known = self._known.get(key)
        if known is None:
            known = self._judge(key)
            if len(self._known) < _KNOWN_KEYS:
                self._known[key] = known
        return known

    def _judge(self, key: str) -> bool:
        segments = [segment.lower() for segment in _SEGMENT.findall(key)]
        pairs = [first + second for first, second in pairwise(segments)]
        return any(word in self._words for word in (*segments, *pairs, "".join(segments)))

    def fields(self, mapping: Mapping[Any, Any]) -> dict[str, Any]:
        """The members of ``mapping``, each plain, with secrets redacted."""
        return self._mapping(mapping, 1)

    def text(self, text: str) -> str:
        """``text`` without the secrets of the URLs in it, and cut."""
        text = cut(text, TEXT)
        if "://" in text:
            text = _USERINFO.sub(rf"\1{REDACTED}@", text)
        if "?" in text and "=" in text:
            text = _QUERY.sub(self._query, text)
        return text

    def error_text(self, text: str) -> str:
        """As :meth:`text`, and without what ``name=value`` and ``name: value`` give away.

        Not for every record: this pass costs ten times all the others.
        """
        kept = []
        done = at = 0
        # From the sign back to the name, not the other way: a name that is searched for forwards is
        # tried from each of its letters, and a long word without a sign takes minutes.
        while match := _SIGN.search(text, at):
            # What follows may be a name itself ("ValueError: password=x"): the search goes on after
            # the sign, unless what stands there is redacted.
            at = match.end()
            name = _NAME_BEFORE.search(text[max(done, match.start() - NAME) : match.start()])
            if name and self.sensitive(name[1]) and (value := _ASSIGNED.match(text, at)):
                kept += [text[done:at], REDACTED]
                done = at = value.end()
        text = "".join((*kept, text[done:]))
        return _QUERY.sub(self._query, _USERINFO.sub(rf"\1{REDACTED}@", text))

    def _query(self, match: re.Match[str]) -> str:
        return match[1] + REDACTED if self.sensitive(match[2]) else match[0]

    def _mapping(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, value in islice(mapping.items(), ITEMS):
            name = cut(key if type(key) is str else _string(key), NAME)
            # None and booleans tell nothing: "password": null is worth seeing.
            if value is not None and value is not True and value is not False and self.sensitive(name):
                plain[name] = REDACTED
            else:
                plain[name] = self._plain(value, depth)
        if len(mapping) > ITEMS:
            plain["..."] = f"{len(mapping) - ITEMS} more"
        return plain

    def _plain(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if value is None or kind is int or kind is bool:
            return value
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if isinstance(value, bytes | bytearray):
            return self.text(value[: TEXT + 1].decode("utf-8", "backslashreplace"))
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1) if depth < DEPTH else "{...}"
        if isinstance(value, Sequence | AbstractSet) and not isinstance(value, str):
            if depth >= DEPTH:
                return "[...]"
            items = [self._plain(item, depth + 1) for item in islice(value, ITEMS)]
            return [*items, f"... {len(value) - ITEMS} more"] if len(value) > ITEMS else items
        return self.text(_string(value))


def cut(text: str, limit: int) -> str:
    """``text``, with its middle left out if it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}...[{len(text) - 2 * half} characters cut]...{text[-half:]}"


def _string(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - logging never raises
        return f"<unprintable {type(value).__name__}>"
