"""References to secrets: ``scheme:path`` or ``scheme:path#field``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chassis.core.errors import ConfigError

_SHAPE = re.compile(r"([a-z][a-z0-9+.-]*):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is.

    :param scheme: which store.
    :param path: where in it.
    :param field: which of the values there; "" where there is only one.
    """

    scheme: str
    path: str
    field: str = ""

    @property
    def place(self) -> str:
        """The reference without its field: what is read and rotates as one."""
        return f"{self.scheme}:{self.path}"

    def __str__(self) -> str:
        return f"{self.place}#{self.field}" if self.field else self.place


def scheme_of(text: str) -> str | None:
    """What ``text`` begins with if it is written as a reference, else None."""
    found = _SHAPE.fullmatch(text)
    return found[1] if found else None


def parse_reference(text: str) -> Reference:
    """The reference that ``text`` is.

    :raises ConfigError: it is none. The message does not repeat it: it may be a secret put there
        by mistake.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ConfigError("is no reference to a secret", remedy="write file:/path or vault:mount/path#field")
    scheme, rest = found[1], found[2]
    # A file's name may hold a "#"; a file has no fields.
    path, _, field = (rest, "", "") if scheme == "file" else rest.partition("#")
    if not path:
        raise ConfigError("names no path", setting=scheme, remedy=f"write {scheme}:path#field")
    return Reference(scheme, path, field)
